"""The simulated exchange: a WebSocket server on loopback that speaks Coinbase's protocols."""

from __future__ import annotations

import asyncio
import errno
import http
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from richter.domain.times import SECOND
from richter.errors import OperatorError
from richter.simulate.advanced import AdvancedSession
from richter.simulate.clock import Clock, WallClock
from richter.simulate.connection import Connection, Served
from richter.simulate.exchange import ExchangeSession
from richter.simulate.faults import Fault, FaultPlan
from richter.simulate.feed import Feed
from richter.simulate.tickers import Source

__all__ = ["HEADER", "Limits", "Served", "SimulatedExchange"]

HOST: Final = "127.0.0.1"
HEADER: Final = "X-Richter-Simulated"
"""The handshake's answer says by this that nothing here was ever quoted or paid, and what it is instead."""

_SESSIONS: Final[Mapping[str, type[AdvancedSession] | type[ExchangeSession]]] = {
    each.path: each for each in (AdvancedSession, ExchangeSession)
}
_CLOSE_TIMEOUT_S: Final = 1.0


class Limits(msgspec.Struct, frozen=True):
    """What an address may do within a second; None for as much as it likes.

    References:
        https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-rate-limits
    """

    connections: int | None = 8
    messages: int | None = 8


class _Socket(ServerConnection):
    number = 0


