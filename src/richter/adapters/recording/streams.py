"""Bytes of an input file, plain or zstd, after a look at what it is."""

from __future__ import annotations

import os
import stat
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import zstandard

from richter.errors import InputFileError

__all__ = ["Damage", "Stream", "open_stream"]

_SNIFFED: Final = 4096

# Fed by so little at a time, since a frame may expand without limit: 500 times is common for repeated lines.
_COMPRESSED_CHUNK: Final = 16 * 1024

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1

_NOT_LINES: Final = (
    (b"\x1f\x8b", "the file is compressed by gzip", "unpack it first: gunzip FILE"),
    (b"PAR1", "the file is Parquet, not lines of JSON", "give the recording (.ndjson) it was made from"),
    (b"PK\x03\x04", "the file is a zip archive", "unpack it first: unzip FILE"),
    (b"BZh", "the file is compressed by bzip2", "unpack it first: bunzip2 FILE"),
    (b"\xfd7zXZ\x00", "the file is compressed by xz", "unpack it first: unxz FILE"),
    (b"\xff\xfe", "the file is UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE"),
    (b"\xfe\xff", "the file is UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE"),
)


class Damage(StrEnum):
    """Why a compressed file ends before its end."""

    TRUNCATED = "truncated"
    CORRUPT = "corrupt"


class Stream:
    """The uncompressed bytes of one file, forwards.

    Attributes:
        path: the file that is read; the compressed one where the plain one is gone.
        size: of the file, in bytes as stored.
        is_compressed: whether it is zstd.
        damage: set at the end of a compressed file that ends too early.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.size = os.fstat(fd).st_size
        self.damage: Damage | None = None
        self._fd = fd
        self._pending = memoryview(b"")
        self._encoded = b""
        self._decoder: zstandard.ZstdDecompressionObj | None = None
        head = self._read_first(len(_ZSTD_MAGIC))
        # By the magic, not by the name alone: a renamed file is read all the same.
        self.is_compressed = head == _ZSTD_MAGIC or path.name.endswith(".zst")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def readinto(self, view: memoryview) -> int:
        """Fill `view` with the next bytes; returns how many, 0 at the end.

        Raises:
            InputFileError: the device fails.
        """
        if not self.is_compressed:
            try:
                return os.readv(self._fd, [view])
            except OSError as error:
                raise _unreadable(self.path, error) from error
        filled = 0
        while filled < len(view):
            if not self._pending:
                self._pending = memoryview(self._decode())
                if not self._pending:
                    break
            part = self._pending[: len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._pending = self._pending[len(part) :]
        return filled

    def read(self, size: int) -> bytes:
        """Return the next bytes, up to `size` of them; none at the end.

        Raises:
            InputFileError: the device fails.
        """
        if not self.is_compressed:
            return self._read_file(size)
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.readinto(memoryview(buffer))])

    def peek(self, size: int) -> bytes:
        """Return the first bytes; to be called before any is read."""
        if not self.is_compressed:
            return self._read_first(size)
        head = self.read(size)
        self._pending = memoryview(head + self._pending)
        return head

    def skip(self, size: int) -> None:
        """Leave out the next `size` bytes."""
        if not self.is_compressed:
            os.lseek(self._fd, size, os.SEEK_CUR)
            return
        while size and (skipped := len(self.read(min(size, 1 << 20)))):
            size -= skipped

    def _read_file(self, size: int) -> bytes:
        try:
            return os.read(self._fd, size)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _read_first(self, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, 0)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _decode(self) -> bytes:
        # One decoder a frame: a recording is compressed as many independent ones.
        while self.damage is None:
            self._encoded = self._encoded or self._read_file(_COMPRESSED_CHUNK)
            if not self._encoded:
                if self._decoder is not None:
                    self.damage = Damage.TRUNCATED
                return b""
            if self._decoder is None:
                self._decoder = zstandard.ZstdDecompressor().decompressobj()
            try:
                part = self._decoder.decompress(self._encoded)
            except zstandard.ZstdError:
                self.damage = Damage.CORRUPT
                return b""
            self._encoded = self._decoder.unused_data
            if self._decoder.eof:
                self._decoder = None
            if part:
                return part
        return b""


def open_stream(path: Path) -> Stream:
    """Open a file of lines, or say why it is none.

    Where X.ndjson is gone and X.ndjson.zst is there, that one is opened: a segment may be compressed between
    the listing of a folder and the reading of its files.

    Raises:
        InputFileError: absent, not readable, empty, a folder, compressed otherwise, or binary.
    """
    stream = _open(path)
    try:
        _refuse_other_content(stream)
    except BaseException:
        with stream:
            raise
    return stream


def _open(path: Path) -> Stream:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        compressed = path.with_name(path.name + ".zst")
        if not path.name.endswith(".zst") and compressed.exists():
            return _open(compressed)
        raise InputFileError("there is no such file", str(path), "check the path") from error
    except PermissionError as error:
        raise InputFileError("the file may not be read", str(path), f"allow it: chmod u+r {path}") from error
    except OSError as error:
        raise InputFileError(
            f"the file cannot be opened ({error.strerror})", str(path), "check the path"
        ) from error
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        try:
            return Stream(path, fd)
        except BaseException:
            os.close(fd)
            raise
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise InputFileError("this is a folder, not a file", str(path), f"give its files: '{path}/*.ndjson'")
    raise InputFileError(
        "this is a device or a pipe, not a file", str(path), "save its content to a file first"
    )


def _unreadable(path: Path, error: OSError) -> InputFileError:
    return InputFileError(f"the file cannot be read ({error.strerror})", str(path), "check the disk")


def _refuse_other_content(stream: Stream) -> None:
    where = str(stream.path)
    if stream.size == 0:
        raise InputFileError("the file is empty", where, "leave it out")
    head = stream.peek(_SNIFFED)
    if not head and stream.damage is Damage.CORRUPT:
        raise InputFileError("the file is named .zst and is not zstd", where, "rename it to what it is")
    if not head and stream.damage is None:
        raise InputFileError("the file is empty", where, "leave it out")
    for magic, fact, fix in _NOT_LINES:
        if head.startswith(magic):
            raise InputFileError(fact, where, fix.replace("FILE", stream.path.name))
    if b"\0" in head:
        raise InputFileError("the file is binary, not lines of JSON", where, "give a recording (.ndjson)")
