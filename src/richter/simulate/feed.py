"""The market's time, and who is told what when.

One loop takes the source's ticks in order and hands each to every connection that wants it. Until real time is
reached (a history) or the recording ends (`max`), the readers' pace is the market's: it waits for the slowest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

import structlog

from richter.domain.ticks import Ns
from richter.domain.times import SECOND
from richter.simulate.clock import Clock
from richter.simulate.outbox import Outbox
from richter.simulate.tickers import Pace, Source, Ticker
from richter.simulate.wire import Draft, Kind, Session

__all__ = ["Feed", "Listener"]

UPTIME_S: Final = 139_650
"""The heartbeats' counter is the exchange's uptime, which never begins with this connection."""

_MAX_BEATS: Final = 60
"""Heartbeats at most in one hole of what is read without waiting."""

_BACK_NS: Final = 2 * SECOND
"""A recording that goes back further begins anew."""

_BREATH: Final = 64
"""Ticks that nobody waits for, between two chances for the others."""


class Listener(Protocol):
    """A connection, as the market sees it.

    Attributes:
        session: its subscriptions.
        outbox: where its frames go.
    """

    session: Session
    outbox: Outbox

    def drop_slow(self) -> None:
        """Disconnect it: it does not read what it gets."""


class _Anchor(NamedTuple):
    """A moment on both clocks, and how fast the market's goes."""

    wall: Ns
    market: Ns
    speed: float

    def market_at(self, wall: Ns) -> Ns:
        return self.market + _scaled(wall - self.wall, self.speed)

    def wall_at(self, market: Ns) -> Ns:
        return self.wall + _scaled(market - self.market, 1 / self.speed)


