"""A live run: one socket, one thread that works, one process; ends in order, or goes on where a crash left it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from richter.adapters.coinbase.client import check_address
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.lock import FolderLock
from richter.adapters.recording.writer import Recorder
from richter.config import Settings
from richter.models.alert_log import Alert
from richter.runtime.catching_up import CaughtUp
from richter.runtime.feed_run import FeedRun, Ran, open_recorder
from richter.runtime.feeding import FeedStatus
from richter.runtime.live import LiveFeatures
from richter.runtime.retaining import retain
from richter.runtime.steady import SteadyFeatures
from richter.runtime.warming import warm_up
from richter.runtime.watching import Watch

__all__ = ["Progress", "Shown", "run"]


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
    try:
        log_lock = FolderLock(settings.data_dir / "processed", "richter run")
    except BaseException:
        lock.release()
        raise
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
            open_recorder(settings, settings.data_dir / "raw") as recorder,
            SteadyFeatures(lambda: make(recorder, dead)) as features,
        ):
            warm_up(lambda text: structlog.get_logger("richter.run").info("compiling", text=text))
            caught_up = features.start(progress.on_total)
            for warning in caught_up.warnings:
                structlog.get_logger("richter.run").warning("catching_up", text=warning)
            progress.on_caught_up(caught_up)
            before = features.rows
            worker = FeedRun(
                settings,
                recorder,
                dead,
                features,
                caught_up.last_good,
                lambda: retain(settings, time.time_ns()),
            )
            retain(settings, time.time_ns())
            worker.run(minutes, lambda: progress.on_show(Shown(worker.status, watch)))
            progress.on_end()
            ran = worker.ran(settings.data_dir / "raw")
            ran.rows = features.rows - before
            ran.alerts = watch.alerts
            ran.caught_up = caught_up
        return ran
    finally:
        log_lock.release()
        lock.release()
