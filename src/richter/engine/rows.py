"""Feature rows: what the engine makes of ticks, with the identity each row carries."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag

import msgspec
import numpy as np
from numpy.typing import NDArray

from richter.domain import ticks as tk
from richter.engine import kernel as k
from richter.engine.engine import Block
from richter.engine.state import Float64, Int64

__all__ = ["FeatureRows", "Reason", "reason_text"]


class Reason(IntFlag):
    """Why a row is not fit to predict from. The bits stand in the digest: never renumber."""

    NO_MID = k.NO_MID
    UNKNOWN_SECOND_60S = k.UNKNOWN_SECOND_60S
    HISTORY_300S = k.HISTORY_300S
    TAU_900S = k.TAU_900S


def reason_text(reasons: int) -> str:
    """Name the reasons, comma-separated; empty for a valid row.

    >>> reason_text(9)
    'no_mid,tau_900s'
    """
    return ",".join(reason.name.lower() for reason in Reason if reason & reasons and reason.name)


class FeatureRows(msgspec.Struct, frozen=True):
    """Rows of a feature log, any mix of products, in log order.

    Attributes:
        products: product code -> name.
        conn_ids: connection code -> name.
        product: (n,) product codes.
        conn: (n,) connection codes.
        identity: (n, 3) frame_no, event_index, ticker_index.
        ts_event: (n,) effective event times, ns.
        ts_recv: (n,) receive times, ns; NO_TIME where nobody wrote it down.
        cause: (n,) `GapCause`.
        gap_from: (n,) where the gap begins, ns; NO_TIME when unknown or none.
        reasons: (n,) `Reason` bits.
        values: (n, 1 + len(FEATURES)) float64: mid, then FEATURES in order.
        stale_after_s: an older value was unknown.
    """

    products: Sequence[str]
    conn_ids: Sequence[str]
    product: Int64
    conn: Int64
    identity: Int64
    ts_event: Int64
    ts_recv: Int64
    cause: Int64
    gap_from: Int64
    reasons: Int64
    values: Float64
    stale_after_s: float

    @classmethod
    def of(
        cls,
        ticks: Int64,
        block: Block,
        products: Sequence[str],
        conn_ids: Sequence[str],
        stale_after_s: float,
    ) -> FeatureRows:
        """The rows of the ticks that made one."""
        kept = block.accepted()
        if kept.all():
            meta, values = block.meta, block.values
        else:
            ticks, meta, values = ticks[kept], block.meta[kept], block.values[kept]
        return cls(
            products=products,
            conn_ids=conn_ids,
            product=ticks[:, tk.PRODUCT],
            conn=ticks[:, tk.CONN],
            identity=ticks[:, tk.FRAME_NO : tk.TICKER_INDEX + 1],
            ts_event=meta[:, k.EFFECTIVE_T],
            ts_recv=ticks[:, tk.TS_RECV],
            cause=meta[:, k.CAUSE],
            gap_from=meta[:, k.GAP_FROM],
            reasons=meta[:, k.REASONS],
            values=values,
            stale_after_s=stale_after_s,
        )

    def __len__(self) -> int:
        return len(self.product)

    def take(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> FeatureRows:
        """Some of the rows."""
        return msgspec.structs.replace(
            self,
            product=self.product[rows],
            conn=self.conn[rows],
            identity=self.identity[rows],
            ts_event=self.ts_event[rows],
            ts_recv=self.ts_recv[rows],
            cause=self.cause[rows],
            gap_from=self.gap_from[rows],
            reasons=self.reasons[rows],
            values=self.values[rows],
        )

    def of_product(self, code: int) -> FeatureRows:
        """The rows of one product."""
        mine = self.product == code
        return self if mine.all() else self.take(mine)
