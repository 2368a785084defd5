import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from margincast.core.errors import InputError, SpecError
from margincast.core.time import format_duration
from margincast.margin.schedule import require_policy_fits, tiers_for
from margincast.specs.loading import load_spec, validate_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

WORKSPACE = Path(__file__).resolve().parents[2]
SERVING = WORKSPACE / "serving"
OTHERS = {"live.toml", "service.toml"}  # what follows and serves a policy
POLICIES = sorted(path for path in SERVING.glob("*.toml") if path.name not in OTHERS)
SCHEDULES = sorted((SERVING / "schedules").glob("*.toml"))


def changed(raw: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    copied = copy.deepcopy(raw)
    *sections, last = key.split(".")
    target = copied
    for section in sections:
        target = target[section]
    target[last] = value
    return copied


def policy_problems(key: str, value: object) -> str:
    raw = tomllib.loads((SERVING / "demo.toml").read_text())
    with pytest.raises(SpecError) as caught:
        validate_spec(changed(raw, key, value), MarginPolicy, "demo.toml")
    return str(caught.value)


def schedule_problems(tiers: list[dict[str, float]]) -> str:
    raw = {"name": "s", "description": "d", "default": {"tiers": tiers}}
    with pytest.raises(SpecError) as caught:
        validate_spec(raw, BaseSchedule, "s.toml")
    return str(caught.value)


def tier(floor: float, cap: float, mmr: float, imr: float) -> dict[str, float]:
    return {"floor_usd": floor, "cap_usd": cap, "mmr": mmr, "imr": imr}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_every_policy_loads_and_fits_its_base_schedule(path):
    policy = load_spec(path, MarginPolicy)
    assert policy.name == path.stem
    require_policy_fits(policy, load_spec(WORKSPACE / policy.schedule.file, BaseSchedule))


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_every_base_schedule_loads_and_is_used(path):
    assert load_spec(path, BaseSchedule).name == path.stem
    used = {load_spec(policy, MarginPolicy).schedule.file for policy in POLICIES}
    assert path.relative_to(WORKSPACE).as_posix() in used


def test_the_policies_of_the_shipped_jobs_are_there():
    horizons = {
        policy.model.registered_model: format_duration(policy.model.horizon)
        for policy in (load_spec(path, MarginPolicy) for path in POLICIES)
    }
    assert horizons == {"perp-8h": "8h", "perp-1h": "1h", "book-10m": "10m", "demo": "30m"}


def test_an_override_changes_the_value_and_the_digest():
    path = SERVING / "demo.toml"
    plain, raised = (
        load_spec(path, MarginPolicy),
        load_spec(path, MarginPolicy, ["buffer.rate=0.3"]),
    )
    assert raised.buffer.rate == 0.3
    assert raised.digest() != plain.digest() == load_spec(path, MarginPolicy).digest()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("buffer.rat", 0.1, "did you mean 'rate'?"),
        ("buffer.rate", -0.1, "buffer.rate"),
        ("model.level", 99.0, "did you mean 0.99?"),
        ("limits.mmr_cap", 1.0, "limits.mmr_cap"),
        ("limits.mmr_floor", 0.6, "mmr_floor must not lie above mmr_cap"),
        ("limits.multiplier_floor", 60.0, "multiplier_floor must not lie above multiplier_cap"),
        ("limits.mmr_floor", 0.00525, "limits.mmr_floor must be a multiple of rounding.mmr_step"),
        ("rounding.imr_step", 0.0003, "imr_step must divide 1"),
        ("initial.imr_over_mmr", 1.0, "initial.imr_over_mmr"),
        ("staleness.max_data_age", "soon", "is not a duration"),
        ("forecast.sides", "both", "forecast.sides"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_by_key(key, value, said):
    assert said in policy_problems(key, value)


@pytest.mark.parametrize(
    ("tiers", "said"),
    [
        ([tier(10, 100, 0.01, 0.02)], "tier 1 must start at floor_usd = 0, found 10"),
        ([tier(0, 0, 0.01, 0.02)], "tier 1: cap_usd must lie above floor_usd"),
        ([tier(0, 100, 0.02, 0.02)], "tier 1: mmr must lie below imr"),
        (
            [tier(0, 100, 0.01, 0.02), tier(200, 300, 0.02, 0.04)],
            "tier 2 must start where tier 1 ends, at 100, found floor_usd = 200",
        ),
        (
            [tier(0, 100, 0.01, 0.02), tier(100, 300, 0.005, 0.04)],
            "tier 2: mmr must not fall as notional rises, found 0.005 after 0.01",
        ),
        (
            [tier(0, 100, 0.01, 0.05), tier(100, 300, 0.02, 0.04)],
            "tier 2: imr must not fall as notional rises",
        ),
        ([tier(0, float("inf"), 0.01, 0.02)], "cap_usd"),
        ([tier(0, 100, 0.4, 0.8), tier(100, 200, 40.0, 80.0)], "less than 1, found 40.0"),
        ([], "at least 1 item"),
    ],
)
def test_tiers_that_are_no_schedule_are_refused_by_number(tiers, said):
    assert said in schedule_problems(tiers)


def test_all_problems_of_a_schedule_are_reported_at_once():
    said = schedule_problems([tier(5, 100, 0.03, 0.02), tier(90, 80, 0.02, 0.04)])
    for part in ("tier 1 must start", "tier 1: mmr", "tier 2: cap_usd", "tier 2 must start"):
        assert part in said


def test_a_contract_with_two_lists_of_tiers_is_refused():
    brackets = {"symbols": ["BTCUSDT"], "tiers": [tier(0, 100, 0.01, 0.02)]}
    raw = {"name": "s", "description": "d", "brackets": [brackets, brackets]}
    with pytest.raises(SpecError, match="found twice: BTCUSDT"):
        validate_spec(raw, BaseSchedule, "s.toml")


def test_a_schedule_without_tiers_is_refused():
    with pytest.raises(SpecError, match="has no tiers"):
        validate_spec({"name": "s", "description": "d"}, BaseSchedule, "s.toml")


def test_a_contract_finds_its_own_tiers_else_the_default_else_an_error():
    perpetuals = load_spec(SERVING / "schedules" / "perpetuals.toml", BaseSchedule)
    simulated = load_spec(SERVING / "schedules" / "simulated.toml", BaseSchedule)
    assert perpetuals.default is not None
    assert tiers_for(perpetuals, "BTCUSDT")[0].mmr == 0.004
    assert tiers_for(perpetuals, "FTTUSDT") == perpetuals.default.tiers
    with pytest.raises(InputError, match=r"no tiers for 'SIM-BTCC' \(did you mean 'SIM-BTC'\?\)"):
        tiers_for(simulated, "SIM-BTCC")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["limits.mmr_cap=0.1"], r"tier 6 of BTCUSDT.*multiplier_floor x base MMR = 0.125"),
        (
            ["limits.mmr_floor=0.05", "limits.multiplier_cap=10"],
            r"tier 1 of BTCUSDT.*multiplier_cap x base MMR = 0.04 lies below",
        ),
        (["limits.mmr_floor=0.005"], r"first tier's MMR 0.004 lies below 0.005"),
        (["liquidation.taker_fee_rate=0.01"], r"first tier's MMR 0.004 lies below 0.011"),
        (["limits.multiplier_floor=1.2", "limits.mmr_cap=0.9"], r"would lie below that floor"),
    ],
)
def test_a_policy_that_contradicts_its_schedule_is_refused(overrides, said):
    policy = load_spec(SERVING / "perp-8h.toml", MarginPolicy, overrides)
    with pytest.raises(InputError, match=said):
        require_policy_fits(policy, load_spec(WORKSPACE / policy.schedule.file, BaseSchedule))


