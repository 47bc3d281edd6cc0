"""The feature log: a directory of write-once Parquet parts that any Parquet reader reads at any moment.

A part is written under a dot-name, fsynced and renamed; parts are never changed or merged. The first one has no
rows, so that the schema is there from the beginning.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from richter.adapters.tables.features import SCHEMA_KEY, feature_schema, parts_of, record_batch
from richter.engine.digest import schema_id
from richter.engine.rows import FeatureRows
from richter.errors import DataFolderError

__all__ = ["PART_ROWS", "FeatureLogWriter", "PartWriter", "open_log", "replace_log"]

PART_ROWS: Final = 100_000
GROUP_ROWS: Final = 16_384
_SOURCE_KEY: Final = b"richter.source"


class PartWriter:
    """Writes one part of a feature log, row group by row group: a dot-name, fsync where `durable`, rename.

    Args:
        path: of the part.
        durable: fsync it when it is done.
        source: what the log is of, kept in the part's metadata; empty where nobody has to know.
    """

    def __init__(self, path: Path, *, durable: bool, source: str = "") -> None:
        self.path = path
        self.rows = 0
        self._durable = durable
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self._pending: list[FeatureRows] = []
        self._pending_rows = 0
        self._file = ExitStack()
        with self._guarded():
            writer = pq.ParquetWriter(
                self._temporary,
                _schema_of(source),
                compression="lz4",
                use_dictionary=["product_id", "conn_id", "gap_before", "reasons"],
                write_statistics=["ts_event"],
            )
            self._write = self._file.enter_context(writer).write_batch

    def add(self, rows: FeatureRows) -> None:
        """Add rows; full row groups go to the file."""
        self._pending.append(rows)
        self._pending_rows += len(rows)
        self.rows += len(rows)
        if self._pending_rows >= GROUP_ROWS:
            self._write_group()

    def finish(self, path: Path | None = None) -> None:
        """Give the part its name, or this one."""
        self.path = path or self.path
        self._write_group()
        with self._guarded():
            self._file.close()
            if self._durable:
                _sync(self._temporary)
            self._temporary.rename(self.path)
            if self._durable:
                _sync(self.path.parent)

    def discard(self) -> None:
        """Leave nothing of the part behind."""
        self._pending = []
        with suppress(OSError, pa.ArrowException):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _write_group(self) -> None:
        if self._pending_rows:
            with self._guarded():
                self._write(record_batch(self._pending))
        self._pending = []
        self._pending_rows = 0

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.discard()
            raise DataFolderError(
                # Arrow's own wording is a paragraph.
                f"cannot write the feature log ({os.strerror(error.errno) if error.errno else error})",
                str(self.path),
                "free space or give another --out or --data",
            ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FeatureLogWriter:
    """Appends rows to a feature log, a part at a time.

    Args:
        folder: the log; made if absent. A log of another schema_id is moved aside.
        part_rows: rows of a full part.
        durable: fsync each part.
    """

    def __init__(self, folder: Path, *, part_rows: int = PART_ROWS, durable: bool = True) -> None:
        self.folder = folder
        self._part_rows = part_rows
        self._durable = durable
        self._part: PartWriter | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataFolderError(
                f"cannot make the feature log ({error.strerror})", str(folder), "give another --out or --data"
            ) from error
        for unfinished in folder.glob(
            ".part-*.parquet.*"
        ):  # Of a run that was killed: nobody else writes here.
            unfinished.unlink(missing_ok=True)
        self._next = 1 + max((_part_number(path) for path in folder.glob("part-*.parquet")), default=-1)
        if self._next and _is_foreign(folder, ""):
            move_aside(folder)
            self._next = 0
        if self._next == 0:
            PartWriter(self._path(), durable=durable).finish()
            self._next = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()
        else:
            self.discard()

    def discard(self) -> int:
        """Forget what no part holds yet; returns how many rows that were."""
        part, self._part = self._part, None
        if part is None:
            return 0
        part.discard()
        return part.rows

    def append(self, rows: FeatureRows) -> None:
        """Add rows; full parts go to disk."""
        while len(rows):
            if self._part is None:
                self._part = PartWriter(self._path(), durable=self._durable)
            room = self._part_rows - self._part.rows
            self._part.add(rows.take(slice(0, room)))
            rows = rows.take(slice(room, None))
            if self._part.rows >= self._part_rows:
                self.flush()

    def flush(self) -> None:
        """Give what was added since the last part a name; until then no reader sees it."""
        if self._part is not None:
            self._part.finish()
            self._part = None
            self._next += 1

    def _path(self) -> Path:
        return self.folder / f"part-{self._next:06d}.parquet"


def open_log(folder: Path, source: str) -> Path | None:
    """Make a feature log of something, or go on with it; a log of anything else is moved aside.

    Returns:
        Where such a one is now.

    Raises:
        DataFolderError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFolderError(
            f"cannot make the feature log ({error.strerror})", str(folder), "give another --data"
        ) from error
    for unfinished in folder.glob(".part-*.parquet.*"):
        unfinished.unlink(missing_ok=True)
    aside = None
    if any(folder.glob("part-*.parquet")) and _is_foreign(folder, source):
        aside = move_aside(folder)
    if not any(folder.glob("part-*.parquet")):
        PartWriter(folder / "part-000000.parquet", durable=True, source=source).finish()
    return aside


def move_aside(folder: Path) -> Path:
    """Rename a log, so that another one can have its name; returns its new one.

    Raises:
        DataFolderError: the disk refuses.
    """
    taken = (folder.with_name(f"{folder.name}.old.{number}") for number in count(1))
    aside = next(path for path in taken if not path.exists())
    try:
        folder.rename(aside)
        folder.mkdir()
    except OSError as error:
        raise DataFolderError(
            f"cannot move the feature log of another version aside ({error.strerror})",
            str(folder),
            "move it yourself, or give another --out or --data",
        ) from error
    return aside


def _is_foreign(folder: Path, source: str) -> bool:
    try:
        schema = pq.read_schema(parts_of(folder)[0])
    except (OSError, pa.ArrowException):
        return True
    found = schema.metadata or {}
    return (found.get(SCHEMA_KEY), found.get(_SOURCE_KEY, b"")) != (schema_id().encode(), source.encode())


def _schema_of(source: str) -> pa.Schema:
    schema = feature_schema()
    return schema.with_metadata({**schema.metadata, _SOURCE_KEY: source.encode()}) if source else schema


def _part_number(path: Path) -> int:
    digits = path.stem.removeprefix("part-").split("-")[0]
    return int(digits) if digits.isdigit() else -1


def replace_log(built: Path, target: Path) -> None:
    """Put a finished log in the place of an older one (or of nothing)."""
    aside = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists() or target.is_symlink():
        target.rename(aside)
    built.rename(target)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)
