import hashlib
import itertools
import json
import os
import pickle
import tracemalloc

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from richter.adapters.recording import reader
from richter.adapters.recording.reader import (
    MAX_LINE_BYTES,
    RejectedBecause,
    expand,
    first_line,
    is_whole,
    read_blocks,
    split,
)
from richter.errors import InputFileError

LINE = st.one_of(
    st.just(b""),
    st.just(b"{}\r"),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3).map(lambda d: json.dumps(d).encode()),
)


def read(path, *args, **kwargs):
    """Return (line number, line) of everything, and what was rejected; checks the blocks' own claims."""
    lines, rejected = [], []
    for block in read_blocks(path, *args, on_rejected=rejected.append, **kwargs):
        assert bytes(block.data).endswith(b"\n")
        lines += list(enumerate(block.lines(), block.first_line))
    return lines, rejected


def open_descriptors():
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - iterdir opens one more


def frames(*parts):
    return b"".join(zstandard.ZstdCompressor(write_checksum=True).compress(part) for part in parts)


# Whole lines


@given(lines=st.lists(LINE, min_size=1), block_bytes=st.integers(1, 50))
def test_lines_come_back_whole_and_numbered_for_any_block_size(tmp_path_factory, lines, block_bytes):
    path = tmp_path_factory.mktemp("r") / "a.ndjson"
    path.write_bytes(b"".join(line + b"\n" for line in lines))

    got, rejected = read(path, block_bytes=block_bytes)

    assert got == list(enumerate(lines, 1))
    assert rejected == []


def test_blocks_tell_where_they_begin(tmp_path):
    content = b"".join(b'{"n":%d}\n' % n for n in range(100))
    path = tmp_path / "a.ndjson"
    path.write_bytes(content)

    blocks = list(read_blocks(path, block_bytes=64))

    assert len(blocks) > 5
    for block in blocks:
        assert content[block.offset :].startswith(bytes(block.data))
        assert content[: block.offset].count(b"\n") + 1 == block.first_line


def test_blocks_stay_as_they_are_when_the_next_is_read(tmp_path):
    content = b"".join(b'{"n":%d}\n' % n for n in range(100))
    path = tmp_path / "a.ndjson"
    path.write_bytes(content)

    blocks = list(read_blocks(path, block_bytes=64))

    assert b"".join(block.data for block in blocks) == content


def test_a_byte_order_mark_is_left_out(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"\xef\xbb\xbf{}\n{}\n")

    got, _ = read(path)

    assert got == [(1, b"{}"), (2, b"{}")]


