"""Synthetic ticks for tests: seeded, and as odd as wanted."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt

from richter.domain import ticks as col
from richter.domain.ticks import GapCause

SECOND: Final = 10**9
START_NS: Final = 1_767_225_600 * SECOND
CENT: Final = 10**6
"""A price of 0.01, scaled."""

GAP_CAUSES: Final = (
    GapCause.START,
    GapCause.RECONNECT,
    GapCause.SEQUENCE,
    GapCause.OVERFLOW,
)

EVERYTHING: Final[dict[str, float]] = {
    "whole_second": 0.02,
    "same_time": 0.03,
    "backward": 0.02,
    "far_backward": 0.00005,
    "clock": 0.00005,
    "duplicate": 0.01,
    "ahead": 0.005,
    "no_recv": 0.01,
    "gap": 0.001,
    "hole": 0.0005,
    "bad_quote": 0.004,
    "no_price": 0.01,
    "no_volume": 0.01,
    "no_sizes": 0.02,
    "no_levels": 0.01,
    "last_size": 0.3,
    "snapshot": 0.005,
    "new_conn": 0.001,
    "jump": 0.0005,
    "calm": 0.0005,
}
"""Every oddity, often enough to show in 20,000 ticks, seldom enough that most windows stay known."""


def quiet_and_busy_stream(
    seed: int,
    seconds: float,
    rate: float,
    *,
    start_ns: int = START_NS,
    product: int = 0,
    whole_second: float = 0.0,
    same_time: float = 0.0,
    backward: float = 0.0,
    far_backward: float = 0.0,
    clock: float = 0.0,
    duplicate: float = 0.0,
    ahead: float = 0.0,
    no_recv: float = 0.0,
    gap: float = 0.0,
    hole: float = 0.0,
    bad_quote: float = 0.0,
    no_price: float = 0.0,
    no_volume: float = 0.0,
    no_sizes: float = 0.0,
    no_levels: float = 0.0,
    last_size: float = 0.0,
    snapshot: float = 0.0,
    new_conn: float = 0.0,
    jump: float = 0.0,
    calm: float = 0.0,
    longest_hole_s: float = 4_000.0,
) -> npt.NDArray[np.int64]:
    """Ticks of one product in log order: a random walk on a grid of 0.01 in quiet and busy phases.

    Args:
        seed: same seed and arguments, same ticks.
        seconds: how far the stream reaches, holes not counted in; steps back lengthen it likewise.
        rate: ticks per second on average, roughly.
        start_ns: time of the beginning.
        product: number of the product.
        whole_second: probability that a tick is stamped exactly on a whole second.
        same_time: stamped like the tick before.
        backward: stamped up to 2 s (at times exactly 2 s) before the newest.
        far_backward: the clock itself steps back, 2 to 600 s.
        clock: says itself that the clock was reset.
        duplicate: followed by a copy of itself, or by another tick with an identity already used.
        ahead: followed by a tick stamped 30 s into the future.
        no_recv: no receive time.
        gap: after any other gap, its `from` unknown, before the previous tick, in between or after.
        hole: after a silence of 5 to `longest_hole_s` seconds; half are gaps where `gap` is not 0.
        bad_quote: missing, zero or crossed; at times for many ticks in a row.
        no_price: no last trade.
        no_volume: no 24 h volume.
        no_sizes: one or both of the quote's quantities missing, or both zero.
        no_levels: no low and high of the day.
        last_size: with the size of the last trade.
        snapshot: marked as a snapshot.
        new_conn: from here on by another connection, at times one seen before.
        jump: the price jumps by up to 50 %, or to ten times or a tenth of itself.
        calm: begins 30 to 400 s without any change of quote or price.
        longest_hole_s: of a silent hole.
    """
    rng = np.random.default_rng(seed)

    def happens(probability: float) -> bool:
        return bool(rng.random() < probability)

    rows: list[list[int]] = []
    frames: Counter[int] = Counter()
    conn = 0
    now = start_ns  # The exchange's clock.
    newest = start_ns
    left_ns = int(seconds * SECOND)
    mid_cents = 9_000_000 + int(rng.integers(-100_000, 100_000))
    spread_cents = 2
    price = low = high = mid_cents * CENT
    volume_24h = 12_345 * 10**8 + int(rng.integers(10**8))
    busy, phase_until = False, now
    calm_until, bad_until, bad_kind = now, 0, 0

    while left_ns > 0:
        if now >= phase_until:
            busy = not busy
            phase_until = now + int(rng.exponential(60.0 if busy else 180.0) * SECOND)
        step_ns = int(rng.exponential(1.0 / (rate * (2.2 if busy else 0.6))) * SECOND)
        if happens(same_time):
            step_ns = 0
        elif happens(whole_second):
            step_ns = -(now + step_ns) % SECOND + step_ns
        left_ns -= step_ns + 1
        now += step_ns

        cause, gap_from, missing = GapCause.NONE, col.NO_TIME, -1
        silent = happens(hole)
        if silent:
            kind = rng.integers(16)
            if kind < 2:  # Exactly the default limit of freshness, or a hair more.
                now += 10 * SECOND + int(rng.integers(2)) - step_ns
            elif kind == 2:
                now += int(rng.uniform(0.84, 1.0) * longest_hole_s * SECOND)
            else:
                now += int(np.exp(rng.uniform(np.log(5.0), np.log(longest_hole_s))) * SECOND)
                if kind < 5:
                    now -= now % SECOND
        if happens(gap) or (silent and gap > 0 and happens(0.5)):
            cause = GAP_CAUSES[rng.integers(len(GAP_CAUSES))]
            missing = int(rng.integers(-1, 50))
            if not silent:
                now += int(rng.choice([0.0, 0.3, 2.0, 12.0, 45.0, 100.0]) * rng.random() * SECOND)
            gap_from = (
                col.NO_TIME,
                newest - int(rng.uniform(0, 30) * SECOND),
                newest + int(rng.random() * max(now - newest, 0)),
                now - now % SECOND,
                now + int(rng.uniform(0, 3) * SECOND),
            )[rng.integers(5)]
        if happens(clock):
            cause = GapCause.CLOCK
        event = now
        if happens(far_backward):
            now -= int(rng.uniform(2.001, 600.0) * SECOND)
            event = now
            phase_until = calm_until = now
        elif happens(backward):
            event = newest - int(rng.choice([rng.uniform(0.0, 2.0), 1.0, 2.0]) * SECOND)
            now = max(now, newest)

        if happens(calm):
            calm_until = now + int(rng.uniform(30.0, 400.0) * SECOND)
        if happens(jump):
            mid_cents = min(
                max(int(mid_cents * rng.choice([rng.uniform(0.5, 1.5), 0.1, 10.0])), 100_000), 500_000_000
            )
            calm_until = now
        if now >= calm_until:
            mid_cents = max(mid_cents + round(rng.normal(0.0, 250.0 if busy else 60.0)), 50_000)
            spread_cents = int(rng.geometric(0.3 if busy else 0.7)) + int(rng.integers(2))
            if happens(0.6):
                price = (mid_cents + int(rng.integers(-1, 2))) * CENT
        low, high = min(low, price), max(high, price)
        traded = int(rng.exponential(0.05) * 10**8)
        volume_24h = max(volume_24h + (traded if happens(0.8) else -traded), 0)

        bid, ask = mid_cents * CENT, (mid_cents + spread_cents) * CENT
        if happens(bad_quote):
            bad_kind = int(rng.integers(6))
            bad_until = now + (int(rng.uniform(1.0, 40.0) * SECOND) if happens(0.1) else 1)
        if now < bad_until:
            bid, ask = (
                (col.UNKNOWN, ask),
                (bid, col.UNKNOWN),
                (col.UNKNOWN, col.UNKNOWN),
                (0, ask),
                (bid, 0),
                (ask, bid),
            )[bad_kind]
        sizes: tuple[int | None, int | None] = (_size(rng), _size(rng))
        if happens(no_sizes):
            bid_qty, ask_qty = sizes
            sizes = ((None, ask_qty), (bid_qty, None), (None, None), (0, 0))[rng.integers(4)]

        switched = happens(new_conn)
        if switched:
            conn = int(rng.integers(0, conn + 2))
        if switched or happens(0.7) or frames[conn] == 0:
            frames[conn] += 1
            event_index = ticker_index = 0
        elif happens(0.5):
            event_index, ticker_index = event_index + 1, 0
        else:
            ticker_index += 1

        row = [0] * col.TICK_COLUMNS
        row[col.TS_EVENT] = event
        row[col.TS_RECV] = col.NO_TIME if happens(no_recv) else event + _jitter(rng)
        row[col.CONN], row[col.FRAME_NO] = conn, frames[conn]
        row[col.EVENT_INDEX], row[col.TICKER_INDEX] = event_index, ticker_index
        row[col.PRODUCT] = product
        row[col.SNAPSHOT] = int(happens(snapshot))
        row[col.GAP_CAUSE], row[col.GAP_FROM], row[col.GAP_MISSING] = cause, gap_from, missing
        row[col.PRICE] = col.UNKNOWN if happens(no_price) else price
        row[col.BID], row[col.ASK] = bid, ask
        row[col.LOW_24H], row[col.HIGH_24H] = (
            (col.UNKNOWN, col.UNKNOWN) if happens(no_levels) else (low, high)
        )
        _put(row, col.VOLUME_24H_U, None if happens(no_volume) else volume_24h)
        _put(row, col.LAST_SIZE_U, traded if happens(last_size) else None)
        _put(row, col.BID_QTY_U, sizes[0])
        _put(row, col.ASK_QTY_U, sizes[1])
        rows.append(row)
        newest = max(newest, event) if event >= newest - 2 * SECOND else event

        if happens(duplicate):
            again = list(row)
            if happens(0.5):  # Another tick, an identity already used.
                again[col.PRICE], again[col.TS_EVENT] = price + CENT, event + SECOND
                again[col.FRAME_NO] = max(row[col.FRAME_NO] - int(rng.integers(3)), 1)
                if again[col.FRAME_NO] < row[col.FRAME_NO]:
                    again[col.TICKER_INDEX] += 7
            rows.append(again)
        if happens(ahead):
            early = list(row)
            frames[conn] += 1
            event_index = ticker_index = 0
            early[col.FRAME_NO], early[col.EVENT_INDEX], early[col.TICKER_INDEX] = frames[conn], 0, 0
            early[col.TS_RECV] = event + _jitter(rng)
            early[col.TS_EVENT] = event + 30 * SECOND
            early[col.GAP_CAUSE], early[col.GAP_FROM], early[col.GAP_MISSING] = GapCause.NONE, col.NO_TIME, -1
            rows.append(early)
    return np.array(rows, dtype=np.int64).reshape(-1, col.TICK_COLUMNS)


def _jitter(rng: np.random.Generator) -> int:
    """From the exchange to us: 20 ms and an exponential tail."""
    return 20_000_000 + int(rng.exponential(0.03) * SECOND)


def _size(rng: np.random.Generator) -> int:
    return int(rng.exponential(0.8) * 10**8)


def _put(row: list[int], units: int, quantity: int | None) -> None:
    row[units : units + 2] = (col.UNKNOWN, col.UNKNOWN) if quantity is None else divmod(quantity, 10**8)
