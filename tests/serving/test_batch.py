"""Every contract gets a margin: from its own forecast, or the base schedule with a reason."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.published import published_margin
from margincast.core.errors import CheckFailedError, InputError
from margincast.margin.background import Background
from margincast.margin.levels import fallback_levels, margin_levels
from margincast.margin.liquidation_cost import Book
from margincast.margin.open_interest import Held
from margincast.margin.tier_rows import tier_rows
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.batch import (
    latest_forecasts,
    latest_rows,
    require_answers,
    require_feature_set,
    score,
    score_fallback,
)
from margincast.serving.manifest import BundleMetadata, Manifest
from margincast.serving.scored import Origin, policy_hash
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
SCHEDULE = load_spec(SERVING / "schedules" / "perpetuals.toml", BaseSchedule)
POLICY = load_spec(SERVING / "perp-8h.toml", MarginPolicy)
BOOK_POLICY = load_spec(SERVING / "demo.toml", MarginPolicy)
ORIGIN = Origin("perp-8h/3", "f" * 64, "p" * 64)
AT = datetime(2024, 5, 1, 12, tzinfo=UTC)
NOW = np.datetime64("2024-05-01T12:00", "us")
LEVELS = (0.99, 0.995)
METADATA = BundleMetadata(
    job="perp-8h",
    horizons_minutes=(480,),
    sides=("long", "short"),
    levels=LEVELS,
    feature_columns=("volatility",),
    spec_digest="1" * 64,
    feature_set_hash="2" * 64,
    training_data_digest="3" * 64,
    trained_until="2024-06-01T00:00:00",
)
MANIFEST = Manifest("margincast", "m:M", METADATA, {}, {}, "4" * 64)


class TwiceForShorts:
    """Forecast = volatility for a long, twice that for a short; half as much again at 0.995."""

    name = "twice_for_shorts"

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def fit(self, panel: Panel) -> Self:  # noqa: ARG002  # the protocol's
        return self

    def predict(self, panel: Panel) -> TailForecast:
        frame = panel.frame
        factors = self.factor * np.array([[1.0, 1.5], [2.0, 3.0]])
        volatility = frame["volatility"].to_numpy()
        return TailForecast(("long", "short"), LEVELS, volatility[:, None, None] * factors)

    def parameters(self) -> dict[str, Any]:
        return {}

    def save(self, directory: Path) -> None:
        (directory / "model.json").write_text("{}")

    @classmethod
    def load(cls, directory: Path) -> Self:  # noqa: ARG003  # the protocol's
        return cls()


def decisions(**volatilities: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "symbol": list(volatilities),
            "ts": pd.Series([pd.Timestamp(AT)] * len(volatilities)).dt.as_unit("us"),
            "volatility": list(volatilities.values()),
        }
    )


def scored(
    frame: pd.DataFrame, policy=POLICY, books=None, at=AT, schedule=SCHEDULE, *, delisted=()
) -> pd.DataFrame:
    panel = Panel.of_decisions(frame, {"volatility": "fraction"}, ("long", "short"))
    minutes = policy.model.horizon // timedelta(minutes=1)
    forecaster = HorizonForecaster("twice_for_shorts", {minutes: TwiceForShorts()}, monotone=True)
    panels = {minutes: panel}
    return score(
        panels,
        forecaster.predict(panels),
        policy,
        schedule,
        at=at,
        books=books or {},
        origin=ORIGIN,
        delisted=delisted,
    ).levels


def test_every_row_is_the_margin_level_of_its_contract_side_and_tier():
    levels = scored(decisions(BTCUSDT=0.04, XRPUSDT=0.06))
    forecasts = {"long": np.array([0.04, 0.06]), "short": np.array([0.08, 0.12])}
    rows = tier_rows(["BTCUSDT", "XRPUSDT"], SCHEDULE, POLICY)
    expected = margin_levels(
        rows,
        forecasts,
        POLICY,
        data_age=np.zeros(2, dtype="timedelta64[us]"),
        background=Background.none(len(rows), NOW),
    )
    pd.testing.assert_frame_equal(levels[expected.columns], expected)


@pytest.mark.parametrize("notice", [None, timedelta(hours=5)])
def test_the_margin_of_tonight_is_the_one_a_backtest_replays(notice):
    """With everything a policy remembers: limits of speed, hold, history, notice."""
    publication = POLICY.publication.model_copy(update={"notice_of_fall": notice})
    policy = POLICY.model_copy(update={"publication": publication})
    hours = 100
    rng = np.random.default_rng(3)
    ts = pd.date_range(AT - timedelta(hours=hours - 1), AT, freq="h", unit="us")
    frame = pd.DataFrame(
        {
            "symbol": np.tile(["BTCUSDT", "XRPUSDT"], hours),
            "ts": np.repeat(ts, 2),
            "volatility": rng.lognormal(-3.5, 0.8, 2 * hours),
        }
    )
    panel = Panel.of_decisions(frame, {"volatility": "fraction"}, ("long", "short"))
    forecaster = HorizonForecaster("twice_for_shorts", {480: TwiceForShorts()}, monotone=True)
    past = pd.date_range(AT - timedelta(days=200), AT, freq="h", unit="us")
    names = {"symbol": np.tile(["BTCUSDT", "XRPUSDT"], len(past)), "ts": np.repeat(past, 2)}
    outcome = rng.exponential(0.01, 2 * len(past))
    known = np.repeat(past.tz_localize(None).to_numpy(), 2) + np.timedelta64(8, "h")
    sides = dict.fromkeys(("long", "short"), outcome)
    history = Panel(pd.DataFrame(names), {}, sides, outcome, known)
    levels = score(
        {480: panel},
        forecaster.predict({480: panel}),
        policy,
        SCHEDULE,
        at=AT,
        books={},
        origin=ORIGIN,
        history=history,
    ).levels
    assert {"long-run cap", "hold"} <= set(levels["binding_rule"])
    forecast = forecaster.predict({480: panel})[480]
    for tier in (1, 2, 3):
        replayed = published_margin(
            panel, forecast, SCHEDULE, policy, tier=tier, history=history
        ).rates[:, -2:]
        found = levels[levels["tier"] == tier].set_index(["side", "symbol"])["mmr_in_force"]
        for i, side in enumerate(("long", "short")):
            for j, symbol in enumerate(("BTCUSDT", "XRPUSDT")):
                assert found[side, symbol] == replayed[i, j]


def test_the_level_of_the_policy_is_used_and_no_other():
    policy = load_spec(SERVING / "perp-8h.toml", MarginPolicy, ["model.level=0.995"])
    levels = scored(decisions(BTCUSDT=0.04), policy)
    assert set(levels["forecast"]) == {0.04 * 1.5, 0.04 * 3.0}


def test_the_horizon_of_the_policy_is_used_in_order_with_the_others():
    panel = Panel.of_decisions(
        decisions(BTCUSDT=0.04), {"volatility": "fraction"}, ("long", "short")
    )
    forecasters = {60: TwiceForShorts(0.5), 480: TwiceForShorts(), 1440: TwiceForShorts(0.75)}
    found = {}
    for minutes, hours in ((480, "8h"), (60, "1h")):
        policy = load_spec(SERVING / "perp-8h.toml", MarginPolicy, [f"model.horizon={hours}"])
        levels = score(
            dict.fromkeys(forecasters, panel),
            HorizonForecaster("twice_for_shorts", forecasters, monotone=True).predict(
                dict.fromkeys(forecasters, panel)
            ),
            policy, SCHEDULE, at=AT, books={}, origin=ORIGIN,
        ).levels  # fmt: skip
        found[minutes] = set(levels["forecast"])
    # a day asks for less than eight hours, so eight hours take the lesser
    assert found == {480: {0.03, 0.06}, 60: {0.02, 0.04}}


def test_every_row_says_what_it_was_made_from():
    levels = scored(decisions(BTCUSDT=0.04))
    assert set(levels["model_version"]) == {"perp-8h/3"}
    assert set(levels["feature_set_hash"]) == {"f" * 64}
    assert set(levels["policy_hash"]) == {"p" * 64}
    for name in ("effective_from", "data_as_of"):
        assert str(levels[name].dtype) == "datetime64[us, UTC]"
        assert (levels[name] == AT).all()


def test_a_delisted_contract_has_no_levels_and_moves_nobody_else():
    frame = decisions(BTCUSDT=0.04, ETHUSDT=0.05, XRPUSDT=0.06)
    everybody, left = scored(frame), scored(frame, delisted=("ETHUSDT", "FTTUSDT"))
    there = everybody[everybody["symbol"] != "ETHUSDT"].reset_index(drop=True)
    pd.testing.assert_frame_equal(left, there)


@pytest.mark.parametrize("volatility", [float("nan"), float("inf"), 5.0, -0.01])
def test_a_contract_whose_forecast_cannot_be_believed_falls_back_alone(volatility):
    levels = scored(decisions(BTCUSDT=0.04, XRPUSDT=volatility)).set_index("symbol")
    assert (levels.loc["BTCUSDT", "status"] == "ok").all()
    fallen = levels.loc["XRPUSDT"]
    assert (fallen["status"] == "fallback").all()
    assert (fallen["multiplier"] == 1.0).all()
    assert fallen["reason"].str.contains("base schedule in force").all()


def test_a_contract_with_an_infinite_feature_falls_back_alone_whatever_the_model_makes_of_it():
    """Trees and ranks would make a number of it."""
    frame = decisions(BTCUSDT=0.04, XRPUSDT=0.05).assign(activity=[1.0, np.inf])
    panel = Panel.of_decisions(
        frame, {"volatility": "fraction", "activity": "number"}, ("long", "short")
    )
    forecaster = HorizonForecaster("twice_for_shorts", {480: TwiceForShorts()}, monotone=True)
    levels = score(
        {480: panel},
        forecaster.predict({480: panel}),
        POLICY,
        SCHEDULE,
        at=AT,
        books={},
        origin=ORIGIN,
    ).levels.set_index("symbol")
    assert (levels.loc["BTCUSDT", "status"] == "ok").all()
    assert (levels.loc["XRPUSDT", "status"] == "fallback").all()
    assert levels.loc["XRPUSDT", "reason"].str.contains("forecast not known").all()


def test_features_of_another_set_than_the_models_are_refused():
    require_feature_set("2" * 64, MANIFEST)
    with pytest.raises(CheckFailedError, match=r"by set a{12}, but .*trained on set 2{12};"):
        require_feature_set("a" * 64, MANIFEST)


def test_a_contract_whose_data_is_old_falls_back_alone_and_says_how_old():
    frame = decisions(BTCUSDT=0.04, XRPUSDT=0.06)
    frame.loc[1, "ts"] -= pd.Timedelta(hours=3)
    levels = scored(frame).set_index("symbol")
    assert (levels.loc["BTCUSDT", "status"] == "ok").all()
    old = levels.loc["XRPUSDT"]
    assert (old["status"] == "fallback").all()
    assert old["reason"].str.contains("stale data: 3:00:00 old, allowed 2h").all()
    assert (old["data_as_of"] == AT - timedelta(hours=3)).all()
    assert (old["effective_from"] == AT).all()


def test_data_from_the_future_is_not_used():
    levels = scored(decisions(BTCUSDT=0.04), at=AT - timedelta(minutes=1))
    assert (levels["status"] == "fallback").all()
    assert levels["reason"].str.contains("future").all()


def test_a_book_belongs_to_its_own_contract():
    prices = 0.01 * np.arange(1.0, 11.0)
    book = Book(100 - prices, np.full(10, 1e7), 100 + prices, np.full(10, 1e7))
    frame = decisions(BTCUSDT=0.004, XRPUSDT=0.004)
    levels = scored(frame, BOOK_POLICY, books={"XRPUSDT": book}).set_index("symbol")
    assert (levels.loc["XRPUSDT", "liquidation_cost"] < 0.005).all()
    assert (levels.loc["BTCUSDT", "liquidation_cost"] > 0.02).all()


def test_an_order_of_contracts_changes_nothing_but_the_order():
    frame = decisions(BTCUSDT=0.04, ETHUSDT=0.05, XRPUSDT=0.06)
    whole = scored(frame)
    parts = [scored(frame.iloc[[i]].reset_index(drop=True)) for i in (0, 1, 2)]
    pd.testing.assert_frame_equal(whole, pd.concat(parts, ignore_index=True))


def test_a_fallback_is_the_base_schedule_as_it_stands():
    levels = score_fallback(
        {"FTTUSDT": "delisted", "BTCUSDT": "no champion"}, POLICY, SCHEDULE, at=AT, origin=ORIGIN
    ).levels
    made = scored(decisions(BTCUSDT=0.04))
    assert list(levels.columns) == list(made.columns)
    assert list(levels.dtypes) == list(made.dtypes)
    rows = tier_rows(["BTCUSDT", "FTTUSDT"], SCHEDULE, POLICY)
    none = Background.none(len(rows), NOW)
    expected = fallback_levels(rows, POLICY, ["no champion", "delisted"], none)
    pd.testing.assert_frame_equal(levels[expected.columns], expected)
    assert levels["data_as_of"].isna().all()
    assert str(levels["data_as_of"].dtype) == "datetime64[us, UTC]"


def test_a_contract_without_tiers_is_refused():
    bare = SCHEDULE.model_copy(update={"default": None})
    with pytest.raises(InputError, match="has no tiers for 'NEWUSDT'"):
        scored(decisions(NEWUSDT=0.04), schedule=bare)


@given(st.permutations(range(12)))
def test_the_latest_decision_is_the_last_in_time_of_each_contract(order):
    frame = pd.DataFrame(
        {
            "symbol": ["B", "A", "C"] * 4,
            "ts": pd.date_range(AT, periods=12, freq="h", unit="us"),
            "row": range(12),
        }
    )
    shuffled = frame.iloc[order]
    last = shuffled.iloc[latest_rows(shuffled)]
    assert list(last["symbol"]) == ["A", "B", "C"]
    assert list(last["row"]) == [10, 9, 11]


def test_a_model_that_answers_the_policy_is_accepted():
    require_answers(POLICY, MANIFEST)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"horizons_minutes": (60, 1440)}, r"horizon 480 min \(the model has 60, 1440 min\)"),
        ({"levels": (0.95,)}, r"level 0.99 \(the model has \[0.95\]\)"),
        ({"horizons_minutes": (60,), "levels": (0.9,)}, r"horizon 480 min .*; level 0.99"),
    ],
)
def test_a_model_that_does_not_is_refused_with_all_that_is_missing(change, expected):
    manifest = replace(MANIFEST, metadata=replace(METADATA, **change))
    with pytest.raises(CheckFailedError, match=expected):
        require_answers(POLICY, manifest)


def test_a_model_of_one_side_is_refused_only_where_both_are_needed():
    one_sided = replace(MANIFEST, metadata=replace(METADATA, sides=("short",)))
    require_answers(POLICY, one_sided)
    larger = load_spec(SERVING / "perp-8h.toml", MarginPolicy, ["forecast.sides=larger"])
    with pytest.raises(CheckFailedError, match="side long"):
        require_answers(larger, one_sided)


def other_policy(*overrides: str) -> Callable[[], str]:
    return lambda: policy_hash(
        load_spec(SERVING / "perp-8h.toml", MarginPolicy, overrides), SCHEDULE
    )


def test_the_hash_of_a_policy_tells_apart_what_an_operator_can_change():
    hashes = [
        make()
        for make in (
            other_policy(),
            other_policy("buffer.rate=0.2"),
            other_policy("forecast.sides=larger"),
            other_policy("staleness.max_data_age=3h"),
            lambda: policy_hash(POLICY, SCHEDULE.model_copy(update={"default": None})),
        )
    ]
    assert len(set(hashes)) == len(hashes)
    assert other_policy()() == hashes[0]


BESIDE = load_spec(
    SERVING / "perp-8h.toml",
    MarginPolicy,
    [
        'initial.forecast={level=0.995, horizon="8h"}',
        (
            "open_interest={max_age='2d', unknown_share=0.5, "
            'caps=[{symbols=["BTCUSDT"], lower_cap_usd=1e8, upper_cap_usd=3e8}]}'
        ),
        "fees={exponent=1.0, floor=1.0, cap=2.5, step=0.05, hold=0.1}",
    ],
)


def test_what_stands_beside_the_maintenance_margin():
    frame = decisions(BTCUSDT=0.04, XRPUSDT=0.06)
    panel = Panel.of_decisions(frame, {"volatility": "fraction"}, ("long", "short"))
    predicted = TwiceForShorts().predict(panel)
    levels = score(
        {480: panel},
        {480: predicted},
        BESIDE,
        SCHEDULE,
        at=AT,
        books={},
        origin=ORIGIN,
        open_interest={"BTCUSDT": Held(1.5e8, timedelta(hours=1), math.nan)},
    ).levels.set_index(["symbol", "side", "tier"])
    # The 0.995 forecast of TwiceForShorts is half as much again: 6 %, and 0.17 % cost, 6.2 % on the
    # grid, is less than 1.5 x the MMR of 4.6 %; a quarter of the way to 1: 0.069 + 0.23275
    first = levels.loc[("BTCUSDT", "long", 1)]
    assert (first["initial_forecast"], first["open_interest_share"]) == (0.06, 0.25)
    assert (first["mmr"], first["imr"]) == (0.046, 0.302)
    assert "raised for open interest of 1.5e+08 USD, 0.25 of the way" in first["imr_reason"]
    # XRP has no caps; its short's forecast of 18 % is less than 1.5 x 13.4 %
    other = levels.loc[("XRPUSDT", "short", 1)]
    assert (other["open_interest_share"], other["imr"]) == (0.0, 0.201)
    # without history there is no need for other fees than usual
    assert set(levels["fee_multiplier"]) == {1.0}


def test_the_latest_forecasts_are_those_the_levels_were_made_of():
    frame = decisions(BTCUSDT=0.04, XRPUSDT=0.06)
    panel = Panel.of_decisions(frame, {"volatility": "fraction"}, ("long", "short"))
    table = latest_forecasts({480: panel}, {480: TwiceForShorts().predict(panel)}, "m", "m/1")
    assert len(table) == 2 * 2 * len(LEVELS)
    own = table[(table["level"] == POLICY.model.level) & (table["side"] == "short")]
    assert own["forecast"].tolist() == [0.08, 0.12]
    assert own[["symbol", "horizon_minutes", "model_version"]].to_numpy().tolist() == [
        ["BTCUSDT", 480, "m/1"],
        ["XRPUSDT", 480, "m/1"],
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('initial.forecast={level=0.9999, horizon="8h"}', "initial.forecast.level 0.9999"),
        ('initial.forecast={level=0.995, horizon="24h"}', "initial.forecast.horizon 1440 min"),
    ],
)
def test_an_initial_forecast_that_the_champion_does_not_make_is_refused(override, said):
    policy = load_spec(SERVING / "perp-8h.toml", MarginPolicy, [override])
    with pytest.raises(CheckFailedError, match=said):
        require_answers(policy, MANIFEST)


def test_a_fallback_for_want_of_a_champion_opens_as_if_open_interest_were_unknown():
    levels = score_fallback(
        {"BTCUSDT": "no champion"}, BESIDE, SCHEDULE, at=AT, origin=ORIGIN
    ).levels
    first = levels.iloc[0]
    # base IMR 0.8 %: half of the way to 1
    assert (first["imr"], first["fee_multiplier"]) == (0.504, 1.0)
    assert first["imr_reason"].endswith("open interest not known: 0.5 of the way to 1")


def test_fees_follow_the_forecasts_since_the_model_was_fitted():
    """A storm that is over leaves its fee where it was: the change back is too small."""
    hours = [AT - timedelta(hours=2), AT - timedelta(hours=1), AT]
    frame = pd.DataFrame({"symbol": "BTCUSDT", "ts": hours, "volatility": [0.04, 0.076, 0.07]})
    panel = Panel.of_decisions(frame, {"volatility": "fraction"}, ("long", "short"))
    past = pd.date_range(AT - timedelta(days=400), AT, freq="h", unit="us")
    outcome = np.full(len(past), 0.081)
    history = Panel(
        pd.DataFrame({"symbol": "BTCUSDT", "ts": past}),
        {},
        dict.fromkeys(("long", "short"), outcome),
        outcome,
        past.tz_localize(None).to_numpy() + np.timedelta64(8, "h"),
    )
    multipliers = [
        score(
            {480: panel.rows(rows)},
            {480: TwiceForShorts().predict(panel.rows(rows))},
            BESIDE,
            SCHEDULE,
            at=hours[len(rows) - 1],
            books={},
            origin=ORIGIN,
            history=history,
        )
        .levels["fee_multiplier"]
        .iloc[0]
        for rows in (np.arange(1), np.arange(2), np.arange(3))
    ]
    # shorts: 0.08 / 0.081, 0.152 / 0.081 = 1.88, and 0.14 / 0.081 = 1.73, within a tenth of 1.9
    assert multipliers == [1.0, 1.9, 1.9]
