"""A feed from its socket to the recording, until the time is over, a signal comes or something fails."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from richter.adapters.coinbase.arrivals import Arrivals
from richter.adapters.coinbase.backoff import Backoff
from richter.adapters.coinbase.client import Client
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.recovery import recover
from richter.adapters.recording.writer import Recorder
from richter.config import Settings
from richter.protocol.advanced import AdvancedTrade
from richter.protocol.exchange import ExchangeFeed
from richter.protocol.feed import Deadlines, Feed
from richter.runtime.catching_up import CaughtUp
from richter.runtime.feeding import FeedStatus, FeedWorker, Sink

if TYPE_CHECKING:  # A run without Kafka does without its client.
    from richter.runtime.publishing import PublishStatus

__all__ = ["FeedRun", "Ran", "open_recorder"]

SHOW_S: Final = 0.25
KEEP_S: Final = 3600.0
GIB: Final = 1024**3


class Ran(msgspec.Struct):
    """What a run did.

    Attributes:
        url: of the feed.
        raw: folder of the recording.
        recorded: lines.
        recorded_bytes: of them.
        connections: opened.
        unrecorded: lines that the disk refused.
        lost_frames: that found no room in the queue.
        dead: letters by reason.
        last: the last thing that went wrong.
        feed: the protocol object's counts.
        rows: feature rows made.
        alerts: raised.
        caught_up: what the start made of an earlier run's recording; None when only recording.
        published: what became of the recording on Kafka; None when nothing is published.
    """

    url: str
    raw: Path
    recorded: int
    recorded_bytes: int
    connections: int
    unrecorded: int
    lost_frames: int
    dead: dict[str, int]
    last: str
    feed: dict[str, int]
    rows: int = 0
    alerts: int = 0
    caught_up: CaughtUp | None = None
    published: PublishStatus | None = None


def open_recorder(settings: Settings, folder: Path) -> Recorder:
    """Put in order what an earlier run left of a recording, and go on with it."""
    recover(folder)
    return Recorder(
        folder,
        rotate_s=settings.rotate_minutes * 60,
        rotate_bytes=round(settings.rotate_mib * 1024 * 1024),
        compress=settings.compress,
        min_free_bytes=round(settings.min_free_gib * GIB),
    )


class FeedRun:
    """The two threads of a run: one reads the socket, one works on what it brings.

    Args:
        settings: of the feed.
        recorder: the recording.
        dead: frames that cannot be used.
        sink: works on what is recorded; None only records.
        last_good: product -> event time of its last record, from an earlier run.
        keep: is called once an hour, on a thread of its own, to delete what is not kept.
    """

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        dead: DeadLetters,
        sink: Sink | None,
        last_good: dict[str, int],
        keep: Callable[[], None],
    ) -> None:
        dialect = ExchangeFeed() if settings.coinbase_feed == "exchange" else AdvancedTrade()
        deadlines = Deadlines(silence_s=settings.heartbeat_timeout_s)
        self._keep = keep
        self._arrivals = Arrivals()
        self._client = Client(settings.feed_url, self._arrivals, Backoff(random.SystemRandom().random))
        self._dead = dead
        self._worker = FeedWorker(
            settings.feed_url,
            self._arrivals,
            self._client,
            Feed(dialect, settings.products, deadlines, last_good=last_good),
            recorder,
            dead,
            sink,
        )
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def status(self) -> FeedStatus:
        """The feed's."""
        return self._worker.status

    def run(self, minutes: float | None, show: Callable[[], None] = lambda: None) -> None:
        """Run until the time is over, a signal comes or something fails."""
        asyncio.run(self._run(minutes, show))
        if self._failure is not None:
            raise self._failure

    def ran(self, raw: Path) -> Ran:
        """What was done."""
        status = self._worker.status
        return Ran(
            url=self._worker.url,
            raw=raw,
            recorded=status.recorded,
            recorded_bytes=status.recorded_bytes,
            connections=status.connections,
            unrecorded=status.unrecorded,
            lost_frames=status.lost_frames,
            dead=dict(self._dead.counts),
            last=status.trouble,
            feed=msgspec.structs.asdict(self._worker.feed.counts),
        )

    async def _run(self, minutes: float | None, show: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(each, self._stop)
        end = None if minutes is None else self._loop.time() + minutes * 60
        thread = threading.Thread(target=self._work, name="feed")
        thread.start()
        socket = asyncio.create_task(self._client.run())
        try:
            kept = self._loop.time()
            while not socket.done():
                if self._loop.time() - kept >= KEEP_S:
                    kept = self._loop.time()
                    await asyncio.to_thread(self._keep)
                left = SHOW_S if end is None else min(SHOW_S, max(0.0, end - self._loop.time()))
                await asyncio.wait({socket}, timeout=left)
                if end is not None and self._loop.time() >= end:
                    self._client.stop()
                    end = None
                show()
        finally:
            self._client.stop()
            await asyncio.gather(socket, return_exceptions=True)
            while thread.is_alive():
                await asyncio.sleep(0.02)
        show()
        self._failure = self._failure or socket.exception()

    def _work(self) -> None:
        try:
            self._worker.work()
            self._worker.tick(time.monotonic_ns())
        except BaseException as error:  # Raised again in the main thread.
            self._failure = error
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._client.stop)

    def _stop(self) -> None:
        """The first signal ends in order, the second at once: the next start goes on from what is on disk."""
        if self._stopping:
            os._exit(130)
        self._stopping = True
        self._client.stop()

    _stopping = False