def test_the_window_of_books_must_hold_its_minimum_and_its_periods():
    horizon = {"level": 0.95, "window": "1h", "every": "10s", "minimum_history": "2h"}
    said = policy_problems("liquidation.book.horizon", horizon)
    assert "every, minimum_history and window must not fall in this order" in said
    assert "10s, 2h and 1h" in said


def test_sections_of_the_book_change_no_digest_of_policies_without_them():
    plain = load_spec(SERVING / "demo.toml", MarginPolicy)
    written = plain.model_dump(mode="json", exclude_defaults=True)
    assert written["liquidation"]["book"] == {"unshown_depth_bps": 200.0}
    wider = load_spec(
        SERVING / "demo.toml",
        MarginPolicy,
        ["liquidation.book.recovery={slices=2, refill_per_minute=0.0}"],
    )
    assert wider.digest() != plain.digest()


FEES = {"exponent": 1.0, "floor": 1.0, "cap": 2.0, "step": 0.05, "hold": 0.1}
OPEN_INTEREST = {"max_age": "1d", "unknown_share": 0.5}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("fees", FEES, "[fees] needs [long_run]"),
        ("fees", FEES | {"floor": 3.0}, "fees.floor lies above fees.cap"),
        ("fees", FEES | {"cap": 2.01}, "fees.cap must be a multiple of fees.step"),
        ("fees", FEES | {"cap": 9.0}, "lies above limits.mmr_floor"),
        ("initial.forecast", {"level": 0.95, "horizon": "30m"}, "at least the level and horizon"),
        ("initial.forecast", {"level": 0.99, "horizon": "10m"}, "at least the level and horizon"),
        ("open_interest", OPEN_INTEREST, "there are no caps"),
        (
            "open_interest",
            OPEN_INTEREST
            | {"days": {"lower_cap_days": 2.0, "upper_cap_days": 1.0, "window": "1d"}},
            "lower_cap_days must lie below",
        ),
        (
            "open_interest",
            OPEN_INTEREST
            | {"caps": [{"symbols": ["A"], "lower_cap_usd": 1.0, "upper_cap_usd": 2.0}] * 2},
            "found twice: A",
        ),
        (
            "open_interest",
            OPEN_INTEREST
            | {"caps": [{"symbols": ["A"], "lower_cap_usd": 2.0, "upper_cap_usd": 2.0}]},
            "lower_cap_usd must lie below",
        ),
    ],
)
def test_contradictions_beside_the_maintenance_margin_are_refused(key, value, said):
    assert said in policy_problems(key, value)


def test_sections_that_are_absent_change_no_digest():
    raw = tomllib.loads((SERVING / "demo.toml").read_text())
    plain = validate_spec(copy.deepcopy(raw), MarginPolicy, "demo.toml")
    raw["open_interest"] = OPEN_INTEREST | {
        "days": {"lower_cap_days": 1.0, "upper_cap_days": 2.0, "window": "30d"}
    }
    scaled = validate_spec(raw, MarginPolicy, "demo.toml")
    kept = {name: part for name, part in raw.items() if name != "open_interest"}
    assert validate_spec(kept, MarginPolicy, "demo.toml").digest() == plain.digest()
    assert scaled.digest() != plain.digest()
    assert not {"fees", "open_interest"} & set(plain.model_dump(exclude_defaults=True))
