"""The recorder: a frame's lines are on the disk before anything else sees a tick of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import Final, Self

import msgspec

from richter.adapters.recording.backlog import Backlog
from richter.adapters.recording.events import EventKind, RecordingEvent, log_event
from richter.adapters.recording.intervals import is_due
from richter.adapters.recording.sealing import Sync, datasync
from richter.adapters.recording.segments import Position
from richter.adapters.recording.troubles import Troubles
from richter.adapters.recording.unsealed import Unsealed
from richter.domain.ticks import Ns
from richter.errors import ContractError, DataFolderError

__all__ = ["Loss", "Recorder", "RecorderState"]

_SECOND: Final = 1_000_000_000
_GIB: Final = 1024**3

# A MiB each, 2 ms: so few at a tick that a segment's compression does not hold up the feed.
_COMPRESSION_STEPS: Final = 4


class RecorderState(StrEnum):
    """Whether the recording is as it should be."""

    RECORDING = "recording"
    DEGRADED = "degraded"
    CLOSED = "closed"


class Loss(msgspec.Struct, frozen=True):
    """What a product has lost since its last recorded line.

    Attributes:
        lines: not recorded.
        frames: not recorded.
        last_good: event time of the last recorded frame, None when there was none in this run.
    """

    lines: int
    frames: int
    last_good: Ns | None


class Recorder:
    """Appends the lines of frames to one open segment per product.

    It has no thread and no timer: `append` and `tick` do what is due by then. Whoever owns it calls `tick`
    about once a second, also while the feed is silent.

    While the disk is full, below its floor or failing, `append` returns None, the state is DEGRADED, and
    every 5 s the disk is tried again. A frame that was not recorded must go no further, or a replay of the
    recording would not find what was served; the product's next tick says so: `pending_loss` tells what to
    put into its ``gap_before: {cause: overflow}``, until lines of the product are recorded again.

    Args:
        folder: made when it is missing.
        rotate_s: age in capture time at which a segment is sealed.
        rotate_bytes: size that a segment does not exceed, unless by a single frame.
        compress: sealed segments become zstd, a few steps at each `tick`.
        clock: ns since the epoch, UTC.
        free_bytes: free space for ordinary users on the folder's disk; asked once a second.
        min_free_bytes: below it nothing is recorded: the rest is for whoever has to mend it.
        fsync_interval_s: what a power cut can cost.
        retry_s: after a failure.
        on_event: told of everything worth telling.
        write: as `os.write`.
        sync: as `os.fdatasync`.

    Raises:
        DataFolderError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rotate_s: float = 3600.0,
        rotate_bytes: int = 128 * 1024 * 1024,
        compress: bool = False,
        clock: Callable[[], Ns] = time_ns,
        free_bytes: Callable[[], int] | None = None,
        min_free_bytes: int = _GIB,
        fsync_interval_s: float = 1.0,
        retry_s: float = 5.0,
        on_event: Callable[[RecordingEvent], None] = log_event,
        write: Callable[[int, bytes], int] = os.write,
        sync: Sync = datasync,
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataFolderError(
                f"the recording's folder cannot be made ({error.strerror})",
                str(folder),
                "choose another with --data",
            ) from error
        self._folder = folder
        self._rotate_ns = int(rotate_s * _SECOND)
        self._rotate_bytes = rotate_bytes
        self._clock = clock
        self._free_bytes = free_bytes or (lambda: _free_bytes(folder))
        self._min_free_bytes = min_free_bytes
        self._sync_ns = int(fsync_interval_s * _SECOND)
        self._retry_ns = int(retry_s * _SECOND)
        self._on_event = on_event
        self._write = write
        self._sync = sync
        self._streams: dict[str, _Stream] = {}
        self._troubles = Troubles(on_event)
        self._backlog = Backlog(
            compress=compress,
            retry_ns=self._retry_ns,
            on_event=on_event,
            sync=sync,
            troubles=self._troubles,
        )
        self._space_asked: Ns | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def state(self) -> RecorderState:
        """Whether all is well."""
        if self._closed:
            return RecorderState.CLOSED
        return RecorderState.DEGRADED if self._troubles else RecorderState.RECORDING

    @property
    def reason(self) -> str:
        """Why the state is DEGRADED; else empty."""
        return self._troubles.reason

    @property
    def lost(self) -> dict[str, int]:
        """Lines lost so far, of each product that lost any."""
        return {name: stream.lost_lines for name, stream in self._streams.items() if stream.lost_lines}

    @property
    def open_segments(self) -> dict[str, Path]:
        """The segment each product is written to at this moment."""
        return {name: stream.open.path for name, stream in self._streams.items() if stream.open is not None}

    def pending_loss(self, product_id: str) -> Loss | None:
        """Return what the product has lost since its last recorded line; None when nothing."""
        stream = self._streams.get(product_id)
        if stream is None or not stream.pending_frames:
            return None
        return Loss(stream.pending_lines, stream.pending_frames, stream.last_good)

    def append(
        self,
        product_id: str,
        lines: Sequence[bytes],
        *,
        ts_recv: Ns,
        ts_event: Ns | None = None,
        conn_id: str | None = None,
    ) -> Position | None:
        r"""Record the lines of one frame, all or none, with one write.

        Args:
            product_id: whose they are.
            lines: at least one; each gets its ``\n`` unless it has it.
            ts_recv: capture time.
            ts_event: exchange time; None where the exchange gave none.
            conn_id: of the connection, for the manifest.

        Returns:
            The position after them, or None: they are not recorded.

        Raises:
            ContractError: no line, a line with a line break in it, or the recorder is closed.
        """
        data = _joined(lines)
        if self._closed:
            raise ContractError("lines are appended to a closed recorder", product_id)
        now = self._clock()
        stream = self._streams.get(product_id)
        if stream is None:
            stream = self._streams[product_id] = _Stream(product_id)
        self._backlog.seal(now)
        if not is_due(now, stream.failed_at, self._retry_ns) or not self._has_room(now):
            stream.lose(len(lines))
            return None
        if stream.open is not None and self._is_full(stream.open, len(data), ts_recv):
            self._retire(stream, now)
        try:
            segment = stream.open or self._open(stream, ts_recv, now)
            is_new = not segment.tally.count
            segment.append(data, len(lines), self._write)
        except OSError as error:
            self._fail(stream, error, now)
            stream.lose(len(lines))
            return None
        segment.tally.add_times(ts_recv, ts_event, conn_id)
        if is_new:
            self._on_event(RecordingEvent(EventKind.OPENED, "", product_id, segment.path))
        stream.failed_at = None
        if self._troubles:
            self._troubles.clear(f"write {product_id}", stream.told_loss(), product_id)
        stream.keep(ts_recv if ts_event is None else ts_event)
        if is_due(now, segment.synced_at, self._sync_ns):
            self._put_on_disk(stream, now)
        return Position(segment.path.name, segment.tally.size)

    def tick(self, now: Ns | None = None) -> None:
        """Do what is due: sync, seal idle segments, try again what failed, go on compressing.

        Args:
            now: by the clock given; None asks it.
        """
        now = self._clock() if now is None else now
        for stream in self._streams.values():
            segment = stream.open
            if segment is None:
                continue
            if not segment.is_synced and is_due(now, segment.synced_at, self._sync_ns):
                self._put_on_disk(stream, now)
            if stream.open is not None and is_due(now, segment.opened_at, self._rotate_ns):
                self._retire(stream, now)
        self._backlog.seal(now)
        if "space" in self._troubles:
            self._has_room(now)
        for _ in range(_COMPRESSION_STEPS):
            self._backlog.compress_step()

    def sync(self) -> None:
        """Put everything appended so far on disk, before something that rests on it is written.

        Raises:
            DataFolderError: the disk refuses it.
        """
        now = self._clock()
        for stream in self._streams.values():
            if stream.open is not None and not stream.open.is_synced:
                self._put_on_disk(stream, now)
            if f"sync {stream.product_id}" in self._troubles:
                raise DataFolderError("the recording cannot be put on disk", self.reason, "look at the disk")

    def close(self) -> None:
        """Seal every segment and finish compressing; what the disk refuses, the next start seals."""
        if self._closed:
            return
        now = self._clock()
        for stream in self._streams.values():
            if stream.open is not None:
                self._retire(stream, now)
        self._backlog.finish(now)
        self._closed = True

    def _is_full(self, segment: Unsealed, more: int, ts_recv: Ns) -> bool:
        # The age without its sign: a clock set back by a day must not keep a segment open for that day.
        too_old = abs(ts_recv - segment.first_recv) >= self._rotate_ns
        return too_old or segment.tally.size + more > self._rotate_bytes

    def _open(self, stream: _Stream, ts_recv: Ns, now: Ns) -> Unsealed:
        stream.open = Unsealed(self._folder, stream.product_id, ts_recv, now)
        return stream.open

    def _fail(self, stream: _Stream, error: OSError, now: Ns) -> None:
        # The next try gets a new segment: some failures stay with a file (EFBIG, a deleted one, a bad block).
        stream.failed_at = now
        if stream.open is not None:
            self._retire(stream, now, is_failing=True)
        self._troubles.add(
            f"write {stream.product_id}", f"the recording cannot be written: {error}", stream.product_id
        )

    def _put_on_disk(self, stream: _Stream, now: Ns) -> None:
        segment = stream.open
        assert segment is not None
        trouble = f"sync {stream.product_id}"
        try:
            has_name = segment.put_on_disk(now, self._sync)
        except OSError as error:
            self._troubles.add(trouble, f"the recording cannot be synced: {error}", stream.product_id)
            self._retire(stream, now, is_failing=True)
            return
        self._troubles.clear(trouble, product_id=stream.product_id)
        if not has_name:
            detail = f"{segment.tally.count} lines were deleted with their open segment"
            self._on_event(RecordingEvent(EventKind.PROBLEM, detail, stream.product_id, segment.path))
            segment.close()
            stream.open = None

    def _retire(self, stream: _Stream, now: Ns, *, is_failing: bool = False) -> None:
        segment = stream.open
        assert segment is not None
        stream.open = None
        segment.close()
        if segment.tally.count:
            segment.tried_at = now if is_failing else None  # A disk that fails gets time before a seal too.
            self._backlog.add(segment)
        else:
            segment.path.unlink(missing_ok=True)
        if not is_failing:
            self._backlog.seal(now)

    def _has_room(self, now: Ns) -> bool:
        breached = "space" in self._troubles
        if not is_due(now, self._space_asked, self._retry_ns if breached else _SECOND):
            return not breached
        self._space_asked = now
        try:
            free = self._free_bytes()
        except OSError:
            return True  # The write itself will say what is wrong.
        if free >= self._min_free_bytes:
            self._troubles.clear("space", f"{free / _GIB:.2f} GiB are free")
            return True
        self._troubles.add(
            "space",
            f"{free / _GIB:.2f} GiB are free on the disk, {self._min_free_bytes / _GIB:.2f} is the floor",
        )
        return False


class _Stream:
    def __init__(self, product_id: str) -> None:
        self.product_id = product_id
        self.open: Unsealed | None = None
        self.failed_at: Ns | None = None
        self.last_good: Ns | None = None
        self.lost_lines = 0
        self.pending_lines = 0
        self.pending_frames = 0

    def lose(self, lines: int) -> None:
        self.lost_lines += lines
        self.pending_lines += lines
        self.pending_frames += 1

    def keep(self, ts_event: Ns) -> None:
        self.last_good = ts_event
        self.pending_lines = self.pending_frames = 0

    def told_loss(self) -> str:
        return f"{self.pending_lines} lines of {self.pending_frames} frames were not recorded"


def _joined(lines: Sequence[bytes]) -> bytes:
    data = b"".join([line if line.endswith(b"\n") else line + b"\n" for line in lines])
    if not lines or data.count(b"\n") != len(lines):
        raise ContractError("a frame's lines must be one or more, and each one line", lines[:1])
    return data


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
