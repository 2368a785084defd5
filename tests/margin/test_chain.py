"""The policy chain: what every step does, and what holds whatever comes."""

from dataclasses import fields, replace
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.margin.chain import STEPS, Inputs, Memory, advance
from margincast.margin.parameters import Parameters
from margincast.margin.rounding import exact, round_up
from margincast.specs.loading import validate_spec
from margincast.specs.serving import MarginPolicy

START = np.datetime64("2024-01-01T00:00", "us")
HOUR = np.timedelta64(1, "h")
RATES = st.integers(1, 900).map(lambda count: count / 1000)
FORECASTS = st.floats(1e-6, 2.0)

DRAWDOWN = {"starts_at": 1.0, "ends_at": 3.0, "rebuild": "10d"}
SECTIONS = {
    "buffer": {"rate": 0.25, "drawdown": DRAWDOWN},
    "stress": {"weight": 0.25, "period": "90d"},
    "long_run": {
        "window": "3650d",
        "minimum_history": "90d",
        "elasticity": 1.25,
        "floor": 0.5,
        "cap": 4.0,
    },
    "speed": {"rise_per_hour": 0.2, "rise_per_day": 0.5, "fall_half_life": "24h"},
    "publication": {"every": "1h", "hold": 0.05},
}


def policy(*wanted, **changes):
    """A plain policy, with the named sections of anti-procyclicality and any changes."""
    raw = {
        "name": "test",
        "description": "policy of the tests",
        "tracking": {"uri": "sqlite:///mlflow.db"},
        "model": {"registered_model": "test", "level": 0.99, "horizon": "8h"},
        "staleness": {"max_data_age": "2h"},
        "schedule": {"file": "serving/schedules/test.toml"},
        "forecast": {"sides": "each", "largest_plausible": 2.0},
        "liquidation": {
            "taker_fee_rate": 0.0005,
            "liquidation_fee_rate": 0.001,
            "half_spread_bps": 2.0,
        },
        "buffer": {"rate": 0.1},
        "limits": {
            "mmr_floor": 0.005,
            "mmr_cap": 0.5,
            "multiplier_floor": 1.0,
            "multiplier_cap": 50.0,
        },
        "rounding": {"mmr_step": 0.0005, "imr_step": 0.001},
        "initial": {"imr_over_mmr": 1.5},
    }
    raw |= {name: SECTIONS[name] for name in wanted}
    for section, values in changes.items():
        raw[section] = {**raw.get(section, {}), **values}
    return validate_spec(raw, MarginPolicy, "test.toml")


EVERYTHING = policy(*SECTIONS)


def inputs(forecast, cost=0.0017, base=0.004, long_run=np.nan, stressed=np.nan):
    each = np.atleast_1d(np.asarray(forecast, dtype=float))
    full = [np.broadcast_to(float(x), each.shape) for x in (cost, base, long_run, stressed)]
    return Inputs(each, *full)


def one(forecast, of=None, **known):
    """The chain of a first publication."""
    _, chain = advance(
        Memory.blank(1), inputs(forecast, **known), START, Parameters.of(of or policy())
    )
    return chain


def path(forecasts, of=EVERYTHING, *, long_run=0.04, stressed=0.1, gap=HOUR):
    """Published rates of one row, publication after publication."""
    memory, made = Memory.blank(1), []
    numbers = Parameters.of(of)
    for step, forecast in enumerate(forecasts):
        known = inputs(forecast, long_run=long_run, stressed=stressed)
        memory, chain = advance(memory, known, START + step * gap, numbers)
        made.append((chain, memory))
    return made


def values_of(chain):
    return dict(zip(STEPS, chain.values[:, 0].tolist(), strict=True))


def test_the_chain_by_hand():
    # (4 % + 0.17 %) x 1.1 = 4.587 %, up to a multiple of 0.05 %: 4.6 %
    chain = one(0.04)
    assert chain.values[:, 0] == pytest.approx([0.04, 0.04, 0.0417, *[0.04587] * 9, 0.046, 0.046])
    assert chain.mmr.tolist() == [0.046]
    assert chain.binding() == ("forecast",)


