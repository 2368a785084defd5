"""A kept feature is the same to the last bit as a computed one, or it is computed."""

import os
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from errno import EACCES, EFBIG, EISDIR, ELOOP, ENOTDIR
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.quality import Finding
from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.features.cache import FeatureCache, Line
from margincast.features.cache_entries import PARTIAL, PARTIAL_SECONDS, UNREAD_DAYS, entries_of
from margincast.features.cached_lines import kept_states
from margincast.features.column_digest import digest_of_frame, digest_of_series
from margincast.features.library import LIBRARY, Window, feature
from margincast.features.pipeline import FeatureTable, build_features
from margincast.specs.features import FeatureSet
from margincast.specs.loading import validate_spec
from margincast.specs.training import Data
from margincast.training.market import read_market

BOOK = [
    {"function": "relative_spread", "statistics": ["last", "mean"], "windows": ["5m"]},
    {"function": "imbalance", "values": [1, 5], "statistics": ["last"]},
    {"function": "order_flow_imbalance", "values": [5], "statistics": ["mean"], "windows": ["5m"]},
]
TRADES = [
    {"function": "trade_count", "windows": ["5m"]},
    {"function": "signed_flow_imbalance", "windows": ["5m", "1h"]},
]
SYMBOLS = ("SIM-BTC", "SIM-ETH")
KEY = "0123456789abcdef" * 4
LINES = len(SYMBOLS) * (len(BOOK) + len(TRADES))


def feature_set(**sections: object) -> FeatureSet:
    raw = {
        "name": "test",
        "description": "test",
        "grid": {"interval": "1m", "warm_up": "1h", "minimum_present": 0.5, "leader": "SIM-BTC"},
        "bars": [{"function": "realised_volatility", "windows": ["10m"]}],
        "book": BOOK,
        "trades": TRADES,
        "market": [{"function": "leader", "columns": ["realised_volatility_10m"]}],
    }
    return validate_spec(raw | sections, FeatureSet, "test")


def grid(**changes: object) -> dict[str, object]:
    return feature_set().grid.model_dump(mode="json") | changes


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    parameters = MarketParameters(contracts=select_contracts(SYMBOLS))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    write_market(simulate_market(parameters, days=1, seed=3, start=start), folder)
    return folder


@pytest.fixture
def market(simulated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(simulated, tmp_path / "market"))


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


def build(
    market: Path, cache: FeatureCache | None, features: FeatureSet, known_after: str = "1s"
) -> FeatureTable:
    data = {
        "bars": ["bars"], "book": ["book"], "trades": ["trades"], "book_known_after": known_after
    }  # fmt: skip
    spec = validate_spec(data, Data, "data")
    return build_features(features, read_market(spec, features, market).sources, cache)


def again(cache: FeatureCache) -> FeatureCache:
    return FeatureCache(cache.folder)


