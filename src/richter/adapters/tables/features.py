"""The feature log: a directory of write-once Parquet parts that any Parquet reader reads at any moment.

A part is written under a dot-name, fsynced and renamed; parts are never changed or merged. The first one has no
rows, so that the schema is there from the beginning.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, pairwise
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from richter.domain.ticks import GapCause
from richter.engine.digest import schema_id
from richter.engine.rows import FeatureRows, Reason, reason_text
from richter.engine.table import FEATURE_NAMES
from richter.errors import DataFolderError, InputFileError, SchemaMismatchError

__all__ = [
    "FeatureLogWriter",
    "PartWriter",
    "feature_schema",
    "parts_of",
    "read_features",
    "record_batch",
    "replace_log",
]

PART_ROWS: Final = 100_000
GROUP_ROWS: Final = 16_384
_SCHEMA_KEY: Final = b"richter.schema_id"
_CAUSES: Final = ["", *(cause.name.lower() for cause in GapCause if cause)]
_REASON_TEXTS: Final = [reason_text(bits) for bits in range(1 << len(Reason))]
_TEXT: Final = pa.dictionary(pa.int32(), pa.string())


def feature_schema() -> pa.Schema:
    """Columns of the feature log, with `schema_id` in the metadata."""
    return pa.schema(
        [
            pa.field("product_id", _TEXT, nullable=False),
            pa.field("conn_id", _TEXT, nullable=False),
            *(
                pa.field(name, pa.int64(), nullable=False)
                for name in ("frame_no", "event_index", "ticker_index", "ts_event", "ts_recv")
            ),
            pa.field("gap_before", _TEXT, nullable=False),
            pa.field("gap_from", pa.int64(), nullable=False),
            pa.field("valid", pa.bool_(), nullable=False),
            pa.field("reasons", _TEXT, nullable=False),
            pa.field("stale_after_s", pa.float64(), nullable=False),
            pa.field("mid", pa.float64(), nullable=False),
            *(pa.field(name, pa.float64(), nullable=False) for name in FEATURE_NAMES),
        ],
        metadata={_SCHEMA_KEY: schema_id().encode()},
    )


def record_batch(batches: list[FeatureRows]) -> pa.RecordBatch:
    """Rows as Arrow, in the columns of `feature_schema`; the batches share their names, the last one has all."""
    names = batches[-1]

    def joined(column: Callable[[FeatureRows], np.ndarray]) -> np.ndarray:
        return np.concatenate([column(rows) for rows in batches])

    def text(codes: np.ndarray, texts: Sequence[str]) -> pa.DictionaryArray:
        used, small = np.unique(codes, return_inverse=True)
        return pa.DictionaryArray.from_arrays(
            small.astype(np.int32), pa.array([texts[code] for code in used.tolist()], pa.string())
        )

    # Turned block by block: each fits the cache.
    columns = np.empty((1 + len(FEATURE_NAMES), sum(map(len, batches))))
    start = 0
    for rows in batches:
        columns[:, start : start + len(rows)] = rows.values.T
        start += len(rows)
    reasons = joined(lambda rows: rows.reasons)
    arrays = [
        text(joined(lambda rows: rows.product), names.products),
        text(joined(lambda rows: rows.conn), names.conn_ids),
        *np.ascontiguousarray(joined(lambda rows: rows.identity).T),
        joined(lambda rows: rows.ts_event),
        joined(lambda rows: rows.ts_recv),
        text(joined(lambda rows: rows.cause), _CAUSES),
        joined(lambda rows: rows.gap_from),
        reasons == 0,
        text(reasons, _REASON_TEXTS),
        joined(lambda rows: np.full(len(rows), rows.stale_after_s)),
        *columns,
    ]
    schema = feature_schema()
    return pa.record_batch(
        [
            array if isinstance(array, pa.Array) else pa.array(array, field.type)
            for array, field in zip(arrays, schema, strict=True)
        ],
        schema=schema,
    )


class PartWriter:
    """Writes one part of a feature log, row group by row group: a dot-name, fsync where `durable`, rename.

    Args:
        path: of the part.
        durable: fsync it when it is done.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
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
                feature_schema(),
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

    def finish(self) -> None:
        """Give the part its name."""
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
        if self._next and self._is_foreign():
            self._move_aside()
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

    def _is_foreign(self) -> bool:
        try:
            schema = pq.read_schema(parts_of(self.folder)[0])
        except (OSError, pa.ArrowException):
            return True
        return (schema.metadata or {}).get(_SCHEMA_KEY) != schema_id().encode()

    def _move_aside(self) -> None:
        taken = (self.folder.with_name(f"{self.folder.name}.old.{number}") for number in count(1))
        try:
            self.folder.rename(next(path for path in taken if not path.exists()))
            self.folder.mkdir()
        except OSError as error:
            raise DataFolderError(
                f"cannot move the feature log of another version aside ({error.strerror})",
                str(self.folder),
                "move it yourself, or give another --out or --data",
            ) from error

    def _path(self) -> Path:
        return self.folder / f"part-{self._next:06d}.parquet"


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