def test_every_step_by_hand():
    # forecast 2 %, long-run rate 4 %: half of it, so the buffer is full: 2.17 % x 1.25 = 2.7125 %;
    # a quarter of the worst period (10 % + 0.17 %): 0.75 x 2.7125 + 2.5425 = 4.576875 %
    known = {"long_run": 0.04, "stressed": 0.1}
    of = policy(*SECTIONS, long_run={**SECTIONS["long_run"], "elasticity": 1.0})
    found = values_of(one(0.02, of, **known))
    assert found["buffer"] == pytest.approx(0.027125)
    assert found["stress"] == pytest.approx(0.04576875)
    # forecast 8 %, twice the long-run rate: half the buffer is used: 8.17 % x 1.125
    found = values_of(one(0.08, of, **known))
    assert found["buffer"] == pytest.approx(0.0817 * 1.125)
    # forecast 30 %: no buffer is left, and no more than 4 x 4 % + 0.17 % is followed
    found = values_of(one(0.3, of, **known))
    assert found["buffer"] == pytest.approx(0.3017)
    assert found["long-run cap"] == pytest.approx(0.1617)
    # forecast 0.5 % without stress: half of 4 %, plus cost
    calm = policy("buffer", "long_run")
    found = values_of(one(0.005, calm, **known))
    assert found["long-run floor"] == pytest.approx(0.0217)
    # an elasticity of 2 asks four times the long-run rate of a forecast of twice it
    steep = policy("long_run", long_run={"elasticity": 2.0})
    found = values_of(one(0.08, steep, **known))
    assert (found["forecast"], found["elasticity"]) == (0.08, pytest.approx(0.16))
    # and a quarter of it of half of it; where it is not known, the forecast
    assert values_of(one(0.02, steep, **known))["elasticity"] == pytest.approx(0.01)
    assert values_of(one(0.02, steep))["elasticity"] == 0.02


@pytest.mark.parametrize(
    ("forecast", "changes", "rule", "mmr"),
    [
        (0.001, {}, "floor", 0.005),
        (0.001, {"limits": {"multiplier_floor": 2.0}}, "base schedule", 0.008),
        (0.9, {}, "multiplier cap", 0.2),
        (0.9, {"limits": {"mmr_cap": 0.15}}, "cap", 0.15),
    ],
)
def test_the_binding_rule_is_named(forecast, changes, rule, mmr):
    chain = one(forecast, policy(**changes))
    assert (chain.binding(), chain.mmr.tolist()) == ((rule,), [mmr])


# A slow twin, written from the description of the policy and not from the code


class Twin:
    """One row's chain in plain Python; its worst period is twice its long-run rate."""

    def __init__(self, of):
        self.of = of
        self.buffer, self.limited, self.published, self.past = 1.0, None, None, []

    def margin(self, hours, forecast, long_run, *, cost=0.0017, base=0.004):
        of = self.of
        if not 0.0 < forecast <= of.forecast.largest_plausible:
            self.published = max(base, self.published or 0.0)
            return self.published
        rate, drawdown = of.buffer.rate, of.buffer.drawdown
        share = 1.0
        leaned = forecast
        if of.long_run is not None:
            leaned = long_run * (forecast / long_run) ** of.long_run.elasticity
        if drawdown is not None:
            if self.past:
                gone = timedelta(hours=hours - self.past[-1][0])
                self.buffer = min(1.0, self.buffer + gone / drawdown.rebuild)
            need = forecast / long_run
            left = (drawdown.ends_at - need) / (drawdown.ends_at - drawdown.starts_at)
            share = self.buffer = min(self.buffer, max(0.0, min(1.0, left)))
        value = (leaned + cost) * (1.0 + rate * share)
        if of.stress is not None:
            weight = of.stress.weight
            value = max(value, (1.0 - weight) * value + weight * (2.0 * long_run + cost))
        if of.long_run is not None:
            value = min(value, of.long_run.cap * long_run + cost)
            value = max(value, of.long_run.floor * long_run + cost)
        limits = of.limits
        value = max(value, limits.mmr_floor, limits.multiplier_floor * base)
        value = min(value, max(limits.multiplier_cap * base, cost), limits.mmr_cap)
        if of.speed is not None and self.past:
            gone = hours - self.past[-1][0]
            old = [rate for at, rate in self.past if hours - at >= 24.0]
            day_before = old[-1] if old else self.past[0][1]
            low = self.limited * 0.5 ** (timedelta(hours=gone) / of.speed.fall_half_life)
            high = self.limited * (1.0 + of.speed.rise_per_hour) ** gone
            value = min(max(value, low), high, day_before * (1.0 + of.speed.rise_per_day))
        self.limited = value
        self.past.append((hours, value))
        rounded = round_up(value, of.rounding.mmr_step)
        hold = of.publication.hold if of.publication is not None else 0.0
        if self.published is not None and self.published * (1.0 - hold) <= rounded < self.published:
            rounded = self.published
        self.published = rounded
        return rounded


