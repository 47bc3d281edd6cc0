import base64
import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.adapters.recording.events import EventKind
from richter.adapters.recording.reader import read_blocks
from richter.adapters.recording.recovery import Cut, recover
from richter.adapters.recording.sealing import compress, scan, seal, verify
from richter.adapters.recording.segments import list_segments, manifest_path

LINES = [b'{"product_id":"BTC-USD","n":%d}\n' % n for n in range(1000)]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data" / "raw"
    path.mkdir(parents=True)
    return path


def sealed(path):
    tally, product_id = scan(path)
    seal(path, tally.manifest(product_id or "?", 1))
    return path


def kept_bytes(folder):
    """Put the pieces of the dead-letter file together again."""
    letters = [
        msgspec.json.decode(line)
        for line in (folder.parent / "dead" / "recording.ndjson").read_bytes().splitlines()
    ]
    pieces = [
        base64.b64decode(letter["data_b64"]) if "data_b64" in letter else letter["data"].encode()
        for letter in letters
    ]
    return b"".join(pieces)


def state_of(folder):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    }


def test_a_torn_last_line_is_cut_kept_and_counted(segment, folder):
    path = segment(b"".join(LINES) + b'{"n":10')

    recovery = recover(folder)

    assert path.read_bytes() == b"".join(LINES)
    assert recovery.cut == [Cut(path, path.stat().st_size, 7)]
    assert kept_bytes(folder) == b'{"n":10'


def test_segments_of_an_earlier_run_are_sealed(segment, folder):
    paths = [segment(b"".join(LINES), start) for start in ("20260202_024000", "20260202_034000")]

    recovery = recover(folder, clock=lambda: 5)

    assert recovery.sealed == paths
    assert [verify(found) for found in list_segments(folder)] == ["", ""]
    assert list_segments(folder)[0].manifest.product_id == "BTC-USD"
    assert list_segments(folder)[0].manifest.sealed_at == 5
    assert recovery.cut == []


