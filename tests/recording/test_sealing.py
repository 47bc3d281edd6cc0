import hashlib
import os
import stat

import msgspec
import pytest
import zstandard

from richter.adapters.recording.reader import read_blocks
from richter.adapters.recording.sealing import compress, scan, seal, verify
from richter.adapters.recording.segments import list_segments, manifest_path
from richter.errors import InputFileError

TICKS = b"".join(
    msgspec.json.encode(
        {"product_id": "BTC-USD", "ts_recv": 10 + n, "ts_event": 20 - n, "conn_id": f"c{n // 2}"}
    )
    + b"\n"
    for n in range(4)
)


@pytest.fixture
def sealed(segment):
    def make(content=TICKS):
        path = segment(content)
        tally, product_id = scan(path)
        seal(path, tally.manifest(product_id or "?", 99))
        return path

    return make


def the_segment(path):
    (found,) = list_segments(path.parent)
    return found


def test_the_manifest_tells_what_the_segment_holds(sealed):
    path = sealed()

    manifest = msgspec.json.decode(manifest_path(path).read_bytes())

    assert manifest == {
        "product_id": "BTC-USD",
        "count": 4,
        "size": len(TICKS),
        "sha256": hashlib.sha256(TICKS).hexdigest(),
        "first_recv": 10,
        "last_recv": 13,
        "first_event": 17,
        "last_event": 20,
        "connections": ["c0", "c1"],
        "sealed_at": 99,
        "v": 1,
    }
    assert verify(the_segment(path)) == ""


def test_lines_of_other_forms_are_counted_and_their_times_unknown(segment):
    path = segment(b'{"timestamp":"2026-02-02T02:40:00","product_id":"BTC-USD"}\nnot json\n{"ts_recv":"7"}\n')

    tally, product_id = scan(path)

    manifest = tally.manifest("", 0)
    assert (manifest.count, manifest.first_recv, manifest.last_event, product_id) == (
        3,
        None,
        None,
        "BTC-USD",
    )


def test_capture_time_stands_in_for_a_missing_exchange_time(segment):
    path = segment(b'{"ts_recv":7,"ts_event":null}\n')

    tally, _ = scan(path)

    assert tally.manifest("", 0).last_event == 7


def test_sealing_puts_bytes_manifest_and_name_on_the_disk_in_this_order(segment):
    path = segment(TICKS)
    synced = []

    def sync(fd):
        synced.append((os.fstat(fd).st_ino, manifest_path(path).exists()))

    seal(path, scan(path)[0].manifest("BTC-USD", 0), sync=sync)

    in_order = [path, manifest_path(path), path.parent]
    assert synced == [
        (file.stat().st_ino, is_sealed)
        for file, is_sealed in zip(in_order, (False, False, True), strict=True)
    ]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_seal_that_fails_leaves_the_segment_unsealed_and_nothing_else(segment, failing):
    path = segment(TICKS)
    calls = []

    def sync(_fd):
        calls.append(1)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        seal(path, scan(path)[0].manifest("BTC-USD", 0), sync=sync)

    assert list(path.parent.iterdir()) == [path]


def test_a_manifest_is_never_replaced(sealed):
    path = sealed()
    before = manifest_path(path).read_bytes()

    seal(path, scan(path)[0].manifest("OTHER", 1))

    assert manifest_path(path).read_bytes() == before


def test_folders_that_cannot_be_synced_do_not_matter(segment):
    path = segment(TICKS)

    def sync(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(22, "Invalid argument")

    seal(path, scan(path)[0].manifest("BTC-USD", 0), sync=sync)

    assert manifest_path(path).exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"{}\n",
        lambda content: content.replace(b"13", b"14"),
    ],
)
def test_verify_finds_what_differs(sealed, damage):
    path = sealed()
    path.write_bytes(damage(TICKS))

    difference = verify(the_segment(path))

    assert "in the manifest" in difference


def test_a_compressed_segment_has_the_same_lines_and_manifest(sealed):
    content = TICKS * 20_000
    path = sealed(content)
    manifest = manifest_path(path).read_bytes()

    steps = list(compress(path))

    packed = path.with_name(path.name + ".zst")
    assert len(steps) > 4
    assert sorted(path.parent.iterdir()) == sorted([packed, manifest_path(path)])
    assert b"".join(block.data for block in read_blocks(packed)) == content
    assert manifest_path(path).read_bytes() == manifest
    assert verify(the_segment(path)) == ""


def test_compressed_frames_are_independent_and_of_whole_lines(sealed):
    path = sealed(TICKS * 20_000)
    list(compress(path))

    data = path.with_name(path.name + ".zst").read_bytes()
    parts = []
    while data:
        decoder = zstandard.ZstdDecompressor().decompressobj()
        parts.append(decoder.decompress(data))
        data = decoder.unused_data

    assert len(parts) > 4
    assert all(part.endswith(b"\n") for part in parts)


def test_stopping_a_compression_leaves_the_plain_file_alone(sealed):
    path = sealed(TICKS * 20_000)
    steps = compress(path)
    next(steps)

    steps.close()

    assert sorted(path.parent.iterdir()) == sorted([path, manifest_path(path)])


def test_a_compression_that_fails_leaves_the_plain_file_alone(sealed):
    path = sealed()

    def sync(_fd):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        list(compress(path, sync=sync))

    assert sorted(path.parent.iterdir()) == sorted([path, manifest_path(path)])


def test_a_segment_that_is_not_what_its_manifest_says_is_not_compressed(sealed):
    path = sealed()
    path.write_bytes(TICKS + b"{}\n")

    with pytest.raises(InputFileError, match="not what its manifest says"):
        list(compress(path))

    assert path.exists()


def test_an_unsealed_segment_is_not_compressed(segment):
    path = segment(TICKS)

    with pytest.raises(InputFileError, match="only a sealed segment"):
        list(compress(path))

    assert path.exists()


def test_verify_finds_a_damaged_compressed_segment(sealed):
    path = sealed()
    list(compress(path))
    packed = path.with_name(path.name + ".zst")
    packed.write_bytes(packed.read_bytes()[:-5])

    difference = verify(the_segment(path))

    assert difference == "the compressed file is truncated"