class SimulatedExchange:
    """An exchange on loopback; use it as an asynchronous context manager.

    Advanced Trade is served at `url`, the Exchange feed at `exchange_url`. Leaving the block closes all connections
    and leaves no task behind; where the source failed, its error is raised.

    Args:
        source: where ticks come from.
        port: 0 takes a free one.
        faults: what goes wrong, and when.
        clock: the wall's time.
        limits: what an address may do.
        subscribe_within_s: a connection without a subscription is closed after so long.
        close_at_end: close connections with 1000 when the source ends; else they get heartbeats only.
        bound: frames that may wait for one connection.
        slow_after_s: a connection that takes nothing for so long while the market waits for it is dropped.
    """

    def __init__(
        self,
        source: Source,
        *,
        port: int = 0,
        faults: Sequence[Fault] = (),
        clock: Clock | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        subscribe_within_s: float = 5.0,
        close_at_end: bool = False,
        bound: int = 1024,
        slow_after_s: float = 30.0,
    ) -> None:
        self.source = source
        self.port = port
        self._plan = FaultPlan(faults)
        self._clock = WallClock() if clock is None else clock
        self._limits = limits
        self._subscribe_within_s = subscribe_within_s
        self._close_at_end = close_at_end
        self._bound = bound
        self._slow_after_s = slow_after_s
        self._counts = Served(faults=self._plan.struck)
        self._windows: dict[tuple[str, str], deque[int]] = {}
        self._connections: set[Connection] = set()
        self._servers: list[Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken = asyncio.Event()
        self._feed: Feed | None = None
        self._feeding: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where Advanced Trade is spoken."""
        return f"ws://{HOST}:{self.port}"

    @property
    def exchange_url(self) -> str:
        """Where the Exchange feed is spoken."""
        return f"ws://{HOST}:{self.port}{ExchangeSession.path}"

    @property
    def served(self) -> Served:
        """What it has done so far."""
        if self._feed is not None:
            self._counts.ticks = self._feed.ticks
        return self._counts

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OperatorError: the port is in use or not allowed.
        """
        self._feed = Feed(
            self.source,
            self._clock,
            close_at_end=self._close_at_end,
            slow_after_s=self._slow_after_s,
        )
        await self._listen()
        self._feeding = asyncio.create_task(self._feed.run())
        self._feeding.add_done_callback(lambda _: self._broken.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything; raise what failed, unless the block did."""
        failures = await self.close()
        if error is None and failures:
            raise failures[0]

    async def close(self) -> list[Exception]:
        """Close all connections with 1001 and stop listening; return what failed meanwhile."""
        for task in (self._feeding, *self._tasks):
            if task is not None:
                task.cancel()
        for connection in list(self._connections):
            connection.abandon()
        for server in self._servers:
            server.close()
        await asyncio.gather(*(connection.close() for connection in list(self._connections)))
        for server in self._servers:
            await server.wait_closed()
        tasks = [task for task in (self._feeding, *self._tasks) if task is not None]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        return [each for each in done if isinstance(each, Exception)]

    async def finished(self) -> None:
        """Wait until the source has ended.

        Raises:
            RichterError: the source cannot be read further.
        """
        assert self._feed is not None and self._feeding is not None
        waiting = asyncio.create_task(self._feed.finished.wait())
        try:
            await asyncio.wait((waiting, self._feeding), return_when=asyncio.FIRST_COMPLETED)
            if self._feeding.done():
                self._feeding.result()
        finally:
            waiting.cancel()

    async def failed(self) -> None:
        """Wait until the source or the port cannot be served any further; leaving the block says why."""
        await self._broken.wait()

    async def _listen(self) -> None:
        try:
            server = await serve(
                self._serve,
                HOST,
                self.port,
                process_request=self._admit,
                process_response=self._mark,
                create_connection=_Socket,
                server_header=None,
                compression=None,
                ping_interval=None,  # No pings come from the venue.
                close_timeout=_CLOSE_TIMEOUT_S,
                logger=_library_log(),
            )
        except OSError as error:
            raise _cannot_listen(self.port, error) from error
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, socket: ServerConnection) -> None:
        assert self._feed is not None and isinstance(socket, _Socket) and socket.request is not None
        connection = Connection(
            socket,
            socket.number,
            _SESSIONS[_path(socket.request)](self.source.products),
            self._feed,
            self._plan.on_connection(socket.number),
            self._clock,
            self._counts,
            allow_message=lambda: self._allow(socket, "messages", self._limits.messages),
            refuse=self._refuse,
            bound=self._bound,
        )
        self._connections.add(connection)
        try:
            await connection.serve(self._subscribe_within_s)
        finally:
            self._connections.discard(connection)

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        assert isinstance(socket, _Socket)
        if _path(request) not in _SESSIONS:
            return socket.respond(http.HTTPStatus.NOT_FOUND, f"Served are {' and '.join(_SESSIONS)}.\n")
        fault = self._plan.on_attempt(self._counts.connections + 1)
        if fault is None and self._allow(socket, "connections", self._limits.connections):
            self._counts.connections += 1
            socket.number = self._counts.connections
            return None
        self._counts.refused += 1
        response = socket.respond(http.HTTPStatus.TOO_MANY_REQUESTS, "Too many connections.\n")
        response.headers["Retry-After"] = str(1 if fault is None else fault.options["retry_after"])
        return response

    def _mark(self, socket: ServerConnection, request: Request, response: Response) -> None:
        response.headers["Server"] = "richter simulate (SIMULATED)"
        response.headers[HEADER] = self.source.description.encode("ascii", "replace").decode()

    def _allow(self, socket: ServerConnection, what: str, limit: int | None) -> bool:
        """Whether one more within a second is allowed; counts it if so."""
        if limit is None:
            return True
        now = self._clock.now()
        times = self._windows.setdefault((what, str(socket.remote_address[0])), deque())
        while times and times[0] <= now - SECOND:
            times.popleft()
        if len(times) >= limit:
            return False
        times.append(now)
        return True

    async def _refuse(self, seconds: float) -> None:
        """Refuse TCP connections for a while."""
        until = self._clock.now() + round(seconds * SECOND)
        server = self._servers[-1]
        server.close(close_connections=False)
        while server.is_serving():
            await asyncio.sleep(0)
        task = asyncio.create_task(self._listen_again(until))
        self._tasks.add(task)
        task.add_done_callback(self._listening_again)

    async def _listen_again(self, until: int) -> None:
        await self._clock.sleep_until(until)
        await self._listen()
        structlog.get_logger("richter.simulate").info("listening_again", port=self.port)

    def _listening_again(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)
        else:
            self._broken.set()  # The failure is raised at the end.


def _library_log() -> logging.Logger:
    """The library's own lines, of which only problems matter here."""
    log = logging.getLogger("richter.simulate.websockets")
    log.setLevel(logging.WARNING)
    return log


def _path(request: Request) -> str:
    return request.path.partition("?")[0].rstrip("/") or "/"


def _cannot_listen(port: int, error: OSError) -> OperatorError:
    if error.errno == errno.EADDRINUSE:
        fix = "stop the program that has it, or choose another with --port (0 takes a free one)"
        return OperatorError("the port is in use", port, fix)
    return OperatorError(f"cannot listen on this port ({error.strerror})", port, "choose another with --port")
