"""A kept feature is named by all that it hangs on: any other code, library or option, another name.

What runs is a copy of the package's source, so that a module can be edited; what is built through
it is a stand-in for the reduction, so that only names are tested here.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from margincast.data.bars import BarTable, regular_bars
from margincast.data.states import StateTable
from margincast.features.cache import FeatureCache
from margincast.features.cache_entries import entries_of
from margincast.features.cached_lines import reduced_lines
from margincast.features.code_version import (
    ROOT,
    RUNNING,
    SourceCode,
    Unkept,
    code_version,
    process_start,
)
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.specs.features import Feature, FeatureSet
from margincast.specs.loading import validate_spec

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
UTC_TIME = pl.Datetime("us", "UTC")
BOOK = {
    "relative_spread": {"statistics": ["last"]},
    "imbalance": {"values": [5], "statistics": ["last"]},
    "order_flow_imbalance": {"values": [5], "statistics": ["mean"], "windows": ["2h"]},
}
TRADES = {
    "trade_count": {"windows": ["2h"]},
    "signed_flow_imbalance": {"windows": ["2h"]},
}
ALL = {*BOOK, *TRADES}
COARSE_SECONDS = 0.03
"""A file system's clock ticks this coarsely at most."""


def feature_set(tenors: Sequence[str] = ("1d",), **sections: object) -> FeatureSet:
    raw = {
        "name": "test",
        "description": "test",
        "grid": {"interval": "1h", "warm_up": "2h", "minimum_present": 0.5, "leader": "BTCUSDT"},
        "standing": {"options": "3h"},
        "book": [{"function": name, **BOOK[name]} for name in BOOK],
        "trades": [{"function": name, **TRADES[name]} for name in TRADES],
        "options": [{"function": "atm_volatility", "windows": list(tenors)}],
    }
    return validate_spec(raw | sections, FeatureSet, "test")


def copy_of_the_source(folder: Path) -> Path:
    without = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT, folder / "source" / "margincast", ignore=without))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package's source, which tests add modules and remarks to."""
    return copy_of_the_source(tmp_path_factory.mktemp("edited"))


@pytest.fixture
def own_source(tmp_path: Path) -> Path:
    """A copy of one test's own, which may be destroyed."""
    return copy_of_the_source(tmp_path)


def process(root: Path) -> SourceCode:
    """A process that begins now and runs the source as it is now."""
    return SourceCode(root, time.time(), root.stat().st_ino)


def edit(path: Path) -> None:
    """Put other code in a file's place that is as old as the file, as ``cp -p`` or rsync do."""
    written = path.stat().st_mtime
    newer = path.with_suffix(".new")
    newer.write_text(path.read_text(encoding="utf-8") + "\n# other code\n", encoding="utf-8")
    os.utime(newer, (written, written))
    time.sleep(COARSE_SECONDS)
    newer.replace(path)


def names_built(cache: FeatureCache) -> set[str]:
    """Functions over books and trades whose lines are computed and not read back."""
    made: set[str] = set()

    def reduce(entries: Sequence[Feature]) -> pl.DataFrame:
        made.update(entry.function for entry in entries)
        columns = {entry.function: pl.Series([1.0]) for entry in entries}
        return pl.DataFrame({"ts": pl.Series([START], dtype=UTC_TIME), **columns})

    for family in ("book", "trades"):
        lines = reduced_lines(
            cache, family, feature_set(), origins=[], details={},
            names_of=lambda entries: [entry.function for entry in entries],
        )  # fmt: skip
        lines.completed(reduce(lines.missing) if lines.missing else None)
    return made


# Code -----------------------------------------------------------------------------------------


def callers() -> list[str]:
    """Modules that say what is to be kept, whatever they are called."""
    found = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        for text in [path.read_text(encoding="utf-8")]
        if "= reduced_lines(" in text or "= kept_states(" in text
    ]
    assert found
    return [*found, "features/cached_lines.py"]


@pytest.mark.parametrize(
    ("edited", "moves_book", "moves_trades"),
    [
        *((name, set(BOOK), set(TRADES)) for name in callers()),
        ("features/order_book/reduction.py", set(BOOK), set(TRADES)),
        ("features/order_book/snapshots.py", set(BOOK), set(TRADES)),
        ("data/book.py", set(BOOK), set(TRADES)),
        ("data/schemas.py", set(BOOK), set(TRADES)),
        ("core/time.py", set(BOOK), set(TRADES)),
        # trades meet the whole of the order book's functions where they are executed
        ("features/order_book/spread.py", {"relative_spread"}, set(TRADES)),
        ("features/order_book/depth.py", {"imbalance"}, set(TRADES)),
        ("features/order_book/flow.py", {"order_flow_imbalance"}, set(TRADES)),
        ("features/trade_flow/reduction.py", set(), set(TRADES)),
        ("data/trades.py", set(), set(TRADES)),
        ("features/trade_flow/activity.py", set(), {"trade_count"}),
        ("features/trade_flow/pressure.py", set(), {"signed_flow_imbalance"}),
        ("features/volatility/realised.py", set(), set()),
        ("features/market.py", set(), set()),
        ("models/scale.py", set(), set()),
    ],
)
def test_code_rebuilds_the_lines_that_run_through_it(
    source, tmp_path, edited, moves_book, moves_trades
):
    folder = tmp_path / "cache"
    assert names_built(FeatureCache(folder, source=process(source))) == ALL
    assert names_built(FeatureCache(folder, source=process(source))) == set()
    edit(source / edited)
    rebuilt = names_built(FeatureCache(folder, source=process(source)))
    assert rebuilt == moves_book | moves_trades


