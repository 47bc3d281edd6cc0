"""The end of a product's recording, read on as it grows: whole lines, segment after segment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from richter.adapters.recording.reader import Block, read_blocks
from richter.adapters.recording.segments import (
    MANIFEST_SUFFIX,
    ZSTD_SUFFIX,
    Position,
    SegmentName,
    inspect_segment,
    list_segments,
    parse_name,
    symbol_of,
)
from richter.adapters.recording.streams import open_stream
from richter.errors import InputFileError

__all__ = ["Chunk", "Tail", "end_of"]

CHUNK_BYTES: Final = 256 * 1024
STAMP_S: Final = 3.0
"""So long after a folder's change another one may get the same stamp: file systems step by up to 2 s."""


class Chunk(msgspec.Struct, frozen=True):
    """Whole lines.

    Attributes:
        segment: file name, of the uncompressed form.
        offset: of the first line, in uncompressed bytes.
        data: the lines.
    """

    segment: str
    offset: int
    data: bytes

    @property
    def end(self) -> Position:
        """The position after them."""
        return Position(self.segment, self.offset + len(self.data))


class Tail:
    """Reads a product's log from a position on, and goes on whenever there is more.

    Args:
        folder: of the recording, which may be written to meanwhile.
        product_id: whose lines.
        position: everything before it is left out; None reads from the beginning.
        monotonic: s.

    Attributes:
        missed: segments that were deleted, or cannot be read, with what was still to be read of them.
    """

    def __init__(
        self,
        folder: Path,
        product_id: str,
        position: Position | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._product_id = product_id
        self._prefix = f"ticks_{symbol_of(product_id)}_"
        self._monotonic = monotonic
        self._name = ""
        self._offset = 0
        self._fd: int | None = None
        self._packed: Iterator[Block] = iter(())
        self._later: list[SegmentName] = []
        self._changed_ns = -1
        self._list_until = 0.0
        self.missed: list[str] = []
        if position is not None:
            self._open(position.segment, position.offset)

    def read(self) -> Chunk | None:
        """The next whole lines; None when there are no more at the moment."""
        while True:
            chunk = self._read_here()
            if chunk is not None:
                return chunk
            following = self._following()
            if following is None:
                return None
            # The recorder closes a segment before it opens the next: what is there now is all of it.
            chunk = self._read_here()
            if chunk is not None:
                return chunk
            self._open(following, 0)

    def close(self) -> None:
        """Let go of the open segment."""
        self._packed = iter(())
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _read_here(self) -> Chunk | None:
        """The next whole lines of this segment."""
        if self._fd is None:
            try:
                block = next(self._packed, None)
            except InputFileError:
                self.missed.append(self._name)
                block = None
            return None if block is None else Chunk(self._name, block.offset, bytes(block.data))
        size = CHUNK_BYTES
        while True:
            data = os.pread(self._fd, size, self._offset)
            end = data.rfind(b"\n") + 1
            if end:
                chunk = Chunk(self._name, self._offset, data[:end])
                self._offset += end
                return chunk
            if len(data) < size:
                return None
            size *= 8

    def _open(self, name: str, offset: int) -> None:
        self.close()
        self._name, self._offset = name, offset
        self._changed_ns = -1  # What is later is another question now.
        path = self._folder / name
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            packed = path.with_name(name + ZSTD_SUFFIX)
            if packed.exists():
                self._packed = read_blocks(packed, offset, block_bytes=CHUNK_BYTES)
            else:
                self.missed.append(name)

    def _following(self) -> str | None:
        """The product's next segment, once it has a line."""
        self._look()
        for name in self._later:
            segment = inspect_segment(self._folder, name)
            if segment.product_id == self._product_id:
                return str(name)
            if segment.product_id is None and segment.path.exists():
                return None  # Just made, and empty yet: what comes after it must wait.
        return None

    def _look(self) -> None:
        """List later segments: at each look, a month of them would cost more than all the rest."""
        try:
            now, changed_ns = self._monotonic(), self._folder.stat().st_mtime_ns
        except FileNotFoundError:  # Deleted: the recorder makes it anew.
            self._later = []
            return
        if changed_ns != self._changed_ns:
            self._changed_ns, self._list_until = changed_ns, now + STAMP_S
        elif now >= self._list_until:
            return
        with os.scandir(self._folder) as entries:
            later = {entry.name.removesuffix(MANIFEST_SUFFIX).removesuffix(ZSTD_SUFFIX) for entry in entries}
        # Names of one symbol are as long as each other: they sort like what they say.
        parsed = (parse_name(name) for name in later if name.startswith(self._prefix) and name > self._name)
        self._later = sorted(name for name in parsed if name is not None)


def end_of(folder: Path, product_id: str) -> Position | None:
    """Where a product's log ends; None when there is none. To be asked while nobody writes to it."""
    own = [segment for segment in list_segments(folder, product_id) if segment.product_id == product_id]
    if not own:
        return None
    last = own[-1]
    if last.manifest is not None:
        return Position(str(last.name), last.manifest.size)
    if not last.is_compressed:
        return Position(str(last.name), last.path.stat().st_size)
    with open_stream(last.path) as stream:  # Its manifest cannot be read.
        size = 0
        while chunk := stream.read(CHUNK_BYTES):
            size += len(chunk)
    return Position(str(last.name), size)
