"""Feature rows as records of a topic: one JSON object each, in the columns of the feature log, to the last bit.

An unknown value is null. A float is written with the fewest digits that read back as the same bits, so the way through
JSON loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
import numpy as np

from richter.domain.ticks import NO_TIME, GapCause
from richter.engine.digest import schema_id
from richter.engine.rows import FeatureRows, Reason, reason_text
from richter.engine.table import FEATURE_NAMES
from richter.errors import SchemaMismatchError

__all__ = ["FeatureDecoder", "encode_rows"]

_CAUSES: Final = [None, *(cause.name.lower() for cause in GapCause if cause)]
_REASONS: Final = [reason_text(bits) for bits in range(1 << len(Reason))]
_HEAD: Final[list[tuple[str, Any]]] = [
    ("product_id", str),
    ("conn_id", str),
    ("frame_no", int),
    ("event_index", int),
    ("ticker_index", int),
    ("ts_event", int),
    ("ts_recv", int | None),
    ("gap_before", str | None),
    ("gap_from", int | None),
    ("valid", bool),
    ("reasons", str),
    ("stale_after_s", float),
    ("schema_id", str),
]
_Record: Final = msgspec.defstruct(
    "FeatureRecord", [*_HEAD, *((name, float | None) for name in ("mid", *FEATURE_NAMES))], gc=False
)
# The kernel's one NaN; numpy's is the same, but only by habit.
_NAN: Final = np.uint64(0x7FF8000000000000).view(np.float64)


def encode_rows(rows: FeatureRows) -> list[bytes]:
    """The records of rows, in their order."""
    encode, schema = msgspec.json.Encoder().encode, schema_id()

    def time(value: int) -> int | None:
        return None if value == NO_TIME else value

    return [
        encode(
            _Record(
                rows.products[product],
                rows.conn_ids[conn],
                *identity,
                ts_event,
                time(ts_recv),
                _CAUSES[cause],
                time(gap_from),
                not reasons,
                _REASONS[reasons],
                rows.stale_after_s,
                schema,
                *values,
            )
        )
        for product, conn, identity, ts_event, ts_recv, cause, gap_from, reasons, values in zip(
            rows.product.tolist(),
            rows.conn.tolist(),
            rows.identity.tolist(),
            rows.ts_event.tolist(),
            rows.ts_recv.tolist(),
            rows.cause.tolist(),
            rows.gap_from.tolist(),
            rows.reasons.tolist(),
            rows.values.tolist(),
            strict=True,
        )
    ]


class FeatureDecoder:
    """Turns records back into rows; knows products and connections by number."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Record).decode
        self._products: list[str] = []
        self._conn_ids: list[str] = []
        self._codes: tuple[dict[str, int], dict[str, int]] = ({}, {})

    def decode(self, values: Iterable[bytes]) -> list[FeatureRows]:
        """The rows of these records, in order; a new block wherever `stale_after_s` changes.

        Raises:
            SchemaMismatchError: a record is no feature row, or one of another set of features.
        """
        try:
            records = [msgspec.structs.astuple(self._decode(value)) for value in values]
            blocks = []
            start = 0
            for stop in range(1, len(records) + 1):
                if stop == len(records) or records[stop][11] != records[start][11]:
                    blocks.append(self._rows(records[start:stop]))
                    start = stop
        # An integer wider than a column, bytes that are no text, and objects too deep say it their own way.
        except (msgspec.MsgspecError, OverflowError, UnicodeDecodeError, RecursionError) as error:
            raise SchemaMismatchError(
                f"a record is no feature row of this version of richter ({error})",
                None,
                "make the topic anew, or read it with the version that wrote it",
            ) from error
        return blocks

    def _rows(self, records: list[tuple[Any, ...]]) -> FeatureRows:
        columns = list(zip(*records, strict=True))
        for schema in set(columns[12]):
            if schema != schema_id():
                raise SchemaMismatchError(
                    f"a record has schema_id {schema}, this version of richter {schema_id()}",
                    None,
                    "make the topic anew, or read it with the version that wrote it",
                )
        causes = {name: code for code, name in enumerate(_CAUSES)}
        reasons = {name: bits for bits, name in enumerate(_REASONS)}
        try:
            cause = [causes[name] for name in columns[7]]
            bits = [reasons[name] for name in columns[10]]
        except KeyError as error:
            raise SchemaMismatchError("a record holds what no feature row can", error.args[0]) from error

        def times(column: int) -> np.ndarray:
            return np.array([NO_TIME if value is None else value for value in columns[column]], np.int64)

        # None becomes NaN on the way into the array, numpy's own, so it is written over.
        values = np.array([record[len(_HEAD) :] for record in records], np.float64)
        values[np.isnan(values)] = _NAN
        return FeatureRows(
            products=self._products,
            conn_ids=self._conn_ids,
            product=self._coded(columns[0], self._products, self._codes[0]),
            conn=self._coded(columns[1], self._conn_ids, self._codes[1]),
            identity=np.array([record[2:5] for record in records], np.int64),
            ts_event=times(5),
            ts_recv=times(6),
            cause=np.array(cause, np.int64),
            gap_from=times(8),
            reasons=np.array(bits, np.int64),
            values=values,
            stale_after_s=float(columns[11][0]),
        )

    @staticmethod
    def _coded(texts: Iterable[str], names: list[str], known: dict[str, int]) -> np.ndarray:
        codes = []
        for text in texts:
            if text not in known:
                known[text] = len(names)
                names.append(text)
            codes.append(known[text])
        return np.array(codes, np.int64)