def chain() -> pl.DataFrame:
    """One snapshot of options of four expiries at one volatility."""
    strikes = 100 * np.exp(np.linspace(-0.4, 0.4, 21))
    rows = [
        (f"{days}-{strike}-{kind}", kind, strike, START + timedelta(days=days), 0.4 + days / 50)
        for days in (1, 4, 10, 20)
        for strike in strikes
        for kind in ("call", "put")
    ]
    names = ["instrument", "option_type", "strike", "expiry", "implied_volatility"]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col("expiry").cast(UTC_TIME),
        pl.lit(START + 4 * HOUR, UTC_TIME).alias("ts"),
        pl.lit(START + 4 * HOUR, UTC_TIME).alias("known_at"),
        pl.lit(100.0).alias("underlying_price"),
    )


def surface(cache: FeatureCache | None, tenors: Sequence[str] = ("1d",)) -> list[list[float]]:
    """Volatilities that the pipeline sets beside the leader's bars."""
    raw = pl.DataFrame(
        {
            "ts": [START + number * HOUR for number in range(8)],
            **dict.fromkeys(("open", "high", "low", "close"), np.linspace(100, 101, 8)),
            "volume": np.ones(8),
        },
        schema_overrides={"ts": UTC_TIME},
    )
    bars = BarTable({"BTCUSDT": regular_bars(raw, "BTCUSDT", HOUR)[0]}, HOUR, ())
    sources = Sources(bars, states={"options": StateTable({"BTC": chain()}, ())})
    table = build_features(feature_set(tenors, book=[], trades=[]), sources, cache)
    columns = [f"atm_volatility_{tenor}" for tenor in tenors]
    values = table.frame[columns].dropna().to_numpy()
    assert len(values)
    return values.tolist()


@pytest.mark.parametrize(
    ("edited", "moves"),
    [
        *((name, True) for name in callers()),
        ("features/implied_vol/surface.py", True),
        ("features/implied_vol/svi.py", True),
        ("features/implied_vol/smiles.py", True),
        ("features/order_book/reduction.py", False),
        ("features/calendar.py", False),
    ],
)
def test_code_fits_the_surface_again_that_runs_through_it(source, tmp_path, edited, moves):
    folder = tmp_path / "cache"
    first = surface(FeatureCache(folder, source=process(source)))
    edit(source / edited)
    warm = FeatureCache(folder, source=process(source))
    assert surface(warm) == first
    assert (warm.built, warm.reused) == (int(moves), int(not moves))


def test_a_surface_of_other_tenors_is_another(tmp_path):
    for tenors in (["1d"], ["4d"], ["1d", "4d"], ["4d"]):
        cache = FeatureCache(tmp_path, source=process(ROOT))
        assert surface(cache, tenors) == surface(None, tenors)
    assert (cache.reused, len(list(entries_of(tmp_path)))) == (1, 3)


@pytest.mark.parametrize("line", ["from . import sides", "from .sides import Side"])
def test_a_module_named_from_where_it_stands_counts(source, line):
    (source / "features" / "order_book" / "planted.py").write_text(line, encoding="utf-8")
    modules = ("margincast.features.order_book.planted",)
    before = code_version(modules, (), process(source))
    edit(source / "features" / "order_book" / "sides.py")
    after = code_version(modules, (), process(source))
    assert isinstance(before, str)
    assert isinstance(after, str)
    assert before != after


# Libraries ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "lines", "surfaces"),
    [
        ("numpy.__version__", ALL, 1),
        ("polars.__version__", ALL, 1),
        ("scipy.__version__", set(), 1),
        ("pandas.__version__", set(), 0),
    ],
)
def test_another_version_of_a_library_rebuilds_what_imports_it(
    tmp_path, monkeypatch, version, lines, surfaces
):
    before = FeatureCache(tmp_path, source=process(ROOT))
    names_built(before)
    surface(before)
    monkeypatch.setattr(version, "0.0.1")
    after = FeatureCache(tmp_path, source=process(ROOT))
    assert names_built(after) == lines
    built = after.built
    surface(after)
    assert after.built - built == surfaces