def require_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Same columns in the same order, same nulls, same bits."""
    assert list(one.columns) == list(other.columns)
    assert one["ts"].equals(other["ts"])
    digests = [digest_of_frame(pl.from_pandas(table.drop(columns="ts"))) for table in (one, other)]
    assert digests[0] == digests[1]


# What is kept comes back ----------------------------------------------------------------------


def test_a_kept_build_is_the_fresh_one_to_the_last_bit(market, cache):
    fresh = build(market, None, feature_set())
    cold = build(market, cache, feature_set())
    assert (cache.reused, cache.built) == (0, LINES)
    warm = again(cache)
    kept = build(market, warm, feature_set())
    assert (warm.reused, warm.built) == (LINES, 0)
    require_same(cold.frame, fresh.frame)
    require_same(kept.frame, fresh.frame)
    assert kept.findings == cold.findings == fresh.findings
    assert fresh.frame["imbalance_1_last"].notna().mean() > 0.9


@given(
    st.lists(
        st.one_of(st.none(), st.floats(width=64), st.just(-0.0), st.just(float("nan"))),
        max_size=50,
    )
)
@settings(max_examples=50, deadline=None)
def test_any_floats_come_back_bit_by_bit(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("floats")
    frame = pl.DataFrame({"a": pl.Series(values, dtype=pl.Float64), "b": range(len(values))})
    line = Line("book", ("a", "b"), KEY)
    for expected in ("built", "reused"):
        cache = FeatureCache(folder)
        (got,) = cache.lines([line], lambda _missing: frame)
        assert getattr(cache, expected) == 1
        assert got.schema == frame.schema
        assert got["a"].is_null().to_list() == frame["a"].is_null().to_list()
        bits = [
            series.fill_null(0.0).to_numpy().view(np.int64) for series in (got["a"], frame["a"])
        ]
        np.testing.assert_array_equal(*bits)


def test_states_in_memory_are_kept_by_their_content(cache):
    rows = pl.DataFrame({"strike": [1.0, None], "option_type": ["call", None]})

    def doubled(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.select(pl.col("strike") * 2, count=pl.lit(3, pl.Int64))

    module = "margincast.features.alignment"
    for table, tenors in [(rows, [7]), (rows, [7]), (rows, [30]), (rows.reverse(), [7])]:
        got = kept_states(
            cache, "options", table, build=doubled, details={"tenors": tenors}, module=module
        )
        assert got.equals(doubled(table))
    assert (cache.reused, cache.built) == (1, 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pl.Series([1.0, None]), pl.Series([1.0, 0.0])),
        (pl.Series([1.0, None]), pl.Series([None, 1.0])),
        (pl.Series([0.0]), pl.Series([-0.0])),
        (pl.Series([1.0, float("nan")]), pl.Series([1.0, None])),
        (pl.Series([1], dtype=pl.Int64), pl.Series([1], dtype=pl.Int32)),
        (pl.Series([1, 2]), pl.Series([2, 1])),
        (pl.Series(["ab", "c"]), pl.Series(["a", "bc"])),
        (pl.Series(["", "c"]), pl.Series([None, "c"])),
        (pl.Series([True, False]), pl.Series([False, True])),
        (pl.Series(["a", "b"], dtype=pl.Categorical), pl.Series(["a", "c"], dtype=pl.Categorical)),
        (pl.Series(["a"], dtype=pl.Enum(["a", "b"])), pl.Series(["a"], dtype=pl.Enum(["b", "a"]))),
        (pl.Series(["a"], dtype=pl.Categorical), pl.Series(["a"])),
        (pl.Series([None]), pl.Series([None, None])),
    ],
)
def test_columns_that_differ_have_other_digests(one, other):
    assert digest_of_series(one) != digest_of_series(other)
    assert digest_of_series(one) == digest_of_series(pl.concat([one[:1], one[1:]], rechunk=False))


def test_what_lies_below_a_null_does_not_count():
    masked = pl.DataFrame({"a": [1.0, 2.0], "known": [True, False]})
    below = masked.select(pl.when("known").then("a"))["a"]
    assert digest_of_series(below) == digest_of_series(pl.Series([1.0, None]))


def test_categories_count_by_their_text_and_not_by_the_numbers_that_stand_for_them():
    one, other = (
        pl.Series(order, dtype=pl.Categorical(pl.Categories.random())).sort()
        for order in (["put", "call", None], ["call", "put", None])
    )
    assert one.to_list() == other.to_list()
    assert one.to_physical().to_list() != other.to_physical().to_list()
    assert digest_of_series(one) == digest_of_series(other)


@pytest.mark.parametrize(
    "values",
    [
        pl.Series("odd", [[1.0], [2.0]]),
        pl.Series("odd", [{"a": 1}, {"a": 2}]),
        pl.Series("odd", [b"\xff", b""]),
        pl.Series("odd", [Decimal("1.5"), None]),
        pl.Series("odd", [object(), object()], dtype=pl.Object),
    ],
)
def test_what_has_no_digest_is_computed_each_time_and_the_column_is_named(cache, values):
    rows = pl.DataFrame([pl.Series("a", [1.0, 2.0]), values])
    for _ in range(2):
        got = kept_states(
            cache, "options", rows, build=lambda rows: rows.select("a"), details={},
            module="margincast.features.alignment",
        )  # fmt: skip
        assert got["a"].to_list() == [1.0, 2.0]
    assert (cache.reused, cache.built) == (0, 2)
    assert f"2 not kept: column 'odd' is {values.dtype}, which has no digest" in cache.describe()
    assert not list(entries_of(cache.folder))


# A change rebuilds what it touches ------------------------------------------------------------


def test_a_line_added_is_the_only_one_built(market, cache):
    build(market, cache, feature_set())
    added = {"function": "log_depth_usd", "values": [5], "statistics": ["last"]}
    wider = feature_set(book=[BOOK[0], added, *BOOK[1:]])
    warm = again(cache)
    kept = build(market, warm, wider)
    # a line is not taken for another of the same module
    assert (warm.reused, warm.built, warm.damaged) == (LINES, len(SYMBOLS), 0)
    require_same(kept.frame, build(market, None, wider).frame)


def test_a_line_taken_out_or_moved_builds_nothing(market, cache):
    build(market, cache, feature_set())
    narrower = feature_set(book=BOOK[::-1], trades=TRADES[1:], description="other", market=[])
    warm = again(cache)
    kept = build(market, warm, narrower)
    assert warm.built == 0
    require_same(kept.frame, build(market, None, narrower).frame)


@pytest.mark.parametrize(
    ("place", "kept_rows", "rebuilt"),
    [
        ("bars/SIM-ETH", slice(5, None), 0),
        # books and trades are reduced as far as bars go
        ("bars/SIM-ETH", slice(-700), len(BOOK) + len(TRADES)),
        # those of the leader as far as bars of any contract do
        ("bars/SIM-BTC", slice(-700), 0),
        ("trades/SIM-ETH", slice(-700), len(TRADES)),
        ("book/SIM-ETH", slice(-700), len(BOOK) + len(TRADES)),
        ("book/SIM-BTC", slice(-700), len(BOOK) + len(TRADES)),
    ],
)
def test_other_data_of_a_contract_rebuilds_what_reads_it(market, cache, place, kept_rows, rebuilt):
    build(market, cache, feature_set())
    path = market / f"{place}.parquet"
    pl.read_parquet(path)[kept_rows].write_parquet(path)
    warm = again(cache)
    kept = build(market, warm, feature_set())
    assert (warm.reused, warm.built) == (LINES - rebuilt, rebuilt)
    require_same(kept.frame, build(market, None, feature_set()).frame)


@pytest.mark.parametrize(
    ("changed", "known_after"),
    [
        (feature_set(grid=grid(minimum_present=0.9)), "1s"),
        (feature_set(), "2s"),
    ],
)
def test_another_grid_or_delay_rebuilds_all(market, cache, changed, known_after):
    build(market, cache, feature_set())
    warm = again(cache)
    kept = build(market, warm, changed, known_after)
    assert (warm.reused, warm.built) == (0, LINES)
    require_same(kept.frame, build(market, None, changed, known_after).frame)


def test_the_warm_up_and_the_leader_rebuild_nothing(market, cache):
    build(market, cache, feature_set())
    warm = again(cache)
    build(market, warm, feature_set(grid=grid(warm_up="2h", leader="SIM-ETH")))
    assert warm.built == 0


@pytest.fixture
def planted() -> Iterator[str]:
    @feature("trades", "number")
    def planted_trade_count(window: Window) -> pl.Expr:
        return pl.col("trade_count").rolling_sum(window.rows, min_samples=window.minimum)

    yield "planted_trade_count"
    del LIBRARY["trades", "planted_trade_count"]


def test_a_function_from_outside_the_package_is_always_computed(market, cache, planted):
    features = feature_set(trades=[*TRADES, {"function": planted, "windows": ["5m"]}])
    build(market, cache, features)
    warm = again(cache)
    kept = build(market, warm, features)
    assert (warm.reused, warm.built) == (LINES, len(SYMBOLS))
    assert warm.describe().endswith("; 2 not kept: their function is not part of the package")
    require_same(kept.frame, build(market, None, features).frame)


def test_nothing_is_kept_of_data_that_changed_after_its_digest(market, cache):
    features = feature_set()
    spec = validate_spec({"book": ["book"], "book_known_after": "1s"}, Data, "data")
    sources = read_market(spec, feature_set(trades=[]), market).sources
    os.utime(market / "book" / "SIM-ETH.parquet", (1, 1))
    build_features(feature_set(trades=[]), sources, cache)
    assert len(list(entries_of(cache.folder))) == len(features.book)  # those of the other contract
    assert "3 not kept: their files were written again while they were read" in cache.describe()


def test_nothing_is_kept_of_rows_whose_files_are_not_known(market, cache):
    spec = validate_spec({"book": ["book"], "book_known_after": "1s"}, Data, "data")
    sources = read_market(spec, feature_set(trades=[]), market).sources
    build_features(feature_set(trades=[]), replace(sources, origins={}), cache)
    assert "6 not kept: which files they come from is not known" in cache.describe()
    assert not list(entries_of(cache.folder))


# Reading without keeping, and letting go ---------------------------------------------------------


def test_a_cache_that_is_read_only_is_read_and_never_added_to(market, cache):
    nothing = FeatureCache(cache.folder.with_name("nothing"), read_only=True)
    fresh = build(market, nothing, feature_set())
    assert not nothing.folder.exists()
    assert nothing.describe() == f"0 of {LINES} lines of features read from the cache"
    build(market, cache, feature_set(trades=[]))
    left = cache.folder / "book" / f"{KEY}.parquet.1{PARTIAL}"
    left.write_bytes(b"half")
    for path in (left, *(entry.path for entry in entries_of(cache.folder))):
        grow_old(path)
    before = set(cache.folder.rglob("*"))
    reader = FeatureCache(cache.folder, read_only=True)
    require_same(build(market, reader, feature_set()).frame, fresh.frame)
    assert (reader.reused, reader.built) == (len(SYMBOLS) * len(BOOK), len(SYMBOLS) * len(TRADES))
    assert set(cache.folder.rglob("*")) == before


def grow_old(path: Path, days: float = UNREAD_DAYS + 1) -> None:
    past = time.time() - days * 86_400
    os.utime(path, (past, past))


def test_a_build_removes_what_no_build_read_for_long_and_says_so(market, cache):
    build(market, cache, feature_set())
    old = {entry.path: entry.size_bytes for entry in entries_of(cache.folder)}
    other = cache.folder / "book" / "notes.parquet"
    other.write_bytes(b"not ours")
    for path in (*old, other):
        grow_old(path)
    warm = again(cache)
    kept = build(market, warm, feature_set(trades=[]))
    left = {entry.path for entry in entries_of(cache.folder)}
    assert {path.parent.name for path in left} == {"book"}
    assert len(left) == warm.reused == len(SYMBOLS) * len(BOOK)
    megabytes = sum(size for path, size in old.items() if path not in left) / 1e6
    removed = len(SYMBOLS) * len(TRADES)
    assert warm.describe() == (
        f"6 of 6 lines of features read from the cache; {removed} entries, {megabytes:,.1f} MB "
        "not read for 30 days removed"
    )
    assert other.exists()
    require_same(kept.frame, build(market, None, feature_set(trades=[])).frame)


def test_an_entry_younger_than_that_stays(market, cache):
    build(market, cache, feature_set())
    for entry in entries_of(cache.folder):
        grow_old(entry.path, UNREAD_DAYS - 0.1)
    warm = again(cache)
    build(market, warm, feature_set(trades=[]))
    assert len(list(entries_of(cache.folder))) == LINES
    assert not warm.removed.count


# Damage ---------------------------------------------------------------------------------------

FRAME = pl.DataFrame(
    {
        "ts": pl.datetime_range(
            datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 19, tzinfo=UTC), "1m",
            eager=True, time_unit="us",
        ),
        "a": pl.Series([None if k % 7 == 0 else k / 3 for k in range(20)], dtype=pl.Float64),
    }
)  # fmt: skip
LINE = Line("book", ("ts", "a"), KEY)


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = FeatureCache(tmp_path_factory.mktemp("entry"))
    cache.lines([LINE], lambda _missing: FRAME)
    (only,) = entries_of(cache.folder)
    return only.path


def get(folder: Path, line: Line = LINE) -> tuple[pl.DataFrame, FeatureCache]:
    cache = FeatureCache(folder)
    (frame,) = cache.lines([line], lambda _missing: FRAME)
    return frame, cache


@given(place=st.integers(0, 10**9), flip=st.integers(1, 255))
@settings(max_examples=400, deadline=None)
def test_a_changed_byte_never_changes_a_value(entry, tmp_path_factory, place, flip):
    folder = tmp_path_factory.getbasetemp() / "flipped"
    content = bytearray(entry.read_bytes())
    content[place % len(content)] ^= flip
    path = folder / "book" / entry.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    frame, cache = get(folder)
    assert digest_of_frame(frame) == digest_of_frame(FRAME)
    assert cache.reused + cache.damaged == 1
    if cache.damaged:
        assert get(folder)[1].reused == 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_entry_is_built_again_and_counted(entry, tmp_path, share):
    path = tmp_path / "book" / entry.name
    path.parent.mkdir()
    path.write_bytes(entry.read_bytes()[: int(share * entry.stat().st_size)])
    frame, cache = get(tmp_path)
    assert frame.equals(FRAME)
    assert (cache.damaged, cache.built) == (1, 1)
    (finding,) = cache.take_findings()
    assert finding == Finding(
        "cache", "built features", "entry damaged or not what its name says", 1, 1,
        "built again and replaced", severity="warning",
    )  # fmt: skip
    assert cache.take_findings() == []
    assert get(tmp_path)[1].reused == 1


def test_an_entry_below_the_name_of_another_is_built_again(entry, tmp_path):
    other = Line("book", LINE.columns, KEY[::-1])
    path = tmp_path / "book" / f"{other.key}.parquet"
    path.parent.mkdir()
    shutil.copyfile(entry, path)
    _, cache = get(tmp_path, other)
    assert cache.damaged == 1


@pytest.mark.parametrize("columns", [("ts", "b"), ("a", "ts"), ("ts",)])
def test_an_entry_with_other_columns_is_built_again(entry, tmp_path, columns):
    path = tmp_path / "book" / entry.name
    path.parent.mkdir()
    shutil.copyfile(entry, path)
    cache = FeatureCache(tmp_path)
    cache.lines([Line("book", columns, KEY)], lambda _missing: FRAME.with_columns(b="a"))
    assert cache.damaged == 1


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def no_permission(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    path.touch()
    path.chmod(0)


@pytest.mark.parametrize(
    ("obstacle", "number"),
    [(a_folder, EISDIR), (a_link_to_itself, ELOOP), (no_permission, EACCES)],
)
def test_an_entry_that_cannot_be_read_is_not_called_damaged_and_is_left(
    tmp_path, entry, obstacle, number
):
    path = tmp_path / "book" / entry.name
    path.parent.mkdir()
    obstacle(path)
    before = path.lstat()
    frame, cache = get(tmp_path)
    assert frame.equals(FRAME)
    assert (cache.built, cache.damaged, cache.unreadable) == (1, 0, 1)
    (finding,) = cache.take_findings()
    assert finding == Finding(
        "cache", "built features", f"entry cannot be read: {os.strerror(number)}", 1, 1,
        "built again, and the entry left as it is", severity="warning",
    )  # fmt: skip
    assert f"1 cannot be read ({os.strerror(number)}), built again" in cache.describe()
    assert "damaged" not in cache.describe()
    assert path.lstat() == before
    other = Line("book", LINE.columns, KEY[::-1])
    assert get(tmp_path, other)[1].built == get(tmp_path, other)[1].reused == 1


def test_damage_shows_among_the_findings_of_a_build(market, cache):
    fresh = build(market, cache, feature_set())
    broken = next(entries_of(cache.folder)).path
    broken.write_bytes(b"PAR1")
    warm = again(cache)
    mended = build(market, warm, feature_set())
    require_same(mended.frame, fresh.frame)
    assert (warm.built, warm.damaged) == (1, 1)
    assert [finding.table for finding in mended.findings if finding.severity == "warning"] == [
        "cache"
    ]


# A folder that cannot be written --------------------------------------------------------------


def require_reported_once(cache: FeatureCache, lines: list[Line]) -> None:
    for line in lines:
        (frame,) = cache.lines([line], lambda _missing: FRAME)
        assert frame.equals(FRAME)
    (finding,) = cache.take_findings()
    assert finding.what == f"cannot be written: {cache.refusal}"
    assert cache.take_findings() == []
    assert not list(cache.folder.rglob(f"*{PARTIAL}"))
    assert not list(entries_of(cache.folder))
    assert "cannot be written" in cache.describe()


def test_a_folder_that_cannot_be_made_is_reported_once(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    cache = FeatureCache(tmp_path / "file" / "cache")
    require_reported_once(cache, [LINE, Line("trades", LINE.columns, KEY)])
    assert cache.refusal == f"{cache.folder}: {os.strerror(ENOTDIR)}"


def test_a_full_disk_is_reported_once_and_leaves_nothing_half_written(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    cache = FeatureCache(tmp_path / "cache")
    # no file may grow beyond this: writing fails in the middle of an entry
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        require_reported_once(cache, [LINE, Line("trades", LINE.columns, KEY)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert cache.refusal == f"{cache.folder}: {os.strerror(EFBIG)}"


def test_what_a_killed_writer_left_is_removed_once_it_is_old(cache):
    folder = cache.folder / "book"
    folder.mkdir(parents=True)
    young, old = (folder / f"{KEY}.parquet.{number}{PARTIAL}" for number in (1, 2))
    for path in (young, old):
        path.write_bytes(b"half")
    past = time.time() - PARTIAL_SECONDS - 1
    os.utime(old, (past, past))
    again(cache)
    assert young.exists()
    assert not old.exists()


def test_git_ignores_a_folder_that_the_cache_made_and_no_other(tmp_path, entry):
    _, made = get(tmp_path / "made")
    assert (made.folder / ".gitignore").read_text(encoding="utf-8") == "*\n"
    get(tmp_path)
    assert not (tmp_path / ".gitignore").exists()
