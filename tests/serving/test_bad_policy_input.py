"""What an operator can get wrong between forecast and margin: one clear message, or a safe margin.

The list of the policy: a contradiction, a contract without tiers, a forecast that is none, a book
with negative depth, another currency, an override that is over.
"""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from margincast.core.errors import InputError
from margincast.margin.background import Background
from margincast.margin.levels import margin_levels
from margincast.margin.liquidation_cost import Book
from margincast.margin.schedule import require_policy_fits
from margincast.margin.tier_rows import tier_rows
from margincast.margin.venues import binance
from margincast.margin.venues.imported import ReadOptions
from margincast.serving.ledger import Ledger
from margincast.serving.margin_overrides import Wish, overrides_at, set_override
from margincast.specs.loading import load_spec, validate_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
SCHEDULE = load_spec(SERVING / "schedules" / "perpetuals.toml", BaseSchedule)
POLICY = load_spec(SERVING / "perp-8h.toml", MarginPolicy)
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
AT = np.datetime64("2024-05-01T12:00", "us")


def tier(floor_usd, cap_usd, mmr, imr):
    return {"floor_usd": floor_usd, "cap_usd": cap_usd, "mmr": mmr, "imr": imr}


def levels(forecast, *, published=math.nan, policy=POLICY, books=None):
    rows = tier_rows(["BTCUSDT"], SCHEDULE, policy)
    none = Background.none(len(rows), AT)
    memory = replace(none.memory, published=np.full(len(rows), published))
    return margin_levels(
        rows,
        forecast,
        policy,
        data_age=np.zeros(1, dtype="timedelta64[us]"),
        books=books,
        background=replace(none, memory=memory),
    )


# A policy or schedule that contradicts itself


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["limits.mmr_floor=0.6"], "mmr_floor must not lie above mmr_cap, found 0.6 and 0.5"),
        (
            ["limits.multiplier_floor=200.0"],
            "multiplier_floor must not lie above multiplier_cap, found 200 and 100",
        ),
        (["long_run.floor=5.0"], "floor must not lie above cap, found 5 and"),
        (["initial.imr_over_mmr=0.9"], "initial.imr_over_mmr: .*greater than 1"),
        (["speed.rise_per_hour=0.0"], "speed.rise_per_hour: .*greater than 0"),
        (["speed.fall_half_life=0h"], "speed.fall_half_life"),
        (
            ["publication.notice_of_rise=9h"],
            "notice_of_rise is longer than the horizon 8h: a higher margin would come into force",
        ),
        # each of the two is found alone, so that nothing follows from a repaired half
        (["speed.rise_per_hour=0.0", "publication.notice_of_rise=9h"], "speed.rise_per_hour"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        load_spec(SERVING / "perp-8h.toml", MarginPolicy, changes)


@pytest.mark.parametrize(
    ("tiers", "said"),
    [
        ([tier(0, 10, 0.02, 0.01)], "tier 1: mmr must lie below imr, found 0.02 and 0.01"),
        ([tier(0, 10, 0.02, 0.02)], "tier 1: mmr must lie below imr"),
        (
            [tier(10, 20, 0.02, 0.04), tier(0, 10, 0.01, 0.02)],
            "tier 1 must start at floor_usd = 0, found 10.*tier 2 must start where tier 1 ends",
        ),
        (
            [tier(0, 10, 0.02, 0.04), tier(10, 20, 0.01, 0.05)],
            "tier 2: mmr must not fall as notional rises, found 0.01 after 0.02",
        ),
        ([tier(0, 10, 0.01, 0.02), tier(20, 30, 0.02, 0.04)], "must start where tier 1 ends"),
    ],
)
def test_tiers_out_of_order_or_with_mmr_above_imr_are_refused(tiers, said):
    raw = {"name": "s", "description": "d", "default": {"tiers": tiers}}
    with pytest.raises(InputError, match=said):
        validate_spec(raw, BaseSchedule, "s.toml")


def test_a_floor_above_a_cap_on_one_tier_only_is_refused_by_its_number():
    policy = load_spec(SERVING / "perp-8h.toml", MarginPolicy, ["limits.mmr_cap=0.2"])
    with pytest.raises(InputError, match="contradicts itself on tier 7 of BTCUSDT, ETHUSDT"):
        require_policy_fits(policy, SCHEDULE)


# A contract without tiers


def test_a_contract_without_tiers_is_refused_with_what_to_do():
    bare = SCHEDULE.model_copy(update={"default": None})
    with pytest.raises(InputError, match=r"no tiers for 'BTCUSD' \(did you mean 'BTCUSDT'\?\)"):
        tier_rows(["BTCUSD"], bare, POLICY)


def test_a_base_schedule_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"spec file .*nowhere\.toml does not exist"):
        load_spec(SERVING / "schedules" / "nowhere.toml", BaseSchedule)


