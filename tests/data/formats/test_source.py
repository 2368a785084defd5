import bz2
import gzip
import hashlib
import io
import lzma
import os
import warnings
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from margincast.core.errors import InputError
from margincast.data.formats import source as source_module
from margincast.data.formats.source import Source, digest_of_source, files_in, members_of

TEXT = b"".join(b"%d,%d\n" % (number, number * 7919 % 1_000_003) for number in range(20_000))

COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.Codec("zstd").compress(content, asbytes=True),
}

needs_permissions = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="permissions do not bind the superuser"
)


def content_of(source):
    with source.open() as stream:
        return stream.read()


def zip_of(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_read_as_their_content(tmp_path, suffix):
    path = tmp_path / f"BTCUSDT.csv{suffix}"
    path.write_bytes(COMPRESS[suffix](TEXT))
    source = Source(path)
    assert content_of(source) == TEXT
    assert source.head(1000) == TEXT[:1000]
    assert (source.name, source.stem, source.is_plain) == ("BTCUSDT.csv", "BTCUSDT", False)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_the_suffix_of_a_compression_may_be_in_capitals(tmp_path, suffix):
    path = tmp_path / f"BTCUSDT.CSV{suffix.upper()}"
    path.write_bytes(COMPRESS[suffix](TEXT))
    assert content_of(Source(path)) == TEXT
    assert Source(path).stem == "BTCUSDT"


@pytest.mark.parametrize("suffix", COMPRESS)
def test_streams_one_after_another_in_a_file_are_all_read(tmp_path, suffix):
    path = tmp_path / f"both{suffix}"
    path.write_bytes(COMPRESS[suffix](TEXT) + COMPRESS[suffix](b"end\n"))
    assert content_of(Source(path)) == TEXT + b"end\n"


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
def test_a_truncated_file_is_an_error_that_names_the_byte(tmp_path, suffix, part):
    path = tmp_path / f"cut.csv{suffix}"
    whole = COMPRESS[suffix](TEXT)
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(
        InputError,
        match=rf"cut\.csv{suffix} is damaged or incomplete after byte [\d,]+ of its content.*"
        "fetch or copy the file again",
    ):
        content_of(Source(path))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])  # zstd need not carry a checksum
def test_a_changed_byte_is_an_error(tmp_path, suffix):
    path = tmp_path / f"changed.csv{suffix}"
    whole = bytearray(COMPRESS[suffix](TEXT))
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(whole))
    with pytest.raises(InputError, match="is damaged or incomplete"):
        content_of(Source(path))


def test_text_with_the_suffix_of_a_compression_is_an_error(tmp_path):
    for suffix in COMPRESS:
        path = tmp_path / f"plain.csv{suffix}"
        path.write_bytes(TEXT)
        with pytest.raises(InputError, match="is damaged or incomplete after byte 0"):
            content_of(Source(path))


def test_a_zip_archive_is_read_member_by_member(tmp_path):
    path = zip_of(
        tmp_path / "day.zip",
        {"b/ETHUSDT.csv": b"eth", "a.csv": b"btc", "empty/": b"", "__MACOSX/._a.csv": b"\0\5"},
    )
    sources = members_of(path)
    assert [source.member for source in sources] == ["a.csv", "b/ETHUSDT.csv"]
    assert [content_of(source) for source in sources] == [b"btc", b"eth"]
    assert str(sources[1]) == f"{path}!b/ETHUSDT.csv"
    assert (sources[1].stem, sources[1].is_plain) == ("ETHUSDT", False)
    assert digest_of_source(sources[0]) != digest_of_source(sources[1])


def test_an_archive_that_has_two_members_of_one_name_is_refused(tmp_path):
    path = tmp_path / "twice.zip"
    with warnings.catch_warnings(action="ignore"):
        zip_of(path, {"a.csv": b"1"})
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a.csv", b"2")
    with pytest.raises(InputError, match=r"twice\.zip has several members named 'a\.csv'"):
        members_of(path)


@pytest.mark.parametrize(
    "name", ["../outside.csv", "/etc/outside.csv", "in/../../outside.csv", "..\\outside.csv"]
)
def test_a_member_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    path = zip_of(tmp_path / "traversal.zip", {"in.csv": b"1", name: b"2"})
    with pytest.raises(InputError, match=r"traversal\.zip: member '.*' would lead out"):
        members_of(path)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06 nothing more", TEXT])
def test_what_is_no_zip_archive_is_refused(tmp_path, content):
    path = tmp_path / "no.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"no\.zip is no readable zip archive.*again"):
        members_of(path)


