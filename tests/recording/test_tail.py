"""The tail of a product's log gives each whole line once and in order, however it was written, cut up and packed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.adapters.recording import tail as tailing
from richter.adapters.recording.sealing import compress, scan, seal
from richter.adapters.recording.segments import Position, inspect_segment, manifest_path
from richter.adapters.recording.tail import STAMP_S, Tail, end_of

MINE, OTHER = "A-BUSD", "AB-USD"  # Both are ABUSD in a file's name.


def name_of(number: int) -> str:
    return f"ticks_ABUSD_20260202_{number // 60:04d}{number % 60:02d}.ndjson"


def line(number: int, product: str = MINE, pad: int = 0) -> bytes:
    return b'{"product_id":"%b","n":%d,"pad":"%b"}\n' % (product.encode(), number, b"x" * pad)


def pack(path: Path) -> None:
    """Seal and compress a segment."""
    tally, product = scan(path)
    seal(path, tally.manifest(product or "?", 0))
    for _ in compress(path):
        pass


def read_all(tail: Tail) -> bytes:
    found = b""
    while (chunk := tail.read()) is not None:
        found += chunk.data
    return found


@settings(deadline=None, max_examples=60)
@given(
    segments=st.lists(st.lists(st.integers(0, 90), min_size=1, max_size=5), min_size=1, max_size=4),
    writes=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    packed=st.sets(st.integers(0, 3)),
    between=st.sets(st.integers(0, 3)),
    chunk=st.sampled_from([1, 16, 64, 256 * 1024]),
)
def test_it_is_the_concatenation_whatever_is_written_and_read_when(segments, writes, packed, between, chunk):
    with tempfile.TemporaryDirectory() as made, mock.patch.object(tailing, "CHUNK_BYTES", chunk):
        folder, found, expected, ends = Path(made), b"", b"", []
        tail = Tail(folder, MINE, None)
        number = turn = 0
        for place, pads in enumerate(segments):
            if place in between:
                (folder / name_of(2 * place)).write_bytes(line(0, OTHER))
            path = folder / name_of(2 * place + 1)
            lines = [line(number + n, pad=pad) for n, pad in enumerate(pads)]
            number += len(lines)
            data = b"".join(lines)
            with path.open("wb", buffering=0) as file:
                at = 0
                while at < len(data):
                    size = writes[turn % len(writes)]
                    turn += 1
                    file.write(data[at : at + size])
                    at += size
                    if turn % 3:
                        found += read_all(tail)
                        assert found == (expected + data[:at])[: len(found)]
                        assert found.endswith(b"\n") or not found
            offset = 0
            for each in lines:
                offset += len(each)
                ends.append((Position(path.name, offset), len(expected) + offset))
            expected += data
            if place in packed:
                pack(path)

        found += read_all(tail)
        resumed = [read_all(Tail(folder, MINE, position)) for position, _ in ends]

    assert found == expected
    assert resumed == [expected[size:] for _, size in ends]
    assert tail.missed == []
    tail.close()


def test_chunks_say_where_they_are(tmp_path):
    for number in (1, 2):
        (tmp_path / name_of(number)).write_bytes(line(number) * 3)
    tail = Tail(tmp_path, MINE, Position(name_of(1), len(line(1))))

    chunks = [tail.read(), tail.read()]

    size = len(line(1))
    assert [(each.segment, each.offset, each.end) for each in chunks] == [
        (name_of(1), size, Position(name_of(1), 3 * size)),
        (name_of(2), 0, Position(name_of(2), 3 * size)),
    ]
    assert tail.read() is None
    tail.close()


def test_a_line_of_many_chunks_is_read(tmp_path):
    (tmp_path / name_of(1)).write_bytes(line(1, pad=3 << 20) + line(2))
    tail = Tail(tmp_path, MINE, None)

    assert read_all(tail) == line(1, pad=3 << 20) + line(2)
    tail.close()


def test_a_segment_just_made_holds_back_what_comes_after_it(tmp_path):
    (tmp_path / name_of(1)).write_bytes(line(1))
    (tmp_path / name_of(2)).touch()
    (tmp_path / name_of(3)).write_bytes(line(3))
    tail = Tail(tmp_path, MINE, None)

    first = read_all(tail)
    (tmp_path / name_of(2)).write_bytes(line(2))
    then = read_all(tail)

    assert (first, then) == (line(1), line(2) + line(3))
    tail.close()


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_position_behind_the_end_goes_on_with_the_next_segment(tmp_path, is_packed):
    (tmp_path / name_of(1)).write_bytes(line(1))
    (tmp_path / name_of(2)).write_bytes(line(2))
    if is_packed:
        pack(tmp_path / name_of(1))
    tail = Tail(tmp_path, MINE, Position(name_of(1), 10_000))

    assert read_all(tail) == line(2)
    assert tail.missed == []
    tail.close()


def test_a_torn_end_is_left_out_when_the_next_segment_has_begun(tmp_path):
    (tmp_path / name_of(1)).write_bytes(line(1) + b'{"product_id":"A-BU')
    (tmp_path / name_of(2)).write_bytes(line(2))
    tail = Tail(tmp_path, MINE, None)

    assert read_all(tail) == line(1) + line(2)
    tail.close()


@pytest.mark.parametrize("gone", ["all of it", "all but its manifest", "all but rubbish"])
def test_a_segment_that_is_gone_is_told_and_the_next_is_read(tmp_path, gone):
    path = tmp_path / name_of(1)
    path.write_bytes(line(1))
    (tmp_path / name_of(2)).write_bytes(line(2))
    pack(path)
    packed = tmp_path / f"{name_of(1)}.zst"
    if gone == "all but rubbish":
        packed.write_bytes(b"no zstd")
    else:
        packed.unlink()
    if gone == "all of it":
        manifest_path(path).unlink()
    tail = Tail(tmp_path, MINE, Position(name_of(1), 0))

    assert read_all(tail) == line(2)
    assert tail.missed == [name_of(1)]
    tail.close()


def test_a_later_segment_that_only_left_a_manifest_is_told(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / name_of(number)).write_bytes(line(number))
    pack(tmp_path / name_of(2))
    (tmp_path / f"{name_of(2)}.zst").unlink()
    tail = Tail(tmp_path, MINE, None)

    assert read_all(tail) == line(1) + line(3)
    assert tail.missed == [name_of(2)]
    tail.close()


def test_a_segment_deleted_while_it_is_read_is_read_to_its_end(tmp_path):
    path = tmp_path / name_of(1)
    path.write_bytes(line(1))
    tail = Tail(tmp_path, MINE, None)
    first = read_all(tail)
    with path.open("ab") as file:
        path.unlink()
        file.write(line(2))
    (tmp_path / name_of(2)).write_bytes(line(3))

    then = read_all(tail)

    assert (first, then) == (line(1), line(2) + line(3))
    tail.close()


def test_a_segment_packed_between_its_listing_and_its_opening_is_read(tmp_path, monkeypatch):
    for number in (1, 2, 3):
        (tmp_path / name_of(number)).write_bytes(line(number))

    def inspect(folder, name):
        found = inspect_segment(folder, name)
        if str(name) == name_of(2) and (folder / str(name)).exists():
            pack(folder / str(name))
        return found

    monkeypatch.setattr(tailing, "inspect_segment", inspect)
    tail = Tail(tmp_path, MINE, None)

    assert read_all(tail) == line(1) + line(2) + line(3)
    tail.close()


def test_what_comes_between_the_last_read_and_the_next_segment_is_read(tmp_path, monkeypatch):
    (tmp_path / name_of(1)).write_bytes(line(1))
    tail = Tail(tmp_path, MINE, None)
    first = read_all(tail)
    look = Tail._look

    def written_meanwhile(self):
        if not (tmp_path / name_of(2)).exists():
            with (tmp_path / name_of(1)).open("ab") as file:
                file.write(line(2))
            (tmp_path / name_of(2)).write_bytes(line(3))
        look(self)

    monkeypatch.setattr(Tail, "_look", written_meanwhile)

    assert (first, read_all(tail)) == (line(1), line(2) + line(3))
    tail.close()


def test_an_idle_look_does_not_list_the_folder(tmp_path, monkeypatch):
    (tmp_path / name_of(1)).write_bytes(line(1))
    listed, now = [], [100.0]
    scandir = os.scandir
    monkeypatch.setattr(tailing.os, "scandir", lambda path: listed.append(path) or scandir(path))
    tail = Tail(tmp_path, MINE, None, monotonic=lambda: now[0])
    read_all(tail)
    now[0] += STAMP_S
    read_all(tail)
    before = len(listed)

    for _ in range(100):
        read_all(tail)
    idle = len(listed) - before
    (tmp_path / name_of(2)).write_bytes(line(2))

    assert read_all(tail) == line(2)
    assert idle == 0
    tail.close()


def test_the_folder_may_be_deleted_and_made_anew(tmp_path):
    folder = tmp_path / "raw"
    tail = Tail(folder, MINE, None)
    before = tail.read()
    folder.mkdir()
    (folder / name_of(1)).write_bytes(line(1))

    assert (before, read_all(tail)) == (None, line(1))
    tail.close()


def test_the_end_of_a_log_is_that_of_its_own_last_segment(tmp_path):
    (tmp_path / name_of(1)).write_bytes(line(1) * 5)
    (tmp_path / name_of(2)).write_bytes(line(2, OTHER))

    found = end_of(tmp_path, MINE), end_of(tmp_path, OTHER), end_of(tmp_path, "BTC-USD")

    assert found == (
        Position(name_of(1), 5 * len(line(1))),
        Position(name_of(2), len(line(2, OTHER))),
        None,
    )


@pytest.mark.parametrize("form", ["sealed", "packed", "packed, its manifest unreadable"])
def test_the_end_of_a_log_is_in_uncompressed_bytes(tmp_path, form):
    path = tmp_path / name_of(1)
    path.write_bytes(line(1) * 500)
    pack(path)
    if form == "sealed":
        path.write_bytes(line(1) * 500)
    elif form != "packed":
        manifest_path(path).write_bytes(b"{")

    assert end_of(tmp_path, MINE) == Position(name_of(1), 500 * len(line(1)))


def test_an_unreadable_manifest_alone_is_no_end(tmp_path):
    (tmp_path / name_of(1)).write_bytes(line(1))
    manifest_path(tmp_path / name_of(2)).write_bytes(b"{")

    assert end_of(tmp_path, MINE) == Position(name_of(1), len(line(1)))