SUBSETS = st.sets(st.sampled_from(list(SECTIONS))).filter(
    lambda chosen: "long_run" in chosen or not chosen & {"buffer", "stress"}
)


@given(
    SUBSETS,
    st.lists(st.tuples(st.floats(0.5, 40.0), st.floats(1e-3, 0.6)), min_size=1, max_size=40),
    st.floats(0.01, 0.1),
)
def test_many_rows_at_once_are_one_row_at_a_time(chosen, steps, long_run):
    of = policy(*chosen)
    numbers, twins = Parameters.of(of), [Twin(of) for _ in range(3)]
    memory, hours = Memory.blank(3), 0.0
    for gap, forecast in steps:
        hours += round(gap * 60.0) / 60.0
        forecasts = [forecast, 0.5 * forecast, 0.6 - 0.9 * forecast]
        known = inputs(forecasts, long_run=long_run, stressed=2.0 * long_run)
        at = START + np.timedelta64(round(hours * 3600.0), "s")
        memory, chain = advance(memory, known, at, numbers)
        slow = [
            twin.margin(hours, each, long_run) for twin, each in zip(twins, forecasts, strict=True)
        ]
        # a value next to a grid line may round to either side of it
        assert chain.mmr == pytest.approx(slow, abs=1.01 * of.rounding.mmr_step)
        assert memory.limited == pytest.approx([twin.limited for twin in twins], rel=1e-9)


# Invariants


@st.composite
def cases(draw):
    """A policy without contradictions, a base rate it fits, and a cost it can margin."""
    floor, cap = sorted((draw(RATES), draw(RATES)))
    multiplier_floor = draw(st.floats(0.0, 3.0))
    multiplier_cap = draw(st.floats(1.0, 200.0))
    base = draw(st.floats(0.001, 0.5))
    assume(multiplier_floor <= multiplier_cap)
    assume(multiplier_floor * base <= cap)
    assume(multiplier_cap * base >= floor)
    drawn = policy(
        *draw(SUBSETS),
        limits={
            "mmr_floor": floor,
            "mmr_cap": cap,
            "multiplier_floor": multiplier_floor,
            "multiplier_cap": multiplier_cap,
        },
        rounding={
            "mmr_step": draw(st.sampled_from([0.001, 0.0005, 0.0001])),
            "imr_step": draw(st.sampled_from([0.01, 0.001, 0.0001])),
        },
    )
    return drawn, {"base": base, "cost": draw(st.floats(0.0, cap))}


MULTIPLIER_CAP_BESIDE_THE_GRID = (
    policy(limits={"multiplier_cap": 3.0}, rounding={"mmr_step": 0.0001}),
    {"base": 0.003, "cost": 0.0},
)
"""3 x 0.003 is 0.009000000000000001 as a double, and 0.0091 its next multiple: less than a step
more as decimals, just a step as the sum of two doubles."""


