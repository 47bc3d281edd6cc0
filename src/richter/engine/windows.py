"""The values of one tick and of the windows over ticks: quotes, sizes, counts, volume.

Row ``i`` of the ticks makes row ``i`` of the values; ``now`` and ``then`` are rows of the ring.
"""

from __future__ import annotations

import math
from typing import Final

from richter.compiled import kernel
from richter.domain import ticks as tk
from richter.engine.fixed_point import LIMB, LIMB_ONE, NAN
from richter.engine.state import (
    R_BOOKS,
    R_BPS_HI,
    R_BPS_LO,
    R_IMBALANCE,
    R_KNOWN_TO,
    R_MID,
    R_PF_0,
    R_PF_1,
    R_PF_2,
    R_PRICED_F,
    R_PRICED_U,
    R_PU_0,
    R_PU_1,
    R_PU_2,
    R_QTY_F,
    R_QTY_U,
    R_QUOTES,
    R_REPORTED_F,
    R_REPORTED_U,
    R_SPREAD,
    R_SPREAD_BPS,
    R_SPREAD_HI,
    R_SPREAD_LO,
    R_T,
    R_TICKS,
    R_VOL_F,
    R_VOL_U,
    Float64,
    Int64,
)
from richter.engine.table import FEATURE_NAMES

__all__ = [
    "COLUMN",
    "SPANS_S",
    "is_known",
    "levels",
    "quote",
    "volume",
    "volume_change",
    "window",
    "window_changes",
]

COLUMN: Final = {name: 1 + index for index, name in enumerate(FEATURE_NAMES)}
"""Feature -> its column in a block of values, whose first one is the mid."""

SPANS_S: Final = (30, 60, 300)

BPS_ONE: Final = float(2**44)
IMBALANCE_ONE: Final = float(2**42)
LOW_27: Final = 2**27 - 1
ONE_27: Final = float(2**27)
FRACTION: Final = 100_000_000

F_SPREAD: Final = COLUMN["bid_ask_spread"]
F_BPS: Final = COLUMN["bid_ask_spread_bps"]
F_BOOK: Final = COLUMN["book_imbalance"]
F_VOLUME_24H: Final = COLUMN["volume_24h_pct_change"]
F_REPORTED: Final = COLUMN["volume_reported_share_300s"]
F_LOW: Final = COLUMN["distance_low_24h"]
F_HIGH: Final = COLUMN["distance_high_24h"]
# The first of three columns, one for each of SPANS_S.
F_SPREAD_MEAN: Final = COLUMN["bid_ask_spread_mean_30s"]
F_BPS_MEAN: Final = COLUMN["bid_ask_spread_bps_mean_30s"]
F_SPREAD_CHANGE: Final = COLUMN["bid_ask_spread_change_30s"]
F_BPS_CHANGE: Final = COLUMN["bid_ask_spread_bps_change_30s"]
F_BOOK_MEAN: Final = COLUMN["book_imbalance_mean_30s"]
F_VOLUME: Final = COLUMN["volume_30s"]
F_VWAP: Final = COLUMN["vwap_30s"]
F_VWAP_DEVIATION: Final = COLUMN["vwap_deviation_30s"]
# The course's name for the one over 60 s stands elsewhere in the table.
F_COUNT: Final = (COLUMN["tick_intensity_30s"], COLUMN["trade_intensity"], COLUMN["tick_intensity_300s"])


@kernel()
def is_known(ring: Int64, then: int, later: int, x: int, stale_ns: int) -> bool:
    """Whether the value as of x is known, given the last tick at or before x and the one after it."""
    return x - ring[then, R_T] <= stale_ns and (x <= ring[later, R_KNOWN_TO] or x >= ring[later, R_T])


@kernel()
def quote(
    ticks: Int64,
    i: int,
    ring: Int64,
    ring_f: Float64,
    now: int,
    out: Float64,
    mid: float,
    spread: int,
    scale: float,
) -> None:
    """The tick's own spread and imbalance, and their totals."""
    ring_f[now, R_MID] = mid
    ring[now, R_SPREAD] = spread
    out[i, 0] = mid
    out[i, F_SPREAD] = NAN
    out[i, F_BPS] = NAN
    out[i, F_BOOK] = NAN
    if spread < 0:
        return
    absolute = float(spread) / scale
    bps = absolute / mid * 10_000.0
    out[i, F_SPREAD] = absolute
    out[i, F_BPS] = bps
    ring_f[now, R_SPREAD_BPS] = bps
    ring[now, R_QUOTES] += 1
    ring[now, R_SPREAD_HI] += spread >> 25
    ring[now, R_SPREAD_LO] += spread & LIMB
    fixed = math.floor(bps * BPS_ONE + 0.5)
    ring[now, R_BPS_HI] += fixed >> 25
    ring[now, R_BPS_LO] += fixed & LIMB
    if ticks[i, tk.BID_QTY_U] >= 0 and ticks[i, tk.ASK_QTY_U] >= 0:
        bid_size = float(ticks[i, tk.BID_QTY_U]) + float(ticks[i, tk.BID_QTY_F]) * 1e-8
        ask_size = float(ticks[i, tk.ASK_QTY_U]) + float(ticks[i, tk.ASK_QTY_F]) * 1e-8
        if bid_size + ask_size > 0.0:
            imbalance = (bid_size - ask_size) / (bid_size + ask_size)
            out[i, F_BOOK] = imbalance
            ring[now, R_BOOKS] += 1
            ring[now, R_IMBALANCE] += math.floor(imbalance * IMBALANCE_ONE + 0.5)