def test_a_truncated_zip_archive_is_refused(tmp_path):
    path = zip_of(tmp_path / "cut.zip", {"a.csv": TEXT})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut\.zip is no readable zip archive"):
        members_of(path)


def test_a_member_with_a_changed_byte_is_an_error(tmp_path):
    path = zip_of(tmp_path / "changed.zip", {"a.csv": TEXT}, zipfile.ZIP_STORED)
    whole = bytearray(path.read_bytes())
    whole[5000] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(InputError, match=r"changed\.zip!a\.csv is damaged.*Bad CRC-32"):
        content_of(members_of(path)[0])


def with_field(path, offset_local, offset_central, value):
    """Change one byte in both headers of a zip archive's only member."""
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x03\x04") + offset_local] = value
    whole[whole.index(b"PK\x01\x02") + offset_central] = value
    path.write_bytes(bytes(whole))
    return path


def test_an_encrypted_member_is_refused(tmp_path):
    path = with_field(zip_of(tmp_path / "secret.zip", {"a.csv": TEXT}), 6, 8, 1)
    with pytest.raises(InputError, match=r"secret\.zip!a\.csv is encrypted; unpack it"):
        members_of(path)[0].head()


def test_a_member_compressed_in_an_unknown_way_is_refused(tmp_path):
    path = with_field(zip_of(tmp_path / "odd.zip", {"a.csv": TEXT}), 8, 10, 9)  # deflate64
    with pytest.raises(InputError, match=r"odd\.zip!a\.csv is compressed in a way that is not"):
        members_of(path)[0].head()


def test_a_member_that_is_gone_is_an_error(tmp_path):
    path = zip_of(tmp_path / "day.zip", {"a.csv": b"1"})
    with pytest.raises(InputError, match=r"day\.zip has no member 'b\.csv'"):
        Source(path, "b.csv").head()


@pytest.fixture
def low_limits(monkeypatch):
    monkeypatch.setattr(source_module, "EXPANSION_ALLOWANCE", 2 * 1024**2)
    monkeypatch.setattr(source_module, "EXPANSION_LIMIT", 20)


@pytest.mark.parametrize("suffix", [*COMPRESS, ".zip"])
def test_a_decompression_bomb_is_refused_before_it_expands(tmp_path, low_limits, suffix):
    path = tmp_path / f"bomb{suffix}"
    zeros = bytes(12 * 1024**2)
    if suffix == ".zip":
        zip_of(path, {"a.csv": zeros})
    else:
        path.write_bytes(COMPRESS[suffix](zeros))
    (source,) = members_of(path)
    seen = 0
    with (  # noqa: PT012 - how far the reading came is what is tested
        pytest.raises(InputError, match=r"expands to more than 2,097,152 bytes.*bomb.*unpack it"),
        source.open() as stream,
    ):
        while block := stream.read(4096):
            seen += len(block)
    assert seen <= 3 * 1024**2


def test_a_large_file_that_compresses_as_market_data_does_is_read(tmp_path, low_limits):
    content = TEXT * 20
    path = tmp_path / "large.csv.gz"
    path.write_bytes(gzip.compress(content))
    assert len(content) > source_module.EXPANSION_ALLOWANCE
    assert content_of(Source(path)) == content


def test_the_errors_of_who_reads_are_not_taken_for_a_damaged_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(TEXT)
    with pytest.raises(RuntimeError, match="mine"), Source(path).open():
        raise RuntimeError("mine")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.csv.xz"])
def test_a_folder_where_a_file_should_be_is_an_error(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="is a folder where a file should be"):
        Source(tmp_path / name).head()


def test_a_file_that_is_gone_is_an_error(tmp_path):
    for name in ("a.csv", "a.csv.gz", "a.csv.zst"):
        with pytest.raises(InputError, match="cannot be read: No such file"):
            Source(tmp_path / name).head()


@needs_permissions
@pytest.mark.parametrize("suffix", ["", *COMPRESS])
def test_a_file_that_may_not_be_read_is_an_error(tmp_path, suffix):
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(COMPRESS[suffix](TEXT) if suffix else TEXT)
    path.chmod(0)
    with pytest.raises(InputError, match=r"a\.csv.* cannot be read: Permission denied"):
        Source(path).head()


