"""The recorder: a frame's lines are on the disk before anything else sees a tick of it."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import Final, Self

import msgspec

from richter.adapters.recording.events import EventKind, RecordingEvent, log_event
from richter.adapters.recording.recovery import Recovery, recover, try_lock
from richter.adapters.recording.sealing import Sync, Tally, compress, datasync, scan, seal, sync_folder
from richter.adapters.recording.segments import Position, create_segment
from richter.domain.ticks import Ns
from richter.errors import ContractError, DataFolderError, InputFileError

__all__ = ["Loss", "Recorder", "RecorderState", "Recovery", "recover"]

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
        self._compress = compress
        self._clock = clock
        self._free_bytes = free_bytes or (lambda: _free_bytes(folder))
        self._min_free_bytes = min_free_bytes
        self._sync_ns = int(fsync_interval_s * _SECOND)
        self._retry_ns = int(retry_s * _SECOND)
        self._on_event = on_event
        self._write = write
        self._sync = sync
        self._streams: dict[str, _Stream] = {}
        self._retired: deque[_Retired] = deque()
        self._to_compress: deque[Path] = deque()
        self._compression: Iterator[int] | None = None
        self._troubles: dict[str, str] = {}
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
        return "; ".join(self._troubles.values())

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
        if self._retired:
            self._seal_retired(now)
        if not self._is_due(now, stream.failed_at, self._retry_ns) or not self._has_room(now):
            stream.lose(len(lines))
            return None
        if stream.open is not None and self._is_full(stream.open, len(data), ts_recv):
            self._retire(stream, now)
        try:
            segment = stream.open or self._open(stream, ts_recv, now)
            self._write_whole(segment, data)
        except OSError as error:
            self._fail(stream, error, now)
            stream.lose(len(lines))
            return None
        if not segment.tally.count:
            self._tell(EventKind.OPENED, "", product_id, segment.path)
        segment.tally.add_bytes(data, len(lines))
        segment.tally.add_times(ts_recv, ts_event, conn_id)
        segment.unsynced = True
        stream.failed_at = None
        if self._troubles:
            self._clear(f"write {product_id}", stream.told_loss(), product_id)
        stream.keep(ts_recv if ts_event is None else ts_event)
        if self._is_due(now, segment.synced_at, self._sync_ns):
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
            if segment.unsynced and self._is_due(now, segment.synced_at, self._sync_ns):
                self._put_on_disk(stream, now)
            if stream.open is not None and self._is_due(now, segment.opened_at, self._rotate_ns):
                self._retire(stream, now)
        self._seal_retired(now)
        if "space" in self._troubles:
            self._has_room(now)
        for _ in range(_COMPRESSION_STEPS):
            self._compress_step()

    def close(self) -> None:
        """Seal every segment and finish compressing; what the disk refuses, the next start seals."""
        if self._closed:
            return
        now = self._clock()
        for stream in self._streams.values():
            if stream.open is not None:
                self._retire(stream, now)
        for retired in self._retired:
            retired.tried_at = None
        self._seal_retired(now)
        while self._to_compress or self._compression is not None:
            self._compress_step()
        self._closed = True

    def _is_full(self, segment: _Open, more: int, ts_recv: Ns) -> bool:
        # The age without its sign: a clock set back by a day must not keep a segment open for that day.
        too_old = abs(ts_recv - segment.first_recv) >= self._rotate_ns
        return too_old or segment.tally.size + more > self._rotate_bytes

    def _open(self, stream: _Stream, ts_recv: Ns, now: Ns) -> _Open:
        fd, path = create_segment(self._folder, stream.product_id, ts_recv)
        try_lock(fd)
        stream.open = _Open(path, fd, ts_recv, now)
        return stream.open

    def _write_whole(self, segment: _Open, data: bytes) -> None:
        try:
            written = self._write(segment.fd, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")
        except BaseException:  # Also an interrupt: half a line must not get a neighbour.
            try:
                os.ftruncate(segment.fd, segment.tally.size)
            except OSError:
                segment.torn = True
            raise

    def _fail(self, stream: _Stream, error: OSError, now: Ns) -> None:
        # The next try gets a new segment: some failures stay with a file (EFBIG, a deleted one, a bad block).
        stream.failed_at = now
        if stream.open is not None:
            self._retire(stream, now, tried_at=now)
        self._trouble(
            f"write {stream.product_id}", f"the recording cannot be written: {error}", stream.product_id
        )

    def _put_on_disk(self, stream: _Stream, now: Ns) -> None:
        segment = stream.open
        assert segment is not None
        segment.synced_at = now
        try:
            self._sync(segment.fd)
            if not segment.named:
                sync_folder(self._folder, self._sync)
            links = os.fstat(segment.fd).st_nlink
        except OSError as error:
            # After a failed sync the kernel may have dropped the pages: only a new file can be trusted again.
            self._trouble(
                f"sync {stream.product_id}", f"the recording cannot be synced: {error}", stream.product_id
            )
            self._retire(stream, now, tried_at=now)
            return
        segment.unsynced, segment.named = False, True
        self._clear(f"sync {stream.product_id}", "", stream.product_id)
        if not links:
            detail = f"{segment.tally.count} lines were deleted with their open segment"
            self._tell(EventKind.PROBLEM, detail, stream.product_id, segment.path)
            os.close(segment.fd)
            stream.open = None

    def _retire(self, stream: _Stream, now: Ns, *, tried_at: Ns | None = None) -> None:
        segment = stream.open
        assert segment is not None
        stream.open = None
        os.close(segment.fd)
        if segment.tally.count:
            self._retired.append(
                _Retired(stream.product_id, segment.path, segment.tally, segment.torn, tried_at)
            )
        else:
            segment.path.unlink(missing_ok=True)
        if tried_at is None:
            self._seal_retired(now)

    def _seal_retired(self, now: Ns) -> None:
        for retired in list(self._retired):
            if not self._is_due(now, retired.tried_at, self._retry_ns):
                continue
            retired.tried_at = now
            key = f"seal {retired.path.name}"
            try:
                tally = _checked(retired)
                seal(retired.path, tally.manifest(retired.product_id, now), sync=self._sync)
            except FileNotFoundError:
                detail = f"{retired.tally.count} lines were deleted before their segment was sealed"
                self._tell(EventKind.PROBLEM, detail, retired.product_id, retired.path)
            except (OSError, InputFileError) as error:
                self._trouble(key, f"a segment cannot be sealed: {error}", retired.product_id)
                continue
            else:
                self._tell(EventKind.SEALED, f"{tally.count} lines", retired.product_id, retired.path)
                if self._compress:
                    self._to_compress.append(retired.path)
            self._retired.remove(retired)
            self._clear(key, "", retired.product_id)

    def _compress_step(self) -> None:
        if self._compression is None:
            if not self._to_compress:
                return
            self._compression = compress(self._to_compress[0], sync=self._sync)
        path = self._to_compress[0]
        try:
            if next(self._compression, None) is not None:
                return
            self._tell(EventKind.COMPRESSED, "", None, path)
        except (OSError, InputFileError) as error:
            self._tell(EventKind.PROBLEM, f"a segment stays uncompressed: {error}", None, path)
        self._to_compress.popleft()
        self._compression = None

    def _has_room(self, now: Ns) -> bool:
        breached = "space" in self._troubles
        if not self._is_due(now, self._space_asked, self._retry_ns if breached else _SECOND):
            return not breached
        self._space_asked = now
        try:
            free = self._free_bytes()
        except OSError:
            return True  # The write itself will say what is wrong.
        if free >= self._min_free_bytes:
            self._clear("space", f"{free / _GIB:.2f} GiB are free")
            return True
        self._trouble(
            "space",
            f"{free / _GIB:.2f} GiB are free on the disk, {self._min_free_bytes / _GIB:.2f} is the floor",
        )
        return False

    def _trouble(self, key: str, reason: str, product_id: str | None = None) -> None:
        is_new = key not in self._troubles
        self._troubles[key] = reason
        if is_new:  # Not at every try: a disk that stays full for an hour makes one message.
            self._tell(EventKind.DEGRADED, reason, product_id)

    def _clear(self, key: str, detail: str, product_id: str | None = None) -> None:
        reason = self._troubles.pop(key, None)
        if reason is not None:
            self._tell(EventKind.RESUMED, detail or f"no longer: {reason}", product_id)

    def _tell(
        self, kind: EventKind, detail: str, product_id: str | None = None, path: Path | None = None
    ) -> None:
        self._on_event(RecordingEvent(kind, detail, product_id, path))

    @staticmethod
    def _is_due(now: Ns, last: Ns | None, interval: Ns) -> bool:
        # A clock that was set back makes everything due, rather than nothing for as long.
        return last is None or not 0 <= now - last < interval


class _Open:
    def __init__(self, path: Path, fd: int, first_recv: Ns, opened_at: Ns) -> None:
        self.path = path
        self.fd = fd
        self.first_recv = first_recv
        self.opened_at = opened_at
        self.tally = Tally()
        self.synced_at = opened_at
        self.unsynced = False
        self.named = False  # The folder's entry is on the disk.
        self.torn = False


class _Stream:
    def __init__(self, product_id: str) -> None:
        self.product_id = product_id
        self.open: _Open | None = None
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


class _Retired:
    def __init__(self, product_id: str, path: Path, tally: Tally, torn: bool, tried_at: Ns | None) -> None:
        self.product_id = product_id
        self.path = path
        self.tally = tally
        self.torn = torn
        self.tried_at = tried_at


def _joined(lines: Sequence[bytes]) -> bytes:
    data = b"".join([line if line.endswith(b"\n") else line + b"\n" for line in lines])
    if not lines or data.count(b"\n") != len(lines):
        raise ContractError("a frame's lines must be one or more, and each one line", lines[:1])
    return data


def _checked(retired: _Retired) -> Tally:
    # Returns the tally of what is in the file, with its torn end cut where that failed before.
    size = retired.path.stat().st_size
    if size > retired.tally.size and retired.torn:
        os.truncate(retired.path, retired.tally.size)
        return retired.tally
    return retired.tally if size == retired.tally.size else scan(retired.path)[0]


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
