"""The feature engine once more, straight from ``docs/engine.md``: exact, slow, independent of the kernel.

Nothing here runs along: every value is found by looking back over the ticks of the segment. Quantities are
integers and fractions, logarithms and roots have 50 digits; a value becomes a float when it is handed out.
Remembered between calls are only seconds that can no longer change: a tick later than them has come.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from richter.domain import ticks as col
from richter.domain.ticks import GapCause
from richter.engine.table import EWMA_BOXES_S, EWMA_WEIGHTS, FEATURE_NAMES

SECOND = 10**9
LONGEST_SILENCE = 3_400 * SECOND
RETURN_SCALE = 2**44
QUANTITY_SCALE = 10**8

EXACT = Context(prec=50)
PI = Decimal("3.1415926535897932384626433832795028841971693993751")

Number = Fraction | Decimal | int
Maybe = Number | None
Value = TypeVar("Value", Fraction, int)


@dataclass(frozen=True)
class Tick:
    """One accepted tick; None is unknown."""

    t: int
    after_gap: bool
    gap_start: int | None  # The gap before this tick is the open interval (gap_start, t).
    snapshot: bool
    price: Fraction | None
    bid: Fraction | None
    ask: Fraction | None
    low_24h: Fraction | None
    high_24h: Fraction | None
    volume_24h: int | None  # Quantities in 1e-8.
    last_size: int | None
    bid_qty: int | None
    ask_qty: int | None
    mid: Fraction | None  # Exactly the float64.

    @property
    def spread(self) -> Fraction | None:
        return None if self.mid is None or self.ask is None or self.bid is None else self.ask - self.bid

    @property
    def spread_bps(self) -> Fraction | None:
        return None if self.mid is None or self.spread is None else 10_000 * self.spread / self.mid

    @property
    def imbalance(self) -> Fraction | None:
        if (
            self.mid is None
            or self.bid_qty is None
            or self.ask_qty is None
            or self.bid_qty + self.ask_qty <= 0
        ):
            return None
        return Fraction(self.bid_qty - self.ask_qty, self.bid_qty + self.ask_qty)


@dataclass
class Segment:
    """What lies between two clock resets."""

    ticks: list[Tick] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    # Of final seconds s: the mid as of s, r(s) * 2**44, the square of sigma60(s) (see `sigma60_square`).
    mids: dict[int, Fraction | None] = field(default_factory=dict)
    returns: dict[int, int | None] = field(default_factory=dict)
    sigma60s: dict[int, int | None] = field(default_factory=dict)


class Oracle:
    """Every value of every row of one product.

    Attributes:
        outcome: per input row: "row", "duplicate" (gate 1) or "ahead" (gate 2).
        clamped: per input row: its time was moved to the product's last one (gate 3).
        clock: per input row: a new segment began with it (gate 4).
        accepted: the input rows that became rows.
        conn_offset: per connection: event - receive time of its first tick that has both, unless given.
    """

    def __init__(
        self,
        ticks: npt.NDArray[np.int64],
        *,
        stale_after_s: int = 10,
        price_decimals: int = 8,
        conn_offset: dict[int, int] | None = None,
    ) -> None:
        if ticks.ndim != 2 or ticks.shape[1] != col.TICK_COLUMNS:
            raise ValueError(f"a matrix of {col.TICK_COLUMNS} columns, not of shape {ticks.shape}")
        self.stale_after = stale_after_s * SECOND
        self.price_scale = 10**price_decimals
        self.outcome: list[str] = []
        self.clamped: list[bool] = []
        self.clock: list[bool] = []
        self.segments: list[Segment] = []
        self._place: dict[int, tuple[Segment, int]] = {}
        self._cause: dict[int, GapCause] = {}

        highest: dict[int, tuple[int, int, int]] = {}
        lost: tuple[int, int] | None = None
        self.conn_offset: dict[int, int] = dict(conn_offset or {})
        for index, row in enumerate(ticks.tolist()):
            event, received, conn = row[col.TS_EVENT], row[col.TS_RECV], row[col.CONN]
            identity = (row[col.FRAME_NO], row[col.EVENT_INDEX], row[col.TICKER_INDEX])
            self.clamped.append(False)
            self.clock.append(False)
            # Gate 1.
            if conn in highest and identity <= highest[conn]:
                self.outcome.append("duplicate")
                continue
            highest[conn] = identity
            # Gate 2.
            if received != col.NO_TIME:
                self.conn_offset.setdefault(conn, event - received)
                if event > received + 2 * SECOND and event > received + self.conn_offset[conn] + 2 * SECOND:
                    self.outcome.append("ahead")
                    if row[col.GAP_CAUSE] != GapCause.NONE:
                        since = row[col.GAP_FROM] if lost is None else min(lost[1], row[col.GAP_FROM])
                        stays = lost is not None and lost[0] == GapCause.CLOCK
                        lost = (GapCause.CLOCK if stays else row[col.GAP_CAUSE], since)
                    continue
            # A gap whose tick was dropped lies before the next one that is not.
            if lost is not None:
                row[col.GAP_FROM] = min(lost[1], row[col.GAP_FROM]) if row[col.GAP_CAUSE] else lost[1]
                own = 0 if lost[0] == GapCause.CLOCK else row[col.GAP_CAUSE]
                row[col.GAP_CAUSE] = own or lost[0]
                lost = None
            # Gates 3 and 4.
            last = self.segments[-1].times[-1] if self.segments else None
            if last is not None and event < last:
                if last - event <= 2 * SECOND:
                    self.clamped[-1] = True
                    event = last
                else:
                    self.clock[-1] = True
            if last is not None and row[col.GAP_CAUSE] == GapCause.CLOCK:
                self.clock[-1] = True
            if last is None or self.clock[-1]:
                self.segments.append(Segment())
            segment = self.segments[-1]
            cause = GapCause.CLOCK if self.clock[-1] else GapCause(row[col.GAP_CAUSE])
            segment.ticks.append(self._tick(row, event, cause, segment.times[-1] if segment.times else None))
            segment.times.append(event)
            self._place[index] = (segment, len(segment.ticks) - 1)
            self._cause[index] = cause
            self.outcome.append("row")
        self.accepted: list[int] = list(self._place)

    # What a row says.

    def time_at(self, i: int) -> int:
        """The effective time of accepted row i."""
        segment, position = self._place[i]
        return segment.times[position]

    def cause_at(self, i: int) -> GapCause:
        return self._cause[i]

    def mid_at(self, i: int) -> float:
        segment, position = self._place[i]
        return _out(segment.ticks[position].mid)

    def features_at(self, i: int) -> dict[str, float]:
        values = _Evaluation(self, *self._place[i]).features()
        if set(values) != set(FEATURE_NAMES):
            raise AssertionError(f"not the table's features: {set(values) ^ set(FEATURE_NAMES)}")
        return {name: _out(values[name]) for name in FEATURE_NAMES}

    def reasons_at(self, i: int) -> set[str]:
        now = _Evaluation(self, *self._place[i])
        needs = {
            "no_mid": now.tick.mid,
            "unknown_second_60s": now.volatility(60),
            "history_300s": now.volatility(300),
            "tau_900s": now.tau_square(),
        }
        return {reason for reason, value in needs.items() if value is None}

    def sigma_future_at(self, i: int) -> float:
        square = self._sigma_future_square(i)
        return _out(None if square is None else _sigma60(square))

    def spike_at(self, i: int) -> bool | None:
        future, tau = self._sigma_future_square(i), _Evaluation(self, *self._place[i]).tau_square()
        return None if future is None or tau is None else future >= tau

    def _sigma_future_square(self, i: int) -> int | None:
        segment, position = self._place[i]
        end = -(-segment.times[position] // SECOND) + 60
        if segment.times[-1] <= end * SECOND:  # No later tick has come.
            return None
        return _Evaluation(self, segment, len(segment.ticks) - 1).sigma60_square(end)

    # From a row of the matrix to a tick.

    def _tick(self, row: list[int], t: int, cause: GapCause, previous: int | None) -> Tick:
        def price(column: int) -> Fraction | None:
            return None if row[column] == col.UNKNOWN else Fraction(row[column], self.price_scale)

        def quantity(units: int, fraction: int) -> int | None:
            return None if row[units] == col.UNKNOWN else row[units] * QUANTITY_SCALE + row[fraction]

        after_gap = cause != GapCause.NONE
        bid, ask = row[col.BID], row[col.ASK]
        good = col.UNKNOWN not in (bid, ask) and 0 < bid <= ask
        return Tick(
            t=t,
            after_gap=after_gap,
            gap_start=max(row[col.GAP_FROM], previous) if after_gap and previous is not None else None,
            snapshot=row[col.SNAPSHOT] != 0,
            price=price(col.PRICE),
            bid=price(col.BID),
            ask=price(col.ASK),
            low_24h=price(col.LOW_24H),
            high_24h=price(col.HIGH_24H),
            volume_24h=quantity(col.VOLUME_24H_U, col.VOLUME_24H_F),
            last_size=quantity(col.LAST_SIZE_U, col.LAST_SIZE_F),
            bid_qty=quantity(col.BID_QTY_U, col.BID_QTY_F),
            ask_qty=quantity(col.ASK_QTY_U, col.ASK_QTY_F),
            mid=Fraction((bid + ask) / (2 * self.price_scale)) if good else None,
        )


class _Evaluation:
    """What is known once the tick at `position` is the segment's newest."""

    def __init__(self, oracle: Oracle, segment: Segment, position: int) -> None:
        self.oracle = oracle
        self.segment = segment
        self.position = position
        self.tick = segment.ticks[position]
        self.t = self.tick.t
        self.end = self.t // SECOND  # The last whole second.

    def features(self) -> dict[str, Maybe]:
        tick = self.tick
        values: dict[str, Maybe] = {
            "price_return_1min": _relative(tick.mid, self.value_as_of(60, lambda then: then.mid)),
            "price_return_5min": _relative(tick.mid, self.value_as_of(300, lambda then: then.mid)),
            "price_volatility_5min": self.volatility(300),
            "bipower_volatility_300s": self.bipower(300),
            "semivolatility_up_300s": self.semivolatility(300, +1),
            "semivolatility_down_300s": self.semivolatility(300, -1),
            "tau_rolling": None if (square := self.tau_square()) is None else _sigma60(square),
            "bid_ask_spread": tick.spread,
            "bid_ask_spread_bps": tick.spread_bps,
            "book_imbalance": tick.imbalance,
            "trade_intensity": self.intensity(60),
            "seconds_since_price_change": self.price_age(),
            "volume_24h_pct_change": _times(
                100, _relative(tick.volume_24h, self.value_as_of(300, lambda then: then.volume_24h))
            ),
            "volume_reported_share_300s": self.reported_share(300),
            "distance_low_24h": _relative(tick.mid, tick.low_24h),
            "distance_high_24h": _relative(tick.mid, tick.high_24h),
            "minute_of_hour_phase": Fraction(self.t % (3_600 * SECOND), 3_600 * SECOND),
            "hour_of_day_phase": Fraction(self.t % (86_400 * SECOND), 86_400 * SECOND),
        }
        for w in (10, 30, 60, 900, 1800, 3600):
            values[f"realized_volatility_{w}s"] = self.volatility(w)
        for half_life in EWMA_WEIGHTS:
            values[f"ewma_volatility_{half_life}s"] = self.ewma(half_life)
        for w in (10, 60, 300, 900):
            values[f"max_abs_return_{w}s"] = self.largest_return(w)
        for w in (10, 60, 300):
            values[f"mid_range_{w}s"] = self.mid_range(w)
        for w in (30, 60, 300):
            values[f"bid_ask_spread_mean_{w}s"] = self.mean(w, lambda tick: tick.spread)
            values[f"bid_ask_spread_bps_mean_{w}s"] = self.mean(w, lambda tick: tick.spread_bps)
            values[f"book_imbalance_mean_{w}s"] = self.mean(w, lambda tick: tick.imbalance)
            values[f"bid_ask_spread_change_{w}s"] = self.change(w, lambda tick: tick.spread)
            values[f"bid_ask_spread_bps_change_{w}s"] = self.change(w, lambda tick: tick.spread_bps)
            values[f"volume_{w}s"] = self.volume(w)
            values[f"vwap_{w}s"] = self.vwap(w)
            values[f"vwap_deviation_{w}s"] = _relative(tick.mid, self.vwap(w))
        for w in (30, 300):
            values[f"tick_intensity_{w}s"] = self.intensity(w)
        return values

    # As-of values.

    def as_of(self, x: int) -> Tick | None:
        """The tick that speaks for time x; None where its word does not count."""
        ticks, times = self.segment.ticks, self.segment.times
        k = bisect_right(times, x, 0, self.position + 1) - 1
        if k < 0 or x - times[k] > self.oracle.stale_after:
            return None
        # Gaps lie between neighbours, so only the one before the next tick can hold x.
        gap_start = ticks[k + 1].gap_start if k < self.position else None
        return None if gap_start is not None and gap_start < x else ticks[k]

    def value_as_of(self, w: int, value: Callable[[Tick], Value | None]) -> Value | None:
        """What was known w seconds ago."""
        then = self.as_of(self.t - w * SECOND)
        return None if then is None else value(then)

    # The one-second grid.

    def _final(self, s: int) -> bool:
        return s * SECOND < self.t

    def grid_mid(self, s: int) -> Fraction | None:
        if self._final(s) and s in self.segment.mids:
            return self.segment.mids[s]
        tick = self.as_of(s * SECOND)
        mid = None if tick is None else tick.mid
        if self._final(s):
            self.segment.mids[s] = mid
        return mid

    def grid_return(self, s: int) -> int | None:
        """r(s) in units of 2**-44."""
        if self._final(s) and s in self.segment.returns:
            return self.segment.returns[s]
        before, after = self.grid_mid(s - 1), self.grid_mid(s)
        r = (
            None
            if before is None or after is None
            else math.floor(_ln(after / before) * RETURN_SCALE + Fraction(1, 2))
        )
        if self._final(s):
            self.segment.returns[s] = r
        return r

    def known_returns(self, w: int) -> list[int] | None:
        """The known returns of the window, None when there are too few."""
        known = [r for s in range(self.end - w + 1, self.end + 1) if (r := self.grid_return(s)) is not None]
        return known if _enough(len(known), w) else None

    def volatility(self, w: int) -> Decimal | None:
        known = self.known_returns(w)
        if known is None:
            return None
        n = len(known)
        return _sqrt(Fraction(n * sum(r * r for r in known) - sum(known) ** 2, n * (n - 1) * RETURN_SCALE**2))

    def mean_square(self, w: int) -> Fraction | None:
        known = self.known_returns(w)
        return None if known is None else Fraction(sum(r * r for r in known), len(known) * RETURN_SCALE**2)

    def ewma(self, half_life: int) -> Decimal | None:
        total = Fraction(0)
        for box, weight in zip(EWMA_BOXES_S, EWMA_WEIGHTS[half_life], strict=True):
            if weight == 0:
                continue
            mean_square = self.mean_square(box)
            if mean_square is None:
                return None
            total += Fraction(weight, 10_000) * mean_square
        return _sqrt(total)

    def largest_return(self, w: int) -> Fraction | None:
        known = self.known_returns(w)
        return None if known is None else Fraction(max(abs(r) for r in known), RETURN_SCALE)

    def mid_range(self, w: int) -> Fraction | None:
        if self.known_returns(w) is None:
            return None
        mids = [m for s in range(self.end - w, self.end + 1) if (m := self.grid_mid(s)) is not None]
        return _ln(max(mids) / min(mids))

    def bipower(self, w: int) -> Decimal | None:
        if self.known_returns(w) is None:
            return None
        returns = [self.grid_return(s) for s in range(self.end - w + 1, self.end + 1)]
        pairs = [
            abs(before) * abs(after)
            for before, after in pairwise(returns)
            if before is not None and after is not None
        ]
        if not pairs:
            return None
        mean = Fraction(sum(pairs), len(pairs) * RETURN_SCALE**2)
        return EXACT.sqrt(EXACT.multiply(EXACT.divide(PI, Decimal(2)), _decimal(mean)))

    def semivolatility(self, w: int, sign: int) -> Decimal | None:
        known = self.known_returns(w)
        if known is None:
            return None
        return _sqrt(Fraction(sum(r * r for r in known if r * sign > 0), len(known) * RETURN_SCALE**2))

    def sigma60_square(self, e: int) -> int | None:
        """The square of sigma60(e), times 60 * 59 * 2**88."""
        if self._final(e) and e in self.segment.sigma60s:
            return self.segment.sigma60s[e]
        returns = [self.grid_return(s) for s in range(e - 59, e + 1)]
        known = [r for r in returns if r is not None]
        square = 60 * sum(r * r for r in known) - sum(known) ** 2 if len(known) == 60 else None
        if self._final(e):
            self.segment.sigma60s[e] = square
        return square

    def tau_square(self) -> int | None:
        """The square of tau, in the units of `sigma60_square`."""
        ends = range(self.end - 3_600 + 1, self.end + 1)
        known = sorted(square for e in ends if (square := self.sigma60_square(e)) is not None)
        n = len(known)
        return known[-(-9 * n // 10) - 1] if n >= 900 else None

    # Windows over ticks.

    def positions(self, w: int) -> range:
        first = bisect_right(self.segment.times, self.t - w * SECOND, 0, self.position + 1)
        return range(first, self.position + 1)

    def window(self, w: int) -> list[Tick]:
        return [self.segment.ticks[q] for q in self.positions(w)]

    def known_seconds(self, w: int) -> int | None:
        """The known seconds of the window, None when there are too few."""
        ticks, times = self.segment.ticks, self.segment.times
        cells = range(self.end - w, self.end + 1)
        holes = [(min(0, cells[0] * SECOND), times[0])]  # Before everything.
        for q in range(1, self.position + 1):
            if (gap_start := ticks[q].gap_start) is not None:
                holes.append((gap_start, times[q]))
            if times[q] - times[q - 1] > LONGEST_SILENCE:
                holes.append((times[q - 1], times[q]))
        unknown = set()
        for start, stop in holes:
            for k in cells:
                if max(k * SECOND, start) < min((k + 1) * SECOND, stop):
                    unknown.add(k)
        known = w - len(unknown)
        return known if _enough(known, w) else None

    def mean(self, w: int, value: Callable[[Tick], Fraction | None]) -> Fraction | None:
        known = [v for tick in self.window(w) if (v := value(tick)) is not None]
        if self.known_seconds(w) is None or not known:
            return None
        return sum(known, Fraction(0)) / len(known)

    def change(self, w: int, value: Callable[[Tick], Fraction | None]) -> Fraction | None:
        after, before = value(self.tick), self.value_as_of(w, value)
        return None if after is None or before is None else after - before

    def intensity(self, w: int) -> Fraction | None:
        seconds = self.known_seconds(w)
        return (
            None
            if seconds is None
            else Fraction(sum(not tick.snapshot for tick in self.window(w)) * w, seconds)
        )

    def tick_volume(self, q: int) -> int:
        tick = self.segment.ticks[q]
        if tick.snapshot:
            return 0
        if tick.last_size is not None:
            return tick.last_size
        if tick.after_gap or q == 0:
            return 0
        previous = self.segment.ticks[q - 1]
        if (
            tick.t - previous.t > self.oracle.stale_after
            or tick.volume_24h is None
            or previous.volume_24h is None
        ):
            return 0
        return max(tick.volume_24h - previous.volume_24h, 0)

    def volume(self, w: int) -> Fraction | None:
        seconds = self.known_seconds(w)
        total = sum(self.tick_volume(q) for q in self.positions(w))
        return None if seconds is None else Fraction(total * w, seconds * QUANTITY_SCALE)

    def vwap(self, w: int) -> Fraction | None:
        weighted, total = Fraction(0), 0
        for q in self.positions(w):
            price, volume = self.segment.ticks[q].price, self.tick_volume(q)
            if price and volume > 0:
                weighted += price * volume
                total += volume
        return None if self.known_seconds(w) is None or total == 0 else weighted / total

    def reported_share(self, w: int) -> Fraction | None:
        total = sum(self.tick_volume(q) for q in self.positions(w))
        reported = sum(
            self.tick_volume(q) for q in self.positions(w) if self.segment.ticks[q].last_size is not None
        )
        return None if self.known_seconds(w) is None or total == 0 else Fraction(reported, total)

    def price_age(self) -> Fraction | None:
        last_price = last_change = watched_since = priced_at = None
        for tick in self.segment.ticks[: self.position + 1]:
            stale = priced_at is not None and tick.t - priced_at > self.oracle.stale_after
            if tick.after_gap or stale:
                last_price = last_change = watched_since = priced_at = None
            if tick.price:
                if last_price is None:
                    watched_since = tick.t
                elif tick.price != last_price:
                    last_change = tick.t
                last_price, priced_at = tick.price, tick.t
        if last_change is not None:
            return min(Fraction(self.t - last_change, SECOND), Fraction(3_600))
        if watched_since is None or self.t - watched_since < 3_600 * SECOND:
            return None
        return Fraction(3_600)


def _enough(known: int, w: int) -> bool:
    return known == w if w <= 60 else 10 * known >= 9 * min(w, 300)


def _relative(value: Maybe, base: Maybe) -> Fraction | None:
    """value / base - 1."""
    return None if value is None or base is None or base == 0 else Fraction(value) / Fraction(base) - 1


def _times(factor: int, value: Fraction | None) -> Fraction | None:
    return None if value is None else factor * value


def _decimal(x: Fraction) -> Decimal:
    return EXACT.divide(Decimal(x.numerator), Decimal(x.denominator))


def _ln(ratio: Fraction) -> Fraction:
    return Fraction(_decimal(ratio).ln(EXACT))


def _sqrt(x: Fraction) -> Decimal:
    return EXACT.sqrt(_decimal(x))


def _sigma60(square: int) -> Decimal:
    return _sqrt(Fraction(square, 60 * 59 * RETURN_SCALE**2))


def _out(value: Maybe) -> float:
    return math.nan if value is None else float(value)
