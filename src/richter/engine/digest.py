"""The digest of a feature log: one number that says whether two runs made the same bits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from richter.engine.kernel import FORMULAS_VERSION
from richter.engine.state import Float64, Int64
from richter.engine.table import FEATURES, table_fingerprint

__all__ = ["Digest", "schema_id"]


def schema_id() -> str:
    """Hash of the feature table and of the formulas' code version: logs with the same id hold the same columns."""
    return hashlib.sha256(f"{table_fingerprint()}/{FORMULAS_VERSION}".encode()).hexdigest()[:12]


class Digest:
    """sha256 over the rows of one product, in log order.

    A row is, little-endian and without padding: length of conn_id (u32), conn_id (UTF-8), frame_no, event_index,
    ticker_index, ts_event (int64), mid and FEATURES in order (float64), gap cause (u8), valid (u8), reasons (u32).
    Computed from a log from its beginning, never resumed.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.rows = 0

    def update(
        self,
        conn_ids: Sequence[str],
        conn: Int64,
        identity: Int64,
        ts_event: Int64,
        values: Float64,
        cause: Int64,
        reasons: Int64,
    ) -> None:
        """Add rows.

        Args:
            conn_ids: connection code -> conn_id.
            conn: (n,) connection codes.
            identity: (n, 3) frame_no, event_index, ticker_index.
            ts_event: (n,) effective event times, ns.
            values: (n, 1 + len(FEATURES)) mid and FEATURES.
            cause: (n,) gap causes.
            reasons: (n,) reason bits; a row without any is valid.
        """
        n = len(conn)
        if n == 0:
            return
        turns = np.flatnonzero(np.diff(conn)) + 1
        bounds = [0, *turns.tolist(), n]
        for start, stop in pairwise(bounds):
            name = conn_ids[int(conn[start])].encode()
            rows = np.zeros(stop - start, dtype=_row_type(len(name)))
            rows["length"] = len(name)
            if name:
                rows["conn_id"] = np.frombuffer(name, np.uint8)
            rows["identity"] = identity[start:stop]
            rows["ts_event"] = ts_event[start:stop]
            rows["values"] = values[start:stop]
            rows["cause"] = cause[start:stop]
            rows["valid"] = reasons[start:stop] == 0
            rows["reasons"] = reasons[start:stop]
            self._hash.update(rows.tobytes())
        self.rows += n

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
