"""Sealing a segment, compressing it, and checking it against its manifest."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import zstandard

from richter.adapters.recording.reader import count_newlines, read_blocks
from richter.adapters.recording.segments import ZSTD_SUFFIX, Manifest, Segment, manifest_path
from richter.adapters.recording.streams import open_stream
from richter.domain.ticks import Ns
from richter.errors import InputFileError

__all__ = ["Sync", "Tally", "compress", "datasync", "scan", "seal", "sync_folder", "verify"]

Sync = Callable[[int], None]
"""Puts what was written to a descriptor on the disk."""

datasync: Final[Sync] = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync.

# Independent frames cost little in size (ratio 8.5 against 8.8 for one frame) and a damaged one ends only
# itself.
_FRAME_BYTES: Final = 1024 * 1024
_LEVEL: Final = 3


class Tally:
    """The manifest of a segment in the making.

    Attributes:
        count: lines.
        size: bytes.
    """

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._recv = _Extent()
        self._event = _Extent()
        self._connections: dict[str, None] = {}

    def add_bytes(self, data: bytes | memoryview, lines: int) -> None:
        """Count whole lines."""
        self._sha256.update(data)
        self.size += len(data)
        self.count += lines

    def add_times(self, ts_recv: Ns | None, ts_event: Ns | None, conn_id: str | None) -> None:
        """Count a frame's times and connection; None is unknown."""
        self._recv.add(ts_recv)
        self._event.add(ts_recv if ts_event is None else ts_event)
        if conn_id is not None:
            self._connections[conn_id] = None

    @property
    def connections(self) -> tuple[str, ...]:
        """Every conn_id, in order of appearance."""
        return tuple(self._connections)

    def manifest(self, product_id: str, sealed_at: Ns) -> Manifest:
        """Return the manifest as of now."""
        return Manifest(
            product_id=product_id,
            count=self.count,
            size=self.size,
            sha256=self._sha256.hexdigest(),
            first_recv=self._recv.least,
            last_recv=self._recv.greatest,
            first_event=self._event.least,
            last_event=self._event.greatest,
            connections=self.connections,
            sealed_at=sealed_at,
        )


class _Extent:
    def __init__(self) -> None:
        self.least: Ns | None = None
        self.greatest: Ns | None = None

    def add(self, value: Ns | None) -> None:
        if value is None:
            return
        if self.least is None or value < self.least:
            self.least = value
        if self.greatest is None or value > self.greatest:
            self.greatest = value


class _LineTimes(msgspec.Struct):
    # Any: a form from elsewhere may use a name for another type, and one bad line must not hide the others.
    ts_recv: Any = None
    ts_event: Any = None
    conn_id: Any = None
    product_id: Any = None


def scan(path: Path) -> tuple[Tally, str | None]:
    """Tally a plain segment from its bytes; returns the product of its lines too, None when no line tells.

    Raises:
        InputFileError: it cannot be read.
    """
    tally = Tally()
    with open_stream(path) as stream:
        while chunk := stream.read(_FRAME_BYTES):
            tally.add_bytes(chunk, count_newlines(memoryview(chunk)))
    decoder = msgspec.json.Decoder(_LineTimes)
    product_id: str | None = None
    for block in read_blocks(path):
        for line in block.lines():
            try:
                found = decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            tally.add_times(_integer(found.ts_recv), _integer(found.ts_event), _text(found.conn_id))
            product_id = product_id or _text(found.product_id)
    return tally, product_id


def seal(path: Path, manifest: Manifest, *, sync: Sync = datasync) -> None:
    """Seal a segment: its bytes on the disk first, then its manifest, whole or not at all.

    Raises:
        OSError: the disk refuses; the segment is unsealed as before.
    """
    target = manifest_path(path)
    if target.exists():
        return  # Sealed for good: a manifest is never replaced.
    _sync_file(path, sync)
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    with _temporary(target) as (temporary, fd):
        _write_all(fd, data)
        sync(fd)
        temporary.rename(target)
    sync_folder(path.parent, sync)


def compress(path: Path, *, sync: Sync = datasync) -> Iterator[int]:
    """Compress a sealed segment step by step and remove the plain file at the end.

    Each step writes one independent zstd frame of whole lines, about a MiB; stopping early leaves the plain
    file.

    Yields:
        Uncompressed bytes done.

    Raises:
        OSError: the disk refuses; the plain file stays.
        InputFileError: the segment is not sealed, or not what its manifest says: it stays.
    """
    try:
        manifest = msgspec.json.decode(manifest_path(path).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise InputFileError("only a sealed segment can be compressed", str(path), "seal it first") from error
    target = path.with_name(path.name + ZSTD_SUFFIX)
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    tally = Tally()
    with _temporary(target) as (temporary, fd):
        for block in read_blocks(path, block_bytes=_FRAME_BYTES):
            _write_all(fd, compressor.compress(block.data))
            tally.add_bytes(block.data, 0)
            yield tally.size
        if tally.manifest("", 0).sha256 != manifest.sha256:
            raise InputFileError("the segment is not what its manifest says", str(path), "look at the file")
        sync(fd)
        temporary.rename(target)
    sync_folder(path.parent, sync)
    path.unlink()
    sync_folder(path.parent, sync)


def verify(segment: Segment, *, path: Path | None = None) -> str:
    """Compare a sealed segment with its manifest, byte for byte.

    Args:
        segment: sealed.
        path: another form of it; by default its own.

    Returns:
        What differs, in words; empty when all is well.
    """
    manifest = segment.manifest
    if manifest is None:
        return f"the manifest cannot be read: {segment.manifest_fault}" if segment.is_sealed else "not sealed"
    tally = Tally()
    try:
        with open_stream(path or segment.path) as stream:
            while chunk := stream.read(_FRAME_BYTES):
                tally.add_bytes(chunk, 0)
            if stream.damage is not None:
                return f"the compressed file is {stream.damage.value}"
    except InputFileError as error:
        return str(error)
    if tally.size != manifest.size:
        return f"{tally.size} bytes, {manifest.size} in the manifest"
    sha256 = tally.manifest("", 0).sha256
    return "" if sha256 == manifest.sha256 else f"sha256 {sha256}, {manifest.sha256} in the manifest"


def sync_folder(folder: Path, sync: Sync = datasync) -> None:
    """Put a folder's names on the disk: without it a new file may be gone after a power cut.

    Raises:
        OSError: the disk fails.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network and shared file systems have no such thing.
            raise
    finally:
        os.close(fd)


@contextmanager
def _temporary(target: Path) -> Iterator[tuple[Path, int]]:
    # A dot-name: no glob finds it, and a start removes what a crash left.
    path = target.with_name(f".{target.name}.tmp")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        yield path, fd
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _sync_file(path: Path, sync: Sync) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
