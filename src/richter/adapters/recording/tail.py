"""The end of a product's recording, read on as it grows: whole lines, segment after segment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from richter.adapters.recording.reader import MAX_LINE_BYTES, read_blocks
from richter.adapters.recording.segments import (
    ZSTD_SUFFIX,
    Position,
    Segment,
    inspect_segment,
    list_segments,
    names_of,
    parse_name,
    symbol_of,
)

__all__ = ["Chunk", "Tail", "end_of"]

CHUNK_BYTES: Final = 256 * 1024


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

    Attributes:
        missed: segments that were deleted before they were read.
    """

    def __init__(self, folder: Path, product_id: str, position: Position | None) -> None:
        self._folder = folder
        self._product_id = product_id
        self._symbol = symbol_of(product_id)
        self._after = None if position is None else parse_name(position.segment)
        self._fd: int | None = None
        self._name = ""
        self._offset = 0
        self._packed: Iterator[Chunk] = iter(())
        self.missed: list[str] = []
        if position is not None and not self._open(position.segment, position.offset):
            self.missed.append(position.segment)

    def read(self) -> Chunk | None:
        """The next whole lines; None when there are no more at the moment."""
        while True:
            chunk = next(self._packed, None) if self._fd is None else self._read_open()
            if chunk is not None:
                return chunk
            following = self._following()
            if following is None:
                return None
            # The recorder closes a segment before it opens the next: what is there now is all of it.
            chunk = None if self._fd is None else self._read_open()
            if chunk is not None:
                return chunk
            self.close()
            self._after = following.name
            self._open(str(following.name), 0)

    def close(self) -> None:
        """Let go of the open segment."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _read_open(self) -> Chunk | None:
        assert self._fd is not None
        size = CHUNK_BYTES
        while True:
            data = os.pread(self._fd, size, self._offset)
            end = data.rfind(b"\n") + 1
            if end:
                chunk = Chunk(self._name, self._offset, data[:end])
                self._offset += end
                return chunk
            if len(data) < size or size > MAX_LINE_BYTES:
                return None
            size *= 8

    def _open(self, name: str, offset: int) -> bool:
        path = self._folder / name
        self._name, self._offset = name, offset
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            packed = path.with_name(name + ZSTD_SUFFIX)
            if not packed.exists():
                return False
            blocks = read_blocks(packed, offset, block_bytes=CHUNK_BYTES)
            self._packed = (Chunk(name, block.offset, bytes(block.data)) for block in blocks)
        return True

    def _following(self) -> Segment | None:
        """The product's next segment, once it has a line."""
        later = sorted(
            name
            for name in set(names_of(self._folder))
            if name.symbol == self._symbol and (self._after is None or name > self._after)
        )
        if not later:
            return None
        for name in later:
            segment = inspect_segment(self._folder, name)
            if segment.product_id is None and segment.path.exists():
                return None  # Just made, and empty yet: what comes after it must wait.
            if segment.product_id == self._product_id and segment.path.exists():
                return segment
        return None


def end_of(folder: Path, product_id: str) -> Position | None:
    """Where a product's log ends; None when there is none. To be asked while nobody writes to it."""
    segments = list_segments(folder, product_id)
    if not segments:
        return None
    last = segments[-1]
    size = last.manifest.size if last.manifest is not None else last.path.stat().st_size
    return Position(str(last.name), size)
