"""Derivatives features: values worked out by hand, and what must hold for any market."""

import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.features import derivatives
from margincast.features.library import LIBRARY, Window

HOUR = timedelta(hours=1)
FUNCTIONS = {name: function for (of, name), function in LIBRARY.items() if of == "derivatives"}
VALUES = {"annualised_funding": (8.0, 4.0), "distance_to_funding_cap": (0.02, 0.0075)}
WINDOWS = (3, 12)
COUNT = 60
LONGEST = 13

PRICES = ("close", "mark_close", "index_close")
USD = ("quote_volume", "open_interest_usd", "long_liquidated_usd", "short_liquidated_usd")
COINS = ("volume", "open_interest")
OF_PRICE = tuple(name for name in FUNCTIONS if "basis" in name)
LOGARITHMS_OF_USD = ("log_long_liquidated_usd", "log_short_liquidated_usd")


def window(rows: int, share: float = 0.6) -> Window:
    return Window.over(rows * HOUR, HOUR, share)


def columns(share: float = 0.6) -> dict[str, tuple[str, pl.Expr, int]]:
    """Function, expression and look-back of every column."""
    made = {}
    for name, function in FUNCTIONS.items():
        arguments = {
            "nothing": [()],
            "values": [(value,) for value in VALUES.get(name, ())],
            "windows": [(window(rows, share),) for rows in WINDOWS],
        }[function.argument]
        for given_arguments in arguments:
            label = f"{name} {given_arguments}"
            build, back = function.build(*given_arguments), function.look_back(*given_arguments)
            made[label] = (name, build, back)
    return made


ALL = columns()


def evaluate(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        expression.cast(pl.Float64).alias(label) for label, (_, expression, _) in ALL.items()
    )