def parts_of(path: Path) -> list[Path]:
    """The Parquet files of a log: a directory's parts in order, or the file itself."""
    if path.is_dir():
        parts = sorted(part for part in path.glob("*.parquet") if not part.name.startswith("."))
        if not parts:
            raise InputFileError(
                "the folder holds no Parquet parts",
                str(path),
                "give a feature log, or make one: richter replay",
            )
        return parts
    if not path.exists():
        raise InputFileError(
            "there is no such feature log", str(path), "make one: richter replay --raw … --out …"
        )
    return [path]


def read_features(path: Path, *, batch_rows: int = 131_072) -> Iterator[FeatureRows]:
    """Read a feature log in order, in batches of a part or less.

    Raises:
        InputFileError: absent, unreadable, or not a feature log.
        SchemaMismatchError: made with another set of features.
    """
    products: list[str] = []
    conn_ids: list[str] = []
    codes: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for part in parts_of(path):
        try:
            file = pq.ParquetFile(part)
        except (OSError, pa.ArrowException) as error:
            raise InputFileError(
                f"cannot read the Parquet file ({_first_line(error)})",
                str(part),
                "give a feature log made by richter replay",
            ) from error
        with file:
            _check_schema(part, file.schema_arrow)
            try:
                for batch in file.iter_batches(batch_size=batch_rows):
                    for piece in _of_one_staleness(batch):
                        yield _rows_of(piece, products, conn_ids, codes)
            except (OSError, pa.ArrowException, _ContradictionError) as error:
                raise InputFileError(
                    f"the Parquet file is damaged ({_first_line(error)})",
                    str(part),
                    "replay the recording again",
                ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(". ") if str(error) else type(error).__name__


def _check_schema(part: Path, schema: pa.Schema) -> None:
    found = (schema.metadata or {}).get(_SCHEMA_KEY)
    if found is None:
        raise InputFileError(
            "the Parquet file is no feature log of richter",
            str(part),
            "give one made by richter replay or richter run",
        )
    if found.decode() != schema_id():
        raise SchemaMismatchError(
            f"the feature log has schema_id {found.decode()}, this version of richter {schema_id()}",
            str(part),
            "make it anew from the recording: richter replay --raw … --out …",
        )
    if schema.names != feature_schema().names or not all(map(_same_type, schema, feature_schema())):
        raise SchemaMismatchError(
            "the feature log's columns are not the ones its schema_id stands for",
            str(part),
            "make it anew from the recording: richter replay --raw … --out …",
        )


def _same_type(found: pa.Field, expected: pa.Field) -> bool:
    """Whether a column is of its type; any of Arrow's texts is one."""

    def is_text(kind: pa.DataType) -> bool:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    return bool(found.type == expected.type) or (is_text(found.type) and is_text(expected.type))


class _ContradictionError(Exception):
    """A part says what no row can be."""


def _of_one_staleness(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch where the setting changed: `FeatureRows` have one for all of them."""
    if not batch.num_rows:
        return
    stale = batch.column("stale_after_s").to_numpy(zero_copy_only=False).view(np.int64)
    for start, stop in pairwise([0, *(np.flatnonzero(np.diff(stale)) + 1).tolist(), batch.num_rows]):
        yield batch.slice(start, stop - start)


def _rows_of(
    batch: pa.RecordBatch,
    products: list[str],
    conn_ids: list[str],
    codes: tuple[dict[str, int], dict[str, int]],
) -> FeatureRows:
    def coded(name: str, names: list[str] | None, known: dict[str, int]) -> np.ndarray:
        column = batch.column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        mapped = []
        for value in column.dictionary.to_pylist():
            if value not in known:
                if names is None:
                    raise _ContradictionError(f"{name} holds {value!r}")
                known[value] = len(names)
                names.append(value)
            mapped.append(known[value])
        return np.array(mapped, np.int64)[column.indices.to_numpy()]

    def numbers(name: str) -> np.ndarray:
        return batch.column(name).to_numpy(zero_copy_only=False)

    causes: dict[str, int] = {name: code for code, name in enumerate(_CAUSES)}
    reasons: dict[str, int] = {name: bits for bits, name in enumerate(_REASON_TEXTS)}
    values = np.empty((batch.num_rows, 1 + len(FEATURE_NAMES)))
    for column, name in enumerate(("mid", *FEATURE_NAMES)):
        values[:, column] = numbers(name)
    bits = coded("reasons", None, reasons)
    if (numbers("valid") != (bits == 0)).any():
        raise _ContradictionError("valid contradicts reasons")
    return FeatureRows(
        products=products,
        conn_ids=conn_ids,
        product=coded("product_id", products, codes[0]),
        conn=coded("conn_id", conn_ids, codes[1]),
        identity=np.stack([numbers(name) for name in ("frame_no", "event_index", "ticker_index")], axis=1),
        ts_event=numbers("ts_event"),
        ts_recv=numbers("ts_recv"),
        cause=coded("gap_before", None, causes),
        gap_from=numbers("gap_from"),
        reasons=bits,
        values=values,
        stale_after_s=float(numbers("stale_after_s")[0]),
    )
