"""The socket against real servers on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
import trustme
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from richter.adapters.coinbase.arrivals import Arrival, Arrivals, What
from richter.adapters.coinbase.backoff import Backoff
from richter.adapters.coinbase.client import LIVE_FOR_NS, Client, check_address
from richter.errors import ArgumentsError

LIMIT_S = 30


class Watched:
    """A client whose arrivals can be waited for."""

    def __init__(self, url: str) -> None:
        self.arrivals = Arrivals()
        self.backoff = Backoff(lambda: 0.0)
        self.client = Client(url, self.arrivals, self.backoff)
        self.seen: list[Arrival] = []

    async def until(self, done: Callable[[list[Arrival]], bool]) -> list[Arrival]:
        async with asyncio.timeout(LIMIT_S):
            while not done(self.seen):
                self.seen += self.arrivals.take(0)
                await asyncio.sleep(0.005)
        return self.seen

    def count(self, what: What) -> int:
        return sum(arrival.what is what for arrival in self.seen)


@asynccontextmanager
async def running(url: str) -> AsyncIterator[Watched]:
    watched = Watched(url)
    task = asyncio.create_task(watched.client.run())
    try:
        yield watched
    finally:
        watched.client.stop()
        async with asyncio.timeout(LIMIT_S):
            await task


@asynccontextmanager
async def serving(
    handler: Callable[[ServerConnection], Awaitable[None]], **options: object
) -> AsyncIterator[str]:
    server: Server
    async with serve(handler, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]  # handed on
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_frames_arrive_in_order_with_their_times_and_what_is_sent_gets_there() -> None:
    async def echo(socket: ServerConnection) -> None:
        for number in range(3):
            await socket.send(f"frame {number}")
        async for text in socket:
            await socket.send(f"got {text!s}")

    async def scene() -> list[Arrival]:
        async with serving(echo) as url, running(url) as watched:
            await watched.until(lambda seen: watched.count(What.FRAME) == 3)
            conn = watched.seen[-1].conn_id
            watched.client.send("another connection", "lost")
            watched.client.send(conn, "hello")
            await watched.until(lambda seen: watched.count(What.FRAME) == 4)
        watched.seen += watched.arrivals.take(0)
        return watched.seen

    seen = asyncio.run(scene())

    assert [arrival.what for arrival in seen] == [
        What.CONNECTING,
        What.OPENED,
        *[What.FRAME] * 4,
        What.CLOSED,
        What.STOPPED,
    ]
    assert [arrival.data for arrival in seen[2:6]] == [b"frame 0", b"frame 1", b"frame 2", b"got hello"]
    assert [arrival.at for arrival in seen] == sorted(arrival.at for arrival in seen)
    assert seen[-2].data == b"stopped"
    assert not seen[2].conn_id.startswith("sim-")


def test_any_close_is_an_outage_and_the_next_connection_has_another_name() -> None:
    async def polite(socket: ServerConnection) -> None:
        await socket.close(1000, "done for today")

    async def scene() -> list[Arrival]:
        async with serving(polite) as url, running(url) as watched:
            return await watched.until(lambda seen: watched.count(What.CLOSED) == 3)

    seen = asyncio.run(scene())

    closed = [arrival for arrival in seen if arrival.what is What.CLOSED]
    assert {arrival.data for arrival in closed} == {b"the exchange closed with code 1000: done for today"}
    assert len({arrival.conn_id for arrival in closed}) == 3


def test_a_connection_that_is_given_up_ends_though_the_other_side_is_deaf() -> None:
    async def scene() -> Watched:
        over = asyncio.Event()

        async def deaf(socket: ServerConnection) -> None:
            socket.transport.pause_reading()
            await socket.send("one")
            await over.wait()

        async with serving(deaf, close_timeout=0.1) as url, running(url) as watched:
            await watched.until(lambda seen: watched.count(What.FRAME) == 1)
            watched.client.drop(watched.seen[-1].conn_id)
            await watched.until(lambda seen: watched.count(What.FRAME) == 2)
            over.set()
        return watched

    assert asyncio.run(scene()).count(What.CLOSED) == 1


@pytest.mark.parametrize(
    "url",
    [
        "ws://127.0.0.1:99999",
        "ws://127.0.0.1:abc",
        "ws://[::1",
        "ws://a..b/",
        f"ws://{'a' * 70}/",
        "ws://ex ample/",
        "ws://h/#frag",
        "http://127.0.0.1",
        "",
    ],
)
def test_what_can_be_no_address_is_refused(url: str) -> None:
    with pytest.raises(ArgumentsError, match="no address of a feed"):
        check_address(url)


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:8765", "wss://advanced-trade-ws.coinbase.com", "ws://[::1]:1/x"]
)
def test_what_can_be_an_address_is_let_through(url: str) -> None:
    check_address(url)


def test_too_many_requests_wait_as_long_as_they_are_told() -> None:
    asked: list[float] = []

    async def never(socket: ServerConnection) -> None:
        await socket.wait_closed()

    def refuse(socket: ServerConnection, request: Request) -> Response | None:
        asked.append(asyncio.get_running_loop().time())
        if len(asked) > 1:
            return None
        response = socket.respond(HTTPStatus.TOO_MANY_REQUESTS, "slow down\n")
        response.headers["Retry-After"] = "0.5"
        return response

    async def scene() -> list[Arrival]:
        async with serving(never, process_request=refuse) as url, running(url) as watched:
            return await watched.until(lambda seen: watched.count(What.OPENED) == 1)

    seen = asyncio.run(scene())

    failed = [arrival.data.decode() for arrival in seen if arrival.what is What.FAILED]
    assert len(failed) == 1
    assert "429" in failed[0]
    assert asked[1] - asked[0] >= 0.5


def test_an_address_where_nobody_listens_is_said_and_tried_again() -> None:
    async def scene() -> list[Arrival]:
        async with running("ws://127.0.0.1:1") as watched:
            return await watched.until(lambda seen: watched.count(What.FAILED) == 3)

    failed = [arrival.data.decode() for arrival in asyncio.run(scene()) if arrival.what is What.FAILED]

    assert all("refused" in text.lower() and "will retry in 0.1 s" in text for text in failed)


def test_a_server_that_speaks_no_websocket_is_said() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()
        writer.close()

    async def scene() -> list[Arrival]:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with running(f"ws://127.0.0.1:{port}") as watched:
                return await watched.until(lambda seen: watched.count(What.FAILED) == 1)

    failed = [arrival.data.decode() for arrival in asyncio.run(scene()) if arrival.what is What.FAILED]

    assert "does not speak WebSocket" in failed[0]


def test_a_simulated_exchange_marks_its_connections() -> None:
    async def quiet(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async def scene() -> list[Arrival]:
        async with (
            serving(quiet, server_header="richter simulate (SIMULATED)") as url,
            running(url) as watched,
        ):
            return await watched.until(lambda seen: watched.count(What.OPENED) == 1)

    opened = [arrival for arrival in asyncio.run(scene()) if arrival.what is What.OPENED]

    assert opened[0].conn_id.startswith("sim-")


def test_half_a_minute_of_live_data_forgets_the_failures() -> None:
    watched = Watched("ws://127.0.0.1:1")
    for _ in range(5):
        watched.backoff.delay()

    watched.client.note_live(True, 1)
    watched.client.note_live(True, LIVE_FOR_NS)
    before = watched.backoff._failures
    watched.client.note_live(False, LIVE_FOR_NS + 1)
    watched.client.note_live(True, LIVE_FOR_NS + 2)
    flapped = watched.backoff._failures
    watched.client.note_live(True, 2 * LIVE_FOR_NS + 2)

    assert before == flapped == 5
    assert watched.backoff._failures == 0


def test_a_stop_ends_a_wait_at_once() -> None:
    async def scene() -> float:
        loop = asyncio.get_running_loop()
        async with running("ws://127.0.0.1:1") as watched:
            watched.backoff.delay = lambda **_: 3600.0  # type: ignore[method-assign]
            await watched.until(lambda seen: watched.count(What.FAILED) == 1)
            start = loop.time()
        return loop.time() - start

    assert asyncio.run(scene()) < LIMIT_S


def test_a_certificate_that_does_not_verify_is_said_and_nothing_is_read() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def greet(socket: ServerConnection) -> None:
        await socket.send("never read")
        await socket.wait_closed()

    async def scene() -> Watched:
        async with serving(greet, ssl=context) as url, running(url.replace("ws:", "wss:")) as watched:
            await watched.until(lambda seen: watched.count(What.FAILED) == 1)
        return watched

    watched = asyncio.run(scene())

    failed = [arrival.data.decode() for arrival in watched.seen if arrival.what is What.FAILED]
    assert "its certificate does not verify" in failed[0]
    assert watched.count(What.FRAME) == 0


def test_an_address_that_is_no_feed_is_said() -> None:
    def not_here(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(HTTPStatus.NOT_FOUND, "no\n")

    async def never(socket: ServerConnection) -> None:
        raise AssertionError("it was let in")

    async def scene() -> list[Arrival]:
        async with serving(never, process_request=not_here) as url, running(url) as watched:
            return await watched.until(lambda seen: watched.count(What.FAILED) == 1)

    failed = [arrival.data.decode() for arrival in asyncio.run(scene()) if arrival.what is What.FAILED]

    assert "it answered HTTP 404: is it the address of a WebSocket feed?" in failed[0]
