"""What a table demands of its columns holds for those that may be absent, too."""

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.ingestion.hard_rules import ABSURD, hard_rules
from margincast.data.schemas import SCHEMAS, Schema, check_values

TIME = datetime(2024, 1, 1, tzinfo=UTC)
WITH_NUMBERS = [
    schema for name, schema in SCHEMAS.items() if name not in ("book", "quotes", "options")
]
"""Books have rules of their own, and so have option chains."""


def ruled(schema: Schema) -> list[str]:
    return [*schema.positive, *schema.non_negative, *schema.finite]


def one_row(schema: Schema) -> dict[str, object]:
    texts = {"ts": TIME, "side": "buy"}
    return {name: texts.get(name, 1.0) for name in (*schema.required, *ruled(schema))}


def frame_of(row: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame({name: [row[name]] * 3 for name in row})


def is_refused(frame: pl.DataFrame, schema: Schema) -> bool:
    try:
        check_values(frame, schema, "file")
    except InputError:
        return True
    return False


@given(
    schema=st.sampled_from(WITH_NUMBERS), value=st.floats() | st.none(), place=st.integers(0, 20)
)
def test_reading_and_bringing_in_refuse_the_same_values(schema, value, place):
    """Of a value that a reader refuses the store's rules say that it cannot be, and the reverse."""
    if value is not None and ABSURD <= abs(value) < float("inf"):
        return  # the store also refuses what no market can have had
    names = ruled(schema)
    name = names[place % len(names)]
    frame = frame_of(one_row(schema)).with_columns(
        pl.when(pl.int_range(3) == 1)
        .then(pl.lit(value, dtype=pl.Float64))
        .otherwise(name)
        .alias(name)
    )
    of_value = [
        broken.any()
        for text, broken in hard_rules(schema, frame.columns)
        if text == f"no {name}" or text.startswith(f"{name} is ")
    ]
    broken = frame.select(pl.any_horizontal(of_value)).item()
    assert is_refused(frame, schema) == broken


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5e9])
@pytest.mark.parametrize("column", ["quote_volume", "trade_count", "taker_buy_quote_volume"])
def test_a_column_that_may_be_absent_is_checked_where_it_is_there(column, value):
    bars = SCHEMAS["bars"]
    frame = frame_of(one_row(bars)).with_columns(pl.Series(column, [1.0, None, value]))
    with pytest.raises(InputError, match=rf"'{column}' holds .* row 2 .*zero or above, or nothing"):
        check_values(frame, bars, "file")
    check_values(frame.head(2), bars, "file")
    check_values(frame.drop(column), bars, "file")
    check_values(frame.with_columns(pl.lit(None).alias(column)), bars, "file")


def test_a_column_that_may_be_absent_is_a_number_where_it_is_there():
    bars = SCHEMAS["bars"]
    frame = frame_of(one_row(bars)).with_columns(trade_count=pl.lit("many"))
    with pytest.raises(InputError, match="'trade_count' is String, not a number"):
        check_values(frame, bars, "file")
