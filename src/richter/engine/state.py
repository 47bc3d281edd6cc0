"""The state of one product: arrays of integers, and what their columns mean.

Running totals are kept per second (``grid``) and per tick (``ring``); a window's sum is the difference of two of
them, so it depends on the ticks in the window alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from richter.compiled import kernel
from richter.domain import ticks as tk
from richter.engine.fixed_point import NAN

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

GRID_SLOTS: Final = 4096  # a power of two above 3600 + 60
GRID_MASK: Final = GRID_SLOTS - 1
RET_SLOTS: Final = 1024  # above 900
RANGE_SLOTS: Final = 512  # above 301
TAU_WINDOW_S: Final = 3600
RING_LIMIT: Final = 2**19  # ticks in 300 s; window sums stay below 2**63 up to here
_FIRST_RING: Final = 256

# The head: scalars.
(
    H_STARTED,
    H_LAST_T,
    H_CONN,
    H_CONN_OFFSET,
    H_FRAME,
    H_EVENT,
    H_TICKER,
    H_FINAL,  # the newest final second
    H_NEWEST,  # number of the newest tick in the ring; 0 is the sentinel before the first
    H_BEFORE,  # number of the last tick at or before t - 30 s, and likewise 60 s, 300 s
    _,
    H_BEFORE_300,
    H_CELL,  # the newest second cell
    H_PRICE,  # the last known price
    H_CHANGED_AT,  # when it changed; NO_TIME when not remembered
    H_PRICED_AT,  # time of the last tick with a known price
    H_WATCHED_SINCE,  # since when the price was known without a break; NO_TIME while it is not
    H_PENDING_CAUSE,  # the gap of a tick that made no row waits for the next one
    H_PENDING_FROM,
    H_CACHED,  # the final second that the cached grid features belong to; NO_TIME for none
    H_SORTED,  # number of sigmas in the sorted window
    H_RET_HEAD,
    H_RET_TAIL,
    H_MAX_HEAD,
    H_MAX_TAIL,
    H_MIN_HEAD,
    H_MIN_TAIL,
) = range(27)
HEAD_SIZE: Final = 27
BLANK: Final = -1
"""`H_STARTED` of arrays that the kernel has not prepared yet."""

# The grid: a row a second, totals up to and with it.
(
    G_MID,  # float
    G_RETURN,
    G_COUNT,  # known returns
    G_SUM,
    G_SQ_A,
    G_SQ_B,
    G_SQ_C,
    G_UP_A,
    G_UP_B,
    G_UP_C,
    G_BI_A,
    G_BI_B,
    G_BI_C,
    G_PAIRS,
    G_SIGMA,  # float, the volatility of the 60 s that end here
    G_CELLS,  # known second cells
) = range(16)
GRID_COLUMNS: Final = 16

# The ring: a row a tick, totals from R_TICKS on up to and with it.
(
    R_T,
    R_KNOWN_TO,  # before this tick values are known up to here: its time, or where its gap begins
    R_MID,  # float
    R_SPREAD,
    R_SPREAD_BPS,  # float
    R_VOL_U,
    R_VOL_F,
    R_TICKS,
    R_QUOTES,
    R_SPREAD_HI,
    R_SPREAD_LO,
    R_BPS_HI,
    R_BPS_LO,
    R_BOOKS,
    R_IMBALANCE,
    R_QTY_U,
    R_QTY_F,
    R_REPORTED_U,
    R_REPORTED_F,
    R_PRICED_U,  # quantity with a known price: the denominator of VWAP
    R_PRICED_F,
    R_PU_0,  # price * whole units, limbs of 27 bits
    R_PU_1,
    R_PU_2,
    R_PF_0,  # price * fraction
    R_PF_1,
    R_PF_2,
) = range(27)
RING_COLUMNS: Final = 27


class State(NamedTuple):
    """One product's arrays. ``*_f`` are float64 views of the same bytes."""

    head: Int64
    grid: Int64
    grid_f: Float64
    ring: Int64
    ring_f: Float64
    ordered: Float64  # the sigmas of the last hour, ascending
    scratch: Float64  # as long as `ordered`
    ret_s: Int64  # monotonic queues of the largest |r|, the largest and the smallest mids: second and value
    ret_v: Float64
    max_s: Int64
    max_v: Float64
    min_s: Int64
    min_v: Float64
    box_n: Int64  # scratch: known returns and mean square of each box
    box_ms: Float64
    cache: Float64  # the grid features of second H_CACHED


