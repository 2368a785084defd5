from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.data.formats.times import parse_times, time_of_number
from margincast.data.schemas import TIMESTAMP

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# 1973-03-03 to 2286-11-20: where the size of a number tells its unit
MICROSECONDS = st.integers(10**14, 10**16 - 1)


def parsed(*cells, round_up=False):
    times = parse_times(pl.Series(cells, dtype=pl.String), round_up=round_up)
    assert times.dtype == TIMESTAMP
    return times.to_list()


def at(microseconds):
    return EPOCH + microseconds * MICROSECOND


def decimal(number, places):
    """Write ``number / 10**places`` with all its decimals, without a float."""
    digits = str(number).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}"


def written(microseconds):
    """All ways in which sources write a time."""
    moment = at(microseconds)
    return {
        "us": str(microseconds),
        "s with a fraction": decimal(microseconds, 6),
        "ms with a fraction": decimal(microseconds, 3),
        "us with a zero": f"{microseconds}.0",
        "ISO Z": f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z",
        "ISO +00:00": moment.isoformat(),
        "ISO +0000": f"{moment:%Y-%m-%d %H:%M:%S.%f}+0000",
        "ISO shifted": (moment + timedelta(hours=9)).isoformat().replace("+00:00", "+09:00"),
        "no zone": f"{moment:%Y-%m-%d %H:%M:%S.%f}",
        "no zone T": f"{moment:%Y-%m-%dT%H:%M:%S.%f}",
        "UTC": f"{moment:%Y-%m-%d %H:%M:%S.%f} UTC",
    }


@given(MICROSECONDS, st.booleans())
def test_a_time_is_read_back_from_every_way_of_writing_it(microseconds, round_up):
    cells = written(microseconds)
    times = parsed(*cells.values(), round_up=round_up)
    assert dict(zip(cells, times, strict=True)) == dict.fromkeys(cells, at(microseconds))


@given(MICROSECONDS)
def test_coarser_units_are_read_at_their_start(microseconds):
    seconds, milliseconds = microseconds // 10**6, microseconds // 10**3
    day = at(microseconds).replace(hour=0, minute=0, second=0, microsecond=0)
    minute = at(microseconds).replace(second=0, microsecond=0)
    assert parsed(
        str(seconds), str(milliseconds), f"{day:%Y-%m-%d}", f"{minute:%Y-%m-%d %H:%M}"
    ) == [at(seconds * 10**6), at(milliseconds * 10**3), day, minute]


# nanoseconds since 1970 fit 64 bits until 2262
@given(st.integers(10**17, 9 * 10**18))
def test_nanoseconds_round_down_or_up_never_to_the_nearest(nanoseconds):
    moment = at(nanoseconds // 1000)
    cells = (
        str(nanoseconds),
        decimal(nanoseconds, 9),
        decimal(nanoseconds, 6),
        f"{moment:%Y-%m-%dT%H:%M:%S.%f}{nanoseconds % 1000:03}Z",
    )
    assert parsed(*cells) == [moment] * 4
    assert parsed(*cells, round_up=True) == [at(-(-nanoseconds // 1000))] * 4


def test_digits_beyond_the_nanosecond_count_when_rounding_up():
    cell = "1690848000.0000010000000001"
    assert parsed(cell) == [at(1_690_848_000_000_001)]
    assert parsed(cell, round_up=True) == [at(1_690_848_000_000_002)]


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "soon",
        "0",
        "-1690848000000",
        "20230801",  # a date without hyphens, not August 1970
        "1.69085E+12",  # what a spreadsheet left of a time
        "1.690848e+09",
        "nan",
        "inf",
        "1690848000000ms",
        "1_690_848_000",
        "2023-13-01",
        "2023-02-29 00:00:00",
        "01/08/2023 00:00",
        "2023-08-01T25:00:00Z",
    ],
)
def test_what_is_no_time_is_null(cell):
    sound = "1690848000000"
    assert parsed(sound, cell, None) == [at(1_690_848_000_000_000), None, None]
    assert parsed(cell, round_up=True) == [None]


def test_a_column_may_hold_several_ways_of_writing():
    cells = list(written(1_690_848_000_123_456).values())
    assert parsed(*cells, None, "x", "1690848000") == [
        *[at(1_690_848_000_123_456)] * len(cells),
        None,
        None,
        at(1_690_848_000_000_000),
    ]


def number_column(values, dtype, *, round_up=False):
    frame = pl.DataFrame({"t": pl.Series(values).cast(dtype)})
    times = frame.select(time_of_number(pl.col("t"), round_up=round_up)).to_series()
    assert times.dtype == TIMESTAMP
    return times.to_list()


@given(st.integers(10**17, 9 * 10**18), st.booleans())
def test_columns_of_whole_numbers_are_read_as_their_text_is(nanoseconds, round_up):
    for unit in (1, 10**3, 10**6, 10**9):
        number = nanoseconds // unit
        for dtype in (pl.Int64, pl.String):
            read = number_column([number, None, 0, 20230801], dtype, round_up=round_up)
            assert read == [*parsed(str(number), round_up=round_up), None, None, None]


# a float of seconds tells microseconds until 2106, when it needs a bit more
@given(st.integers(10**14, 4 * 10**15))
def test_columns_of_floats_are_read_to_the_nearest_microsecond(microseconds):
    assert number_column([microseconds / 10**6, None], pl.Float64) == [at(microseconds), None]
    assert number_column([microseconds / 10**3], pl.Float64) == [at(microseconds)]