def test_a_large_file_is_read_in_constant_memory(tmp_path):
    path = tmp_path / "a.ndjson"
    with path.open("wb") as file:
        for _ in range(64):
            file.write((b'{"a":"' + b"x" * 500 + b'"}\n') * 2048)

    tracemalloc.start()
    size = sum(len(block.data) for block in read_blocks(path, block_bytes=1 << 20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size == path.stat().st_size > 60 << 20
    assert peak < 8 << 20


# The last line


@given(lines=st.lists(LINE.filter(bool), min_size=1, max_size=5), data=st.data())
def test_any_cut_gives_exactly_the_whole_lines(tmp_path_factory, lines, data):
    content = b"".join(line + b"\n" for line in lines)
    cut = data.draw(st.integers(1, len(content)))
    path = tmp_path_factory.mktemp("r") / "a.ndjson"
    path.write_bytes(content[:cut])

    got, rejected = read(path, block_bytes=data.draw(st.integers(1, 20)))

    *whole, tail = content[:cut].split(b"\n")
    is_complete = tail.strip() in [line.strip() for line in lines[len(whole) :][:1]]
    assert [line for _, line in got] == whole + [tail] * (bool(tail) and is_complete)
    assert [r.data for r in rejected] == [tail] * (bool(tail) and not is_complete)


def test_a_torn_last_line_is_skipped_and_reported(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"n":1}\n{"n":')

    got, (rejected,) = read(path)

    assert got == [(1, b'{"n":1}')]
    assert (rejected.reason, rejected.path, rejected.line, rejected.offset, rejected.size, rejected.data) == (
        RejectedBecause.TORN,
        path,
        2,
        8,
        5,
        b'{"n":',
    )


@pytest.mark.parametrize("tail", [b'{"n":2}', b' {"n":2} ', b"[1]", b'"{}"', b'{"n":2}\r'])
def test_a_complete_last_line_without_its_newline_counts(tmp_path, tail):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"n":1}\n' + tail)

    got, rejected = read(path)

    assert got == [(1, b'{"n":1}'), (2, tail)]
    assert rejected == []


@pytest.mark.parametrize("tail", [b"12", b"true", b"{", b'{"a":1}}', b'{"a":"\xff"}', b"[" * 100_000])
def test_what_may_be_half_a_line_does_not_count(tmp_path, tail):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n" + tail)

    got, rejected = read(path)

    assert not is_whole(tail)
    assert len(got) == 1
    assert [r.reason for r in rejected] == [RejectedBecause.TORN]


def test_blanks_at_the_end_are_not_torn(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n  \t")

    got, rejected = read(path)

    assert (got, rejected) == ([(1, b"{}")], [])


# Lines that are too long


@pytest.fixture
def short_limit(monkeypatch):
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 100)


@pytest.mark.parametrize("block_bytes", [7, 64, 100, 4096])
def test_a_line_that_is_too_long_is_reported_and_the_next_one_read(tmp_path, short_limit, block_bytes):
    long = b"x" * 1000
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n" + long + b"\n[]\n")

    got, (rejected,) = read(path, block_bytes=block_bytes)

    assert got == [(1, b"{}"), (3, b"[]")]
    assert (rejected.reason, rejected.line, rejected.offset, rejected.size) == (
        RejectedBecause.TOO_LONG,
        2,
        3,
        1001,
    )


def test_a_line_that_is_just_not_too_long_is_read(tmp_path, short_limit):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"x" * 99 + b"\n{}\n")

    got, rejected = read(path, block_bytes=10)

    assert [len(line) for _, line in got] == [99, 2]
    assert rejected == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(
        st.sampled_from([0, 1, 50, 98, 99, 100, 101, 150, 199, 200, 350]), min_size=1, max_size=8
    ),
    block_bytes=st.integers(1, 120),
)
def test_what_is_too_long_does_not_depend_on_where_blocks_end(
    tmp_path_factory, short_limit, lengths, block_bytes
):
    path = tmp_path_factory.mktemp("r") / "a.ndjson"
    path.write_bytes(b" \n" + b"".join(b"x" * length + b"\n" for length in lengths))

    got, rejected = read(path, block_bytes=block_bytes)

    numbered = list(enumerate(lengths, 2))
    assert [(n, len(line)) for n, line in got[1:]] == [pair for pair in numbered if pair[1] < 100]
    assert [(r.line, r.size - 1) for r in rejected] == [pair for pair in numbered if pair[1] >= 100]


def test_a_last_line_that_is_too_long_is_reported(tmp_path, short_limit):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n" + b"x" * 1000)

    got, (rejected,) = read(path, block_bytes=64)

    assert got == [(1, b"{}")]
    assert (rejected.reason, rejected.size) == (RejectedBecause.TOO_LONG, 1000)


def test_the_real_limit_holds_in_constant_memory(tmp_path):
    path = tmp_path / "a.ndjson"
    with path.open("wb") as file:
        for _ in range(120):
            file.write(b"x" * (1 << 20))
        file.write(b"\n{}\n")

    tracemalloc.start()
    got, (rejected,) = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert got == [(2, b"{}")]
    assert rejected.size == (120 << 20) + 1
    assert len(rejected.data) == 64 << 10
    assert peak < 4 * MAX_LINE_BYTES


# Ranges


