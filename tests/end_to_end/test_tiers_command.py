"""``margincast tiers``: from order books to a base schedule that score can use."""

import numpy as np
import pytest

from margincast.margin.schedule import tiers_for
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule

SHAPE = (
    "tiers={max_brackets=8, smallest_usd=1000.0, largest_usd=10000000.0, mantissas=[1, 2, 5], "
    "mean_excess=0.03, hysteresis=0.01}"
)
LONG_RUN = (
    'long_run={elasticity=1.0, window="30d", minimum_history="1d", floor=0.0, cap=100.0}',
    'liquidation.book.horizon={level=0.95, window="3h", every="1m", minimum_history="1h"}',
)


@pytest.fixture(scope="module")
def tiers(command, workspace, market, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiers")

    def run(name, *options, shape=SHAPE):
        out = folder / f"{name}.toml"
        ending = command(
            "tiers",
            workspace / "serving" / "demo.toml",
            "--data",
            market,
            "--out",
            out,
            "--set",
            shape,
            *options,
        )
        return ending, out

    return run


@pytest.fixture(scope="module")
def made(tiers):
    sets = [part for text in LONG_RUN for part in ("--set", text)]
    return tiers("from-bars", *sets)


def test_tiers_follow_books_and_long_run_rates(made):
    ending, out = made
    assert ending.code == 0, ending.errors
    schedule = load_spec(out, BaseSchedule)
    assert schedule.name == "from-bars"
    first = {symbol: tiers_for(schedule, symbol) for symbol in ("SIM-BTC", "SIM-ETH")}
    for tiers in first.values():
        assert tiers[-1].cap_usd == 1e7
        assert len(tiers) <= 8
    # the smaller contract moves more and has less depth
    assert first["SIM-ETH"][0].mmr > first["SIM-BTC"][0].mmr
    assert "the 0.95 quantile of 18" in ending.output.replace("\n", " ")
    text = out.read_text()
    assert "# SIM-BTC:" in text
    assert "above the curve" in text


def test_edges_stand_from_one_moment_to_another(made, tiers):
    _, out = made
    sets = [part for text in LONG_RUN for part in ("--set", text)]
    ending, again = tiers("again", *sets, "--previous", out, "--at", "2026-01-10T23:00")
    assert ending.code == 0, ending.errors
    before, after = load_spec(out, BaseSchedule), load_spec(again, BaseSchedule)
    assert "earlier edges kept" in again.read_text().replace("\n# ", " ")
    kept = [[tier.cap_usd for tier in tiers_for(one, "SIM-BTC")] for one in (before, after)]
    assert kept[0] == kept[1]


def test_a_given_rate_is_the_base_of_every_contract(tiers):
    ending, out = tiers("given", "--rate", "0.02")
    assert ending.code == 0, ending.errors
    schedule = load_spec(out, BaseSchedule)
    # (2 % + 1 bp half spread and more + 15 bps of fees) x 1.1 on a grid of 5 bps
    assert tiers_for(schedule, "SIM-BTC")[0].mmr >= np.ceil((0.02 + 0.0016) * 1.1 / 0.0005) * 0.0005


@pytest.mark.parametrize(
    ("options", "shape", "said"),
    [
        ((), SHAPE, "has no [long_run] that says what margin rests on without a forecast"),
        (("--rate", "0.02"), "buffer.rate=0.1", "policy demo has no [tiers]"),
        (("--rate", "9.0"), SHAPE, "SIM-BTC: a long of 1,000 USD has no margin"),
        (("--rate", "0.02", "--set", "data.book=[]"), SHAPE, "names no data.book"),
        (("--rate", "0.02", "--at", "someday"), SHAPE, "--at: "),
        (("--rate", "0.02", "--set", "model.registered_model=x"), SHAPE, "registers 'x'"),
    ],
)
def test_what_is_missing_is_said(tiers, options, shape, said):
    ending, out = tiers("refused", *options, shape=shape)
    assert ending.code == 2
    assert said in ending.errors
    assert not out.exists()


def test_a_schedule_in_force_is_not_overwritten(made, tiers):
    before = made[1].read_text()
    ending, out = tiers("from-bars", "--rate", "0.02")
    assert ending.code == 2
    assert "a schedule in force is not overwritten" in ending.errors
    assert out.read_text() == before


def test_too_few_brackets_are_written_and_end_with_1(tiers):
    shape = SHAPE.replace("max_brackets=8", "max_brackets=1").replace("0.03", "0.0")
    ending, out = tiers("single", "--rate", "0.02", shape=shape)
    assert ending.code == 1
    assert "TOO FEW" in ending.output
    assert len(tiers_for(load_spec(out, BaseSchedule), "SIM-BTC")) == 1
