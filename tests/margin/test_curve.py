from pathlib import Path

import numpy as np
import pytest

from margincast.core.errors import InputError
from margincast.margin.background import Background
from margincast.margin.curve import BaseRates, margin_curve
from margincast.margin.levels import margin_levels
from margincast.margin.liquidation_cost import Book, closing_cost_usd
from margincast.margin.maintenance import maintenance_margin_usd
from margincast.margin.tier_rows import tier_rows
from margincast.margin.tiers import best_tiers, notionals_usd
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule, ContractBrackets, Tier
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
SHAPE = (
    "tiers={max_brackets=6, smallest_usd=100.0, largest_usd=100000.0, mantissas=[1, 2, 5], "
    "mean_excess=0.05, hysteresis=0.0}"
)
POLICY = load_spec(SERVING / "demo.toml", MarginPolicy, [SHAPE])
# half the depth on the bid: closing a long costs more
PRICES = np.arange(1.0, 6.0) * 0.2
BOOK = Book(100.0 - PRICES, np.full(5, 20.0), 100.0 + PRICES, np.full(5, 40.0))
NOTIONAL = notionals_usd(POLICY.tiers)


def test_the_curve_by_hand():
    # (forecast 1 % + fees 0.15 % + what closing costs) x 1.1; below the floor of 0.5 % nothing
    curve, reason = margin_curve(NOTIONAL, BaseRates.given(0.01), POLICY, BOOK)
    cost, _ = closing_cost_usd(NOTIONAL, "long", POLICY, BOOK)
    assert curve.margin_usd == pytest.approx(1.1 * (0.0115 * NOTIONAL + cost))
    assert reason == "walking the book"
    # the dearer side's rate counts, whichever it is
    rates = BaseRates({"long": 0.001, "short": 0.2}, {"long": np.nan, "short": np.nan})
    short, _ = closing_cost_usd(NOTIONAL, "short", POLICY, BOOK)
    dearer, _ = margin_curve(NOTIONAL, rates, POLICY, BOOK)
    assert dearer.margin_usd == pytest.approx(1.1 * (0.2015 * NOTIONAL + short))


def test_floor_and_stress_count_and_multipliers_do_not():
    low, _ = margin_curve(NOTIONAL, BaseRates.given(1e-6), POLICY, BOOK)
    assert low.margin_usd[0] / NOTIONAL[0] == pytest.approx(0.005)
    stressed = load_spec(
        SERVING / "perp-8h.toml",
        MarginPolicy,
        ['stress={weight=0.25, period="30d"}', "liquidation.book={unshown_depth_bps=200.0}"],
    )
    rates = BaseRates({"long": 0.01, "short": 0.01}, {"long": 0.5, "short": 0.5})
    calm = BaseRates.given(0.01)
    with_stress, without = (margin_curve(NOTIONAL, one, stressed, BOOK)[0] for one in (rates, calm))
    assert np.all(with_stress.margin_usd > without.margin_usd)


def test_a_base_schedule_made_of_the_curve_is_what_the_policy_publishes():
    # with the very forecast that the curve rests on, no tier asks for more than its base rate
    curve, _ = margin_curve(NOTIONAL, BaseRates.given(0.01), POLICY, BOOK)
    fit = best_tiers(curve, POLICY.tiers, POLICY.rounding.mmr_step)
    floors = (0.0, *fit.edges_usd[:-1])
    tiers = tuple(
        Tier(floor_usd=floor, cap_usd=cap, mmr=mmr, imr=min(1.0, 1.5 * mmr))
        for floor, cap, mmr in zip(floors, fit.edges_usd, fit.rates, strict=True)
    )
    schedule = BaseSchedule(
        name="made",
        description="d",
        brackets=(ContractBrackets(symbols=("X",), tiers=tiers),),
    )
    rows = tier_rows(["X"], schedule, POLICY)
    levels = margin_levels(
        rows,
        {"long": np.array([0.01]), "short": np.array([0.01])},
        POLICY,
        data_age=np.zeros(1, dtype="timedelta64[us]"),
        books={"X": BOOK},
        background=Background.none(len(rows), np.datetime64("2026-01-01", "us")),
    )
    long = levels[levels["side"] == "long"]
    columns = [long[name].tolist() for name in ("tier_cap_usd", "mmr", "maintenance_amount")]
    for notional, asked in zip(NOTIONAL.tolist(), curve.margin_usd.tolist(), strict=True):
        published = maintenance_margin_usd(notional, *columns)
        assert published >= asked * (1.0 - 1e-9)


@pytest.mark.parametrize(("rate", "said"), [(0.0, "0"), (5.0, "5"), (float("nan"), "nan")])
def test_a_rate_that_cannot_be_margined_is_refused(rate, said):
    with pytest.raises(InputError, match=f"long-run rate {said} must lie above 0 and up to"):
        margin_curve(NOTIONAL, BaseRates.given(rate), POLICY, BOOK)


def test_closing_that_costs_more_than_the_cap_is_refused():
    policy = load_spec(
        SERVING / "demo.toml", MarginPolicy, ["liquidation.book.unshown_depth_bps=6000.0"]
    )
    with pytest.raises(InputError, match=r"cost of closing 0\.\d+ up to limits.mmr_cap = 0.5"):
        margin_curve(NOTIONAL, BaseRates.given(0.01), policy, BOOK)
