"""The feature log as a table: its columns, rows as Arrow, and its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from richter.domain.ticks import GapCause
from richter.engine.digest import schema_id
from richter.engine.rows import FeatureRows, Reason, reason_text
from richter.engine.table import FEATURE_NAMES
from richter.errors import InputFileError, SchemaMismatchError

__all__ = ["SCHEMA_KEY", "feature_schema", "parts_of", "read_features", "record_batch"]

SCHEMA_KEY: Final = b"richter.schema_id"
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
        metadata={SCHEMA_KEY: schema_id().encode()},
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
    found = (schema.metadata or {}).get(SCHEMA_KEY)
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
