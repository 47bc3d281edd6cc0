"""The socket: connects, reads, sends, and connects again without end.

It knows nothing of what frames mean. Everything that happens goes, stamped, into `Arrivals`; whoever works on those
says through `send`, `drop` and `note_live` what is to be done.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.uri import parse_uri

from richter.adapters.coinbase.arrivals import Arrival, Arrivals, What
from richter.adapters.coinbase.backoff import Backoff
from richter.domain.ticks import Ns
from richter.errors import ArgumentsError

__all__ = ["SIMULATED_PREFIX", "Client", "check_address"]

_Result = TypeVar("_Result")

CONNECT_S: Final = 10.0
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
LIVE_FOR_NS: Final = 30 * 1_000_000_000
"""Of live data, until the failures before are forgotten."""
SEND_SPACING_S: Final = 0.125
"""The exchange allows eight messages a second."""
SIMULATOR: Final = "SIMULATED"
"""Stands in what the simulated exchange calls itself in the handshake; its connections are marked."""
SIMULATED_PREFIX: Final = "sim-"


class Client:
    """Keeps one connection open until it is stopped.

    Args:
        url: of the feed.
        arrivals: where everything that happens goes.
        backoff: waits between attempts.
        wall: ns since the epoch, UTC.
        monotonic: ns.
    """

    def __init__(
        self,
        url: str,
        arrivals: Arrivals,
        backoff: Backoff,
        *,
        wall: Callable[[], Ns] = time.time_ns,
        monotonic: Callable[[], Ns] = time.monotonic_ns,
    ) -> None:
        self.url = url
        self._arrivals = arrivals
        self._backoff = backoff
        self._wall = wall
        self._monotonic = monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._conn_id = ""
        self._to_send: deque[str] = deque()
        self._wanted = asyncio.Event()
        self._live_since: Ns | None = None

    async def run(self) -> None:
        """Connect and read until `stop` is called; ends with an arrival that says so."""
        self._loop = asyncio.get_running_loop()
        try:
            while not self._stop.is_set():
                delay = await self._connection()
                if delay > 0:
                    await self._pause(delay)
        finally:
            self._tell(What.STOPPED, "")

    def stop(self) -> None:
        """End; to be called in the loop's thread."""
        self._stop.set()

    def send(self, conn_id: str, text: str) -> None:
        """Send a frame on a connection, while it is there; from any thread."""
        self._call(self._queue, conn_id, text)

    def drop(self, conn_id: str) -> None:
        """Give a connection up at once, whatever the other side says; from any thread."""
        self._call(self._abort, conn_id)

    def note_live(self, live: bool, now: Ns) -> None:
        """Say whether data flow; after half a minute of them the failures before are forgotten. From any thread."""
        self._live_since = None if not live else self._live_since or now
        if self._live_since is not None and now - self._live_since >= LIVE_FOR_NS:
            self._backoff.reset()

    async def _connection(self) -> float:
        """One connection from beginning to end; returns how long to wait before the next."""
        self._conn_id = f"{self._wall():x}-{os.getpid():x}"
        self._live_since = None
        self._tell(What.CONNECTING, self.url)
        try:
            connection = await self._unless_stopped(_open(self.url))
        except (OSError, TimeoutError, WebSocketException) as error:
            too_many = isinstance(error, InvalidStatus) and error.response.status_code == 429
            delay = self._backoff.delay(too_many=too_many, retry_after_s=_retry_after(error))
            self._tell(What.FAILED, f"{_why(error)}; will retry in {delay:.1f} s")
            return delay
        if connection is None:
            return 0.0
        if connection.response is not None and SIMULATOR in connection.response.headers.get("Server", ""):
            self._conn_id = SIMULATED_PREFIX + self._conn_id
        self._to_send.clear()
        self._socket = connection
        self._tell(What.OPENED, self.url)
        sender = asyncio.create_task(self._send_all(connection))
        try:
            ended = await self._unless_stopped(self._read(connection))
        finally:
            self._socket = None
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            await _close(connection)
        self._tell(What.CLOSED, ended or "stopped")
        return 0.0 if self._stop.is_set() else self._backoff.delay()

    async def _read(self, connection: ClientConnection) -> str:
        """Hand on every frame; returns why the connection ended."""
        conn_id, put = self._conn_id, self._arrivals.put
        try:
            while True:
                data = await connection.recv(decode=False)
                put(Arrival(What.FRAME, conn_id, self._monotonic(), self._wall(), data))
        except ConnectionClosed as closed:
            frame = closed.rcvd or closed.sent
            if frame is None:
                return "the connection was lost without a word"
            side = "the exchange" if closed.rcvd else "we"
            return f"{side} closed with code {frame.code}" + (f": {frame.reason}" if frame.reason else "")

    async def _send_all(self, connection: ClientConnection) -> None:
        while True:
            while self._to_send:
                with suppress(ConnectionClosed):
                    await connection.send(self._to_send.popleft())
                await asyncio.sleep(SEND_SPACING_S)
            self._wanted.clear()
            await self._wanted.wait()

    async def _unless_stopped(self, work: Coroutine[Any, Any, _Result]) -> _Result | None:
        """The result of some work; None when `stop` came first."""
        task, stopped = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for each in (task, stopped):
                each.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        await self._unless_stopped(asyncio.sleep(seconds))

    def _queue(self, conn_id: str, text: str) -> None:
        if conn_id == self._conn_id and self._socket is not None:
            self._to_send.append(text)
            self._wanted.set()

    def _abort(self, conn_id: str) -> None:
        if conn_id == self._conn_id and self._socket is not None:
            self._socket.transport.abort()

    def _call(self, function: Callable[..., None], *arguments: str) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # The loop is closed: there is no connection any more.
                self._loop.call_soon_threadsafe(function, *arguments)

    def _tell(self, what: What, text: str) -> None:
        self._arrivals.put(Arrival(what, self._conn_id, self._monotonic(), self._wall(), text.encode()))