@kernel()
def volume(ticks: Int64, i: int, ring: Int64, previous: int, now: int, unbroken: bool) -> None:
    """Count the tick and its volume; ``unbroken``: nothing was missed since the previous tick."""
    ring[now, R_VOL_U] = ticks[i, tk.VOLUME_24H_U]
    ring[now, R_VOL_F] = ticks[i, tk.VOLUME_24H_F]
    if ticks[i, tk.SNAPSHOT] != 0:
        return
    ring[now, R_TICKS] += 1
    units = 0
    fraction = 0
    if ticks[i, tk.LAST_SIZE_U] >= 0:
        units = ticks[i, tk.LAST_SIZE_U]
        fraction = ticks[i, tk.LAST_SIZE_F]
        ring[now, R_REPORTED_U] += units
        ring[now, R_REPORTED_F] += fraction
    elif unbroken and ring[previous, R_VOL_U] >= 0 and ring[now, R_VOL_U] >= 0:
        units = ring[now, R_VOL_U] - ring[previous, R_VOL_U]
        fraction = ring[now, R_VOL_F] - ring[previous, R_VOL_F]
        if fraction < 0:
            units -= 1
            fraction += FRACTION
        if units < 0:
            units = 0
            fraction = 0
    if units > 0 or fraction > 0:
        ring[now, R_QTY_U] += units
        ring[now, R_QTY_F] += fraction
        if ticks[i, tk.PRICE] > 0:
            ring[now, R_PRICED_U] += units
            ring[now, R_PRICED_F] += fraction
            _add_product(ring, now, ticks[i, tk.PRICE], units, fraction)


@kernel()
def _add_product(ring: Int64, now: int, price: int, units: int, fraction: int) -> None:
    """Add price * quantity to the running totals, exactly, in limbs of 27 bits."""
    p0 = price & LOW_27
    p1 = price >> 27
    u0 = units & LOW_27
    u1 = units >> 27
    low = p0 * u0
    middle = p1 * u0 + p0 * u1 + (low >> 27)
    ring[now, R_PU_0] += low & LOW_27
    ring[now, R_PU_1] += middle & LOW_27
    ring[now, R_PU_2] += p1 * u1 + (middle >> 27)
    low = p0 * fraction
    middle = p1 * fraction + (low >> 27)
    ring[now, R_PF_0] += low & LOW_27
    ring[now, R_PF_1] += middle & LOW_27
    ring[now, R_PF_2] += middle >> 27


@kernel()
def window_changes(
    ring: Int64, ring_f: Float64, now: int, then: int, known: bool, out: Float64, i: int, k: int, scale: float
) -> None:
    """The changes of the spread since the k-th span began."""
    out[i, F_SPREAD_CHANGE + k] = NAN
    out[i, F_BPS_CHANGE + k] = NAN
    if known and ring[now, R_SPREAD] >= 0 and ring[then, R_SPREAD] >= 0:
        out[i, F_SPREAD_CHANGE + k] = float(ring[now, R_SPREAD] - ring[then, R_SPREAD]) / scale
        out[i, F_BPS_CHANGE + k] = ring_f[now, R_SPREAD_BPS] - ring_f[then, R_SPREAD_BPS]


