"""The label: the realised volatility of the 60 seconds that follow a tick."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from richter.domain import ticks as tk
from richter.engine.fixed_point import LIMB, NAN, NS, fixed_return, volatility
from richter.engine.state import Float64, Int64

__all__ = ["HORIZON_S", "sigma_future", "volatility_spike"]

HORIZON_S: Final = 60
SOURCES_FINGERPRINT: Final = "586c774eab6391b1"
"""Of the modules this one compiles in; see kernel.py."""
_SLOTS: Final = 64
_MASK: Final = _SLOTS - 1


def sigma_future(ts_event: Int64, mid: Float64, gap: Int64, gap_from: Int64, stale_after_s: float) -> Float64:
    """Volatility of the 60 one-second log mid returns from c to c + 60, c = ceil(t), for each row of one product.

    Args:
        ts_event: (n,) effective event times in ns, in log order.
        mid: (n,) mids, NaN where unknown.
        gap: (n,) `GapCause` of each row.
        gap_from: (n,) where its gap begins, ns; NO_TIME when unknown.
        stale_after_s: an older mid is unknown.

    Returns:
        (n,) std (ddof 1) per sqrt(s). NaN where a second of the window is unknown, or where no row later than
        c + 60 is there to make it final.
    """
    out = np.full(len(ts_event), NAN)
    starts = np.flatnonzero(gap == tk.GapCause.CLOCK)
    bounds = [0, *starts[starts > 0].tolist(), len(ts_event)]
    for start, stop in pairwise(bounds):
        _segment(ts_event, mid, gap, gap_from, round(stale_after_s * 1e9), start, stop, out)
    return out


def volatility_spike(future: Float64, tau: Float64) -> NDArray[np.int8]:
    """1 where sigma_future reaches tau, 0 where not, -1 where either is unknown.

    >>> volatility_spike(np.array([2.0, 1.0, np.nan]), np.array([1.5, 1.5, 1.5])).tolist()
    [1, 0, -1]
    """
    known = ~(np.isnan(future) | np.isnan(tau))
    result: NDArray[np.int8] = np.where(known, (future >= tau).astype(np.int8), np.int8(-1))
    return result


@njit(cache=True, nogil=True, error_model="numpy")
def _segment(
    ts: Int64,
    mid: Float64,
    gap: Int64,
    gap_from: Int64,
    stale_ns: int,
    start: int,
    stop: int,
    out: Float64,
) -> None:
    """Walk the seconds once; each final second e settles the rows with ceil(t) + 60 == e."""
    if stop <= start:
        return
    returns = np.zeros(_SLOTS, np.int64)
    known = np.zeros(_SLOTS, np.int64)
    count = 0
    total = 0
    a = 0
    b = 0
    c = 0
    newest = -((-ts[start]) // NS) - 1
    newest_mid = NAN
    pending = start
    for i in range(start + 1, stop):
        last_before = -((-ts[i]) // NS) - 1
        if last_before <= newest:
            continue
        previous_t = ts[i - 1]
        previous_mid = mid[i - 1]
        known_to = ts[i]
        if gap[i] != 0:
            known_to = max(gap_from[i], previous_t)
        s = newest + 1
        while s <= last_before:
            if count == 0 and newest_mid != newest_mid and s * NS - previous_t > stale_ns:
                # Nothing is known any more: what was waiting for these seconds stays unknown.
                s = last_before
            value = previous_mid
            if s * NS - previous_t > stale_ns or s * NS > known_to:
                value = NAN
            slot = s & _MASK
            oldest = (s - HORIZON_S) & _MASK
            if known[oldest] == 1:
                r = abs(returns[oldest])
                total -= returns[oldest]
                a -= (r >> 25) * (r >> 25)
                b -= 2 * (r >> 25) * (r & LIMB)
                c -= (r & LIMB) * (r & LIMB)
                count -= 1
                known[oldest] = 0
            known[slot] = 0
            if value == value and newest_mid == newest_mid:
                returns[slot] = fixed_return(newest_mid, value)
                known[slot] = 1
                r = abs(returns[slot])
                total += returns[slot]
                a += (r >> 25) * (r >> 25)
                b += 2 * (r >> 25) * (r & LIMB)
                c += (r & LIMB) * (r & LIMB)
                count += 1
            newest_mid = value
            due = (s - HORIZON_S) * NS
            if ts[pending] <= due:
                sigma = NAN
                if count == HORIZON_S:
                    sigma = volatility(total, a, b, c, HORIZON_S)
                while ts[pending] <= due:
                    if ts[pending] > due - NS:
                        out[pending] = sigma
                    pending += 1
            s += 1
        newest = last_before
