"""A live run: one socket, one thread that works, one process; ends in order, or goes on where a crash left it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from richter.adapters.coinbase.arrivals import Arrivals
from richter.adapters.coinbase.backoff import Backoff
from richter.adapters.coinbase.client import Client, check_address
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.lock import FolderLock
from richter.adapters.recording.recovery import recover
from richter.adapters.recording.writer import Recorder
from richter.config import Settings
from richter.errors import RichterError
from richter.models.alert_log import Alert
from richter.protocol.advanced import AdvancedTrade
from richter.protocol.exchange import ExchangeFeed
from richter.protocol.feed import Deadlines, Feed
from richter.runtime.catching_up import CaughtUp
from richter.runtime.feeding import FeedStatus, FeedWorker, Sink
from richter.runtime.live import LiveFeatures
from richter.runtime.retaining import retain
from richter.runtime.steady import SteadyFeatures
from richter.runtime.warming import warm_up
from richter.runtime.watching import Watch

__all__ = ["Progress", "Ran", "Shown", "ingest", "run"]

SHOW_S: Final = 0.25
RETAIN_S: Final = 3600.0
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


class Shown(msgspec.Struct):
    """What there is to show at a moment."""

    feed: FeedStatus
    watch: Watch


class Progress(msgspec.Struct, frozen=True):
    """Who is told of the start's work, and several times a second of the state."""

    on_total: Callable[[int], None] = lambda total: None
    on_caught_up: Callable[[CaughtUp], None] = lambda done: None
    on_show: Callable[[Shown], None] = lambda shown: None
    on_alert: Callable[[Alert], None] = lambda alert: None
    on_end: Callable[[], None] = lambda: None


QUIET: Final = Progress()


def run(settings: Settings, *, minutes: float | None = None, progress: Progress = QUIET) -> Ran:
    """Record a feed, compute features, raise alerts, until it is stopped.

    Raises:
        DataFolderError: the data folder is in use or cannot be written to.
    """
    check_address(settings.feed_url)
    lock = FolderLock(settings.data_dir, "richter run")
    watch = Watch()

    def alerted(alert: Alert) -> None:
        watch.alert(alert)
        progress.on_alert(alert)

    def make(recorder: Recorder, dead: DeadLetters) -> LiveFeatures:
        return LiveFeatures(
            settings,
            sync_recording=recorder.sync,
            on_rows=watch.take,
            on_alert=alerted,
            on_letter=lambda letter: letter.to(dead),
        )

    try:
        with (
            DeadLetters(settings.data_dir / "dead" / "live.ndjson") as dead,
            _recorder(settings, settings.data_dir / "raw") as recorder,
            SteadyFeatures(lambda: make(recorder, dead)) as features,
        ):
            warm_up(lambda text: structlog.get_logger("richter.run").info("compiling", text=text))
            caught_up = features.start(progress.on_total)
            for warning in caught_up.warnings:
                structlog.get_logger("richter.run").warning("catching_up", text=warning)
            progress.on_caught_up(caught_up)
            before = features.rows
            worker = _Worker(settings, recorder, dead, features, caught_up.last_good)
            _retain(settings)
            worker.run(minutes, lambda: progress.on_show(Shown(worker.status, watch)))
            progress.on_end()
            ran = worker.ran(settings.data_dir / "raw")
            ran.rows = features.rows - before
            ran.alerts = watch.alerts
            ran.caught_up = caught_up
        return ran
    finally:
        lock.release()


def ingest(
    settings: Settings, *, minutes: float | None = None, save: bool = True, progress: Progress = QUIET
) -> Ran:
    """Record a feed and nothing else, until it is stopped.

    Args:
        settings: where from and where to.
        minutes: None goes on without end.
        save: into ``raw``; else into ``spool``, which is kept only until a broker has it.
        progress: who is told.

    Raises:
        DataFolderError: the data folder is in use or cannot be written to.
    """
    folder = settings.data_dir / ("raw" if save else "spool")
    check_address(settings.feed_url)
    lock = FolderLock(settings.data_dir, "richter ingest")
    try:
        with (
            DeadLetters(settings.data_dir / "dead" / "live.ndjson") as dead,
            _recorder(settings, folder) as recorder,
        ):
            worker = _Worker(settings, recorder, dead, None, {})
            worker.run(minutes, lambda: progress.on_show(Shown(worker.status, Watch())))
            return worker.ran(folder)
    finally:
        lock.release()


def _recorder(settings: Settings, folder: Path) -> Recorder:
    recover(folder)
    return Recorder(
        folder,
        rotate_s=settings.rotate_minutes * 60,
        rotate_bytes=round(settings.rotate_mib * 1024 * 1024),
        compress=settings.compress,
        min_free_bytes=round(settings.min_free_gib * GIB),
    )


def _retain(settings: Settings) -> None:
    try:
        retain(settings, time.time_ns())
    except (OSError, RichterError) as error:
        structlog.get_logger("richter.retention").error("not_deleted", text=str(error))


class _Worker:
    """The two threads of a run."""

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        dead: DeadLetters,
        sink: Sink | None,
        last_good: dict[str, int],
    ) -> None:
        dialect = ExchangeFeed() if settings.coinbase_feed == "exchange" else AdvancedTrade()
        deadlines = Deadlines(silence_s=settings.heartbeat_timeout_s)
        self._settings = settings
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
        return self._worker.status

    def run(self, minutes: float | None, show: Callable[[], None]) -> None:
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
                if self._loop.time() - kept >= RETAIN_S:
                    kept = self._loop.time()
                    await asyncio.to_thread(_retain, self._settings)
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