class Feed:
    """The market of one exchange.

    Args:
        source: its ticks.
        clock: the wall's time.
        close_at_end: whether connections are closed when the source ends.
        slow_after_s: a connection whose outbox stays full for so long (real time) is dropped.
    """

    def __init__(self, source: Source, clock: Clock, *, close_at_end: bool, slow_after_s: float) -> None:
        self.last: dict[str, Ticker] = {}
        self.last_trade: dict[str, Ticker] = {}
        self.ticks = 0
        self.finished = asyncio.Event()
        self._source = source
        self._clock = clock
        self._close_at_end = close_at_end
        self._slow_after_s = slow_after_s
        self._listeners: list[Listener] = []
        self._wanted = asyncio.Event()
        self._begun = clock.now()
        self._failure: Exception | None = None
        self._ticks: Iterator[Ticker] = source.begin(self._begun)
        self._next: Ticker | None = next(self._ticks, None)
        self._newest: Ns = self._begun if self._next is None else self._next.ts
        self._uptime_s = UPTIME_S
        self._beat: Ns = _next_second(self._newest)
        self._anchor: _Anchor | None = None
        if source.pace is Pace.WALL and not source.waits:
            self._anchor = _Anchor(0, 0, 1.0)
            while self._next is not None and self._next.ts <= self._begun:
                self._take()
            self._beat = _next_second(self._begun)

    @property
    def closing(self) -> bool:
        """Whether connections are to be closed: the source has ended."""
        return self._close_at_end and self.finished.is_set()

    def now(self) -> Ns:
        """The market's time."""
        return self._newest if self._anchor is None else self._anchor.market_at(self._clock.now())

    def join(self, listener: Listener) -> None:
        """Add a connection."""
        self._listeners.append(listener)

    def leave(self, listener: Listener) -> None:
        """Remove a connection."""
        self._listeners.remove(listener)

    def snapshots(self, products: tuple[str, ...], session: Session) -> list[Draft]:
        """Draft the state of some products, for a connection that has just subscribed to them."""
        self._prime(products, session)
        if products:
            self._wanted.set()
        known = self.last_trade if session.trades_only else self.last
        ticks = [known[product] for product in products if product in known]
        if self._anchor is None:
            # Nothing has passed since the last tick where the reader drives the market.
            ticks.sort(key=attrgetter("ts"))
            return [Draft(Kind.TICK, tick.ts, tick, snapshot=True) for tick in ticks]
        now = self.now()
        return [Draft(Kind.TICK, max(now, tick.ts), tick, snapshot=True) for tick in ticks]

    async def run(self) -> None:
        """Serve the source to its end, then heartbeats for ever.

        Raises:
            RichterError: the source cannot be read further.
        """
        if self._source.waits:
            await self._wait_for_reader()
            if self._source.pace is Pace.RECORDED:
                self._anchor = _Anchor(self._clock.now(), self._newest, self._source.speed)
        taken = 0
        while (tick := self._next) is not None:
            if self._source.pace is Pace.WALL and self._anchor is None and tick.ts > self._clock.now():
                self._anchor = _Anchor(0, 0, 1.0)
                structlog.get_logger("richter.simulate").info("history_served", ticks=self.ticks)
            self._allow_back(tick)
            if self._anchor is None:
                await self._rush(tick)
                taken += 1
                if taken % _BREATH == 0:
                    await asyncio.sleep(0)
            else:
                await self._wait_for(tick, self._anchor)
        if self._failure is not None:
            raise self._failure
        await self._end()

    def _prime(self, products: tuple[str, ...], session: Session) -> None:
        """Take first ticks that only this connection waits for: they are the state at its subscription."""
        while (
            (tick := self._next) is not None
            and tick.product_id in products
            and tick.product_id not in self.last
            and (self._anchor is None or tick.ts <= self.now())
            and not any(
                each.session is not session and each.session.wants(tick.product_id)
                for each in self._listeners
            )
        ):
            self._take()

    def _take(self) -> Ticker:
        tick = self._next
        assert tick is not None
        try:
            self._next = next(self._ticks, None)
        except Exception as error:  # Whoever takes a tick; `run` answers for it.
            self._next, self._failure = None, error
        self._newest = tick.ts
        self.last[tick.product_id] = tick
        if tick.traded:
            self.last_trade[tick.product_id] = tick
        self.ticks += 1
        return tick

    def _deliver(self) -> None:
        # Without a pause in between: who subscribes later has the tick in the snapshot.
        tick = self._take()
        draft = Draft(Kind.TICK, tick.ts, tick, tick.snapshot)
        for listener in list(self._listeners):
            if listener.session.wants(tick.product_id) and (tick.traded or not listener.session.trades_only):
                listener.outbox.push(draft)

    async def _rush(self, tick: Ticker) -> None:
        """Hand the tick out as soon as all who want it can take it."""
        readers = self._readers()
        if not readers:
            self._wanted.clear()
            await self._wait_for_reader()
            return
        await self._room_of(readers)
        if self._next is not tick:
            return  # A snapshot meanwhile.
        self._beat = max(self._beat, _next_second(tick.ts - _MAX_BEATS * SECOND))
        while self._beat <= tick.ts:
            self._send_beats(self._beat)
            self._beat += SECOND
        self._deliver()

    async def _wait_for(self, tick: Ticker, anchor: _Anchor) -> None:
        """Hand the tick out when it is due, or do what is due before."""
        at, beat_at = anchor.wall_at(tick.ts), anchor.wall_at(self._beat)
        await self._clock.sleep_until(min(at, beat_at))
        if beat_at <= at:
            self._send_beats(self._beat)
            self._beat += _scaled(SECOND, anchor.speed)
            return
        if self._source.pace is Pace.WALL:
            for listener in list(self._listeners):
                if listener.outbox.full:
                    listener.drop_slow()
        else:
            await self._room_of(self._readers())
        if self._next is tick:
            self._deliver()

    async def _end(self) -> None:
        self._anchor = anchor = _Anchor(self._clock.now(), self._newest, 1.0)
        self._beat = max(self._beat, _next_second(self._newest))
        structlog.get_logger("richter.simulate").info("source_ended", ticks=self.ticks)
        self.finished.set()
        if self._close_at_end:
            for listener in list(self._listeners):
                listener.outbox.push(None)
        while True:
            await self._clock.sleep_until(anchor.wall_at(self._beat))
            self._send_beats(self._beat)
            self._beat += SECOND

    def _allow_back(self, tick: Ticker) -> None:
        """Let a recording go back in time: heartbeats and waiting begin anew."""
        if tick.ts >= self._newest - _BACK_NS:
            return
        self._newest = tick.ts
        self._beat = _next_second(tick.ts)
        if self._anchor is not None:
            self._anchor = _Anchor(self._clock.now(), tick.ts, self._anchor.speed)

    def _send_beats(self, ts: Ns) -> None:
        self._uptime_s += 1
        for listener in list(self._listeners):
            for draft in listener.session.beats(ts, self._uptime_s, self.last_trade):
                listener.outbox.push(draft)

    def _readers(self) -> list[Listener]:
        products = self._source.products
        return [
            each
            for each in self._listeners
            if not each.outbox.closed and any(map(each.session.wants, products))
        ]

    async def _wait_for_reader(self) -> None:
        """Stand still until somebody subscribes; heartbeats go on, with the time at which the market stands."""
        wanted = asyncio.create_task(self._wanted.wait())
        try:
            while not wanted.done():
                second = asyncio.create_task(self._clock.sleep_until(self._clock.now() + SECOND))
                try:
                    await asyncio.wait((wanted, second), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    second.cancel()
                if not wanted.done():
                    self._send_beats(self._newest)
        finally:
            wanted.cancel()

    async def _room_of(self, readers: list[Listener]) -> None:
        for listener in readers:
            if not listener.outbox.full:
                continue
            try:
                async with asyncio.timeout(self._slow_after_s):
                    await listener.outbox.room()
            except TimeoutError:
                listener.drop_slow()


def _next_second(ns: Ns) -> Ns:
    return (ns // SECOND + 1) * SECOND


def _scaled(ns: int, factor: float) -> int:
    return ns if factor == 1 else round(ns * factor)
