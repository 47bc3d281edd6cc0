"""The one kernel: ticks of one product in, feature rows out, to the same bits live and in replay.

The rules are those of ``docs/engine.md``. Every accumulator is an integer; floats stand only in output expressions.

numba's cache looks at the time stamp of this file alone. So the file names what it was compiled from: the feature
table, checked at import, and the modules it calls, checked by a test. Whoever changes those must touch this file.
"""

from __future__ import annotations

from typing import Final

from richter.compiled import kernel
from richter.domain import ticks as tk
from richter.engine.fixed_point import NAN, NS
from richter.engine.grid import (
    C_SIGMA_60,
    C_TAU,
    C_VOL_300,
    F_GRID,
    N_GRID,
    finish_second,
    grid_features,
    put_second,
)
from richter.engine.state import (
    BLANK,
    G_CELLS,
    GRID_MASK,
    GRID_SLOTS,
    H_BEFORE,
    H_BEFORE_300,
    H_CACHED,
    H_CELL,
    H_CHANGED_AT,
    H_CONN,
    H_CONN_OFFSET,
    H_EVENT,
    H_FINAL,
    H_FRAME,
    H_LAST_T,
    H_NEWEST,
    H_PENDING_CAUSE,
    H_PENDING_FROM,
    H_PRICE,
    H_PRICED_AT,
    H_STARTED,
    H_TICKER,
    H_WATCHED_SINCE,
    R_KNOWN_TO,
    R_MID,
    R_T,
    R_TICKS,
    RING_COLUMNS,
    Float64,
    Int64,
    State,
    clear,
    clear_grid,
)
from richter.engine.table import table_fingerprint
from richter.engine.windows import (
    COLUMN,
    SPANS_S,
    is_known,
    levels,
    quote,
    volume,
    volume_change,
    window,
    window_changes,
)
from richter.errors import ContractError

__all__ = [
    "AHEAD",
    "CAUSE",
    "CLAMPED",
    "DONE",
    "DUPLICATE",
    "EFFECTIVE_T",
    "FORMULAS_VERSION",
    "GAP_FROM",
    "META_COLUMNS",
    "NEED_CONN",
    "NEED_RING",
    "OUTCOME",
    "REASONS",
    "ROW",
    "SEGMENT",
    "advance",
]

FORMULAS_VERSION: Final = 1
"""Raise it whenever a value changes that the table's text does not show; it is part of `schema_id`."""

TABLE_FINGERPRINT: Final = "cf9f92e98b089b32"
SOURCES_FINGERPRINT: Final = "dd045e77658d86f0"

if table_fingerprint() != TABLE_FINGERPRINT:
    raise ContractError(
        "the feature table and the kernel differ",
        table_fingerprint(),
        "bring kernel.py in line with table.py and set TABLE_FINGERPRINT to this value",
    )

BACKWARD_NS: Final = 2 * NS
AHEAD_NS: Final = 2 * NS
MAX_QUIET_NS: Final = 3_400 * NS
"""A longer silence is no known zero: a restart from LOOK_BACK could not tell it from one that never ended."""
CLOCK: Final = int(tk.GapCause.CLOCK)

EFFECTIVE_T, CAUSE, GAP_FROM, REASONS, OUTCOME = range(5)
META_COLUMNS: Final = 5
ROW, DUPLICATE, AHEAD = 0, 1, 2
"""`OUTCOME`, lowest two bits: what became of the tick."""
CLAMPED, SEGMENT = 4, 8
"""`OUTCOME`, flags."""
NO_MID, UNKNOWN_SECOND_60S, HISTORY_300S, TAU_900S = 1, 2, 4, 8
DONE, NEED_CONN, NEED_RING = -1, 0, 1

F_RETURN: Final = (COLUMN["price_return_1min"], COLUMN["price_return_5min"])
F_PRICE_AGE: Final = COLUMN["seconds_since_price_change"]
F_MINUTE: Final = COLUMN["minute_of_hour_phase"]
F_HOUR: Final = COLUMN["hour_of_day_phase"]


