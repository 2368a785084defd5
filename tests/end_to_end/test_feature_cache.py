"""Built features are kept between commands, survive a kill, and do not mind company."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.features.cache_entries import PARTIAL, PARTIAL_SECONDS, entries_of
from margincast.jobs.setting import Setting

LINES = "lines of features read from the cache"
SECONDS = 60


@pytest.fixture(scope="module")
def wanted(workspace: Path, market: Path) -> list[str]:
    """The command whose features come from books and trades of two contracts."""
    spec = workspace / "features" / "demo-1m.toml"
    known = ["--set", "data.book_known_after=0s"]
    return ["features", "build", str(spec), "--data", str(market), *known]


def start(*arguments: object) -> "subprocess.Popen[str]":
    program = "from margincast.cli import main; main()"
    return subprocess.Popen(  # noqa: S603  # this very interpreter
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


def table(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "features.parquet")


@pytest.fixture(scope="module")
def fresh(command, wanted, tmp_path_factory) -> pl.DataFrame:
    out = tmp_path_factory.mktemp("fresh")
    ending = command(*wanted, "--out", out, "--cache", "none")
    assert ending.code == 0, ending.errors
    assert LINES not in ending.errors
    return table(out)


def test_the_second_build_reads_what_the_first_kept(command, wanted, fresh, tmp_path):
    cache = tmp_path / "cache"
    for number, said in ((1, "0 of "), (2, "")):
        ending = command(*wanted, "--out", tmp_path / str(number), "--cache", cache)
        assert ending.code == 0, ending.errors
        (line,) = [text for text in ending.errors.splitlines() if LINES in text]
        reused, _, total = line.split()[:3]
        assert line.startswith(said)
        assert reused == ("0" if number == 1 else total)
        assert table(tmp_path / str(number)).equals(fresh)


def test_a_workspace_keeps_its_features_where_git_ignores_them(
    command, wanted, workspace, tmp_path
):
    assert command(*wanted, "--out", tmp_path).code == 0
    folder = workspace / ".margincast" / "features"
    assert list(entries_of(folder))
    assert (folder / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_the_command_lists_and_clears_a_cache_and_nothing_else(command, wanted, fresh, tmp_path):
    cache = tmp_path / "cache"
    assert command(*wanted, "--out", tmp_path / "out", "--cache", cache).code == 0
    entries = list(entries_of(cache))
    megabytes = sum(entry.size_bytes for entry in entries) / 1e6
    other = cache / "book" / "notes.parquet"
    other.write_bytes(b"not ours")
    half = cache / "book" / f"{entries[0].path.name}.1{PARTIAL}"
    half.write_bytes(b"half")
    listed = command("features", "cache", cache)
    assert listed.code == 0
    assert listed.output.splitlines()[-1].endswith(f"{len(entries)} entries, {megabytes:,.1f} MB")
    assert {line.split(":")[0] for line in listed.output.splitlines()[:-1]} == {"book", "trades"}
    assert len(list(entries_of(cache))) == len(entries)
    cleared = command("features", "cache", cache, "--clear")
    assert "removed, and 1 half-written" in cleared.output
    assert [path for path in cache.rglob("*.parquet*") if path.is_file()] == [other]
    again = command(*wanted, "--out", tmp_path / "again", "--cache", cache)
    assert f"0 of {len(entries)} {LINES}" in again.errors
    assert table(tmp_path / "again").equals(fresh)


def test_the_command_removes_what_no_build_read_for_as_long_as_it_is_told(
    command, wanted, tmp_path
):
    cache = tmp_path / "cache"
    assert command(*wanted, "--out", tmp_path / "out", "--cache", cache).code == 0
    entries = list(entries_of(cache))
    old = [entry for entry in entries if entry.family == "trades"]
    past = time.time() - 3 * 86_400
    for entry in old:
        os.utime(entry.path, (past, past))
    untouched = command("features", "cache", cache, "--older-than", "4d")
    assert untouched.code == 0
    assert untouched.output.startswith(f"{cache}: 0 entries, 0.0 MB not read for 4d removed; ")
    assert len(list(entries_of(cache))) == len(entries)
    pruned = command("features", "cache", cache, "--older-than", "2d")
    assert pruned.code == 0
    megabytes, left = (
        sum(entry.size_bytes for entry in some) / 1e6 for some in (old, entries_of(cache))
    )
    rest = f"{len(entries) - len(old)} entries, {left:,.1f} MB"
    assert pruned.output.splitlines() == [
        f"trades: {len(old)} entries, {megabytes:,.1f} MB",
        f"{cache}: {len(old)} entries, {megabytes:,.1f} MB not read for 2d removed; {rest} left",
    ]
    assert {entry.family for entry in entries_of(cache)} == {"book"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--older-than", "a month"], "--older-than: 'a month' is not a duration"),
        (["--older-than", "30d", "--clear"], "give it or --older-than"),
    ],
)
def test_an_age_that_is_none_or_a_contradiction_is_refused(command, tmp_path, options, words):
    ending = command("features", "cache", tmp_path, *options)
    assert ending.code == 2
    assert words in ending.errors


@pytest.mark.parametrize("text", ["none", "None", "NONE", " none "])
def test_none_is_no_folder_however_it_is_written(workspace, tmp_path, text):
    spec = workspace / "features" / "demo-1m.toml"
    assert Setting.of(spec, None, tmp_path, "name", text).cache is None


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_name_of_a_cache_is_refused(workspace, tmp_path, text):
    spec = workspace / "features" / "demo-1m.toml"
    with pytest.raises(InputError, match="--cache is empty; give a folder, or 'none'"):
        Setting.of(spec, None, tmp_path, "name", text)


@pytest.fixture
def policy(workspace: Path, market: Path, trained) -> list[str]:
    """The command that scores the same data with a champion trained on it."""
    assert trained.ending.code == 0, trained.ending.errors
    return ["score", str(workspace / "serving" / "demo.toml"), "--data", str(market)]


def test_a_score_reads_built_features_and_keeps_none(command, wanted, policy, tmp_path):
    cache = tmp_path / "cache"
    for known in ("nothing", "all"):
        ending = command(*policy, "--out", tmp_path / known, "--cache", cache)
        assert ending.code == 0, ending.errors
        (line,) = [text for text in ending.errors.splitlines() if LINES in text]
        reused, _, total = line.split()[:3]
        assert line == f"{reused} of {total} {LINES}"
        if known == "nothing":
            assert reused == "0"
            # it keeps what the model said of its decisions, but no feature
            built = command(*wanted, "--out", tmp_path / "built", "--cache", cache)
            assert built.code == 0
            assert f"0 of {total} {LINES}" in built.errors
        else:
            assert reused == total
    one, other = (
        pl.read_parquet(tmp_path / known / "margin_levels.parquet") for known in ("nothing", "all")
    )
    assert one.equals(other)


def test_a_cache_that_is_no_folder_is_refused(command, wanted, tmp_path):
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    for arguments in ([*wanted, "--cache", file], ["features", "cache", file]):
        ending = command(*arguments)
        assert ending.code == 2
        assert str(file) in ending.errors


@pytest.mark.slow
def test_a_killed_build_leaves_what_it_finished_and_the_next_goes_on(
    command, wanted, fresh, tmp_path
):
    cache = tmp_path / "cache"
    build = start(*wanted, "--out", tmp_path / "killed", "--cache", cache)
    until = time.monotonic() + SECONDS
    while not list(entries_of(cache)):
        assert time.monotonic() < until, "no entry was written"
        assert build.poll() is None, build.communicate()[1]
    build.kill()
    build.communicate()
    assert build.returncode == -signal.SIGKILL
    finished = len(list(entries_of(cache)))
    # what a kill in the middle of a file leaves: some of its bytes, below its temporary name
    entry = next(entries_of(cache)).path
    half = entry.with_name(f"{entry.name}.1{PARTIAL}")
    half.write_bytes(entry.read_bytes()[:100])
    past = time.time() - PARTIAL_SECONDS - 1
    os.utime(half, (past, past))
    ending = command(*wanted, "--out", tmp_path / "next", "--cache", cache)
    assert f"{finished} of " in ending.errors
    assert not half.exists()
    assert len(list(entries_of(cache))) > finished
    assert table(tmp_path / "next").equals(fresh)


@pytest.mark.slow
def test_builds_at_the_same_time_do_not_disturb_each_other(command, wanted, fresh, tmp_path):
    cache = tmp_path / "cache"
    builds = [start(*wanted, "--out", tmp_path / str(k), "--cache", cache) for k in range(2)]
    for number, build in enumerate(builds):
        errors = build.communicate(timeout=SECONDS)[1]
        assert build.returncode == 0, errors
        assert "damaged" not in errors
        assert table(tmp_path / str(number)).equals(fresh)
    assert not list(cache.rglob(f"*{PARTIAL}"))
    last = command(*wanted, "--out", tmp_path / "last", "--cache", cache)
    entries = len(list(entries_of(cache)))
    assert f"{entries} of {entries} {LINES}" in last.errors