@given(cases(), FORECASTS)
@example(MULTIPLIER_CAP_BESIDE_THE_GRID, 2.0)
def test_a_first_margin_lies_between_floors_and_caps_on_the_grid(case, forecast):
    drawn, known = case
    mmr = float(one(forecast, drawn, **known).mmr[0])
    limits, step = drawn.limits, drawn.rounding.mmr_step
    assert mmr >= max(limits.mmr_floor, limits.multiplier_floor * known["base"])
    assert mmr <= limits.mmr_cap
    assert mmr >= known["cost"]
    highest = max(limits.multiplier_cap * known["base"], known["cost"])
    assert exact(mmr) < exact(highest) + exact(step)
    assert (exact(mmr) / exact(step)).denominator == 1


@given(cases(), FORECASTS, FORECASTS)
def test_a_larger_forecast_never_gives_a_smaller_margin(case, first, second):
    drawn, known = case
    # a buffer that is used faster than the forecast rises could turn the order
    drawdown = drawn.buffer.drawdown
    assume(drawdown is None or drawn.buffer.rate <= drawdown.ends_at - drawdown.starts_at)
    known |= {"long_run": 0.05, "stressed": 0.2}
    low, high = (one(value, drawn, **known).mmr[0] for value in sorted((first, second)))
    assert low <= high


@given(cases(), FORECASTS)
def test_the_order_of_floors_and_caps_does_not_matter(case, forecast):
    drawn, known = case
    limits = drawn.limits
    lowest = max(limits.mmr_floor, limits.multiplier_floor * known["base"])
    highest = min(limits.mmr_cap, max(limits.multiplier_cap * known["base"], known["cost"]))
    found = values_of(one(forecast, drawn, **known))
    value = found["long-run floor"]
    assert found["cap"] == max(lowest, min(value, highest)) == min(highest, max(value, lowest))


@given(st.lists(st.one_of(st.floats(1e-4, 1.9), st.just(np.nan)), min_size=2, max_size=60))
def test_speed_limits_hold_under_any_sequence(forecasts):
    speed, step = EVERYTHING.speed, EVERYTHING.rounding.mmr_step
    made = path(forecasts, EVERYTHING)
    limited = np.array([memory.limited[0] for _, memory in made])
    known = np.array([i for i, (chain, _) in enumerate(made) if not chain.fallback[0]])
    for before, now in pairwise(known):
        hours = now - before
        assert limited[now] <= limited[before] * (1.0 + speed.rise_per_hour) ** hours * (1 + 1e-12)
        assert limited[now] >= limited[before] * 0.5 ** (hours / 24.0) * (1 - 1e-12)
        day_before = known[known <= now - 24]
        start = day_before[-1] if len(day_before) else known[0]
        assert limited[now] <= limited[start] * (1.0 + speed.rise_per_day) * (1 + 1e-12)
    for chain, memory in made:
        if not chain.fallback[0]:
            # published: up to a step of the grid, or the share that is held, above
            assert memory.limited[0] <= chain.mmr[0]
            assert chain.mmr[0] <= (memory.limited[0] + step) / (1.0 - EVERYTHING.publication.hold)


@given(st.lists(st.one_of(st.floats(1e-4, 1.9), st.just(np.nan)), min_size=1, max_size=60))
def test_never_below_the_floor_nor_above_the_cap(forecasts):
    limits = EVERYTHING.limits
    for chain, _ in path(forecasts, EVERYTHING):
        if not chain.fallback[0]:
            assert limits.mmr_floor <= chain.mmr[0] <= limits.mmr_cap


@pytest.mark.parametrize("early_s", [0, 1, 599])
def test_a_night_that_starts_a_little_early_counts_from_the_night_before(early_s):
    """5 % falls to 2.5 %; whether the next job starts a second early decides about nothing."""
    numbers = Parameters.of(policy("speed"))  # half a day, 50 % up a day
    nights = [0, 86_400, 2 * 86_400 - early_s]
    memory = Memory.blank(1)
    for second, forecast in zip(nights, [0.06, 0.001, 0.06], strict=True):
        moment = START + np.timedelta64(second, "s")
        memory, chain = advance(memory, inputs(forecast), moment, numbers)
        rates = chain.values[STEPS.index("speed limit"), 0]
        if second == 86_400:
            lowest = rates
    assert rates == pytest.approx(lowest * 1.5)


