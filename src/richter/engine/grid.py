"""The one-second grid: returns, volatilities, extremes and the rolling threshold."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from richter.compiled import kernel
from richter.engine.fixed_point import LIMB, NAN, RETURN_ONE, fixed_return, log_ratio, square_sum, volatility
from richter.engine.state import (
    G_BI_A,
    G_BI_B,
    G_BI_C,
    G_COUNT,
    G_MID,
    G_PAIRS,
    G_RETURN,
    G_SIGMA,
    G_SQ_A,
    G_SQ_B,
    G_SQ_C,
    G_SUM,
    G_UP_A,
    G_UP_B,
    G_UP_C,
    GRID_MASK,
    H_FINAL,
    H_MAX_HEAD,
    H_MAX_TAIL,
    H_MIN_HEAD,
    H_MIN_TAIL,
    H_RET_HEAD,
    H_RET_TAIL,
    H_SORTED,
    RANGE_SLOTS,
    RET_SLOTS,
    TAU_WINDOW_S,
    Float64,
    Int64,
    State,
)
from richter.engine.table import EWMA_BOXES_S, EWMA_WEIGHTS, FEATURE_NAMES, required

__all__ = [
    "C_SIGMA_60",
    "C_TAU",
    "C_VOL_300",
    "F_GRID",
    "N_BOXES",
    "N_GRID",
    "finish_second",
    "grid_features",
    "put_second",
]

HALF_PI: Final = 1.5707963267948966
BOXES: Final = np.array(EWMA_BOXES_S, dtype=np.int64)
REQUIRED: Final = np.array([required(w) for w in EWMA_BOXES_S], dtype=np.int64)
WEIGHTS: Final = np.array(list(EWMA_WEIGHTS.values()), dtype=np.float64)
N_BOXES: Final = len(EWMA_BOXES_S)
N_HALF_LIVES: Final = len(EWMA_WEIGHTS)
BOX_300: Final = EWMA_BOXES_S.index(300)
TAU_MIN: Final = 900
RET_SPANS: Final = np.array([10, 60, 300, 900], dtype=np.int64)
RET_BOX: Final = np.array([EWMA_BOXES_S.index(w) for w in (10, 60, 300, 900)], dtype=np.int64)
RANGE_SPANS: Final = np.array([10, 60, 300], dtype=np.int64)
RANGE_BOX: Final = np.array([EWMA_BOXES_S.index(w) for w in (10, 60, 300)], dtype=np.int64)
RET_KEEP: Final = 900
RANGE_KEEP: Final = 301

# The grid's features stand in one run of the table, from F_GRID on; C_* count from there.
F_GRID: Final = FEATURE_NAMES.index("price_volatility_5min")
VOL_BOX: Final = np.array([EWMA_BOXES_S.index(w) for w in (300, 10, 30, 60, 900, 1800, 3600)], dtype=np.int64)
N_VOLS: Final = 7
C_VOL_300: Final = 0
C_SIGMA_60: Final = FEATURE_NAMES.index("realized_volatility_60s") - F_GRID
C_EWMA: Final = FEATURE_NAMES.index("ewma_volatility_5s") - F_GRID
C_MAX: Final = FEATURE_NAMES.index("max_abs_return_10s") - F_GRID
C_RANGE: Final = FEATURE_NAMES.index("mid_range_10s") - F_GRID
C_BIPOWER: Final = FEATURE_NAMES.index("bipower_volatility_300s") - F_GRID
C_UP: Final = FEATURE_NAMES.index("semivolatility_up_300s") - F_GRID
C_DOWN: Final = FEATURE_NAMES.index("semivolatility_down_300s") - F_GRID
C_TAU: Final = FEATURE_NAMES.index("tau_rolling") - F_GRID
N_GRID: Final = C_TAU + 1


@kernel()
def put_second(grid: Int64, grid_f: Float64, s: int, mid: float) -> None:
    """Write second s: its mid, its return and the running totals. May be called again while s is the newest."""
    i = s & GRID_MASK
    j = (s - 1) & GRID_MASK
    count = grid[j, G_COUNT]
    total = grid[j, G_SUM]
    a = grid[j, G_SQ_A]
    b = grid[j, G_SQ_B]
    c = grid[j, G_SQ_C]
    up_a = grid[j, G_UP_A]
    up_b = grid[j, G_UP_B]
    up_c = grid[j, G_UP_C]
    bi_a = grid[j, G_BI_A]
    bi_b = grid[j, G_BI_B]
    bi_c = grid[j, G_BI_C]
    pairs = grid[j, G_PAIRS]
    before = grid_f[j, G_MID]
    r = 0
    if mid == mid and before == before:
        r = fixed_return(before, mid)
        hi = abs(r) >> 25
        lo = abs(r) & LIMB
        total += r
        a += hi * hi
        b += 2 * hi * lo
        c += lo * lo
        if r > 0:
            up_a += hi * hi
            up_b += 2 * hi * lo
            up_c += lo * lo
        if count - grid[(s - 2) & GRID_MASK, G_COUNT] == 1:
            hi_1 = abs(grid[j, G_RETURN]) >> 25
            lo_1 = abs(grid[j, G_RETURN]) & LIMB
            bi_a += hi * hi_1
            bi_b += hi * lo_1 + lo * hi_1
            bi_c += lo * lo_1
            pairs += 1
        count += 1
    grid_f[i, G_MID] = mid
    grid[i, G_RETURN] = r
    grid[i, G_COUNT] = count
    grid[i, G_SUM] = total
    grid[i, G_SQ_A] = a
    grid[i, G_SQ_B] = b
    grid[i, G_SQ_C] = c
    grid[i, G_UP_A] = up_a
    grid[i, G_UP_B] = up_b
    grid[i, G_UP_C] = up_c
    grid[i, G_BI_A] = bi_a
    grid[i, G_BI_B] = bi_b
    grid[i, G_BI_C] = bi_c
    grid[i, G_PAIRS] = pairs
    k = (s - 60) & GRID_MASK
    sigma = NAN
    if count - grid[k, G_COUNT] == 60:
        sigma = volatility(
            total - grid[k, G_SUM], a - grid[k, G_SQ_A], b - grid[k, G_SQ_B], c - grid[k, G_SQ_C], 60
        )
    grid_f[i, G_SIGMA] = sigma


@kernel()
def _position(ordered: Float64, n: int, value: float) -> int:
    """Number of the first n values of ``ordered`` below ``value``."""
    low = 0
    high = n
    while low < high:
        middle = (low + high) >> 1
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@kernel()
def _close_gap(values: Float64) -> None:
    """Move all but the first a place to the left. As a slice from 0 on this compiles to one memmove."""
    for k in range(values.shape[0] - 1):
        values[k] = values[k + 1]


@kernel()
def _make_gap(values: Float64, scratch: Float64) -> None:
    """Move all but the last a place to the right; two copies are faster than one loop backwards."""
    n = values.shape[0] - 1
    for k in range(n):
        scratch[k] = values[k]
    moved = values[1:]
    for k in range(n):
        moved[k] = scratch[k]


@kernel()
def _slide_sorted(ordered: Float64, scratch: Float64, n: int, leaving: float, entering: float) -> int:
    """Exchange one value of the sorted window for another (NaN: none); returns the new number of values."""
    i = n
    if leaving == leaving:
        i = _position(ordered, n, leaving)
        n -= 1
    if entering == entering:
        j = _position(ordered, n, entering) if leaving != leaving else _position(ordered, n + 1, entering)
        if j > i:
            _close_gap(ordered[i:j])
            ordered[j - 1] = entering
        else:
            _make_gap(ordered[j : i + 1], scratch)
            ordered[j] = entering
        return n + 1
    if leaving == leaving:
        _close_gap(ordered[i : n + 1])
    return n


@kernel()
def _tau(ordered: Float64, n: int, leaving: float, entering: float) -> float:
    """Nearest-rank 90th percentile of the window after an exchange that is not carried out."""
    i = n
    size = n
    if leaving == leaving:
        i = _position(ordered, n, leaving)
        size -= 1
    j = size + 1
    if entering == entering:
        j = _position(ordered, n, entering)
        if j > i:
            j -= 1
        size += 1
    if size < TAU_MIN:
        return NAN
    rank = (9 * size + 9) // 10 - 1
    if rank == j:
        return entering
    if rank > j:
        rank -= 1
    if rank >= i:
        rank += 1
    return ordered[rank]


@kernel()
def _push(
    queue_s: Int64, queue_v: Float64, slots: int, head: int, tail: int, s: int, value: float, keep: int
) -> tuple[int, int]:
    """Monotonic queue of the largest values; returns (head, tail) after value at second s entered."""
    mask = slots - 1
    while tail > head and queue_v[(tail - 1) & mask] <= value:
        tail -= 1
    queue_s[tail & mask] = s
    queue_v[tail & mask] = value
    tail += 1
    while queue_s[head & mask] <= s - keep:
        head += 1
    return head, tail


@kernel()
def _largest_since(
    queue_s: Int64, queue_v: Float64, slots: int, head: int, tail: int, s: int, floor: float
) -> float:
    """Largest value at a second >= s in the queue; ``floor`` when there is none."""
    mask = slots - 1
    low = head
    high = tail
    while low < high:
        middle = (low + high) >> 1
        if queue_s[middle & mask] < s:
            low = middle + 1
        else:
            high = middle
    if low == tail:
        return floor
    return queue_v[low & mask]


@kernel()
def finish_second(state: State, s: int) -> None:
    """Second s is final: let it enter the sorted window and the queues of extremes."""
    head = state.head
    grid = state.grid
    grid_f = state.grid_f
    i = s & GRID_MASK
    leaving = grid_f[(s - TAU_WINDOW_S) & GRID_MASK, G_SIGMA]
    head[H_SORTED] = _slide_sorted(state.ordered, state.scratch, head[H_SORTED], leaving, grid_f[i, G_SIGMA])
    mid = grid_f[i, G_MID]
    if mid == mid:
        if grid[i, G_COUNT] != grid[(s - 1) & GRID_MASK, G_COUNT]:
            head[H_RET_HEAD], head[H_RET_TAIL] = _push(
                state.ret_s,
                state.ret_v,
                RET_SLOTS,
                head[H_RET_HEAD],
                head[H_RET_TAIL],
                s,
                float(abs(grid[i, G_RETURN])),
                RET_KEEP,
            )
        head[H_MAX_HEAD], head[H_MAX_TAIL] = _push(
            state.max_s, state.max_v, RANGE_SLOTS, head[H_MAX_HEAD], head[H_MAX_TAIL], s, mid, RANGE_KEEP
        )
        head[H_MIN_HEAD], head[H_MIN_TAIL] = _push(
            state.min_s, state.min_v, RANGE_SLOTS, head[H_MIN_HEAD], head[H_MIN_TAIL], s, -mid, RANGE_KEEP
        )
    head[H_FINAL] = s


@kernel()
def grid_features(state: State, e: int, newest: bool) -> None:
    """The features of the windows that end at second e, into ``cache``.

    ``newest``: e is written but not final, so the queues and the sorted window do not hold it yet.
    """
    head = state.head
    grid = state.grid
    grid_f = state.grid_f
    box_n = state.box_n
    box_ms = state.box_ms
    cache = state.cache
    i = e & GRID_MASK
    for box in range(N_BOXES):
        j = (e - BOXES[box]) & GRID_MASK
        n = grid[i, G_COUNT] - grid[j, G_COUNT]
        box_n[box] = n
        box_ms[box] = NAN
        if n >= REQUIRED[box]:
            box_ms[box] = square_sum(
                grid[i, G_SQ_A] - grid[j, G_SQ_A],
                grid[i, G_SQ_B] - grid[j, G_SQ_B],
                grid[i, G_SQ_C] - grid[j, G_SQ_C],
            ) / float(n)
    for v in range(N_VOLS):
        box = VOL_BOX[v]
        n = box_n[box]
        cache[v] = NAN
        if n >= REQUIRED[box]:
            j = (e - BOXES[box]) & GRID_MASK
            cache[v] = volatility(
                grid[i, G_SUM] - grid[j, G_SUM],
                grid[i, G_SQ_A] - grid[j, G_SQ_A],
                grid[i, G_SQ_B] - grid[j, G_SQ_B],
                grid[i, G_SQ_C] - grid[j, G_SQ_C],
                n,
            )
    for h in range(N_HALF_LIVES):
        total = 0.0
        known = True
        for box in range(N_BOXES):
            if WEIGHTS[h, box] > 0.0:
                if box_n[box] >= REQUIRED[box]:
                    total += WEIGHTS[h, box] * box_ms[box]
                else:
                    known = False
        cache[C_EWMA + h] = math.sqrt(total / 10_000.0) if known else NAN
    newest_return = -1.0
    newest_mid = NAN
    if newest:
        newest_mid = grid_f[i, G_MID]
        if grid[i, G_COUNT] != grid[(e - 1) & GRID_MASK, G_COUNT]:
            newest_return = float(abs(grid[i, G_RETURN]))
    for k in range(4):
        cache[C_MAX + k] = NAN
        if box_n[RET_BOX[k]] >= REQUIRED[RET_BOX[k]]:
            largest = _largest_since(
                state.ret_s,
                state.ret_v,
                RET_SLOTS,
                head[H_RET_HEAD],
                head[H_RET_TAIL],
                e - RET_SPANS[k] + 1,
                -1.0,
            )
            cache[C_MAX + k] = max(largest, newest_return) / RETURN_ONE
    for k in range(3):
        cache[C_RANGE + k] = NAN
        if box_n[RANGE_BOX[k]] >= REQUIRED[RANGE_BOX[k]]:
            since = e - RANGE_SPANS[k]
            top = _largest_since(
                state.max_s, state.max_v, RANGE_SLOTS, head[H_MAX_HEAD], head[H_MAX_TAIL], since, -1.0
            )
            bottom = -_largest_since(
                state.min_s, state.min_v, RANGE_SLOTS, head[H_MIN_HEAD], head[H_MIN_TAIL], since, -math.inf
            )
            if newest_mid == newest_mid:
                top = max(top, newest_mid)
                bottom = min(bottom, newest_mid)
            cache[C_RANGE + k] = log_ratio(bottom, top)
    cache[C_BIPOWER] = NAN
    cache[C_UP] = NAN
    cache[C_DOWN] = NAN
    if box_n[BOX_300] >= REQUIRED[BOX_300]:
        n = float(box_n[BOX_300])
        j = (e - 300) & GRID_MASK
        up = square_sum(
            grid[i, G_UP_A] - grid[j, G_UP_A],
            grid[i, G_UP_B] - grid[j, G_UP_B],
            grid[i, G_UP_C] - grid[j, G_UP_C],
        )
        down = square_sum(
            grid[i, G_SQ_A] - grid[j, G_SQ_A] - (grid[i, G_UP_A] - grid[j, G_UP_A]),
            grid[i, G_SQ_B] - grid[j, G_SQ_B] - (grid[i, G_UP_B] - grid[j, G_UP_B]),
            grid[i, G_SQ_C] - grid[j, G_SQ_C] - (grid[i, G_UP_C] - grid[j, G_UP_C]),
        )
        cache[C_UP] = math.sqrt(up / n)
        cache[C_DOWN] = math.sqrt(down / n)
        j = (e - 299) & GRID_MASK  # the pair of the oldest return in the window reaches out of it
        pairs = grid[i, G_PAIRS] - grid[j, G_PAIRS]
        if pairs > 0:
            products = square_sum(
                grid[i, G_BI_A] - grid[j, G_BI_A],
                grid[i, G_BI_B] - grid[j, G_BI_B],
                grid[i, G_BI_C] - grid[j, G_BI_C],
            )
            cache[C_BIPOWER] = math.sqrt(HALF_PI * products / float(pairs))
    if newest:
        leaving = grid_f[(e - TAU_WINDOW_S) & GRID_MASK, G_SIGMA]
        cache[C_TAU] = _tau(state.ordered, head[H_SORTED], leaving, grid_f[i, G_SIGMA])
    else:
        cache[C_TAU] = _tau(state.ordered, head[H_SORTED], NAN, NAN)