def test_another_python_rebuilds_all(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    names_built(FeatureCache(folder, source=process(ROOT)))
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    assert names_built(FeatureCache(folder, source=process(ROOT))) == ALL


def test_a_library_that_does_not_say_its_version_is_looked_up_or_nothing_is_kept(source):
    planted = source / "features" / "planted.py"
    planted.write_text("import typing_extensions", encoding="utf-8")
    assert not hasattr(sys.modules["typing_extensions"], "__version__")
    module = ("margincast.features.planted",)
    assert isinstance(code_version(module, (), process(source)), str)
    (source / "features" / "nowhere.py").write_text("import not_installed.part", encoding="utf-8")
    module = ("margincast.features.nowhere",)
    assert code_version(module, (), process(source)) == Unkept(
        "the version of the library not_installed is not known"
    )


# Code that is not what runs -------------------------------------------------------------------


def release(root: Path) -> None:
    """Move another release into the place of one; the times of its files do not change."""
    other = root.with_name("other")
    root.rename(root.with_name("before"))
    other.rename(root)


def date_in_the_future(path: Path) -> None:
    later = time.time() + 3600
    os.utime(path, (later, later))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda root: edit(root / "features" / "library.py"),
            "margincast/features/library.py was written after this process began",
        ),
        (
            lambda root: date_in_the_future(root / "features" / "library.py"),
            "margincast/features/library.py is dated in the future",
        ),
        (
            lambda root: (root / "features" / "library.py").unlink(),
            "the package's source cannot be read (FileNotFoundError)",
        ),
        (
            lambda root: (root / "core" / "time.py").write_text("def half(", encoding="utf-8"),
            "the package's source cannot be read (SyntaxError)",
        ),
        (release, "the package was replaced after this process began"),
    ],
)
def test_code_that_changed_since_the_process_began_keeps_nothing_and_says_why(
    own_source, tmp_path, change, reason
):
    shutil.copytree(own_source, own_source.with_name("other"))
    running = process(own_source)
    time.sleep(COARSE_SECONDS)
    change(own_source)
    cache = FeatureCache(tmp_path / "cache", source=running)
    assert names_built(cache) == ALL
    assert not list(entries_of(cache.folder))
    assert cache.describe() == (
        f"0 of {len(ALL)} lines of features read from the cache; {len(ALL)} not kept: {reason}"
    )


def test_what_old_code_computed_is_never_read_by_new_code(own_source, tmp_path):
    """A process begins, its source is replaced by older-looking files, it builds; then another."""
    program = """
import sys
from pathlib import Path
import polars as pl
from margincast.features.cache import FeatureCache
from margincast.features.cached_lines import kept_states
from margincast.features.order_book import spread
print("loaded", flush=True)
sys.stdin.readline()
kept = kept_states(
    FeatureCache(Path(sys.argv[1])), "options", pl.DataFrame({"a": [0.0]}), details={},
    build=lambda rows: rows + getattr(spread, "PLANTED", 1.0),
    module="margincast.features.order_book.spread",
)
print(kept["a"].item())
"""

    def start() -> "subprocess.Popen[str]":
        environment = os.environ | {"PYTHONPATH": str(own_source.parent), "POLARS_MAX_THREADS": "1"}
        started = subprocess.Popen(  # noqa: S603  # this very interpreter
            [sys.executable, "-c", program, str(tmp_path / "cache")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert started.stdout is not None
        assert started.stdout.readline() == "loaded\n"
        return started

    old = start()
    spread = own_source / "features" / "order_book" / "spread.py"
    written = spread.stat().st_mtime
    newer = spread.with_suffix(".new")
    newer.write_text(spread.read_text(encoding="utf-8") + "\nPLANTED = 2.0\n", encoding="utf-8")
    os.utime(newer, (written, written))
    newer.replace(spread)
    assert old.communicate("\n")[0] == "1.0\n"
    for _ in range(2):
        assert start().communicate("\n")[0] == "2.0\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process began")
def test_a_process_began_before_it_loaded_the_package():
    program = (
        "import time; time.sleep(0.5)\n"
        "from margincast.features.code_version import RUNNING, process_start\n"
        "time.sleep(0.1); print(RUNNING.loaded_after, process_start())"
    )
    before = time.time()
    done = subprocess.run(  # noqa: S603  # this very interpreter
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    began, asked_later = map(float, done.stdout.split())
    assert before - COARSE_SECONDS <= began < before + 0.4
    assert asked_later == pytest.approx(began, abs=0.01)


def test_this_process_runs_the_source_that_is_here():
    assert RUNNING.root == ROOT
    assert RUNNING.inode == ROOT.stat().st_ino
    assert RUNNING.loaded_after == pytest.approx(process_start(), abs=0.01)