@needs_permissions
def test_a_folder_that_may_not_be_listed_is_an_error_not_an_empty_folder(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.csv").write_bytes(TEXT)
    inner.chmod(0)
    try:
        with pytest.raises(InputError, match="inner cannot be listed: Permission denied"):
            files_in([tmp_path])
    finally:
        inner.chmod(0o700)


def test_folders_are_listed_in_order_without_what_is_no_data(tmp_path):
    for name in (
        *("b/ETH.csv", "a/BTC.csv.gz", "day.zip"),
        *("day.zip.CHECKSUM", "c/half.zip.part", "README.md", ".hidden", "_tmp/x.csv"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    files = files_in([tmp_path, tmp_path / "day.zip"])
    assert [file.relative_to(tmp_path).as_posix() for file in files] == [
        "a/BTC.csv.gz",
        "b/ETH.csv",
        "day.zip",
    ]


def test_a_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist; give a file or a folder"):
        files_in([tmp_path / "nowhere"])


@pytest.mark.parametrize("name", ["BTC USDT.csv", "币安人生USDT.csv", "a;b'c\"d.csv", "1000%.csv"])
def test_names_with_odd_characters_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(TEXT)
    (file,) = files_in([tmp_path])
    assert content_of(Source(file)) == TEXT
    assert Source(file).stem == name.removesuffix(".csv")
    (member,) = members_of(zip_of(tmp_path / "odd.zip", {name: TEXT}))
    assert content_of(member) == TEXT


def test_a_stream_is_never_read_whole_into_memory(tmp_path, monkeypatch):
    asked = []

    class Counting(io.BytesIO):
        def read(self, size=-1):
            asked.append(size)
            return super().read(size)

    path = tmp_path / "a.csv"
    path.write_bytes(TEXT)
    monkeypatch.setattr(Path, "open", lambda *_args, **_options: Counting(TEXT))
    with Source(path).open() as stream:
        assert stream.readline() == TEXT.partition(b"\n")[0] + b"\n"
    assert asked
    assert all(0 < size <= 1024**2 for size in asked)


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no file of market data"):
        files_in([tmp_path])
    with pytest.raises(InputError, match=r"none\.zip is an archive without members"):
        members_of(zip_of(tmp_path / "none.zip", {}))
    with pytest.raises(InputError, match="without members"):
        members_of(zip_of(tmp_path / "notes.zip", {"README.md": b"none", "in/": b""}))


def test_a_link_that_leads_nowhere_is_refused_by_name(tmp_path):
    (tmp_path / "gone.csv").symlink_to(tmp_path / "elsewhere.csv")
    (tmp_path / "round.csv").symlink_to("round.csv")
    files = files_in([tmp_path])
    assert [file.name for file in files] == ["gone.csv", "round.csv"]
    for file in files:
        with pytest.raises(InputError, match=rf"{file.name} is a link to .*, which is not there"):
            members_of(file)


def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "live.csv")
    (file,) = files_in([tmp_path])
    with pytest.raises(InputError, match=r"live\.csv is a pipe or a device"):
        members_of(file)


def test_links_to_folders_are_followed_and_each_folder_is_listed_once(tmp_path):
    there, root = tmp_path / "there" / "trades", tmp_path / "root"
    for path in (there / "BTC.csv", root / "own" / "ETH.csv"):
        path.parent.mkdir(parents=True)
        path.write_bytes(TEXT)
    (root / "linked").symlink_to(there, target_is_directory=True)
    (root / "again").symlink_to(root / "own", target_is_directory=True)
    (root / "own" / "up").symlink_to(root, target_is_directory=True)
    (there / "loop").symlink_to(there, target_is_directory=True)
    assert files_in([root]) == [root / "linked" / "BTC.csv", root / "own" / "ETH.csv"]


def test_an_archive_is_hashed_once_for_all_its_members(tmp_path, monkeypatch):
    path = zip_of(tmp_path / "day.zip", {f"S{number}.csv": TEXT for number in range(20)})
    sources = members_of(path)
    opened = []
    real = Path.open

    def counting(self, *arguments, **options):
        opened.append(self)
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", counting)
    digests = {digest_of_source(source) for source in sources}
    assert len(digests) == 20
    assert opened == [path]
    zip_of(path, {f"S{number}.csv": TEXT[:100] for number in range(20)})
    assert digests.isdisjoint(digest_of_source(source) for source in sources)


def test_the_digest_is_that_of_all_stored_bytes(tmp_path):
    (tmp_path / "a.csv").write_bytes(TEXT)
    (tmp_path / "b.json").write_bytes(b"{}")
    expected = hashlib.sha256(TEXT + b"{}").hexdigest()
    assert digest_of_source(Source(tmp_path / "a.csv"), [tmp_path / "b.json"]) == expected