def test_a_margin_pays_for_closing_whatever_the_speed_limit():
    """A book that vanishes makes closing dear at once."""
    numbers = Parameters.of(policy("speed"))
    memory, _ = advance(Memory.blank(1), inputs(0.01), START, numbers)
    _, chain = advance(memory, inputs(0.01, cost=0.08), START + HOUR, numbers)
    assert chain.mmr.tolist() == [0.08]
    assert chain.mmr[0] > memory.limited[0] * (1.0 + 0.2)


def test_a_floor_that_was_raised_is_not_held_back_by_the_speed_limit():
    numbers = Parameters.of(policy("speed"))
    memory, first = advance(Memory.blank(1), inputs(0.003, base=0.004), START, numbers)
    assert first.mmr.tolist() == [0.0055]
    # a base schedule of four times the margin: a rise of a fifth an hour would stay below it
    _, raised = advance(memory, inputs(0.003, base=0.02), START + HOUR, numbers)
    assert (raised.mmr.tolist(), raised.binding()) == ([0.02], ("base schedule",))
    strict = Parameters.of(policy("speed", limits={"mmr_floor": 0.03}))
    _, raised = advance(memory, inputs(0.003), START + HOUR, strict)
    assert (raised.mmr.tolist(), raised.binding()) == ([0.03], ("floor",))


@given(st.lists(FORECASTS, min_size=1, max_size=40))
def test_the_buffer_is_a_share_used_at_once_and_rebuilt_slowly(forecasts):
    shares = np.array([chain.buffer[0] for chain, _ in path(forecasts)])
    assert ((shares >= 0.0) & (shares <= 1.0)).all()
    assert (np.diff(shares) <= 1.0 / 240.0 + 1e-12).all()
    calm = path([*forecasts, *[0.03] * 240])
    assert calm[-1][0].buffer[0] == pytest.approx(1.0)


@given(FORECASTS.filter(lambda value: value < 0.5))
def test_a_margin_that_stands_still_stays(forecast):
    made = path([forecast] * 30, policy("long_run", "stress", "speed", "publication"))
    assert len({float(chain.mmr[0]) for chain, _ in made}) == 1


def test_a_fallback_is_the_larger_of_the_base_schedule_and_the_last_margin():
    made = path([0.05, np.nan, np.nan, 0.05], policy("speed"))
    last = made[0][0].mmr[0]
    assert [chain.mmr[0] for chain, _ in made] == [last] * 4
    assert [chain.fallback[0] for chain, _ in made] == [False, True, True, False]
    assert made[1][0].binding() == ("fallback",)
    low = advance(Memory.blank(1), inputs(np.nan), START, Parameters.of(policy()))[1]
    assert low.mmr.tolist() == [0.004]


def test_after_a_fallback_limits_go_on_from_the_last_margin_not_from_the_base_schedule():
    made = path([np.nan] * 5 + [0.05], policy("speed"))
    assert made[-1][0].mmr[0] == one(0.05).mmr[0]


def test_a_fall_within_the_hold_waits():
    held = policy(publication={"every": "1h", "hold": 0.1})
    made = path([0.05, 0.048, 0.047, 0.03], held)
    rates = [chain.mmr[0] for chain, _ in made]
    assert rates[0] == rates[1] == rates[2] > rates[3]
    assert made[1][0].binding() == ("hold",)


def test_a_tier_is_held_with_the_one_under_it():
    # both would fall: the first by 3 %, which waits, the second by 4.6 % to 4.88 %, below 5 %
    steady = policy("publication", publication={"hold": 0.04}, rounding={"mmr_step": 0.0001})
    numbers, under = Parameters.of(steady), np.array([-1, 0])

    def rates(memory, at, costs):
        known = replace(inputs([0.04, 0.04]), cost=np.array(costs))
        return advance(memory, known, at, numbers, under=under)

    memory, before = rates(Memory.blank(2), START, [0.05 / 1.1 - 0.04, 0.0511 / 1.1 - 0.04])
    assert before.mmr.tolist() == [0.05, 0.0511]
    after, chain = rates(memory, START + HOUR, [0.0485 / 1.1 - 0.04, 0.04875 / 1.1 - 0.04])
    assert chain.mmr.tolist() == [0.05, 0.05]
    assert chain.binding() == ("hold", "hold")
    assert after.published.tolist() == [0.05, 0.05]


