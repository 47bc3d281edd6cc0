"""The dead-letter file: what could not be read, with its reason and its bytes."""

from __future__ import annotations

import base64
import os
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from richter.domain.ticks import Ns

__all__ = ["DATA_LIMIT", "FILE_LIMIT", "DeadLetters"]

DATA_LIMIT: Final = 1024 * 1024
"""Bytes kept of one letter."""

FILE_LIMIT: Final = 256 * 1024 * 1024
"""Bytes of the file beyond which letters are counted only: a feed gone mad must not fill the disk."""


class DeadLetters:
    """Appends letters to one NDJSON file, made at the first of them.

    A letter is ``{"reason", "source", "line", "ts", "size", "data"}``, with ``data_b64`` (base64) in place of
    ``data`` when the bytes are not UTF-8; ``size`` is the number of bytes before any were left out.

    Args:
        path: of the file.
        data_limit: bytes kept of one letter.
        file_limit: bytes of the file; None for no limit.

    Attributes:
        counts: letters by reason, unwritten ones too.
        unwritten: letters that are counted and not in the file: beyond the limit, or the disk refused them.
        last_error: why the disk refused one, else empty.
    """

    def __init__(
        self, path: Path, *, data_limit: int = DATA_LIMIT, file_limit: int | None = FILE_LIMIT
    ) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self.unwritten = 0
        self.last_error = ""
        self._data_limit = data_limit
        self._file_limit = file_limit
        self._fd: int | None = None
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(
        self, reason: str, data: bytes, *, source: str | Path, line: int | None = None, ts: Ns | None = None
    ) -> bool:
        """Keep one letter.

        Args:
            reason: a short word, counted by.
            data: the bytes as they came.
            source: file or connection.
            line: number in the file, from 1; frame number of a connection.
            ts: when it came, in ns.

        Returns:
            Whether it is in the file. A full disk is no reason to stop the run: the letter is counted.
        """
        self.counts[reason] += 1
        letter: dict[str, Any] = {"reason": reason, "source": str(source), "line": line, "ts": ts}
        letter["size"] = len(data)
        letter |= _as_text(data[: self._data_limit])
        written = self._append(msgspec.json.encode(letter) + b"\n")
        self.unwritten += not written
        return written

    def sync(self) -> None:
        """Put the letters on the disk.

        Raises:
            OSError: the disk fails.
        """
        if self._fd is not None:
            os.fsync(self._fd)

    def close(self) -> None:
        """Close the file, which the next letter opens again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _append(self, encoded: bytes) -> bool:
        try:
            if self._fd is None:
                self._open()
            assert self._fd is not None
            if self._file_limit is not None and self._size + len(encoded) > self._file_limit:
                return False
            written = os.write(self._fd, encoded)
            if written < len(encoded):
                os.ftruncate(self._fd, self._size)
                return False
        except OSError as error:
            self.last_error = str(error)
            return False
        self._size += written
        return True

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._size += os.write(self._fd, b"\n")  # An earlier run died while it wrote.


def _as_text(data: bytes) -> dict[str, str]:
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_b64": base64.b64encode(data).decode()}