def new_state(boxes: int, cached: int) -> State:
    """A state before its first tick."""
    grid = np.zeros((GRID_SLOTS, GRID_COLUMNS), np.int64)
    ring = np.zeros((_FIRST_RING, RING_COLUMNS), np.int64)
    state = State(
        head=np.zeros(HEAD_SIZE, np.int64),
        grid=grid,
        grid_f=grid.view(np.float64),
        ring=ring,
        ring_f=ring.view(np.float64),
        ordered=np.zeros(TAU_WINDOW_S + 1),
        scratch=np.zeros(TAU_WINDOW_S + 1),
        ret_s=np.zeros(RET_SLOTS, np.int64),
        ret_v=np.zeros(RET_SLOTS),
        max_s=np.zeros(RANGE_SLOTS, np.int64),
        max_v=np.zeros(RANGE_SLOTS),
        min_s=np.zeros(RANGE_SLOTS, np.int64),
        min_v=np.zeros(RANGE_SLOTS),
        box_n=np.zeros(boxes, np.int64),
        box_ms=np.zeros(boxes),
        cache=np.full(cached, NAN),
    )
    state.head[H_CONN] = -1
    state.head[H_STARTED] = BLANK
    return state


def with_wider_ring(state: State) -> State:
    """The same state with a ring twice as long."""
    size = len(state.ring)
    ring = np.zeros((2 * size, RING_COLUMNS), np.int64)
    newest = int(state.head[H_NEWEST])
    numbers = np.arange(max(0, newest - size + 1), newest + 1)
    ring[numbers & (2 * size - 1)] = state.ring[numbers & (size - 1)]
    return state._replace(ring=ring, ring_f=ring.view(np.float64))


def nbytes(state: State) -> int:
    """Bytes of the arrays; views are counted once."""
    return sum(array.nbytes for array in state) - state.grid_f.nbytes - state.ring_f.nbytes


@kernel()
def clear(state: State) -> None:
    """Forget everything but the identity gate (connection and highest identity seen)."""
    head = state.head
    ring = state.ring
    clear_grid(state)
    head[H_STARTED] = 0
    head[H_NEWEST] = 0
    head[H_BEFORE : H_BEFORE_300 + 1] = 0
    head[H_PRICE] = tk.UNKNOWN
    head[H_CHANGED_AT] = tk.NO_TIME
    head[H_PRICED_AT] = tk.NO_TIME
    head[H_WATCHED_SINCE] = tk.NO_TIME
    ring[0, :] = 0
    ring[0, R_T] = tk.NO_TIME // 2
    ring[0, R_KNOWN_TO] = tk.NO_TIME // 2
    state.ring_f[0, R_MID] = NAN
    ring[0, R_SPREAD] = tk.UNKNOWN
    ring[0, R_VOL_U] = tk.UNKNOWN


@kernel()
def clear_grid(state: State) -> None:
    """Forget all seconds."""
    head = state.head
    state.grid[:, :] = 0
    state.grid_f[:, G_MID] = NAN
    state.grid_f[:, G_SIGMA] = NAN
    head[H_CACHED] = tk.NO_TIME
    head[H_SORTED] = 0
    head[H_RET_HEAD] = 0
    head[H_RET_TAIL] = 0
    head[H_MAX_HEAD] = 0
    head[H_MAX_TAIL] = 0
    head[H_MIN_HEAD] = 0
    head[H_MIN_TAIL] = 0