@settings(max_examples=200)
@given(
    lines=st.lists(LINE, min_size=1, max_size=12),
    ends_with_newline=st.booleans(),
    cuts=st.lists(st.integers(0, 120), max_size=4),
    block_bytes=st.integers(1, 40),
    packed=st.booleans(),
)
def test_ranges_that_meet_share_no_line_and_miss_none(
    tmp_path_factory, lines, ends_with_newline, cuts, block_bytes, packed
):
    content = b"\n".join(lines) + b"\n" * (ends_with_newline or not lines[-1])
    path = tmp_path_factory.mktemp("r") / "a.ndjson"
    path.write_bytes(frames(content) if packed else content)

    edges = [0, *sorted(cuts), None]
    parts = [read(path, start, stop, block_bytes=block_bytes)[0] for start, stop in itertools.pairwise(edges)]

    assert [line for part in parts for _, line in part] == [line for _, line in read(path)[0]]


@given(lines=st.lists(LINE, min_size=1, max_size=40), parts=st.integers(1, 9), bom=st.booleans())
def test_split_gives_every_line_once_with_its_number(tmp_path_factory, lines, parts, bom):
    path = tmp_path_factory.mktemp("r") / "a.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" * bom + b"".join(line + b"\n" for line in lines))

    ranges = split(path, parts)

    got = [
        line
        for part in ranges
        for line in read(part.path, part.start, part.stop, first_line=part.first_line)[0]
    ]
    assert got == list(enumerate(lines, 1))
    assert 1 <= len(ranges) <= parts


def test_split_makes_parts_of_about_equal_size(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"n":1}\n' * 1000)

    ranges = split(path, 4)

    assert [part.stop - part.start for part in ranges] == [2000] * 4
    assert [part.first_line for part in ranges] == [1, 251, 501, 751]


