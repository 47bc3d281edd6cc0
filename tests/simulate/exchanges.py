"""A client for the simulated exchange, and a clock that a test moves."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from richter.domain.times import SECOND, parse_time

NOON = 1_764_936_000 * SECOND
DEADLINE_S = 60  # for whole tests; reached only when something hangs


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test, and see that it leaves no task behind."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, others

    asyncio.run(bounded())


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self, start: int = NOON) -> None:
        self._now = start
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = count()

    def now(self) -> int:
        return self._now

    async def sleep_until(self, ns: int) -> None:
        if ns <= self._now:
            await asyncio.sleep(0)
            return
        waiting = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (ns, next(self._number), waiting))
        await waiting

    async def advance(self, seconds: float) -> None:
        """Let time pass, stopping at every moment that somebody waits for."""
        end = self._now + round(seconds * SECOND)
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            ns, _, waiting = heapq.heappop(self._sleepers)
            self._now = max(self._now, ns)
            if not waiting.done():
                waiting.set_result(None)
                await self._settle()
        self._now = end

    async def _settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A client that sends no pings of its own."""
    settings: dict[str, Any] = {
        "proxy": None,
        "compression": None,
        "ping_interval": None,
        "close_timeout": 0.2,
        "max_size": None,
    }
    async with connect(url, **(settings | options)) as socket:
        yield socket


async def say(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def subscribe(socket: ClientConnection, *products: str, heartbeats: bool = False) -> None:
    """Ask for tickers, and for heartbeats in a second message, as on Advanced Trade."""
    await say(socket, type="subscribe", product_ids=products, channel="ticker")
    if heartbeats:
        await say(socket, type="subscribe", channel="heartbeats")


async def take(socket: ClientConnection, number: int) -> list[dict[str, Any]]:
    return [json.loads(await socket.recv()) for _ in range(number)]


async def take_until(
    socket: ClientConnection, done: Callable[[dict[str, Any]], object]
) -> list[dict[str, Any]]:
    """Read frames to the first that is wanted, that one too."""
    frames = [json.loads(await socket.recv())]
    while not done(frames[-1]):
        frames.append(json.loads(await socket.recv()))
    return frames


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for something that happens on the other side of a socket."""
    while not condition():
        await asyncio.sleep(0.001)


async def take_all(socket: ClientConnection) -> list[dict[str, Any]]:
    """Read to the end of the connection."""
    return [json.loads(frame) async for frame in socket]


def tickers(frames: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tickers of Advanced Trade frames, each with the time of its envelope."""
    return [
        {"ts": parse_time(frame["timestamp"]), "kind": event["type"], **ticker}
        for frame in frames
        if frame.get("channel") == "ticker"
        for event in frame["events"]
        for ticker in event["tickers"]
    ]


def numbers(frames: Sequence[dict[str, Any]]) -> list[int]:
    return [frame["sequence_num"] for frame in frames if "sequence_num" in frame]


def beats(frames: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [frame for frame in frames if frame.get("channel") == "heartbeats"]


def acked(frame: dict[str, Any]) -> dict[str, list[str]]:
    assert frame["channel"] == "subscriptions", frame
    [event] = frame["events"]
    [(name, subscriptions)] = event.items()
    assert name == "subscriptions"
    return subscriptions
