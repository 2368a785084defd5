"""No line of the ledger can be edited, removed, inserted or reordered unnoticed."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest

from margincast.core.digest import digest_of
from margincast.core.errors import InputError, LedgerError
from margincast.serving.ledger import FIRST_PREVIOUS_HASH, Ledger

EVIDENCE = "e" * 64


def add(ledger, number):
    return ledger.append(
        who="risk desk",
        what=f"champion of demo: version {number}",
        why=f"backtest {number} passed;\nsecond line, ümlaut",
        evidence_digest=EVIDENCE,
        when=datetime(2025, 10, 10, 21, number, tzinfo=UTC),
    )


@pytest.fixture
def ledger(tmp_path):
    kept = Ledger(tmp_path / "ledger.jsonl")
    for number in range(1, 6):
        add(kept, number)
    return kept


def lines_of(ledger):
    return ledger.path.read_bytes().splitlines(keepends=True)


def test_what_was_appended_is_read_back_in_order(ledger):
    entries = ledger.read()
    assert ledger.verify() == 5
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert entries[2].what == "champion of demo: version 3"
    assert entries[2].why == "backtest 3 passed;\nsecond line, ümlaut"
    assert entries[2].when == "2025-10-10T21:03:00.000000+00:00"
    assert entries[0].previous_hash == FIRST_PREVIOUS_HASH
    assert all(after.previous_hash == before.hash for before, after in pairwise(entries))


def test_a_ledger_without_lines_is_empty(tmp_path):
    fresh = Ledger(tmp_path / "absent" / "ledger.jsonl")
    assert fresh.read() == ()
    assert list(tmp_path.iterdir()) == []


def test_a_line_already_written_never_changes(ledger):
    before = ledger.path.read_bytes()
    add(ledger, 6)
    assert ledger.path.read_bytes().startswith(before)


def test_times_are_kept_in_utc(tmp_path):
    kept = Ledger(tmp_path / "ledger.jsonl")
    local = datetime(2025, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=3)))
    entry = kept.append(who="a", what="b", why="c", evidence_digest=EVIDENCE, when=local)
    assert entry.when == "2024-12-31T22:00:00.000000+00:00"
    before = datetime.now(UTC)
    entry = kept.append(who="a", what="b", why="c", evidence_digest=EVIDENCE)
    assert before <= datetime.fromisoformat(entry.when) <= datetime.now(UTC)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_any_changed_byte_is_noticed_at_its_line(ledger, number):
    original = lines_of(ledger)
    line = original[number - 1]
    for position in range(0, len(line) - 1, 7):
        changed = bytearray(line)
        changed[position] ^= 0x01
        ledger.path.write_bytes(
            b"".join([*original[: number - 1], bytes(changed), *original[number:]])
        )
        with pytest.raises(LedgerError, match=f"line {number}:"):
            ledger.verify()


def test_an_edit_with_its_own_hash_redone_breaks_the_next_line(ledger):
    lines = lines_of(ledger)
    body = json.loads(lines[1])
    del body["hash"]
    body["who"] = "somebody else"
    forged = json.dumps({**body, "hash": digest_of(body)}, sort_keys=True, separators=(",", ":"))
    ledger.path.write_bytes(b"".join([lines[0], forged.encode() + b"\n", *lines[2:]]))
    with pytest.raises(LedgerError, match=r"line 3: .*does not follow"):
        ledger.verify()


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_removed_line_is_noticed_where_it_was(ledger, number):
    lines = lines_of(ledger)
    ledger.path.write_bytes(b"".join(lines[: number - 1] + lines[number:]))
    with pytest.raises(LedgerError, match=f"line {number}: .*removed"):
        ledger.verify()


@pytest.mark.parametrize("kept", [0, 2, 4])
def test_lines_cut_off_the_end_are_noticed(ledger, kept):
    ledger.path.write_bytes(b"".join(lines_of(ledger)[:kept]))
    with pytest.raises(LedgerError, match=rf"line {kept + 1}: .*once had 5 line"):
        ledger.verify()


def test_a_removed_file_is_noticed(ledger):
    ledger.path.unlink()
    with pytest.raises(LedgerError, match="line 1: it is missing"):
        ledger.verify()


def test_reordered_and_repeated_lines_are_noticed(ledger):
    lines = lines_of(ledger)
    ledger.path.write_bytes(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))
    with pytest.raises(LedgerError, match=r"line 2: .*reordered"):
        ledger.verify()
    ledger.path.write_bytes(b"".join([*lines, lines[4]]))
    with pytest.raises(LedgerError, match=r"line 6: .*inserted"):
        ledger.verify()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"number": 9, "hash": "x"}'])
def test_a_damaged_head_is_noticed(ledger, content):
    ledger.path.with_name("ledger.jsonl.head").write_bytes(content)
    with pytest.raises(LedgerError):
        ledger.verify()


def test_a_missing_head_is_noticed(ledger):
    ledger.path.with_name("ledger.jsonl.head").unlink()
    with pytest.raises(LedgerError, match="head file"):
        ledger.verify()


@pytest.mark.parametrize("lines", [1, 5])
def test_a_writer_that_died_between_line_and_head_did_no_harm(tmp_path, lines):
    kept = Ledger(tmp_path / "ledger.jsonl")
    head = tmp_path / "ledger.jsonl.head"
    first = {"number": 0, "hash": FIRST_PREVIOUS_HASH}
    older = json.dumps(first).encode()
    for number in range(1, lines + 1):
        older = head.read_bytes() if head.exists() else older
        add(kept, number)
    head.write_bytes(older)
    assert kept.verify() == lines
    add(kept, lines + 1)
    assert kept.verify() == lines + 1


def test_an_interrupted_line_stops_further_lines_until_it_is_mended(ledger):
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + b'{"number":6,"who":"ri')
    with pytest.raises(LedgerError, match="line 6: it has no end"):
        add(ledger, 6)
    ledger.path.write_bytes(whole)
    assert add(ledger, 6).number == 6


def test_writers_at_the_same_time_form_one_chain(tmp_path):
    path = tmp_path / "ledger.jsonl"

    def add_and_read(number):
        entry = add(Ledger(path), number)
        return entry in Ledger(path).read()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(add_and_read, range(24)))
    assert Ledger(path).verify() == 24


@pytest.mark.parametrize(
    "change",
    [
        {"who": ""},
        {"what": "  "},
        {"why": ""},
        {"evidence_digest": "passed"},
        {"evidence_digest": "E" * 64},
        {"when": datetime(2025, 1, 1)},  # noqa: DTZ001 - the missing timezone is the case
    ],
)
def test_a_line_that_says_too_little_is_refused(tmp_path, change):
    kept = Ledger(tmp_path / "ledger.jsonl")
    line = {"who": "a", "what": "b", "why": "c", "evidence_digest": EVIDENCE} | change
    with pytest.raises(InputError):
        kept.append(**line)
    assert kept.read() == ()


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        add(Ledger(tmp_path / "file" / "ledger.jsonl"), 1)