def test_ranges_can_be_sent_to_another_process(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n{}\n")

    ranges = split(path, 2)

    assert pickle.loads(pickle.dumps(ranges)) == ranges


def test_a_compressed_file_is_one_range(tmp_path):
    path = tmp_path / "a.ndjson.zst"
    path.write_bytes(frames(b"{}\n" * 1000))

    (only,) = split(path, 4)

    assert (only.start, only.stop, only.first_line) == (0, None, 1)


def test_a_torn_line_belongs_to_one_range(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n" * 10 + b'{"n":')

    reports = [read(path, part.start, part.stop)[1] for part in split(path, 3)]

    assert [len(report) for report in reports] == [0, 0, 1]


# zstd


def test_a_file_of_many_frames_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.ndjson.zst"
    path.write_bytes(frames(b'{"n":1}\n{"n"', b":2}\n", b"", b'{"n":3}\n'))

    got, rejected = read(path)

    assert got == [(1, b'{"n":1}'), (2, b'{"n":2}'), (3, b'{"n":3}')]
    assert rejected == []


@settings(max_examples=60)
@given(data=st.data())
def test_a_truncated_zst_gives_its_whole_lines_and_says_so(tmp_path_factory, data):
    parts = [b"".join(b'{"n":%d,"x":"%d"}\n' % (n, n * n) for n in range(k, k + 50)) for k in (0, 50)]
    content = frames(*parts)
    cut = data.draw(st.integers(1, len(content) - 1))
    path = tmp_path_factory.mktemp("r") / "a.ndjson.zst"
    path.write_bytes(content[:cut])

    got, rejected = read(path)

    whole = b"".join(parts).split(b"\n")[:-1]
    boundary = len(frames(parts[0]))
    assert [line for _, line in got] == whole[: len(got)]
    assert len(got) >= (50 if cut >= boundary else 0)
    assert [r.reason for r in rejected] == [RejectedBecause.TRUNCATED] * (cut != boundary)


def test_a_damaged_zst_gives_the_frames_before_the_damage(tmp_path):
    good, bad = frames(b'{"n":1}\n'), bytearray(frames(b'{"n":2}\n'))
    bad[-1] ^= 0xFF  # The checksum.
    path = tmp_path / "a.ndjson.zst"
    path.write_bytes(good + bytes(bad))

    got, (rejected,) = read(path)

    assert got == [(1, b'{"n":1}')]
    assert rejected.reason is RejectedBecause.CORRUPT


def test_zstd_is_known_by_its_content_too(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(frames(b"{}\n"))

    got, _ = read(path)

    assert got == [(1, b"{}")]


def test_a_plain_name_reads_the_compressed_form_when_the_plain_one_is_gone(tmp_path):
    (tmp_path / "a.ndjson.zst").write_bytes(frames(b"{}\n"))

    got, _ = read(tmp_path / "a.ndjson")

    assert got == [(1, b"{}")]


# What is no file of lines


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08\x00abc", "gzip"),
        (b"PAR1abc", "Parquet"),
        (b"PK\x03\x04abc", "zip"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        ("{}\n".encode("utf-16"), "UTF-16"),
        (b"\x7fELF\x02\x01\x01\x00", "binary"),
        (b"{}\n" + b" " * 4000 + b"\0", "binary"),
    ],
)
@pytest.mark.parametrize("form", ["plain", "zst"])
def test_other_content_is_refused_with_its_cure(tmp_path, content, fact, form):
    path = tmp_path / ("a.ndjson" if form == "plain" else "a.ndjson.zst")
    path.write_bytes(content if form == "plain" or not content else frames(content))

    with pytest.raises(InputFileError) as caught:
        read(path)

    assert fact in caught.value.fact
    assert caught.value.value == str(path)
    assert caught.value.fix


def test_a_nul_far_into_a_file_does_not_refuse_it(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n" * 4096 + b"\0\n")

    got, _ = read(path)

    assert len(got) == 4097


def test_a_zst_that_is_none_is_refused(tmp_path):
    path = tmp_path / "a.ndjson.zst"
    path.write_bytes(b'{"n":1}\n')

    with pytest.raises(InputFileError, match="and is not zstd"):
        read(path)


def test_an_empty_frame_is_an_empty_file(tmp_path):
    path = tmp_path / "a.ndjson.zst"
    path.write_bytes(frames(b""))

    with pytest.raises(InputFileError, match="empty"):
        read(path)


def test_a_folder_a_pipe_and_an_absent_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    facts = []
    for name in ("", "pipe", "absent.ndjson"):
        with pytest.raises(InputFileError) as caught:
            read(tmp_path / name)
        facts.append(caught.value.fact)

    assert facts == [
        "this is a folder, not a file",
        "this is a device or a pipe, not a file",
        "there is no such file",
    ]


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n")

    def refuse(*_args, **_kwargs):  # Not by chmod, which does not bind root.
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputFileError) as caught:
        read(path)

    assert caught.value.fix == f"allow it: chmod u+r {path}"
    assert isinstance(caught.value.__cause__, PermissionError)


def test_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n")

    def fail(*_args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "readv", fail)
    with pytest.raises(InputFileError, match="Input/output error"):
        read(path)


def test_descriptors_are_closed_also_when_reading_stops_early(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n" * 100)
    before = open_descriptors()

    for _ in range(5):
        blocks = read_blocks(path, block_bytes=10)
        next(blocks)
        blocks.close()
        with pytest.raises(InputFileError):
            read(tmp_path)

    assert open_descriptors() == before


# The identity of files from elsewhere


@pytest.mark.parametrize(
    "content",
    [
        b'{"n":1}\n{"n":2}\n',
        b'{"n":1}\r\n{"n":2}\r\n',
        b'\xef\xbb\xbf{"n":1}\n',
        b'\n\n{"n":1}\n',
        b'{"n":1}',
        frames(b'{"n":1}\n{"n":2}\n'),
    ],
)
def test_the_first_line_does_not_depend_on_how_the_file_was_kept(tmp_path, content):
    path = tmp_path / "a.ndjson"
    path.write_bytes(content)

    line = first_line(path)

    assert hashlib.sha256(line).hexdigest() == hashlib.sha256(b'{"n":1}').hexdigest()


def test_a_file_without_a_whole_line_has_no_first_line(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"n":')

    line = first_line(path)

    assert line == b""


def test_what_expand_finds_can_be_read(tmp_path):
    (tmp_path / "a.ndjson").write_bytes(b"[1]\n")
    (tmp_path / "b.ndjson.zst").write_bytes(frames(b"[2]\n"))

    got = [read(path)[0] for path in expand([tmp_path / "*.ndjson"])]

    assert got == [[(1, b"[1]")], [(1, b"[2]")]]
