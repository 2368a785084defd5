"""``margincast frontier``: settings of a policy judged on a backtest's forecasts."""

import pandas as pd
import pytest


@pytest.fixture
def frontier(command, workspace, market, trained, tmp_path):
    def run(*options: object):
        ending = command(
            "frontier", workspace / "serving" / "demo.toml", trained.out / "forecasts.parquet",
            "--bars", market / "bars", "--model", "margincast", "--out", tmp_path, *options,
        )  # fmt: skip
        path = tmp_path / "frontier.parquet"
        return ending, pd.read_parquet(path) if path.exists() else None

    return run


def test_settings_stand_beside_the_policy_and_a_peer(frontier, tmp_path):
    ending, table = frontier("--vary", "buffer.rate=0.0,0.5", "--against", "ewma_fhs")
    assert ending.code == 0, ending.errors
    by_name = table.set_index("setting")
    assert set(by_name.index) == {
        "margincast", "ewma_fhs", "in force", "buffer.rate=0.0", "buffer.rate=0.5",
        "in force, nothing steadied", "ewma_fhs, in force", "ewma_fhs, in force, nothing steadied",
    }  # fmt: skip
    less, more = by_name.loc["buffer.rate=0.0"], by_name.loc["buffer.rate=0.5"]
    assert more["mean_margin"] > less["mean_margin"]
    assert more["shortfall_bps"] < less["shortfall_bps"]
    assert "in force" in (tmp_path / "frontier.html").read_text(encoding="utf-8")


def test_a_period_is_judged_alone(frontier):
    whole, table = frontier()
    assert whole.code == 0, whole.errors
    part, of_part = frontier("--from", "2026-01-07T00:00", "--until", "2026-01-09T00:00")
    assert part.code == 0, part.errors
    assert not of_part["mean_margin"].equals(table["mean_margin"])
    assert of_part["setting"].tolist() == table["setting"].tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--from", "2027-01-01"), "no decision from 2027-01-01"),
        (("--until", "yesterday"), "--until"),
        (("--vary", "buffer.rate"), "section.key=value"),
        (("--against", "ewma_fsh"), "ewma_fsh"),
    ],
)
def test_what_cannot_be_judged_is_said(frontier, options, said):
    ending, table = frontier(*options)
    assert ending.code == 2
    assert said in ending.errors
    assert table is None
