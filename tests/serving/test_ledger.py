"""No line of the ledger can be edited, removed, inserted or reordered unnoticed."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest

from margincast.core.digest import digest_of
from margincast.core.errors import InputError, LedgerError
from margincast.serving.ledger import FIRST_PREVIOUS_HASH, Ledger
from margincast.serving.standing import Holder, standing_of

EVIDENCE = "e" * 64


def add(ledger, number):
    return ledger.append(
        kind="promotion",
        who="risk desk",
        what=f"champion of demo: version {number}",
        why=f"backtest {number} passed;\nsecond line, ümlaut",
        evidence_digest=EVIDENCE,
        details={"model": "demo", "alias": "champion", "version": number, "levels": (0.99, 0.995)},
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
    assert len(ledger.verify()) == 5
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert entries[2].what == "champion of demo: version 3"
    assert entries[2].why == "backtest 3 passed;\nsecond line, ümlaut"
    assert entries[2].kind == "promotion"
    assert entries[2].details["levels"] == [0.99, 0.995]
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
    line = {"kind": "refusal", "who": "a", "what": "b", "why": "c", "details": {}}
    entry = kept.append(**line, evidence_digest=EVIDENCE, when=local)
    assert entry.when == "2024-12-31T22:00:00.000000+00:00"
    before = datetime.now(UTC)
    entry = kept.append(**line, evidence_digest=EVIDENCE)
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
    assert len(kept.read()) == lines
    add(kept, lines + 1)
    assert len(kept.read()) == lines + 1


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
    assert len(Ledger(path).read()) == 24


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "rumour"},
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
    line = {
        "kind": "promotion", "who": "a", "what": "b", "why": "c", "evidence_digest": EVIDENCE,
        "details": {},
    } | change  # fmt: skip
    with pytest.raises(InputError):
        kept.append(**line)
    assert kept.read() == ()


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        add(Ledger(tmp_path / "file" / "ledger.jsonl"), 1)


def test_a_ledger_rewritten_whole_is_noticed_by_a_head_kept_elsewhere(ledger, tmp_path):
    heads = [entry.hash for entry in ledger.read()]
    assert all(len(ledger.verify(head)) == 5 for head in heads)
    forged = Ledger(tmp_path / "forged" / "ledger.jsonl")
    for number in range(1, 6):
        add(forged, number if number < 3 else number + 10)
    for name in ("ledger.jsonl", "ledger.jsonl.head"):
        (forged.path.parent / name).replace(tmp_path / name)
    assert len(ledger.verify()) == 5  # by itself it cannot know
    for head in heads[:2]:
        ledger.verify(head)
    for head in heads[2:]:
        with pytest.raises(LedgerError, match=f"has the hash {head}"):
            ledger.verify(head)


def first_format(number, previous, what):
    body = {
        "number": number, "previous_hash": previous, "what": what, "who": "desk", "why": "passed",
        "when": f"2025-10-10T21:0{number}:00.000000+00:00", "evidence_digest": EVIDENCE,
    }  # fmt: skip
    return body | {"hash": digest_of(body)}


def test_a_ledger_of_the_first_format_still_verifies_and_goes_on(tmp_path):
    sentences = (
        "champion of demo: version none -> 1",
        "champion of demo: version 1 -> 2",
        "withdrawn: champion of demo: version 1 -> 2",
    )
    lines, previous = [], FIRST_PREVIOUS_HASH
    for number, what in enumerate(sentences, start=1):
        lines.append(first_format(number, previous, what))
        previous = lines[-1]["hash"]
    path = tmp_path / "ledger.jsonl"
    text = "".join(json.dumps(x, sort_keys=True, separators=(",", ":")) + "\n" for x in lines)
    path.write_text(text)
    path.with_name("ledger.jsonl.head").write_text(json.dumps({"number": 3, "hash": previous}))
    kept = Ledger(path)
    assert [entry.kind for entry in kept.read()] == ["promotion", "promotion", "withdrawal"]
    assert kept.read()[1].details == {
        "model": "demo", "alias": "champion", "before": 1, "version": 2,
    }  # fmt: skip
    assert standing_of(kept.read(), "demo").champion == Holder(1, line=1)
    assert add(kept, 4).previous_hash == previous
    assert path.read_text().startswith(text)
    assert len(kept.verify(previous)) == 4
    # a line of the new format cannot pass for one of the old: what it says more is in its hash
    raw = json.loads(path.read_bytes().splitlines()[3])
    del raw["kind"], raw["details"], raw["format"]
    forged = json.dumps(raw, sort_keys=True, separators=(",", ":")) + "\n"
    path.write_text(text + forged)
    with pytest.raises(LedgerError, match="line 4: it was changed"):
        kept.verify()
