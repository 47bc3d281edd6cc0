"""The one kernel: ticks of one product in, feature rows out, to the same bits live and in replay.

The rules are those of ``docs/engine.md``. Every accumulator is an integer; floats stand only in output expressions.

numba's cache looks at the time stamp of this file alone. So the file names what it was compiled from: the feature
table, checked at import, and the modules it calls, checked by a test. Whoever changes those must touch this file.
"""

from __future__ import annotations

import math
from typing import Final

from numba import njit

from richter.domain import ticks as tk
from richter.engine.fixed_point import LIMB, LIMB_ONE, NAN, NS
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
    H_BEFORE_30,
    H_BEFORE_60,
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
    RING_COLUMNS,
    Float64,
    Int64,
    State,
    clear,
    clear_grid,
)
from richter.engine.table import FEATURE_NAMES, table_fingerprint
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
SOURCES_FINGERPRINT: Final = "b75ebc556f1e57c8"

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

BPS_ONE: Final = float(2**44)
IMBALANCE_ONE: Final = float(2**42)
LOW_27: Final = 2**27 - 1
ONE_27: Final = float(2**27)
FRACTION: Final = 100_000_000

_AT = {name: index for index, name in enumerate(FEATURE_NAMES)}
F_RETURN_60: Final = _AT["price_return_1min"]
F_RETURN_300: Final = _AT["price_return_5min"]
F_SPREAD: Final = _AT["bid_ask_spread"]
F_BPS: Final = _AT["bid_ask_spread_bps"]
F_SPREAD_MEAN: Final = _AT["bid_ask_spread_mean_30s"]
F_BPS_MEAN: Final = _AT["bid_ask_spread_bps_mean_30s"]
F_SPREAD_CHANGE: Final = _AT["bid_ask_spread_change_30s"]
F_BPS_CHANGE: Final = _AT["bid_ask_spread_bps_change_30s"]
F_BOOK: Final = _AT["book_imbalance"]
F_BOOK_MEAN: Final = _AT["book_imbalance_mean_30s"]
F_COUNT_30: Final = _AT["tick_intensity_30s"]
F_COUNT_60: Final = _AT["trade_intensity"]
F_COUNT_300: Final = _AT["tick_intensity_300s"]
F_PRICE_AGE: Final = _AT["seconds_since_price_change"]
F_VOLUME_24H: Final = _AT["volume_24h_pct_change"]
F_VOLUME: Final = _AT["volume_30s"]
F_VWAP: Final = _AT["vwap_30s"]
F_VWAP_DEVIATION: Final = _AT["vwap_deviation_30s"]
F_REPORTED: Final = _AT["volume_reported_share_300s"]
F_LOW: Final = _AT["distance_low_24h"]
F_HIGH: Final = _AT["distance_high_24h"]
F_MINUTE: Final = _AT["minute_of_hour_phase"]
F_HOUR: Final = _AT["hour_of_day_phase"]


@njit(nogil=True, error_model="numpy")
def _as_of(ring: Int64, before: int, x: int, stale_ns: int) -> int:
    """Ring slot of the value as of x, given the number of the last tick at or before x; -1 when unknown."""
    mask = ring.shape[0] - 1
    slot = before & mask
    if x - ring[slot, R_T] > stale_ns:
        return -1
    later = (before + 1) & mask
    if x > ring[later, R_KNOWN_TO] and x < ring[later, R_T]:
        return -1
    return slot


@njit(nogil=True, error_model="numpy")
def _add_price_times_quantity(ring: Int64, slot: int, price: int, units: int, fraction: int) -> None:
    """Add price * quantity to the tick's running totals, exactly, in limbs of 27 bits."""
    p0 = price & LOW_27
    p1 = price >> 27
    u0 = units & LOW_27
    u1 = units >> 27
    low = p0 * u0
    middle = p1 * u0 + p0 * u1 + (low >> 27)
    ring[slot, R_PU_0] += low & LOW_27
    ring[slot, R_PU_1] += middle & LOW_27
    ring[slot, R_PU_2] += p1 * u1 + (middle >> 27)
    low = p0 * fraction
    middle = p1 * fraction + (low >> 27)
    ring[slot, R_PF_0] += low & LOW_27
    ring[slot, R_PF_1] += middle & LOW_27
    ring[slot, R_PF_2] += middle >> 27


