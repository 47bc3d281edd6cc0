"""The recording at a start: what an earlier run left behind is brought in order."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from time import time_ns
from typing import Final

import msgspec

from richter.adapters.recording.dead import DATA_LIMIT, DeadLetters
from richter.adapters.recording.events import EventKind, RecordingEvent, log_event
from richter.adapters.recording.reader import is_whole
from richter.adapters.recording.sealing import Sync, datasync, scan, seal, verify
from richter.adapters.recording.segments import (
    ZSTD_SUFFIX,
    Segment,
    list_segments,
    manifest_path,
)
from richter.domain.ticks import Ns
from richter.errors import DataFolderError, InputFileError, OperatorError

__all__ = ["Cut", "Problem", "Recovery", "recover", "try_lock"]

_TAIL_BYTES: Final = 1024 * 1024


class Cut(msgspec.Struct, frozen=True):
    """A torn last line that was cut off.

    Attributes:
        path: the segment.
        offset: where it began: the segment's size now.
        size: bytes, kept in the dead-letter file.
    """

    path: Path
    offset: int
    size: int


class Problem(msgspec.Struct, frozen=True):
    """Something that was left as it is, for a human to look at.

    Attributes:
        path: the file.
        fact: what is wrong.
    """

    path: Path
    fact: str


class Recovery(msgspec.Struct):
    """What a start did.

    Attributes:
        sealed: segments of an earlier run, sealed now.
        cut: torn last lines.
        completed: segments whose last line was complete but for its newline, which it got.
        emptied: segments that held nothing whole and were removed.
        in_use: segments that another recorder is writing.
        problems: what was reported and not mended.
    """

    sealed: list[Path] = msgspec.field(default_factory=list)
    cut: list[Cut] = msgspec.field(default_factory=list)
    completed: list[Path] = msgspec.field(default_factory=list)
    emptied: list[Path] = msgspec.field(default_factory=list)
    in_use: list[Path] = msgspec.field(default_factory=list)
    problems: list[Problem] = msgspec.field(default_factory=list)


def recover(
    folder: Path,
    *,
    dead: Path | None = None,
    clock: Callable[[], Ns] = time_ns,
    on_event: Callable[[RecordingEvent], None] = log_event,
    sync: Sync = datasync,
) -> Recovery:
    """Cut torn last lines, seal the segments of an earlier run, report what does not fit.

    To be called before a `Recorder` is made, which then goes on in new segments. Calling it again changes
    nothing. A sealed segment is never touched; here its size is compared with its manifest, and `verify`
    compares the rest.

    Args:
        folder: an absent one is in order.
        dead: folder for the bytes that are cut; by default ``dead`` beside `folder`.
        clock: ns since the epoch, for the manifests.
        on_event: told of each cut, seal and problem.
        sync: as `os.fdatasync`.

    Raises:
        DataFolderError: the folder cannot be listed.
    """
    recovery = Recovery()
    try:
        segments = list_segments(folder)
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise DataFolderError(
            f"the recording's folder cannot be listed ({error.strerror})", str(folder), "make it readable"
        ) from error
    for name in names:
        if name.startswith(".ticks_") and name.endswith(".tmp"):
            (folder / name).unlink(missing_ok=True)
    with DeadLetters((dead or folder.parent / "dead") / "recording.ndjson", file_limit=None) as letters:
        for segment in segments:
            try:
                if segment.is_sealed:
                    _check_sealed(segment, recovery)
                elif segment.is_compressed:
                    recovery.problems.append(Problem(segment.path, "a compressed segment has no manifest"))
                else:
                    _seal_leftover(segment, recovery, letters, clock(), sync)
            except (OSError, OperatorError) as error:
                recovery.problems.append(Problem(segment.path, str(error)))
    _tell(recovery, on_event)
    return recovery


def try_lock(fd: int) -> bool:
    """Mark an open segment as being written; False when another recorder writes it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # A file system without locks: as good as none.
    return True


def _check_sealed(segment: Segment, recovery: Recovery) -> None:
    plain = segment.path.with_name(str(segment.name))
    compressed = plain.with_name(plain.name + ZSTD_SUFFIX)
    if not segment.path.exists():
        recovery.problems.append(Problem(manifest_path(plain), "a manifest has no segment"))
    elif segment.manifest is None:
        recovery.problems.append(Problem(manifest_path(plain), verify(segment)))
    elif not segment.is_compressed and plain.stat().st_size != segment.manifest.size:
        fact = f"{plain.stat().st_size} bytes, {segment.manifest.size} in the manifest"
        recovery.problems.append(Problem(plain, fact))
    elif not segment.is_compressed and compressed.exists():
        # A crash between the compressed file's rename and the plain one's removal.
        fault = verify(segment, path=compressed)
        if fault:
            recovery.problems.append(Problem(compressed, fault))
        else:
            plain.unlink()


def _seal_leftover(segment: Segment, recovery: Recovery, letters: DeadLetters, now: Ns, sync: Sync) -> None:
    path = segment.path
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if not try_lock(fd):
            recovery.in_use.append(path)
            return
        _mend_tail(fd, path, recovery, letters, now)
        if os.fstat(fd).st_size == 0:
            path.unlink()
            recovery.emptied.append(path)
            return
        tally, product_id = scan(path)
        seal(path, tally.manifest(product_id or segment.name.symbol, now), sync=sync)
        recovery.sealed.append(path)
    finally:
        os.close(fd)


def _mend_tail(fd: int, path: Path, recovery: Recovery, letters: DeadLetters, now: Ns) -> None:
    size = os.fstat(fd).st_size
    start = _start_of_tail(fd, size)
    if start == size:
        return
    if size - start <= _TAIL_BYTES and is_whole(os.pread(fd, size - start, start)):
        # The reader counts such a line, so the log must keep it.
        os.pwrite(fd, b"\n", size)
        recovery.completed.append(path)
        return
    for offset in range(start, size, DATA_LIMIT):
        piece = os.pread(fd, min(DATA_LIMIT, size - offset), offset)
        if not letters.add("torn", piece, source=f"{path}@{offset}", ts=now):
            raise InputFileError("a torn line cannot be kept, so it stays", str(path), letters.last_error)
    letters.sync()
    os.ftruncate(fd, start)
    recovery.cut.append(Cut(path, start, size - start))


def _start_of_tail(fd: int, size: int) -> int:
    # Backwards from the end; a torn line of more than a step is rare, but nothing forbids it.
    end = size
    while end:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _tell(recovery: Recovery, on_event: Callable[[RecordingEvent], None]) -> None:
    for cut in recovery.cut:
        on_event(RecordingEvent(EventKind.CUT, f"{cut.size} bytes of a torn last line", path=cut.path))
    for path in recovery.sealed:
        on_event(RecordingEvent(EventKind.SEALED, "left by an earlier run", path=path))
    for problem in recovery.problems:
        on_event(RecordingEvent(EventKind.PROBLEM, problem.fact, path=problem.path))