@settings(deadline=None)
@given(cut=st.integers(1, 340))
def test_any_cut_gives_back_exactly_the_whole_lines(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("data") / "raw"
    folder.mkdir()
    lines = LINES[:10]
    content = b"".join(lines)[:cut]
    path = folder / "ticks_BTCUSD_20260202_024000.ndjson"
    path.write_bytes(content)

    recovery = recover(folder, on_event=lambda _: None)

    whole = [line for n, line in enumerate(lines, 1) if content.startswith(b"".join(lines[:n])[:-1])]
    left = path.read_bytes() if path.exists() else b""
    assert left == b"".join(whole)
    torn = content[len(left) :]
    assert [found.size for found in recovery.cut] == [len(torn)] * bool(torn)
    assert not torn or kept_bytes(folder) == torn


def test_a_last_line_that_lacks_only_its_newline_is_completed(segment, folder):
    path = segment(b"".join(LINES).removesuffix(b"\n"))
    read_before = [line for block in read_blocks(path) for line in block.lines()]

    recovery = recover(folder)

    assert [line for block in read_blocks(path) for line in block.lines()] == read_before
    assert (recovery.completed, recovery.cut) == ([path], [])
    assert list_segments(folder)[0].manifest.count == len(LINES)


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_a_torn_line_larger_than_the_step_is_cut_and_nothing_is_lost(segment, folder, size):
    torn = (b'{"x":"' + os.urandom(1 << 16).replace(b"\n", b" ") * 81)[:size]
    path = segment(LINES[0] + torn)

    recovery = recover(folder)

    assert path.read_bytes() == LINES[0]
    assert recovery.cut == [Cut(path, len(LINES[0]), size)]
    assert kept_bytes(folder) == torn


def test_zeros_after_a_power_cut_are_cut(segment, folder):
    path = segment(b"".join(LINES) + b"\0" * 5000)

    recovery = recover(folder)

    assert path.read_bytes() == b"".join(LINES)
    assert recovery.cut[0].size == 5000


@pytest.mark.parametrize("content", [b"", b'{"n":'])
def test_a_segment_without_a_whole_line_is_removed(segment, folder, content):
    path = segment(content)

    recovery = recover(folder)

    assert recovery.emptied == [path]
    assert not path.exists()
    assert recovery.problems == []


def test_a_sealed_segment_is_never_touched(segment, folder):
    sealed(segment(b"".join(LINES)))
    packed = sealed(segment(b"".join(LINES), "20260202_034000"))
    list(compress(packed))
    before = state_of(folder)

    recovery = recover(folder)

    assert state_of(folder) == before
    assert (recovery.sealed, recovery.cut, recovery.problems) == ([], [], [])


@pytest.mark.parametrize("change", [b'{"n":', b"{}\n"])
def test_a_manifest_that_does_not_match_is_reported_and_not_mended(segment, folder, change):
    path = sealed(segment(b"".join(LINES)))
    path.write_bytes(path.read_bytes() + change)
    before = state_of(folder)
    events = []

    recovery = recover(folder, on_event=events.append)

    assert state_of(folder) == before
    assert [problem.path for problem in recovery.problems] == [path]
    assert [event.kind for event in events] == [EventKind.PROBLEM]


def test_an_unreadable_manifest_is_reported_and_not_mended(segment, folder):
    path = segment(b"".join(LINES) + b"{")
    manifest_path(path).write_text("{")
    before = state_of(folder)

    recovery = recover(folder)

    assert state_of(folder) == before
    assert [problem.path for problem in recovery.problems] == [manifest_path(path)]


def test_a_manifest_without_its_segment_is_reported(segment, folder):
    path = sealed(segment(b"".join(LINES)))
    path.unlink()

    recovery = recover(folder)

    assert [problem.fact for problem in recovery.problems] == ["a manifest has no segment"]


def test_what_a_crash_left_half_written_is_removed(segment, folder):
    path = sealed(segment(b"".join(LINES)))
    left = [folder / f".{path.name}.zst.tmp", folder / f".{path.name}.manifest.json.tmp"]
    for temporary in left:
        temporary.write_bytes(b"half")
    other = folder / ".hidden.tmp"
    other.write_bytes(b"not ours")

    recover(folder)

    assert [temporary.exists() for temporary in left] == [False, False]
    assert other.exists()


def test_a_compression_interrupted_before_its_last_step_is_finished(segment, folder):
    path = sealed(segment(b"".join(LINES)))
    list(compress(path))
    path.write_bytes(b"".join(LINES))  # As if the crash came before the plain file's removal.

    recovery = recover(folder)

    assert not path.exists()
    assert recovery.problems == []
    assert verify(list_segments(folder)[0]) == ""


def test_a_compressed_form_that_is_damaged_is_reported_and_the_plain_one_kept(segment, folder):
    path = sealed(segment(b"".join(LINES)))
    list(compress(path))
    packed = path.with_name(path.name + ".zst")
    packed.write_bytes(packed.read_bytes()[:-4])
    path.write_bytes(b"".join(LINES))

    recovery = recover(folder)

    assert path.read_bytes() == b"".join(LINES)
    assert [problem.path for problem in recovery.problems] == [packed]


def test_recovering_twice_changes_nothing_more(segment, folder):
    segment(b"".join(LINES) + b"{")
    recover(folder)
    before = state_of(folder.parent)

    recovery = recover(folder)

    assert state_of(folder.parent) == before
    assert (recovery.sealed, recovery.cut, recovery.problems) == ([], [], [])


def test_bytes_that_cannot_be_kept_are_not_cut(segment, folder):
    path = segment(LINES[0] + b"{")
    (folder.parent / "dead").write_text("in the way")

    recovery = recover(folder)

    assert path.read_bytes() == LINES[0] + b"{"
    assert [problem.path for problem in recovery.problems] == [path]
    assert not manifest_path(path).exists()


def test_other_files_in_the_folder_are_left_alone(folder):
    (folder / "mine.ndjson").write_bytes(b"{}\n{")

    recovery = recover(folder)

    assert (folder / "mine.ndjson").read_bytes() == b"{}\n{"
    assert recovery.sealed == []


def test_an_absent_folder_is_in_order(tmp_path):
    recovery = recover(tmp_path / "absent")

    assert recovery.problems == []
    assert not (tmp_path / "dead").exists()


def test_a_recorder_goes_on_in_a_new_segment_after_a_recovery(world, segment):
    old = segment(b"".join(LINES) + b"{", "20260202_024000")
    recover(world.folder)
    before = old.read_bytes()

    world.recorder().append("BTC-USD", [world.line()], ts_recv=world.now)

    assert old.read_bytes() == before
    assert [path.name for path in world.files()] == [old.name, "ticks_BTCUSD_20260202_024001.ndjson"]