# A forecast that is none


@pytest.mark.parametrize(
    ("forecast", "said"),
    [
        ({}, "long forecast not known"),
        ({"long": np.array([math.nan])}, "long forecast not known"),
        ({"long": np.array([math.inf])}, "long forecast inf is not above 0"),
        ({"long": np.array([-math.inf])}, "long forecast -inf is not above 0"),
        ({"long": np.array([0.0])}, "long forecast 0 is not above 0"),
    ],
)
@pytest.mark.parametrize(
    ("published", "kept"), [(math.nan, "base schedule in force"), (0.06, "last margin kept")]
)
def test_a_forecast_that_is_none_leaves_the_larger_of_schedule_and_last_margin(
    forecast, said, published, kept
):
    first = levels(forecast, published=published).iloc[0]
    assert first["status"] == "fallback"
    assert first["mmr"] == np.fmax(0.004, published)
    assert first["mmr"] < first["imr"]
    assert first["reason"].startswith(kept)
    assert said in first["reason"]


# A book that is none


def test_negative_depth_is_refused_and_never_walked():
    prices = 100.0 + 0.01 * np.arange(1, 4)
    with pytest.raises(InputError, match="sizes must be finite and zero or more"):
        Book(200.0 - prices, np.array([1.0, -1.0, 1.0]), prices, np.ones(3))


def test_without_a_book_all_depth_counts_as_unshown():
    policy = load_spec(SERVING / "book-10m.toml", MarginPolicy)
    first = levels({"long": np.array([0.004])}, policy=policy).iloc[0]
    assert first["status"] == "ok"
    # 2 % for depth that is not shown, 0.15 % fees
    assert first["liquidation_cost"] == pytest.approx(0.0215)
    assert "no order book" in first["liquidation_cost_reason"]


# Another currency


def test_tiers_in_another_currency_are_refused():
    bracket = {
        "bracket": 1, "initialLeverage": 125, "notionalCap": 5, "notionalFloor": 0,
        "maintMarginRatio": 0.004, "cum": 0.0,
    }  # fmt: skip
    document = [{"symbol": "BTCUSD_PERP", "brackets": [bracket]}]
    with pytest.raises(InputError, match="are in another currency"):
        binance.read([document], ReadOptions())


# An override that is over


def test_an_override_that_is_over_is_refused_or_has_no_effect(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")

    def ask(expires):
        wish = Wish("raise", 0.08, None, None, None, "head of risk", expires)
        set_override(ledger, POLICY, SCHEDULE, wish, contracts=(), who="desk", why="x", now=NOW)

    with pytest.raises(InputError, match="an override must end in the future"):
        ask(NOW - timedelta(minutes=1))
    assert ledger.read() == ()
    ask(NOW + timedelta(hours=1))
    assert len(overrides_at(ledger.read(), POLICY, NOW)) == 1
    assert overrides_at(ledger.read(), POLICY, NOW + timedelta(hours=1)) == ()
