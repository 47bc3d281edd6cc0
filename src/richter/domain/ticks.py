"""A tick and a block of ticks.

A block is one C-ordered int64 matrix, a row a tick, the columns named here. One matrix serves the scanner that
fills it, the kernel that reads it and the worker that hands it on.

Prices are scaled decimals: ``price * 10**decimals``, with ``decimals`` 8 unless a setting says otherwise for the
product. Quantities are two columns, whole units (``*_U``) and the fraction in 1e-8 (``*_F``): a 24 h volume of
10**12 units with eight decimals does not fit one int64.

Unknown is `UNKNOWN` for prices and quantities and `NO_TIME` for times; never 0.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

__all__ = [
    "ASK",
    "ASK_QTY_F",
    "ASK_QTY_U",
    "BID",
    "BID_QTY_F",
    "BID_QTY_U",
    "CONN",
    "EVENT_INDEX",
    "FRAME_NO",
    "GAP_CAUSE",
    "GAP_FROM",
    "GAP_MISSING",
    "HIGH_24H",
    "LAST_SIZE_F",
    "LAST_SIZE_U",
    "LOW_24H",
    "NO_TIME",
    "PRICE",
    "PRICE_LIMIT",
    "PRODUCT",
    "QUANTITY_LIMIT",
    "SNAPSHOT",
    "TICKER_INDEX",
    "TICK_COLUMNS",
    "TS_EVENT",
    "TS_RECV",
    "UNKNOWN",
    "VOLUME_24H_F",
    "VOLUME_24H_U",
    "Gap",
    "GapCause",
    "Ns",
]

Ns = int
"""Integer nanoseconds since the Unix epoch, UTC."""

UNKNOWN: Final = -1
"""An absent price or quantity."""

NO_TIME: Final = -(2**63)
"""An absent time; as the ``from`` of a gap: since ever."""

PRICE_LIMIT: Final = 2**53
"""Scaled prices lie below this: the sum of two is exact in the mid's float64 to its last bit but one."""

QUANTITY_LIMIT: Final = 10**13
"""Whole units of a quantity lie below this, so that no window's integer sums overflow."""

(
    TS_EVENT,
    TS_RECV,
    CONN,
    FRAME_NO,
    EVENT_INDEX,
    TICKER_INDEX,
    PRODUCT,
    SNAPSHOT,
    GAP_CAUSE,
    GAP_FROM,
    GAP_MISSING,
    PRICE,
    BID,
    ASK,
    LOW_24H,
    HIGH_24H,
    VOLUME_24H_U,
    VOLUME_24H_F,
    LAST_SIZE_U,
    LAST_SIZE_F,
    BID_QTY_U,
    BID_QTY_F,
    ASK_QTY_U,
    ASK_QTY_F,
) = range(24)

TICK_COLUMNS: Final = 24


class GapCause(IntEnum):
    """Why continuity broke before a tick. The numbers stand in the digest: never renumber."""

    NONE = 0
    START = 1
    RECONNECT = 2
    SEQUENCE = 3
    OVERFLOW = 4
    CLOCK = 5


class Gap(msgspec.Struct, frozen=True):
    """A break in continuity since the product's previous tick.

    Attributes:
        cause: why.
        from_ns: event time of the last frame known good; `NO_TIME` when unknown.
        missing: frames lost, None when unknown.
    """

    cause: GapCause
    from_ns: Ns = NO_TIME
    missing: int | None = None
