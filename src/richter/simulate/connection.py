"""One connection: reads what the client asks for, writes what the market has, and lets faults strike."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from richter.domain.ticks import Ns
from richter.domain.times import SECOND
from richter.simulate.clock import Clock
from richter.simulate.faults import KINDS, Fault, Faults
from richter.simulate.feed import Feed
from richter.simulate.outbox import Outbox
from richter.simulate.tickers import Ticker
from richter.simulate.wire import Draft, Kind, NonsenseError, Session

__all__ = ["Connection", "Served"]

_CHANGING: Final = tuple(name for name, kind in KINDS.items() if kind.changes and name != "ahead")
_AHEAD: Final = ("ahead",)
_ENDING: Final = ("drop", "stall", "half_open", "close", "mute", "refuse")
_GARBAGE: Final = b'{"channel":"ticker","timestamp":]][ \xe2\x80\x94 no JSON'
_POLICY: Final = 1008


class Served(msgspec.Struct):
    """What an exchange has done so far.

    Attributes:
        connections: let in.
        refused: answered with 429.
        messages: read from clients.
        frames: written, of every kind.
        ticks: of the market, whether or not somebody was there.
        faults: that struck, by kind.
    """

    connections: int = 0
    refused: int = 0
    messages: int = 0
    frames: int = 0
    ticks: int = 0
    faults: dict[str, int] = msgspec.field(default_factory=Counter)


class Connection:
    """The exchange's side of one WebSocket.

    Args:
        socket: the WebSocket.
        number: of those let in, from 1.
        session: its protocol.
        feed: the market.
        faults: what awaits it.
        clock: the time.
        served: is counted in.
        allow_message: whether the client may say something now.
        refuse: makes the exchange refuse new connections for so many seconds.
        bound: frames that may wait.
    """

    def __init__(
        self,
        socket: ServerConnection,
        number: int,
        session: Session,
        feed: Feed,
        faults: Faults,
        clock: Clock,
        served: Served,
        *,
        allow_message: Callable[[], bool],
        refuse: Callable[[float], Awaitable[None]],
        bound: int,
    ) -> None:
        self.session = session
        self.outbox = Outbox(bound)
        self.number = number
        self._socket = socket
        self._feed = feed
        self._faults = faults
        self._clock = clock
        self._served = served
        self._allow_message = allow_message
        self._refuse = refuse
        self._opened = clock.now()
        self._frames = 0  # of the market and answers, lost ones too
        self._sent = 0
        self._subscribed = False
        self._held: bytes | None = None
        self._shift = 0
        self._dead = False  # half open
        self._lost = 0  # frames still to be lost
        self._silent_until = 0.0
        self._muted_until = 0.0
        self._log = structlog.get_logger("richter.simulate").bind(connection=number)

    async def serve(self, subscribe_within_s: float) -> None:
        """Serve it until one of the two ends it."""
        self._log.info("connection_opened", path=self.session.path)
        self._feed.join(self)
        tasks = [
            asyncio.create_task(each) for each in (self._read(), self._write(), self._socket.wait_closed())
        ]
        helpers = [
            asyncio.create_task(each) for each in (self._watch(subscribe_within_s), self._strike_in_time())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except ConnectionClosed:
            pass
        finally:
            self._feed.leave(self)
            self.outbox.close()
            for task in (*tasks, *helpers):
                task.cancel()
            await asyncio.gather(*tasks, *helpers, return_exceptions=True)
            if self._dead:
                self._socket.transport.abort()
            code = self._socket.close_code
            self._log.info("connection_closed", frames=self._sent, code=None if code is None else int(code))

    def drop_slow(self) -> None:
        """Disconnect: the client does not read what it gets."""
        self._log.warning("connection_too_slow", reason="ErrSlowConsume")
        self.outbox.close()
        self._socket.transport.abort()

    def abandon(self) -> None:
        """Close TCP at once where a close frame would wait in vain."""
        if self._dead:
            self._socket.transport.abort()

    async def close(self) -> None:
        """Close it with 1001, as an exchange that goes away."""
        await self._socket.close(1001)

    async def _read(self) -> None:
        async for message in self._socket:
            self._served.messages += 1
            await self.outbox.room()
            if self._dead:
                await asyncio.Event().wait()  # Until the exchange ends.
            if not self._allow_message():
                self.outbox.push(self._error(NonsenseError("rate limit exceeded")))
                continue
            try:
                change = self.session.read(message)
            except NonsenseError as nonsense:
                self._log.info("message_refused", answer=nonsense.frame)
                self.outbox.push(self._error(nonsense))
                continue
            # From here to the end without a pause: no tick may come between a snapshot and its acknowledgement.
            without = self._left_out(change.channels.get("ticker") or ()) if change.subscribe else ()
            self._subscribed |= change.subscribe
            snapshots = self._feed.snapshots(self.session.apply(change, without), self.session)
            ack = self.session.ack(self._feed.now())
            for draft in [ack, *snapshots] if self.session.ack_first else [*snapshots, ack]:
                self.outbox.push(draft)
            if self._feed.closing:
                self.outbox.push(None)
            self._log.info("subscriptions", channels=change.channels, subscribe=change.subscribe)

    def _error(self, nonsense: NonsenseError) -> Draft:
        return Draft(Kind.ERROR, self._feed.now(), nonsense.frame)

    def _left_out(self, products: tuple[str, ...]) -> tuple[str, ...]:
        if not products or not self._faults:
            return ()
        struck = self._due(("ack_without",), self._frames)
        return tuple(fault.options["product"] or products[-1] for fault in struck)

    async def _write(self) -> None:
        for fault in self._due(_ENDING, 0):
            await self._strike(fault)
        while True:
            draft = await self.outbox.get()
            if draft is None:
                await self._socket.close(1000)
                return
            if draft.kind is Kind.TICK and self._muted():
                continue
            if not self._faults:
                self._frames += 1
                await self._send(self.session.number(draft))
            else:
                await self._send_faulty(draft)
                for fault in self._due(_ENDING, self._frames):
                    await self._strike(fault)

    async def _send_faulty(self, draft: Draft) -> None:
        """Send a frame with whatever strikes it."""
        self._frames += 1
        copies, cut, ahead, hold = 1, False, 0, False
        if isinstance(draft.content, Ticker):
            for fault in self._due(_AHEAD, self._frames):
                ahead = round(fault.options["seconds"] * SECOND)
        lost: list[Fault] = []
        for fault in self._due(_CHANGING, self._frames):
            match fault.kind:
                case "clock":
                    self._shift = -round(fault.options["seconds"] * SECOND)
                case "duplicate":
                    copies += 1
                case "sequence_gap":
                    lost.append(fault)
                case "truncated":
                    cut = True
                case "reorder":
                    hold = True
                case "garbage":
                    await self._send(_GARBAGE)
                case "huge":
                    await self._send(_error_of(fault.options["bytes"]))
        frame = self.session.number(draft, self._shift + ahead)
        self._lost += sum(fault.options["frames"] for fault in lost)
        if self._lost:
            self._lost -= 1
            return
        if cut:
            frame = frame[: len(frame) // 2]
        if hold and self._held is None:
            self._held = frame
            return
        for _ in range(copies):
            await self._send(frame)
        if self._held is not None:
            frame, self._held = self._held, None
            await self._send(frame)

    async def _send(self, frame: bytes) -> None:
        if self._silent():
            return
        await self._socket.send(frame, text=True)
        self._sent += 1
        self._served.frames += 1

    async def _watch(self, subscribe_within_s: float) -> None:
        await self._clock.sleep_until(self._opened + round(subscribe_within_s * SECOND))
        if not self._subscribed:
            self._log.info("nothing_subscribed", within_s=subscribe_within_s)
            await self._socket.close(_POLICY, "no subscribe message")

    async def _strike_in_time(self) -> None:
        """Strike what is due by time: there may be no frame to wait for."""
        while (at := self._faults.next_alarm(_ENDING)) is not None:
            await self._clock.sleep_until(self._opened + at)
            for fault in self._due(_ENDING, 0):
                await self._strike(fault)

    def _due(self, kinds: tuple[str, ...], frame: int) -> list[Fault]:
        struck = self._faults.due(kinds, frame, self._elapsed())
        for fault in struck:
            self._log.info("fault", kind=fault.kind, frame=self._frames)
        return struck

    async def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case "drop":
                self._drop()
            case "refuse":
                await self._refuse(fault.options["seconds"])
                self._drop()
            case "close":
                await self._socket.close(fault.options["code"], fault.options["reason"] or "")
            case "half_open":
                self._dead = True
                self._socket.transport.pause_reading()
            case "stall":
                self._silent_until = self._until(fault)
            case "mute":
                self._muted_until = self._until(fault)

    def _drop(self) -> None:
        # Not aborted: what was sent before still arrives.
        self._silent_until = math.inf
        self._socket.transport.close()

    def _until(self, fault: Fault) -> float:
        seconds = fault.options["seconds"]
        return math.inf if seconds is None else self._elapsed() + seconds * SECOND

    def _elapsed(self) -> Ns:
        return self._clock.now() - self._opened

    def _silent(self) -> bool:
        return self._dead or (self._silent_until > 0 and self._elapsed() < self._silent_until)

    def _muted(self) -> bool:
        return self._muted_until > 0 and self._elapsed() < self._muted_until


def _error_of(size: int) -> bytes:
    head, tail = b'{"type":"error","message":"', b'"}'
    return head + b"x" * max(0, size - len(head) - len(tail)) + tail