@kernel(cache=True)
def advance(
    ticks: Int64,
    rows: Int64,
    start: int,
    state: State,
    out: Float64,
    meta: Int64,
    stale_ns: int,
    scale: float,
) -> tuple[int, int]:
    """Take the ticks ``ticks[rows[start:]]`` of one product, in log order, into the state and write their rows.

    Writes ``out[i]`` (mid, then FEATURES) and ``meta[i]`` for each tick ``i``; a tick that makes no row says so in
    ``meta[i, OUTCOME]``. ``scale`` is 10**decimals as float.

    Returns:
        (DONE, len(rows)), or (what is needed, position in ``rows`` to go on from): `NEED_CONN` when the tick's
        connection is not the head's, `NEED_RING` when the ring is full.
    """
    head = state.head
    grid = state.grid
    grid_f = state.grid_f
    ring = state.ring
    ring_f = state.ring_f
    cache = state.cache
    mask = ring.shape[0] - 1
    if head[H_STARTED] == BLANK:
        clear(state)
    for position in range(start, rows.shape[0]):
        i = rows[position]

        # Gate 1, identity.
        if ticks[i, tk.CONN] != head[H_CONN]:
            return NEED_CONN, position
        frame = ticks[i, tk.FRAME_NO]
        event = ticks[i, tk.EVENT_INDEX]
        ticker = ticks[i, tk.TICKER_INDEX]
        if not (
            frame > head[H_FRAME]
            or (
                frame == head[H_FRAME]
                and (event > head[H_EVENT] or (event == head[H_EVENT] and ticker > head[H_TICKER]))
            )
        ):
            meta[i, OUTCOME] = DUPLICATE
            continue
        if head[H_NEWEST] + 2 - head[H_BEFORE_300] > mask:
            return NEED_RING, position
        head[H_FRAME] = frame
        head[H_EVENT] = event
        head[H_TICKER] = ticker

        # Gate 2, a stamp from the future.
        t = ticks[i, tk.TS_EVENT]
        received = ticks[i, tk.TS_RECV]
        if (
            received != tk.NO_TIME
            and t - received > AHEAD_NS
            and t - received - head[H_CONN_OFFSET] > AHEAD_NS
        ):
            meta[i, OUTCOME] = AHEAD
            if ticks[i, tk.GAP_CAUSE] != 0:
                if head[H_PENDING_CAUSE] == 0 or ticks[i, tk.GAP_FROM] < head[H_PENDING_FROM]:
                    head[H_PENDING_FROM] = ticks[i, tk.GAP_FROM]
                if head[H_PENDING_CAUSE] != CLOCK:
                    head[H_PENDING_CAUSE] = ticks[i, tk.GAP_CAUSE]
            continue

        # Gates 3 and 4, backwards.
        outcome = ROW
        cause = ticks[i, tk.GAP_CAUSE]
        gap_from = ticks[i, tk.GAP_FROM]
        if head[H_PENDING_CAUSE] != 0:
            gap_from = min(gap_from, head[H_PENDING_FROM]) if cause != 0 else head[H_PENDING_FROM]
            if cause == 0 or head[H_PENDING_CAUSE] == CLOCK:
                cause = head[H_PENDING_CAUSE]
            head[H_PENDING_CAUSE] = 0
        if head[H_STARTED] == 1:
            if head[H_LAST_T] - t > BACKWARD_NS:
                cause = CLOCK
            elif t < head[H_LAST_T]:
                t = head[H_LAST_T]
                outcome = ROW | CLAMPED
        if cause == CLOCK:
            clear(state)
            outcome |= SEGMENT
            gap_from = tk.NO_TIME

        # Where continuity broke, if it did: nothing is known in (known_to, t).
        first = head[H_STARTED] == 0
        previous = head[H_NEWEST] & mask
        previous_t = ring[previous, R_T]
        gap = cause != 0 and not first
        known_to = t
        if gap:
            known_to = min(max(gap_from, previous_t), t)
        broken = first or gap or t - previous_t > stale_ns
        cell = t // NS
        last_before = -((-t) // NS) - 1  # the last second before t

        # Seconds that this tick makes final hold the previous tick's mid, while it is fresh and known.
        fresh_grid = first
        if not first and last_before - head[H_FINAL] > GRID_SLOTS - 64:
            clear_grid(state)
            fresh_grid = True
        if fresh_grid:
            head[H_FINAL] = last_before
        else:
            previous_mid = ring_f[previous, R_MID]
            for s in range(head[H_FINAL] + 1, last_before + 1):
                mid = previous_mid
                if s * NS - previous_t > stale_ns or s * NS > known_to:
                    mid = NAN
                put_second(grid, grid_f, s, mid)
                finish_second(state, s)

        # Second cells in which every tick was seen.
        if fresh_grid:
            grid[cell & GRID_MASK, G_CELLS] = 1 if t == cell * NS else 0
        else:
            unseen_from = known_to
            if t - previous_t > MAX_QUIET_NS:
                unseen_from = previous_t
            first_unseen = unseen_from // NS if unseen_from < t else cell + 1
            if first_unseen == head[H_CELL] and unseen_from < t:
                grid[first_unseen & GRID_MASK, G_CELLS] = grid[(first_unseen - 1) & GRID_MASK, G_CELLS]
            for c in range(head[H_CELL] + 1, cell + 1):
                seen = 0 if first_unseen <= c <= last_before else 1
                grid[c & GRID_MASK, G_CELLS] = grid[(c - 1) & GRID_MASK, G_CELLS] + seen
        head[H_CELL] = cell

        # This tick's quote.
        bid = ticks[i, tk.BID]
        ask = ticks[i, tk.ASK]
        mid = NAN
        spread = tk.UNKNOWN
        if bid > 0 and ask >= bid:
            mid = float(bid + ask) / (2.0 * scale)
            spread = ask - bid
        if t == cell * NS:
            put_second(grid, grid_f, cell, mid)

        # Its row in the ring: the totals go on from the previous tick's.
        head[H_NEWEST] += 1
        now = head[H_NEWEST] & mask
        for column in range(R_TICKS, RING_COLUMNS):
            ring[now, column] = ring[previous, column]
        ring[now, R_T] = t
        ring[now, R_KNOWN_TO] = known_to
        quote(ticks, i, ring, ring_f, now, out, mid, spread, scale)
        volume(ticks, i, ring, previous, now, not broken)

        # The last change of the price.
        price = ticks[i, tk.PRICE]
        if first or gap or head[H_PRICED_AT] == tk.NO_TIME or t - head[H_PRICED_AT] > stale_ns:
            head[H_CHANGED_AT] = tk.NO_TIME
            head[H_WATCHED_SINCE] = tk.NO_TIME
        if price > 0:
            if head[H_WATCHED_SINCE] == tk.NO_TIME:
                head[H_WATCHED_SINCE] = t
            elif price != head[H_PRICE]:
                head[H_CHANGED_AT] = t
            head[H_PRICE] = price
            head[H_PRICED_AT] = t
        out[i, F_PRICE_AGE] = NAN
        if head[H_CHANGED_AT] != tk.NO_TIME:
            out[i, F_PRICE_AGE] = min(float(t - head[H_CHANGED_AT]) / 1e9, 3600.0)
        elif head[H_WATCHED_SINCE] != tk.NO_TIME and t - head[H_WATCHED_SINCE] >= 3600 * NS:
            out[i, F_PRICE_AGE] = 3600.0

        # The windows over ticks.
        for k in range(len(SPANS_S)):
            span = SPANS_S[k]
            x = t - span * NS
            before = head[H_BEFORE + k]
            while ring[(before + 1) & mask, R_T] <= x:
                before += 1
            head[H_BEFORE + k] = before
            then = before & mask
            known = is_known(ring, then, (before + 1) & mask, x, stale_ns)
            # The window touches span + 1 second cells.
            seconds = grid[cell & GRID_MASK, G_CELLS] - grid[(cell - span - 1) & GRID_MASK, G_CELLS] - 1
            window(ring, ring_f, now, then, seconds, out, i, k, scale)
            window_changes(ring, ring_f, now, then, known, out, i, k, scale)
            if k > 0:
                out[i, F_RETURN[k - 1]] = NAN
                if known and mid == mid and ring_f[then, R_MID] == ring_f[then, R_MID]:
                    out[i, F_RETURN[k - 1]] = (mid - ring_f[then, R_MID]) / ring_f[then, R_MID]
            if k == 2:
                volume_change(ring, now, then, known, out, i)

        # The windows over the grid change once a second, but while the newest tick lies on the second itself.
        if t == cell * NS:
            grid_features(state, cell, True)
            head[H_CACHED] = tk.NO_TIME
        elif head[H_CACHED] != cell:
            grid_features(state, cell, False)
            head[H_CACHED] = cell
        for column in range(N_GRID):
            out[i, 1 + F_GRID + column] = cache[column]

        levels(ticks, i, out, mid, scale)
        out[i, F_MINUTE] = float(t % (3600 * NS)) / 3.6e12
        out[i, F_HOUR] = float(t % (86400 * NS)) / 8.64e13

        reasons = 0
        if mid != mid:
            reasons |= NO_MID
        if cache[C_SIGMA_60] != cache[C_SIGMA_60]:
            reasons |= UNKNOWN_SECOND_60S
        if cache[C_VOL_300] != cache[C_VOL_300]:
            reasons |= HISTORY_300S
        if cache[C_TAU] != cache[C_TAU]:
            reasons |= TAU_900S
        meta[i, EFFECTIVE_T] = t
        meta[i, CAUSE] = cause
        meta[i, GAP_FROM] = gap_from
        meta[i, REASONS] = reasons
        meta[i, OUTCOME] = outcome
        head[H_STARTED] = 1
        head[H_LAST_T] = t
    return DONE, rows.shape[0]
