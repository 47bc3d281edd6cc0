"""The digest of a feature log: one number that says whether two runs made the same bits."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np

from richter.engine.kernel import FORMULAS_VERSION
from richter.engine.rows import FeatureRows
from richter.engine.table import FEATURES, table_fingerprint

__all__ = ["Digest", "pack", "schema_id"]


def schema_id() -> str:
    """Hash of the feature table and of the formulas' code version: logs with the same id hold the same columns."""
    return hashlib.sha256(f"{table_fingerprint()}/{FORMULAS_VERSION}".encode()).hexdigest()[:12]


def pack(rows: FeatureRows) -> bytes:
    """The bytes of one product's rows that its digest is of.

    A row is, little-endian and without padding: length of conn_id (u32), conn_id (UTF-8), frame_no, event_index,
    ticker_index, ts_event (int64), mid and FEATURES in order (float64), gap cause (u8), valid (u8), reasons (u32).
    """
    turns = np.flatnonzero(np.diff(rows.conn)) + 1
    return b"".join(
        _packed(rows, slice(start, stop))
        for start, stop in pairwise([0, *turns.tolist(), len(rows)])
        if stop > start
    )


def _packed(rows: FeatureRows, run: slice) -> bytes:
    """Rows of one connection."""
    name = rows.conn_ids[int(rows.conn[run.start])].encode()
    packed = np.empty(run.stop - run.start, dtype=_row_type(len(name)))
    packed["length"] = len(name)
    if name:
        packed["conn_id"] = np.frombuffer(name, np.uint8)
    packed["identity"] = rows.identity[run]
    packed["ts_event"] = rows.ts_event[run]
    packed["values"] = rows.values[run]
    packed["cause"] = rows.cause[run]
    packed["valid"] = rows.reasons[run] == 0
    packed["reasons"] = rows.reasons[run]
    return packed.tobytes()


class Digest:
    """sha256 over the rows of one product, in log order; computed from a log's beginning, never resumed."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, rows: FeatureRows) -> None:
        """Add rows of the product."""
        self.add(pack(rows))

    def add(self, packed: bytes) -> None:
        """Add packed rows."""
        self._hash.update(packed)

    def hexdigest(self) -> str:
        """The digest so far, 64 hex digits."""
        return self._hash.hexdigest()


def _row_type(conn_id_length: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("length", "<u4"),
            ("conn_id", "u1", (conn_id_length,)),
            ("identity", "<i8", (3,)),
            ("ts_event", "<i8"),
            ("values", "<f8", (1 + len(FEATURES),)),
            ("cause", "u1"),
            ("valid", "u1"),
            ("reasons", "<u4"),
        ]
    )
