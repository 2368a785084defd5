"""A column that changed its type over the years does not make a contract unreadable."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.data.drift import with_common_types
from margincast.data.files import TableFile

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
BERLIN = pl.Datetime("us", "Europe/Berlin")


def together(*values: pl.Series) -> list[object]:
    frames = {str(i): pl.LazyFrame({"x": value}) for i, value in enumerate(values)}
    return pl.concat(with_common_types(frames), how="diagonal_relaxed").collect()["x"].to_list()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pl.Series([1]), pl.Series([1.5]), [1.0, 1.5]),
        (pl.Series([2**63], dtype=pl.UInt64), pl.Series([-1]), [2**63, -1]),
        (pl.Series([None], dtype=pl.Null), pl.Series(["a"]), [None, "a"]),
        (pl.Series(["a"]), pl.Series([1]), ["a", "1"]),
        (pl.Series([True]), pl.Series([1]), ["true", "1"]),
        (pl.Series([NOON]), pl.Series([5]), ["2024-01-01 12:00:00.000000+00:00", "5"]),
        (pl.Series([timedelta(hours=1)]), pl.Series([1]), ["PT1H", "1"]),
        (pl.Series([b"\xff\x00"]), pl.Series(["a"]), ["ff00", "a"]),
        (pl.Series([NOON]), pl.Series([NOON], dtype=BERLIN), [NOON, NOON]),
        (pl.Series([NOON]), pl.Series([NOON.replace(tzinfo=None)]), [NOON, NOON]),
        (pl.Series([date(2024, 1, 1)]), pl.Series([NOON]), [NOON.replace(hour=0), NOON]),
        (pl.Series([[1]]), pl.Series([[1.5]]), [[1.0], [1.5]]),
    ],
)
def test_what_files_say_is_kept_under_a_common_type(one, other, expected):
    assert together(one, other) == expected
    assert together(other, one) == expected[::-1]


def test_rows_of_parts_whose_types_drifted_are_read(tmp_path):
    for day, flag in ((1, True), (2, "maker"), (3, None)):
        pl.DataFrame({"ts": [NOON.replace(day=day)], "price": [1.0], "flag": [flag]}).write_parquet(
            tmp_path / f"{day}.parquet"
        )
    paths = tuple(tmp_path / f"{day}.parquet" for day in (1, 2, 3))
    frame = TableFile("BTC", paths, None).scan().collect()
    assert frame["flag"].to_list() == ["true", "maker", None]
    assert frame["ts"].is_sorted()


def test_lists_and_text_are_refused_with_their_files(tmp_path):
    for name, value in (("one", [[1]]), ("two", ["a"])):
        pl.DataFrame({"ts": [NOON], "x": value}).write_parquet(tmp_path / f"{name}.parquet")
    file = TableFile("BTC", (tmp_path / "one.parquet", tmp_path / "two.parquet"), None)
    with pytest.raises(
        InputError,
        match=r"column 'x' is List\(Int64\) in .*one\.parquet and String in .*two\.parquet",
    ):
        file.scan()


@pytest.mark.parametrize("name", ["s[1]", "what?", "all*"])
def test_a_file_is_read_by_its_name_not_by_a_pattern(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    pl.DataFrame({"ts": [NOON]}).write_parquet(folder / "BTC.parquet")
    (tmp_path / "s1").mkdir(exist_ok=True)
    pl.DataFrame({"ts": [NOON, NOON]}).write_parquet(tmp_path / "s1" / "BTC.parquet")
    assert TableFile("BTC", (folder / "BTC.parquet",), None).scan().collect().height == 1