@njit(nogil=True, error_model="numpy")
def _tick_windows(
    grid: Int64,
    ring: Int64,
    ring_f: Float64,
    out: Float64,
    row: int,
    slot: int,
    before: int,
    x: int,
    span: int,
    k: int,
    f_count: int,
    cell: int,
    scale: float,
    stale_ns: int,
) -> int:
    """The features over the ticks in (x, x + span]: the k-th of their three spans."""
    mask = ring.shape[0] - 1
    base = before & mask
    mid = ring_f[slot, R_MID]
    spread = ring[slot, R_SPREAD]
    then = _as_of(ring, before, x, stale_ns)
    out[row, F_SPREAD_CHANGE + k] = NAN
    out[row, F_BPS_CHANGE + k] = NAN
    if then >= 0 and spread >= 0 and ring[then, R_SPREAD] >= 0:
        out[row, F_SPREAD_CHANGE + k] = float(spread - ring[then, R_SPREAD]) / scale
        out[row, F_BPS_CHANGE + k] = ring_f[slot, R_SPREAD_BPS] - ring_f[then, R_SPREAD_BPS]
    out[row, F_SPREAD_MEAN + k] = NAN
    out[row, F_BPS_MEAN + k] = NAN
    out[row, F_BOOK_MEAN + k] = NAN
    out[row, f_count] = NAN
    out[row, F_VOLUME + k] = NAN
    out[row, F_VWAP + k] = NAN
    out[row, F_VWAP_DEVIATION + k] = NAN
    if k == 2:
        out[row, F_REPORTED] = NAN
    # The window touches span + 1 second cells.
    known = grid[cell & GRID_MASK, G_CELLS] - grid[(cell - span - 1) & GRID_MASK, G_CELLS] - 1
    required = span if span <= 60 else 270
    if known < required:
        return then
    quotes = ring[slot, R_QUOTES] - ring[base, R_QUOTES]
    if quotes > 0:
        n = float(quotes)
        spreads = float(ring[slot, R_SPREAD_HI] - ring[base, R_SPREAD_HI]) * LIMB_ONE + float(
            ring[slot, R_SPREAD_LO] - ring[base, R_SPREAD_LO]
        )
        out[row, F_SPREAD_MEAN + k] = spreads / (scale * n)
        bps = float(ring[slot, R_BPS_HI] - ring[base, R_BPS_HI]) * LIMB_ONE + float(
            ring[slot, R_BPS_LO] - ring[base, R_BPS_LO]
        )
        out[row, F_BPS_MEAN + k] = bps / (BPS_ONE * n)
    books = ring[slot, R_BOOKS] - ring[base, R_BOOKS]
    if books > 0:
        out[row, F_BOOK_MEAN + k] = (
            float(ring[slot, R_IMBALANCE] - ring[base, R_IMBALANCE]) / IMBALANCE_ONE / float(books)
        )
    scaled = 1.0 if known >= span else float(span) / float(known)
    out[row, f_count] = float(ring[slot, R_TICKS] - ring[base, R_TICKS]) * scaled
    volume = (
        float(ring[slot, R_QTY_U] - ring[base, R_QTY_U])
        + float(ring[slot, R_QTY_F] - ring[base, R_QTY_F]) * 1e-8
    )
    out[row, F_VOLUME + k] = volume * scaled
    if k == 2 and volume > 0.0:
        reported = (
            float(ring[slot, R_REPORTED_U] - ring[base, R_REPORTED_U])
            + float(ring[slot, R_REPORTED_F] - ring[base, R_REPORTED_F]) * 1e-8
        )
        out[row, F_REPORTED] = reported / volume
    units = ring[slot, R_PRICED_U] - ring[base, R_PRICED_U]
    fraction = ring[slot, R_PRICED_F] - ring[base, R_PRICED_F]
    # Not `> 0`: running totals may wrap, and the compiler may compare them instead of their difference.
    if units != 0 or fraction != 0:
        by_units = (
            float(ring[slot, R_PU_2] - ring[base, R_PU_2]) * ONE_27
            + float(ring[slot, R_PU_1] - ring[base, R_PU_1])
        ) * ONE_27 + float(ring[slot, R_PU_0] - ring[base, R_PU_0])
        by_fraction = (
            float(ring[slot, R_PF_2] - ring[base, R_PF_2]) * ONE_27
            + float(ring[slot, R_PF_1] - ring[base, R_PF_1])
        ) * ONE_27 + float(ring[slot, R_PF_0] - ring[base, R_PF_0])
        vwap = (by_units + by_fraction * 1e-8) / ((float(units) + float(fraction) * 1e-8) * scale)
        out[row, F_VWAP + k] = vwap
        if mid == mid:
            out[row, F_VWAP_DEVIATION + k] = (mid - vwap) / vwap
    return then