@kernel()
def window(
    ring: Int64,
    ring_f: Float64,
    now: int,
    then: int,
    seconds: int,
    out: Float64,
    i: int,
    k: int,
    scale: float,
) -> None:
    """Means, counts and volume over the ticks after ``then``: the k-th of SPANS_S, ``seconds`` of it known."""
    out[i, F_SPREAD_MEAN + k] = NAN
    out[i, F_BPS_MEAN + k] = NAN
    out[i, F_BOOK_MEAN + k] = NAN
    out[i, F_COUNT[k]] = NAN
    out[i, F_VOLUME + k] = NAN
    out[i, F_VWAP + k] = NAN
    out[i, F_VWAP_DEVIATION + k] = NAN
    if k == 2:
        out[i, F_REPORTED] = NAN
    span = SPANS_S[k]
    if seconds < (span if span <= 60 else 270):
        return
    quotes = ring[now, R_QUOTES] - ring[then, R_QUOTES]
    if quotes > 0:
        n = float(quotes)
        spreads = float(ring[now, R_SPREAD_HI] - ring[then, R_SPREAD_HI]) * LIMB_ONE + float(
            ring[now, R_SPREAD_LO] - ring[then, R_SPREAD_LO]
        )
        out[i, F_SPREAD_MEAN + k] = spreads / (scale * n)
        bps = float(ring[now, R_BPS_HI] - ring[then, R_BPS_HI]) * LIMB_ONE + float(
            ring[now, R_BPS_LO] - ring[then, R_BPS_LO]
        )
        out[i, F_BPS_MEAN + k] = bps / (BPS_ONE * n)
    books = ring[now, R_BOOKS] - ring[then, R_BOOKS]
    if books > 0:
        out[i, F_BOOK_MEAN + k] = (
            float(ring[now, R_IMBALANCE] - ring[then, R_IMBALANCE]) / IMBALANCE_ONE / float(books)
        )
    scaled = 1.0 if seconds >= span else float(span) / float(seconds)
    out[i, F_COUNT[k]] = float(ring[now, R_TICKS] - ring[then, R_TICKS]) * scaled
    traded = (
        float(ring[now, R_QTY_U] - ring[then, R_QTY_U])
        + float(ring[now, R_QTY_F] - ring[then, R_QTY_F]) * 1e-8
    )
    out[i, F_VOLUME + k] = traded * scaled
    if k == 2 and traded > 0.0:
        reported = (
            float(ring[now, R_REPORTED_U] - ring[then, R_REPORTED_U])
            + float(ring[now, R_REPORTED_F] - ring[then, R_REPORTED_F]) * 1e-8
        )
        out[i, F_REPORTED] = reported / traded
    units = ring[now, R_PRICED_U] - ring[then, R_PRICED_U]
    fraction = ring[now, R_PRICED_F] - ring[then, R_PRICED_F]
    # Not `> 0`: running totals may wrap, and the compiler may compare them instead of their difference.
    if units != 0 or fraction != 0:
        by_units = (
            float(ring[now, R_PU_2] - ring[then, R_PU_2]) * ONE_27
            + float(ring[now, R_PU_1] - ring[then, R_PU_1])
        ) * ONE_27 + float(ring[now, R_PU_0] - ring[then, R_PU_0])
        by_fraction = (
            float(ring[now, R_PF_2] - ring[then, R_PF_2]) * ONE_27
            + float(ring[now, R_PF_1] - ring[then, R_PF_1])
        ) * ONE_27 + float(ring[now, R_PF_0] - ring[then, R_PF_0])
        vwap = (by_units + by_fraction * 1e-8) / ((float(units) + float(fraction) * 1e-8) * scale)
        mid = ring_f[now, R_MID]
        out[i, F_VWAP + k] = vwap
        if mid == mid:
            out[i, F_VWAP_DEVIATION + k] = (mid - vwap) / vwap


@kernel()
def volume_change(ring: Int64, now: int, then: int, known: bool, out: Float64, i: int) -> None:
    """Percent change of the 24 h volume."""
    out[i, F_VOLUME_24H] = NAN
    if known and ring[then, R_VOL_U] >= 0 and ring[now, R_VOL_U] >= 0:
        earlier = float(ring[then, R_VOL_U]) + float(ring[then, R_VOL_F]) * 1e-8
        if earlier > 0.0:
            increase = (
                float(ring[now, R_VOL_U] - ring[then, R_VOL_U])
                + float(ring[now, R_VOL_F] - ring[then, R_VOL_F]) * 1e-8
            )
            out[i, F_VOLUME_24H] = 100.0 * increase / earlier


@kernel()
def levels(ticks: Int64, i: int, out: Float64, mid: float, scale: float) -> None:
    """Distances from the 24 h low and high."""
    out[i, F_LOW] = NAN
    out[i, F_HIGH] = NAN
    if mid == mid:
        if ticks[i, tk.LOW_24H] > 0:
            level = float(ticks[i, tk.LOW_24H]) / scale
            out[i, F_LOW] = (mid - level) / level
        if ticks[i, tk.HIGH_24H] > 0:
            level = float(ticks[i, tk.HIGH_24H]) / scale
            out[i, F_HIGH] = (mid - level) / level
