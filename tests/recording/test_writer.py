import errno
import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from richter.adapters.recording import writer
from richter.adapters.recording.events import EventKind
from richter.adapters.recording.reader import expand, read_blocks
from richter.adapters.recording.recovery import recover
from richter.adapters.recording.sealing import datasync, verify
from richter.adapters.recording.segments import Position, list_segments, manifest_path
from richter.adapters.recording.writer import Loss, RecorderState
from richter.errors import ContractError, DataFolderError

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def append(world, recorder, product_id="BTC-USD", lines=1, **times):
    batch = [world.line(product_id) for _ in range(lines)]
    times.setdefault("ts_recv", world.now)
    return recorder.append(product_id, batch, **times)


class Disk:
    """`os.write` of a disk that can be made to fail."""

    def __init__(self):
        self.calls = []
        self.fault = None

    def write(self, fd, data):
        self.calls.append(bytes(data))
        if self.fault is not None:
            return self.fault(fd, data)
        return os.write(fd, data)


def no_space(fd, data):
    full = Path("/dev/full")  # The kernel's own refusal, where it offers one.
    if not full.exists():
        raise OSError(errno.ENOSPC, "No space left on device")
    with full.open("wb", buffering=0) as file:
        return os.write(file.fileno(), data)


def half(fd, data):
    return os.write(fd, data[: len(data) // 2])


# Lines


def test_the_lines_of_a_frame_are_one_write_of_whole_lines(world):
    disk = Disk()
    recorder = world.recorder(write=disk.write)

    recorder.append("BTC-USD", [b'{"n":1}', b'{"n":2}\n', b'{"n":3}'], ts_recv=world.now)

    assert disk.calls == [b'{"n":1}\n{"n":2}\n{"n":3}\n']


def test_lines_are_in_the_file_when_append_returns(world):
    recorder = world.recorder()

    append(world, recorder, lines=3)

    assert len(world.lines()) == 3


def test_append_returns_the_position_after_the_lines(world):
    recorder = world.recorder()

    first = append(world, recorder)
    second = append(world, recorder, lines=2)

    (path,) = world.files()
    assert second == Position(path.name, path.stat().st_size)
    assert first < second


@pytest.mark.parametrize("lines", [[], [b"a\nb"], [b"a\n\n"], [b"a", b"b\nc"]])
def test_what_is_not_whole_lines_breaks_the_contract(world, lines):
    recorder = world.recorder()

    with pytest.raises(ContractError):
        recorder.append("BTC-USD", lines, ts_recv=world.now)

    assert world.files() == []


def test_each_product_has_its_own_segment(world):
    recorder = world.recorder()

    append(world, recorder, "BTC-USD")
    append(world, recorder, "ETH-USD")

    assert [path.name for path in world.files()] == [
        "ticks_BTCUSD_20260202_024000.ndjson",
        "ticks_ETHUSD_20260202_024000.ndjson",
    ]
    assert set(recorder.open_segments) == {"BTC-USD", "ETH-USD"}


def test_no_file_is_made_before_the_first_line(world):
    recorder = world.recorder()

    recorder.tick()

    assert world.files("*") == []


def test_a_folder_that_cannot_be_made_is_the_operators_fault(world, tmp_path):
    (tmp_path / "data").write_text("in the way")

    with pytest.raises(DataFolderError, match="cannot be made"):
        world.recorder()


def test_a_closed_recorder_takes_no_lines(world):
    recorder = world.recorder()
    recorder.close()

    with pytest.raises(ContractError, match="closed"):
        append(world, recorder)

    assert recorder.state is RecorderState.CLOSED


# Durability


def test_the_disk_is_synced_about_once_a_second_however_many_lines_come(world):
    synced = []
    recorder = world.recorder(sync=lambda fd: synced.append(os.fstat(fd).st_ino))

    for _ in range(35):
        append(world, recorder)
        world.now += SECOND // 10

    (path,) = world.files()
    assert synced.count(path.stat().st_ino) == 3
    assert synced.count(path.parent.stat().st_ino) == 1


def test_a_tick_syncs_what_a_silent_feed_left(world):
    synced = []
    recorder = world.recorder(sync=synced.append)
    append(world, recorder)

    recorder.tick(world.now + SECOND // 2)
    early = len(synced)
    recorder.tick(world.now + SECOND)
    due = len(synced)
    recorder.tick(world.now + 3 * SECOND)

    assert (early, due, len(synced)) == (0, 2, 2)


def test_a_clock_that_was_set_back_does_not_stop_the_syncs(world):
    synced = []
    recorder = world.recorder(sync=synced.append)
    append(world, recorder)

    world.now -= 600 * SECOND
    append(world, recorder)

    assert len(world.files()) == 1
    assert synced


def test_a_sync_that_fails_is_loud_and_goes_on_in_a_new_segment(world):
    fault = [OSError(5, "Input/output error")]

    def sync(fd):
        if fault:
            raise fault[0]
        datasync(fd)

    recorder = world.recorder(sync=sync)
    append(world, recorder)
    world.now += SECOND
    kept = append(world, recorder)
    state, reason = recorder.state, recorder.reason
    fault.clear()
    world.now += 6 * SECOND
    append(world, recorder)
    world.now += SECOND
    recorder.tick()

    assert kept is not None
    assert (state, recorder.state) == (RecorderState.DEGRADED, RecorderState.RECORDING)
    assert "Input/output error" in reason
    assert len(world.lines()) == 3
    assert len(world.files()) == 2
    assert [segment.is_sealed for segment in list_segments(world.folder)] == [True, False]


def test_a_segment_deleted_while_it_is_open_is_told_and_replaced(world):
    recorder = world.recorder()
    append(world, recorder)

    world.files()[0].unlink()
    world.now += SECOND
    append(world, recorder)
    append(world, recorder)

    assert "2 lines were deleted" in world.told(EventKind.PROBLEM)[0].detail
    assert len(world.lines()) == 1


# Rotation and sealing


def test_segments_rotate_hourly_by_capture_time(world):
    recorder = world.recorder()

    for minutes in (0, 59, 60, 61, 119, 120):
        append(world, recorder, ts_recv=world.now + minutes * 60 * SECOND)

    assert [len(path.read_bytes().splitlines()) for path in world.files()] == [2, 3, 1]
    assert [path.name[-13:-7] for path in world.files()] == ["024000", "034000", "044000"]


def test_segments_rotate_by_size_and_never_exceed_it(world):
    recorder = world.recorder(rotate_bytes=300)

    for _ in range(20):
        append(world, recorder)

    sizes = [path.stat().st_size for path in world.files()]
    assert len(sizes) > 4
    assert max(sizes) <= 300


def test_a_frame_larger_than_a_segment_is_recorded_all_the_same(world):
    recorder = world.recorder(rotate_bytes=100)

    kept = [append(world, recorder, lines=5) for _ in range(2)]

    assert None not in kept
    assert [len(path.read_bytes().splitlines()) for path in world.files()] == [5, 5]


def test_a_clock_set_back_by_a_day_does_not_keep_a_segment_open_for_it(world):
    recorder = world.recorder()
    append(world, recorder)

    append(world, recorder, ts_recv=world.now - 24 * HOUR)

    assert [len(path.read_bytes().splitlines()) for path in world.files()] == [1, 1]
    assert [msgspec.json.decode(line)["n"] for line in world.lines()] == [0, 1]


def test_a_rotated_segment_is_sealed_and_the_open_one_is_not(world):
    recorder = world.recorder()
    append(world, recorder, lines=2, ts_event=world.now - 5, conn_id="c1")
    append(world, recorder, ts_event=world.now - 7, conn_id="c2")
    append(world, recorder, ts_recv=world.now + HOUR)

    sealed, unsealed = list_segments(world.folder)

    content = sealed.path.read_bytes()
    manifest = sealed.manifest
    assert (manifest.count, manifest.size) == (3, len(content))
    assert manifest.sha256 == hashlib.sha256(content).hexdigest()
    assert (manifest.first_event, manifest.last_event) == (world.now - 7, world.now - 5)
    assert (manifest.first_recv, manifest.last_recv) == (world.now, world.now)
    assert (manifest.product_id, manifest.connections) == ("BTC-USD", ("c1", "c2"))
    assert not unsealed.is_sealed


def test_sealed_segments_stay_where_the_globs_find_them(world):
    recorder = world.recorder()
    append(world, recorder)
    recorder.close()

    assert [path.suffix for path in world.files()] == [".ndjson"]
    assert len(world.files("*")) == 2


def test_an_idle_segment_is_sealed_by_a_tick(world):
    recorder = world.recorder()
    append(world, recorder)

    recorder.tick(world.now + HOUR - 1)
    early = list_segments(world.folder)[0].is_sealed
    recorder.tick(world.now + HOUR)

    assert (early, list_segments(world.folder)[0].is_sealed) == (False, True)


def test_close_seals_what_is_open(world):
    recorder = world.recorder()
    append(world, recorder, "BTC-USD")
    append(world, recorder, "ETH-USD")

    recorder.close()

    segments = list_segments(world.folder)
    assert [verify(segment) for segment in segments] == ["", ""]
    assert len(world.told(EventKind.SEALED)) == 2


def test_a_seal_that_fails_is_tried_again_and_recording_goes_on(world):
    faults = [OSError(5, "Input/output error")]

    def sync(fd):
        if faults:
            raise faults.pop()
        datasync(fd)

    recorder = world.recorder(sync=sync)
    append(world, recorder)
    kept = append(world, recorder, ts_recv=world.now + HOUR)
    state = recorder.state
    world.now += 5 * SECOND
    recorder.tick()

    assert kept is not None
    assert (state, recorder.state) == (RecorderState.DEGRADED, RecorderState.RECORDING)
    assert list_segments(world.folder)[0].is_sealed


def test_a_second_run_goes_on_in_a_new_segment(world):
    first = world.recorder()
    append(world, first)
    first.close()
    before = world.files()[0].read_bytes()

    second = world.recorder()
    append(world, second)

    assert len(world.files()) == 2
    assert world.files()[0].read_bytes() == before


# Compression


def test_compression_is_opt_in(world):
    recorder = world.recorder(rotate_bytes=200)
    for _ in range(10):
        append(world, recorder)
        recorder.tick()

    recorder.close()

    assert world.files("*.zst") == []


def test_sealed_segments_are_compressed_and_every_line_is_still_found(world):
    recorder = world.recorder(rotate_bytes=200, compress=True)
    for _ in range(10):
        append(world, recorder)
        world.now += SECOND
        recorder.tick()
    (still_open,) = world.files()

    recorder.close()

    assert still_open.name in {path.name.removesuffix(".zst") for path in world.files("*.zst")}
    paths = expand([world.folder / "*.ndjson"])
    lines = [line for path in paths for block in read_blocks(path) for line in block.lines()]
    assert [msgspec.json.decode(line)["n"] for line in lines] == list(range(10))
    assert [verify(segment) for segment in list_segments(world.folder)] == [""] * len(paths)


def test_a_compression_that_fails_is_told_and_leaves_the_plain_segment(world):
    recorder = world.recorder(compress=True)
    append(world, recorder)
    append(world, recorder, ts_recv=world.now + HOUR)
    path = world.files()[0]
    path.write_bytes(b"{}\n")  # Not what was recorded.

    recorder.tick()
    recorder.tick()

    assert "stays uncompressed" in world.told(EventKind.PROBLEM)[0].detail
    assert world.files("*.zst") == []


# A disk that is full


def test_below_the_floor_nothing_is_recorded_and_it_is_loud(world):
    recorder = world.recorder()
    append(world, recorder)

    world.free = 2**30 - 1
    world.now += SECOND
    lost = [append(world, recorder, lines=2) for _ in range(3)]

    assert lost == [None, None, None]
    assert recorder.state is RecorderState.DEGRADED
    assert "1.00 GiB are free" in recorder.reason
    assert [event.kind for event in world.events if event.kind is EventKind.DEGRADED] == [EventKind.DEGRADED]
    assert recorder.lost == {"BTC-USD": 6}
    assert len(world.lines()) == 1


def test_above_the_floor_it_goes_on_in_the_same_segment_within_5_s(world):
    recorder = world.recorder()
    append(world, recorder)
    world.free = 0
    world.now += SECOND
    append(world, recorder)

    world.free = 2**30
    world.now += 5 * SECOND - 1
    early = append(world, recorder)
    world.now += 1
    due = append(world, recorder)

    assert early is None
    assert due is not None
    assert recorder.state is RecorderState.RECORDING
    assert [msgspec.json.decode(line)["n"] for line in world.lines()] == [0, 3]
    assert len(world.files()) == 1


def test_a_tick_notices_room_without_a_line(world):
    recorder = world.recorder()
    world.free = 0
    append(world, recorder)

    world.free = 10**12
    world.now += 5 * SECOND
    recorder.tick()

    assert recorder.state is RecorderState.RECORDING
    assert len(world.told(EventKind.RESUMED)) == 1


def test_free_space_is_asked_once_a_second(world):
    asked = []
    recorder = world.recorder(free_bytes=lambda: asked.append(1) or 10**12)

    for _ in range(30):
        append(world, recorder)
        world.now += SECOND // 10

    assert len(asked) == 3


def test_a_disk_that_cannot_tell_its_room_is_written_to(world):
    def unknown():
        raise OSError(38, "Function not implemented")

    recorder = world.recorder(free_bytes=unknown)

    kept = append(world, recorder)

    assert kept is not None


@pytest.mark.parametrize("fault", [no_space, half])
def test_a_failed_or_partial_write_leaves_no_torn_line(world, fault):
    disk = Disk()
    recorder = world.recorder(write=disk.write)
    append(world, recorder, lines=2)
    before = world.lines()

    disk.fault = fault
    lost = append(world, recorder, lines=3)

    assert lost is None
    assert recorder.state is RecorderState.DEGRADED
    assert world.lines() == before
    assert world.files()[0].read_bytes().endswith(b"\n")


@pytest.mark.parametrize("fault", [no_space, half])
def test_a_full_disk_is_tried_every_5_s_and_recording_resumes(world, fault):
    disk = Disk()
    recorder = world.recorder(write=disk.write)
    append(world, recorder)
    disk.fault = fault
    tries = len(disk.calls)
    for _ in range(21):
        append(world, recorder)
        world.now += SECOND

    tries = len(disk.calls) - tries
    disk.fault = None
    world.now += 5 * SECOND
    kept = append(world, recorder)
    world.now += 5 * SECOND
    recorder.tick()

    assert tries == 5
    assert len(world.told(EventKind.OPENED)) == 2
    assert kept is not None
    assert recorder.state is RecorderState.RECORDING
    assert recorder.lost == {"BTC-USD": 21}
    assert [msgspec.json.decode(line)["n"] for line in world.lines()] == [0, 22]
    assert len(world.told(EventKind.DEGRADED)) == 1
    assert world.told(EventKind.RESUMED)[0].detail == "21 lines of 21 frames were not recorded"


def test_one_products_failing_file_does_not_stop_another(world):
    disk = Disk()
    recorder = world.recorder(write=disk.write)
    append(world, recorder, "BTC-USD")

    disk.fault = no_space
    append(world, recorder, "BTC-USD")
    disk.fault = None
    kept = append(world, recorder, "ETH-USD")

    assert kept is not None
    assert recorder.state is RecorderState.DEGRADED
    assert recorder.lost == {"BTC-USD": 1}


def test_what_was_lost_is_told_until_the_product_is_recorded_again(world):
    recorder = world.recorder()
    before = recorder.pending_loss("BTC-USD")
    append(world, recorder, ts_event=77)
    none_yet = recorder.pending_loss("BTC-USD")
    world.free = 0
    world.now += SECOND
    append(world, recorder, lines=2)
    append(world, recorder, lines=1)
    loss = recorder.pending_loss("BTC-USD")
    world.free = 10**12
    world.now += 5 * SECOND
    append(world, recorder)

    assert (before, none_yet) == (None, None)
    assert loss == Loss(lines=3, frames=2, last_good=77)
    assert recorder.pending_loss("BTC-USD") is None
    assert recorder.lost == {"BTC-USD": 3}


def test_no_empty_file_is_left_by_a_full_disk(world):
    disk = Disk()
    disk.fault = no_space
    recorder = world.recorder(write=disk.write)

    append(world, recorder)

    assert world.files("*") == []


def test_a_torn_line_that_cannot_be_cut_at_once_is_cut_before_the_seal(world, monkeypatch):
    disk = Disk()
    recorder = world.recorder(write=disk.write)
    append(world, recorder)
    disk.fault = half

    def refuse(_fd, _size):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(writer.os, "ftruncate", refuse)
        append(world, recorder)
    torn = world.files()[0].read_bytes()
    disk.fault = None
    world.now += 5 * SECOND
    append(world, recorder)

    assert not torn.endswith(b"\n")
    assert [msgspec.json.decode(line)["n"] for line in world.lines()] == [0, 2]
    assert verify(list_segments(world.folder)[0]) == ""


def test_an_interrupt_in_a_write_leaves_no_torn_line(world):
    disk = Disk()
    recorder = world.recorder(write=disk.write)
    append(world, recorder)

    def interrupted(fd, data):
        half(fd, data)
        raise KeyboardInterrupt

    disk.fault = interrupted
    with pytest.raises(KeyboardInterrupt):
        append(world, recorder)
    disk.fault = None
    append(world, recorder)

    assert [msgspec.json.decode(line)["n"] for line in world.lines()] == [0, 2]


def test_closing_on_a_full_disk_leaves_the_rest_to_the_next_start(world):
    def sync(_fd):
        raise OSError(28, "No space left on device")

    recorder = world.recorder(sync=sync)
    append(world, recorder)
    recorder.close()
    unsealed = list_segments(world.folder)[0]

    recovery = recover(world.folder)

    assert not unsealed.is_sealed
    assert recovery.sealed == [unsealed.path]


def test_a_real_file_size_limit_tears_no_line(tmp_path):
    # The kernel itself writes a part of the last frame and then refuses, as on a disk that fills up.
    script = """
        import resource, sys
        from pathlib import Path
        from richter.adapters.recording.writer import Recorder
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        now = [1_770_000_000 * 10**9]
        recorder = Recorder(Path(sys.argv[1]), clock=lambda: now[0], on_event=lambda _: None)
        kept = []
        for n in range(300):
            if recorder.append("BTC-USD", [b'{"n":%d,"x":"%s"}' % (n, b"x" * 90)], ts_recv=now[0]):
                kept.append(n)
            now[0] += 10**9
        recorder.close()
        print(kept)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )

    kept = msgspec.json.decode(run.stdout)
    lines = [line for path in sorted(tmp_path.glob("*.ndjson")) for line in path.read_bytes().splitlines()]
    assert [msgspec.json.decode(line)["n"] for line in lines] == kept
    assert 280 < len(kept) < 300
    assert [verify(segment) for segment in list_segments(tmp_path)] == [""] * 4


def test_a_segment_tells_other_recorders_that_it_is_in_use(world):
    recorder = world.recorder()
    append(world, recorder)

    recovery = recover(world.folder)

    assert recovery.in_use == world.files()
    assert not manifest_path(world.files()[0]).exists()
    assert append(world, recorder) is not None