@njit(cache=True, nogil=True, error_model="numpy")
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
    values = out[:, 1:]
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
                head[H_PENDING_CAUSE] = ticks[i, tk.GAP_CAUSE]
            continue

        # Gates 3 and 4, backwards.
        outcome = ROW
        cause = ticks[i, tk.GAP_CAUSE]
        gap_from = ticks[i, tk.GAP_FROM]
        if head[H_PENDING_CAUSE] != 0:
            gap_from = min(gap_from, head[H_PENDING_FROM]) if cause != 0 else head[H_PENDING_FROM]
            cause = cause if cause != 0 else head[H_PENDING_CAUSE]
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
        newest = head[H_NEWEST] & mask
        previous_t = ring[newest, R_T]
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
            previous_mid = ring_f[newest, R_MID]
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

        # Its row in the ring.
        head[H_NEWEST] += 1
        slot = head[H_NEWEST] & mask
        for column in range(R_TICKS, RING_COLUMNS):
            ring[slot, column] = ring[newest, column]
        ring[slot, R_T] = t
        ring[slot, R_KNOWN_TO] = known_to
        ring_f[slot, R_MID] = mid
        ring[slot, R_SPREAD] = spread
        ring[slot, R_VOL_U] = ticks[i, tk.VOLUME_24H_U]
        ring[slot, R_VOL_F] = ticks[i, tk.VOLUME_24H_F]
        row = i
        out[row, 0] = mid
        values[row, F_SPREAD] = NAN
        values[row, F_BPS] = NAN
        values[row, F_BOOK] = NAN
        if spread >= 0:
            values[row, F_SPREAD] = float(spread) / scale
            bps = float(spread) / scale / mid * 10_000.0
            values[row, F_BPS] = bps
            ring_f[slot, R_SPREAD_BPS] = bps
            ring[slot, R_QUOTES] += 1
            ring[slot, R_SPREAD_HI] += spread >> 25
            ring[slot, R_SPREAD_LO] += spread & LIMB
            fixed = int(math.floor(bps * BPS_ONE + 0.5))
            ring[slot, R_BPS_HI] += fixed >> 25
            ring[slot, R_BPS_LO] += fixed & LIMB
            if ticks[i, tk.BID_QTY_U] >= 0 and ticks[i, tk.ASK_QTY_U] >= 0:
                bid_size = float(ticks[i, tk.BID_QTY_U]) + float(ticks[i, tk.BID_QTY_F]) * 1e-8
                ask_size = float(ticks[i, tk.ASK_QTY_U]) + float(ticks[i, tk.ASK_QTY_F]) * 1e-8
                if bid_size + ask_size > 0.0:
                    imbalance = (bid_size - ask_size) / (bid_size + ask_size)
                    values[row, F_BOOK] = imbalance
                    ring[slot, R_BOOKS] += 1
                    ring[slot, R_IMBALANCE] += int(math.floor(imbalance * IMBALANCE_ONE + 0.5))
        price = ticks[i, tk.PRICE]
        if ticks[i, tk.SNAPSHOT] == 0:
            ring[slot, R_TICKS] += 1
            units = 0
            fraction = 0
            if ticks[i, tk.LAST_SIZE_U] >= 0:
                units = ticks[i, tk.LAST_SIZE_U]
                fraction = ticks[i, tk.LAST_SIZE_F]
                ring[slot, R_REPORTED_U] += units
                ring[slot, R_REPORTED_F] += fraction
            elif not broken and ring[newest, R_VOL_U] >= 0 and ticks[i, tk.VOLUME_24H_U] >= 0:
                units = ring[slot, R_VOL_U] - ring[newest, R_VOL_U]
                fraction = ring[slot, R_VOL_F] - ring[newest, R_VOL_F]
                if fraction < 0:
                    units -= 1
                    fraction += FRACTION
                if units < 0:
                    units = 0
                    fraction = 0
            if units > 0 or fraction > 0:
                ring[slot, R_QTY_U] += units
                ring[slot, R_QTY_F] += fraction
                if price > 0:
                    ring[slot, R_PRICED_U] += units
                    ring[slot, R_PRICED_F] += fraction
                    _add_price_times_quantity(ring, slot, price, units, fraction)

        # The last change of the price.
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
        values[row, F_PRICE_AGE] = NAN
        if head[H_CHANGED_AT] != tk.NO_TIME:
            values[row, F_PRICE_AGE] = min(float(t - head[H_CHANGED_AT]) / 1e9, 3600.0)
        elif head[H_WATCHED_SINCE] != tk.NO_TIME and t - head[H_WATCHED_SINCE] >= 3600 * NS:
            values[row, F_PRICE_AGE] = 3600.0

        # The windows over ticks.
        before = head[H_BEFORE_30]
        while ring[(before + 1) & mask, R_T] <= t - 30 * NS:
            before += 1
        head[H_BEFORE_30] = before
        _tick_windows(
            grid,
            ring,
            ring_f,
            values,
            row,
            slot,
            before,
            t - 30 * NS,
            30,
            0,
            F_COUNT_30,
            cell,
            scale,
            stale_ns,
        )
        before = head[H_BEFORE_60]
        while ring[(before + 1) & mask, R_T] <= t - 60 * NS:
            before += 1
        head[H_BEFORE_60] = before
        then = _tick_windows(
            grid,
            ring,
            ring_f,
            values,
            row,
            slot,
            before,
            t - 60 * NS,
            60,
            1,
            F_COUNT_60,
            cell,
            scale,
            stale_ns,
        )
        values[row, F_RETURN_60] = NAN
        if then >= 0 and mid == mid and ring_f[then, R_MID] == ring_f[then, R_MID]:
            values[row, F_RETURN_60] = (mid - ring_f[then, R_MID]) / ring_f[then, R_MID]
        before = head[H_BEFORE_300]
        while ring[(before + 1) & mask, R_T] <= t - 300 * NS:
            before += 1
        head[H_BEFORE_300] = before
        then = _tick_windows(
            grid,
            ring,
            ring_f,
            values,
            row,
            slot,
            before,
            t - 300 * NS,
            300,
            2,
            F_COUNT_300,
            cell,
            scale,
            stale_ns,
        )
        values[row, F_RETURN_300] = NAN
        values[row, F_VOLUME_24H] = NAN
        if then >= 0:
            if mid == mid and ring_f[then, R_MID] == ring_f[then, R_MID]:
                values[row, F_RETURN_300] = (mid - ring_f[then, R_MID]) / ring_f[then, R_MID]
            if ring[then, R_VOL_U] >= 0 and ring[slot, R_VOL_U] >= 0:
                then_volume = float(ring[then, R_VOL_U]) + float(ring[then, R_VOL_F]) * 1e-8
                if then_volume > 0.0:
                    increase = (
                        float(ring[slot, R_VOL_U] - ring[then, R_VOL_U])
                        + float(ring[slot, R_VOL_F] - ring[then, R_VOL_F]) * 1e-8
                    )
                    values[row, F_VOLUME_24H] = 100.0 * increase / then_volume

        # The windows over the grid change once a second, but while the newest tick lies on the second itself.
        if t == cell * NS:
            grid_features(state, cell, True)
            head[H_CACHED] = tk.NO_TIME
        elif head[H_CACHED] != cell:
            grid_features(state, cell, False)
            head[H_CACHED] = cell
        for column in range(N_GRID):
            values[row, F_GRID + column] = cache[column]

        # Levels and the clock.
        values[row, F_LOW] = NAN
        values[row, F_HIGH] = NAN
        if mid == mid:
            if ticks[i, tk.LOW_24H] > 0:
                level = float(ticks[i, tk.LOW_24H]) / scale
                values[row, F_LOW] = (mid - level) / level
            if ticks[i, tk.HIGH_24H] > 0:
                level = float(ticks[i, tk.HIGH_24H]) / scale
                values[row, F_HIGH] = (mid - level) / level
        values[row, F_MINUTE] = float(t % (3600 * NS)) / 3.6e12
        values[row, F_HOUR] = float(t % (86400 * NS)) / 8.64e13

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