@pytest.mark.parametrize("seed", range(5))
def test_rates_never_fall_from_tier_to_tier_whatever_came_before(seed):
    numbers, memory, rng = Parameters.of(EVERYTHING), Memory.blank(3), np.random.default_rng(seed)
    forecasts = 0.05 * np.exp(np.cumsum(rng.normal(0, 0.05, 100)))
    for number, forecast in enumerate(forecasts):
        known = inputs([forecast] * 3, long_run=0.04, stressed=0.1)
        known = replace(known, cost=np.sort(rng.uniform(0.001, 0.01, 3)))
        memory, chain = advance(
            memory, known, START + number * HOUR, numbers, under=np.array([-1, 0, 1])
        )
        assert (np.diff(chain.mmr) >= 0.0).all()


def test_history_that_is_not_known_changes_nothing():
    with_history = policy("buffer", "stress", "long_run")
    plain = policy(buffer={"rate": 0.25})
    assert one(0.05, with_history).mmr == one(0.05, plain).mmr


@given(st.lists(FORECASTS, min_size=1, max_size=20))
def test_policies_side_by_side_are_each_alone(forecasts):
    plain = policy(buffer={"rate": 0.25})
    both = Parameters.side_by_side([EVERYTHING, plain], 1)
    memory = Memory.blank(2)
    alone = [path(forecasts, each) for each in (EVERYTHING, plain)]
    for step, forecast in enumerate(forecasts):
        known = inputs([forecast] * 2, long_run=0.04, stressed=0.1)
        memory, chain = advance(memory, known, START + step * HOUR, both)
        assert chain.mmr.tolist() == [made[step][0].mmr[0] for made in alone]


def test_every_number_of_a_policy_reaches_the_chain():
    neutral, full = Parameters.of(policy()), Parameters.of(EVERYTHING)
    changed = {
        f.name for f in fields(Parameters) if getattr(neutral, f.name) != getattr(full, f.name)
    }
    assert {
        "buffer_rate", "drawdown_starts_at", "drawdown_span", "rebuild_per_hour", "stress_weight",
        "elasticity", "long_run_floor", "long_run_cap", "rise_per_hour", "rise_per_day",
        "fall_per_hour", "hold",
    } == changed  # fmt: skip


def test_time_goes_forward():
    memory, _ = advance(Memory.blank(1), inputs(0.05), START, Parameters.of(policy()))
    with pytest.raises(InputError, match="time goes forward"):
        advance(memory, inputs(0.05), START, Parameters.of(policy()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"buffer": {"rate": 0.25, "drawdown": DRAWDOWN}},
            r"\[buffer.drawdown\] needs \[long_run\]",
        ),
        ({"stress": {"weight": 0.25, "period": "90d"}}, r"\[stress\] needs \[long_run\]"),
        (
            {"long_run": SECTIONS["long_run"] | {"floor": 5.0}},
            "floor must not lie above cap, found 5 and 4",
        ),
        (
            {"long_run": SECTIONS["long_run"], "stress": {"weight": 0.2, "period": "4000d"}},
            "stress.period is longer than long_run.window",
        ),
        (
            {"publication": {"every": "1h", "hold": 0.0, "notice_of_rise": "9h"}},
            "notice_of_rise is longer than the horizon 8h",
        ),
        (
            {"buffer": {"rate": 0.1, "drawdown": DRAWDOWN | {"ends_at": 1.0}}},
            "starts_at must lie below ends_at",
        ),
        ({"speed": SECTIONS["speed"] | {"rise_per_hour": 0.0}}, "greater than 0"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        policy(**changes)
