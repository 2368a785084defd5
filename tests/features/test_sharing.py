"""Shared parts are computed once, and give the values of a plain select."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.features.library import LIBRARY, Window
from margincast.features.plan import FAMILIES
from margincast.features.sharing import Staged, select_sharing

assert FAMILIES  # their import fills the library

A, B = pl.col("a"), pl.col("b")
MEAN = A.rolling_mean(3, min_samples=2)


def frame(rows=40, seed=0):
    rng = np.random.default_rng(seed)
    columns = {name: rng.lognormal(0, 1, rows) for name in ("a", "b")}
    gaps = pl.Series(rng.random(rows) < 0.1)
    return pl.DataFrame(columns).with_columns(
        pl.when(~gaps).then(pl.col(name)).alias(name) for name in columns
    )


def equal(expressions, rows):
    shared, plain = select_sharing(rows, ("b",), expressions), rows.select("b", *expressions)
    assert shared.schema == plain.schema
    assert shared.equals(plain)


PARTS = st.recursive(
    st.sampled_from([A, B, A.shift(1), MEAN, B.rolling_max(4, min_samples=1), pl.lit(0.5)]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] * two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] - two[1]),
        st.tuples(inner, inner).map(lambda two: pl.when(two[0] > two[1]).then(two[0])),
        inner.map(lambda one: one.rolling_mean(3, min_samples=1)),
        inner.map(lambda one: one.shift(2)),
        inner.map(lambda one: one.abs().log1p()),
    ),
    max_leaves=6,
)


@given(parts=st.lists(PARTS, min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_any_expressions_keep_their_values(parts, seed):
    # added to a column, so that a constant is as long as the table
    equal([(A + part).alias(f"f{i}") for i, part in enumerate(parts)], frame(seed=seed))


def test_a_part_read_twice_is_one_column():
    staged = Staged.of([(MEAN / B).alias("x"), (MEAN * B).alias("y"), MEAN.alias("z")])
    ((shared,),) = staged.stages
    assert shared.meta.undo_aliases().meta.eq(MEAN)
    assert all(shared.meta.output_name() in e.meta.root_names() for e in staged.expressions)
    assert [e.meta.output_name() for e in staged.expressions] == ["x", "y", "z"]


def test_parts_of_shared_parts_come_before_them():
    deep = (MEAN / B).rolling_mean(5)
    staged = Staged.of([deep.alias("x"), (deep - MEAN).alias("y"), (MEAN + deep).alias("z")])
    assert [len(stage) for stage in staged.stages] == [1, 1]
    equal([deep.alias("x"), (deep - MEAN).alias("y"), (MEAN + deep).alias("z")], frame())


def test_windows_that_differ_are_not_one_part():
    other = A.rolling_mean(4, min_samples=2)
    assert Staged.of([(MEAN / B).alias("x"), (other / B).alias("y")]).stages == ()
    equal([(MEAN / B).alias("x"), (other / B).alias("y")], frame())
    # nor for the memory of what was staged before
    equal([(other / B).alias("x"), (MEAN / B).alias("y")], frame())


def test_what_sees_other_rows_is_left_whole():
    by_time = MEAN.over(pl.int_range(pl.len()) % 4)
    equal([(by_time / MEAN).alias("x"), (MEAN + 1).alias("y"), (by_time * 2).alias("z")], frame())
    ratio = A / A.max()
    equal([ratio.alias("x"), (ratio + A.max()).alias("y"), (ratio * MEAN).alias("z")], frame())
    first = A.drop_nulls().first()
    equal([(A / first).alias("x"), (B / first).alias("y")], frame())


def test_no_rows_and_no_expressions():
    equal([(MEAN / B).alias("x"), (MEAN * B).alias("y")], frame(0))
    equal([], frame())


@pytest.mark.parametrize("seed", range(3))
def test_every_bar_feature_keeps_its_values(seed):
    rng = np.random.default_rng(seed)
    path = 100 * np.exp(np.cumsum(rng.standard_t(3, (1000, 4)) * 0.003)).reshape(1000, 4)
    bars = pl.DataFrame(
        {
            "open": path[:, 0], "high": path.max(axis=1), "low": path.min(axis=1),
            "close": path[:, -1], "volume": rng.lognormal(3, 1, 1000),
        }
    )  # fmt: skip
    missing = pl.Series(rng.random(1000) < 0.02)
    bars = bars.select(pl.when(~missing).then(pl.col(name)).alias(name) for name in bars.columns)
    expressions = []
    for (family, name), function in LIBRARY.items():
        if family == "bars" and function.argument in {"windows", "values"}:
            days = 28 if name.endswith("seasonality") else 1
            window = Window(24 * days, 12 * days, f"{days}d")
            argument = 0.94 if function.argument == "values" else window
            expressions.append(function.build(argument).alias(name))
    shared, plain = select_sharing(bars, (), expressions), bars.select(expressions)
    for name in plain.columns:
        both = [table[name].fill_null(math.nan).to_numpy() for table in (shared, plain)]
        # a constant may differ in its last bit
        np.testing.assert_allclose(*both, rtol=1e-14, atol=0, err_msg=name)
    computed = sum(len(stage) for stage in Staged.of(expressions).stages)
    assert computed > 50