def random_rows(seed: int, unknown: float = 0.0, *, usd_alone: bool = False) -> pl.DataFrame:
    """Bars with states beside them; some values unknown, funding that repeats, few liquidations."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.standard_t(3, COUNT) * 0.01))
    held = np.exp(rng.normal(10, 0.3, COUNT))
    liquidated = rng.lognormal(9, 3, (2, COUNT)) * (rng.random((2, COUNT)) < 0.4)
    volume = rng.lognormal(6, 1, COUNT) * (rng.random(COUNT) < 0.95)
    frame = pl.DataFrame(
        {
            "close": close,
            "mark_close": close * np.exp(rng.normal(0, 1e-3, COUNT)),
            "index_close": close * np.exp(rng.normal(0, 1e-3, COUNT)),
            "volume": volume,
            "quote_volume": volume * close,
            "funding_rate": np.repeat(rng.normal(1e-4, 3e-4, COUNT // 4), 4),
            "open_interest": held,
            "open_interest_usd": held * close,
            "long_liquidated_usd": liquidated[0],
            "short_liquidated_usd": liquidated[1],
        }
    )
    if usd_alone:
        nothing = pl.lit(None, dtype=pl.Float64)
        frame = frame.with_columns(quote_volume=nothing, open_interest_usd=nothing)
    keep = rng.random((COUNT, frame.width)) >= unknown
    return frame.select(
        pl.when(pl.Series(keep[:, place])).then(pl.col(name)).alias(name)
        for place, name in enumerate(frame.columns)
    )


def close_to(one: pl.DataFrame, other: pl.DataFrame, tolerance: float = 1e-9) -> None:
    for name in one.columns:
        first, second = one[name].to_numpy(), other[name].to_numpy()
        np.testing.assert_allclose(first, second, tolerance, 1e-12, equal_nan=True, err_msg=name)


seeds = st.integers(0, 2**32)
shares = st.sampled_from([0.0, 0.15])


# --- what must hold for any market ----------------------------------------------------------------


def test_every_function_is_checked_and_mostly_known():
    assert {name for name, _, _ in ALL.values()} == set(FUNCTIONS)
    assert len(FUNCTIONS) == 27
    values = evaluate(random_rows(1))[LONGEST:]
    unknown = {name: values[name].null_count() / len(values) for name in values.columns}
    assert {name for name, share in unknown.items() if share > 0.2} <= {
        f"liquidation_imbalance {(window(3),)}"
    }
    assert not any(values[name].is_nan().any() for name in values.columns)


@given(seeds, shares, st.integers(LONGEST, COUNT - 2), st.sampled_from(["delete", "forget", "x"]))
def test_no_feature_moves_by_a_bit_when_later_rows_change(seed, unknown, known, what):
    frame = random_rows(seed, unknown)
    later = pl.int_range(pl.len()) > known
    if what == "delete":
        after = frame.head(known + 1)
    elif what == "forget":
        after = frame.select(
            pl.when(~later).then(pl.col(name)).alias(name) for name in frame.columns
        )
    else:
        after = frame.with_columns(pl.when(later).then(pl.all() * -1e6).otherwise(pl.all()))
    one, other = (evaluate(rows).head(known + 1) for rows in (frame, after))
    assert one.equals(other, null_equal=True)


@given(seeds, shares)
def test_a_value_hangs_on_no_more_rows_than_are_declared(seed, unknown):
    frame = random_rows(seed, unknown)
    whole = evaluate(frame)[-1]
    for label, (_, expression, look_back) in ALL.items():
        tail = frame.tail(look_back).select(expression.cast(pl.Float64).alias(label))[-1]
        close_to(tail, whole.select(label))


def test_no_look_back_is_declared_longer_than_it_is():
    frame = random_rows(3)
    for label, (name, expression, look_back) in ALL.items():
        first = frame.tail(look_back).with_row_index("row")
        changed = first.select(
            pl.when(pl.col("row") == 0)
            .then(pl.col(column) * 1.5 + 1)
            .otherwise(column)
            .alias(column)
            for column in frame.columns
        )
        values = [rows.select(expression.alias(label))[label][-1] for rows in (first, changed)]
        assert values[0] != values[1] or "rank" in name, label


@given(seeds, shares, st.sampled_from([1e-6, 0.01, 1000.0, 1e6]))
def test_no_value_hangs_on_the_unit_of_the_coin(seed, unknown, factor):
    """A thousand coins to the contract: prices as many times higher, amounts as many times less."""
    frame = random_rows(seed, unknown)
    other = frame.with_columns(pl.col(PRICES) * factor, pl.col(COINS) / factor)
    close_to(evaluate(frame), evaluate(other), 1e-7)


@given(seeds, shares, st.sampled_from([1e-3, 10.0, 1e4]), st.booleans())
def test_only_logarithms_of_usd_hang_on_the_size_of_a_contract(seed, unknown, factor, usd_alone):
    frame = random_rows(seed, unknown, usd_alone=usd_alone)
    other = frame.with_columns(pl.col(USD) * factor, pl.col(COINS) * factor)
    of_size = [label for label, (name, _, _) in ALL.items() if name in LOGARITHMS_OF_USD]
    close_to(evaluate(frame).drop(of_size), evaluate(other).drop(of_size), 1e-7)


@given(seeds, shares)
def test_longs_and_shorts_trade_places(seed, unknown):
    frame = random_rows(seed, unknown)
    mirrored = frame.with_columns(
        -pl.col("funding_rate"),
        long_liquidated_usd="short_liquidated_usd",
        short_liquidated_usd="long_liquidated_usd",
    )
    one, other = evaluate(frame), evaluate(mirrored)
    for label, (name, _, _) in ALL.items():
        twin = label
        if "long_" in name or "short_" in name:
            long, short = ("long_", "short_") if "long_" in name else ("short_", "long_")
            twin = label.replace(long, short)
        value, mirror = one[label].to_numpy(), other[twin].to_numpy()
        if name.startswith("crowding_rank"):
            mirror = 1 - mirror
        elif name == "liquidation_imbalance" or (
            name.startswith(("funding", "annualised", "crowding"))
        ):
            mirror = -mirror
        np.testing.assert_allclose(value, mirror, 1e-9, 1e-12, equal_nan=True, err_msg=label)


@given(seeds, shares)
def test_bounds(seed, unknown):
    values = evaluate(random_rows(seed, unknown))
    for label, (name, _, _) in ALL.items():
        known = values[label].drop_nulls()
        assert known.is_finite().all(), label
        if name == "liquidation_imbalance":
            assert known.is_between(-1, 1).all()
        elif name == "crowding_rank":
            assert known.is_between(0, 1, closed="none").all()
        elif name == "crowding_score":
            rows = WINDOWS[0] if f"rows={WINDOWS[0]}," in label else WINDOWS[1]
            assert (known.abs() <= math.sqrt(rows - 1) + 1e-6).all()
        elif "liquidat" in name or "deviation" in name:
            assert (known >= 0).all(), label
        elif name == "distance_to_funding_cap":
            assert (known <= 1).all()


def test_nothing_is_left_of_what_has_left_the_window():
    """A billion, and then nothing: the rounding of a rolling sum is neither share nor side."""
    rows = 40
    billion = [1e9 + 1 / 3] * 5 + [0.0] * (rows - 5)
    frame = pl.DataFrame(
        {
            "close": [100.0] * rows, "mark_close": [100.0] * rows, "index_close": [100.0] * rows,
            "volume": [1.0 / 3] * rows, "quote_volume": [None] * rows,
            "open_interest": [1.0 / 7] * rows, "open_interest_usd": [None] * rows,
            "funding_rate": [0.3] * 5 + [1e-4] * (rows - 5),
            "long_liquidated_usd": billion, "short_liquidated_usd": [usd / 3 for usd in billion],
        },
        schema_overrides=dict.fromkeys(("quote_volume", "open_interest_usd"), pl.Float64),
    )  # fmt: skip
    last = {ALL[label][0]: value for label, value in evaluate(frame).row(-1, named=True).items()}
    for name in FUNCTIONS:
        if "liquidat" in name:
            assert last[name] == (None if name == "liquidation_imbalance" else 0.0), name
    assert last["crowding_score"] is None
    assert last["crowding_rank"] == 0.5


# --- by hand --------------------------------------------------------------------------------------


def last(expression: pl.Expr, **given_columns: list) -> float | None:
    every = dict.fromkeys((*PRICES, *COINS, *USD, "funding_rate"), [None] * 4)
    frame = pl.DataFrame(every | given_columns, schema=dict.fromkeys(every, pl.Float64))
    return frame.select(expression.alias("value"))["value"][-1]


FUNDING = {"funding_rate": [1e-4, 1e-4, -3e-4, 5e-4]}
HELD = {"open_interest_usd": [2e6, 4e6, 4e6, 8e6]}
TRADED = {"quote_volume": [1e6, 3e6, 2e6, 4e6]}
LIQUIDATED = {
    "long_liquidated_usd": [9e9, 3e5, 0.0, 1e5],
    "short_liquidated_usd": [9e9, 0.0, 1e5, 0.0],
}
THREE = window(3)


@pytest.mark.parametrize(
    ("expression", "columns", "value"),
    [
        (derivatives.funding.funding_rate(), FUNDING, 5e-4),
        # three fundings a day: 1095 a year
        (derivatives.funding.annualised_funding(8.0), FUNDING, 0.5475),
        (derivatives.funding.funding_mean(THREE), FUNDING, 1e-4),
        (derivatives.funding.funding_change(THREE), FUNDING, 4e-4),
        (derivatives.funding.distance_to_funding_cap(0.002), FUNDING, 0.75),
        (derivatives.funding.distance_to_funding_cap(0.00025), FUNDING, -1.0),
        (derivatives.open_interest.log_open_interest_usd_change(THREE), HELD, math.log(4)),
        (
            derivatives.open_interest.log_open_interest_change(THREE),
            {"open_interest": [2.0, 1.0, 1.0, 3.0]},
            math.log(1.5),
        ),
        (derivatives.open_interest.log_open_interest_change(THREE), HELD, None),
        # 8 million open, 9 million traded in three bars
        (
            derivatives.open_interest.log_open_interest_to_volume(THREE),
            HELD | TRADED,
            math.log(8 / 9),
        ),
        # the same in coins, without anybody's USD
        (
            derivatives.open_interest.log_open_interest_to_volume(THREE),
            {"close": [10.0] * 4, "open_interest": [8e5] * 4, "volume": [1.0, 3e5, 2e5, 4e5]},
            math.log(8 / 9),
        ),
        (
            derivatives.liquidations.long_liquidations_to_volume(THREE),
            LIQUIDATED | TRADED,
            4e5 / 9e6,
        ),
        (
            derivatives.liquidations.short_liquidations_to_volume(THREE),
            LIQUIDATED | TRADED,
            1e5 / 9e6,
        ),
        # 0.4 million of 16 / 3 million open on average
        (
            derivatives.liquidations.long_liquidations_to_open_interest(THREE),
            LIQUIDATED | HELD,
            0.4 / (16 / 3),
        ),
        (derivatives.liquidations.liquidation_imbalance(THREE), LIQUIDATED, 3 / 5),
        (
            derivatives.liquidations.log_long_liquidated_usd(THREE),
            LIQUIDATED,
            math.log1p(4e5 / 3),
        ),
        # 8 million pay 5 bps: 4000 USD on 9 million traded
        (derivatives.crowding.crowding(THREE), FUNDING | HELD | TRADED, 4000 / 9e6),
        # 200, 400, -1200 and 4000 USD paid: the largest of three, 2.5 of 3
        (derivatives.crowding.crowding_rank(THREE), FUNDING | HELD, 2.5 / 3),
        (
            derivatives.crowding.crowding_score(THREE),
            FUNDING | HELD,
            (4000 - 3200 / 3) / float(np.std([400, -1200, 4000])),
        ),
        (
            derivatives.basis.mark_basis(),
            {"close": [100.0] * 3 + [101.0], "mark_close": [100.0] * 4},
            0.01,
        ),
        (
            derivatives.basis.index_basis_mean(THREE),
            {"close": [50.0, 101.0, 99.0, 103.0], "index_close": [100.0] * 4},
            0.01,
        ),
        (
            derivatives.basis.mark_index_basis_deviation(THREE),
            {"mark_close": [50.0, 101.0, 99.0, 103.0], "index_close": [100.0] * 4},
            float(np.std([0.01, -0.01, 0.03])),
        ),
        # a price of zero is none, and its basis is not known
        (derivatives.basis.mark_basis(), {"close": [1.0] * 4, "mark_close": [0.0] * 4}, None),
    ],
)
def test_values_worked_out_by_hand(expression, columns, value):
    assert last(expression, **columns) == (None if value is None else pytest.approx(value))


def test_a_bar_that_lacks_one_of_two_counts_for_neither():
    made = last(
        derivatives.liquidations.long_liquidations_to_volume(THREE),
        quote_volume=[1.0, 100.0, None, 300.0],
        long_liquidated_usd=[1.0, 10.0, 5000.0, 30.0],
    )
    assert made == pytest.approx(0.1)


@pytest.mark.parametrize("cap", [0.0, -0.01, 2.0, math.nan])
def test_a_cap_that_is_no_fraction_is_refused(cap):
    with pytest.raises(InputError, match=r"write 2 % as 0\.02"):
        derivatives.funding.distance_to_funding_cap(cap)


@pytest.mark.parametrize("hours", [0.0, -8.0, math.inf, math.nan])
def test_hours_between_fundings_must_be_some(hours):
    with pytest.raises(InputError, match="list 8, 4 or 1"):
        derivatives.funding.annualised_funding(hours)