def check_address(url: str) -> None:
    """Refuse what can be no address before anything starts.

    Raises:
        ArgumentsError: it is none.
    """
    try:
        parsed = parse_uri(url)
        parsed.host.encode("idna")
        fine = 0 < parsed.port < 65_536 and not any(each.isspace() for each in url)
    except (ValueError, UnicodeError, WebSocketException):
        fine = False
    if not fine:
        raise ArgumentsError(
            "this is no address of a feed", url, "write one such as wss://advanced-trade-ws.coinbase.com"
        )


async def _open(url: str) -> ClientConnection:
    host = urlsplit(url).hostname or ""
    return await connect(
        url,
        open_timeout=CONNECT_S,
        ping_interval=None,  # The exchange's heartbeats say more.
        close_timeout=1.0,
        max_size=MAX_FRAME_BYTES,
        compression=None,
        proxy=None if host in ("localhost", "127.0.0.1", "::1") else True,
    )


async def _close(connection: ClientConnection) -> None:
    with suppress(OSError, WebSocketException):
        await connection.close()


def _retry_after(error: Exception) -> float | None:
    if not isinstance(error, InvalidStatus):
        return None
    with suppress(ValueError):
        seconds = float(error.response.headers.get("Retry-After", ""))
        return seconds if math.isfinite(seconds) else None
    return None


def _why(error: Exception) -> str:
    """Why no connection came about, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not verify ({error.verify_message}): check the address and this machine's clock"
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        hint = "too many connections" if status == 429 else "is it the address of a WebSocket feed?"
        return f"it answered HTTP {status}: {hint}"
    if isinstance(error, InvalidHandshake):
        return f"it does not speak WebSocket ({error}): check --url"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:g} s"
    if isinstance(error, socket.gaierror):
        return f"its name is not known ({error.strerror}): is there a network?"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own words say less.
    return str(error) or type(error).__name__
