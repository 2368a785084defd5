"""What a job says of margins set by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from margincast.jobs.by_hand import overrides_in_force, say_left_out
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.margin_overrides import Wish, end_override, set_override
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

WORKSPACE = Path(__file__).resolve().parents[2]
POLICY = load_spec(WORKSPACE / "serving" / "perp-8h.toml", MarginPolicy)
SCHEDULE = load_spec(WORKSPACE / POLICY.schedule.file, BaseSchedule)
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def place(tmp_path):
    """A workspace whose one override runs for two days, ended after one."""
    ledger = Ledger(tmp_path / LEDGER)
    wish = Wish("raise", 0.08, None, None, None, "head of risk", NOW + 2 * DAY)
    set_override(ledger, POLICY, SCHEDULE, wish, contracts=(), who="desk", why="x", now=NOW)
    end_override(ledger, 1, who="desk", why="over", now=NOW + DAY)
    return tmp_path


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [(-2, 0, False), (-2, 1, True), (0.5, 0.6, True), (1, 3, False)],
)
def test_a_replay_says_what_it_leaves_out(place, capsys, start, end, said):
    say_left_out(place, POLICY, NOW + start * DAY, NOW + end * DAY)
    errors = " ".join(capsys.readouterr().err.split())
    expected = "1 override(s) of perp-8h fell into the period (line(s) 1 of the ledger)"
    assert (expected in errors) == said


def test_a_ledger_that_does_not_hold_says_that_nothing_is_applied(place, capsys):
    path = place / LEDGER
    path.write_bytes(path.read_bytes().replace(b"desk", b"dusk"))
    assert overrides_in_force(place, POLICY, NOW) == ()
    errors = " ".join(capsys.readouterr().err.split())
    assert "no override is applied, because the ledger" in errors
    assert "line 1: it was changed" in errors
