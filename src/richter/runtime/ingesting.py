"""Recording alone, and what is recorded to Kafka."""

from __future__ import annotations

import time
from contextlib import nullcontext

from richter.adapters.coinbase.client import check_address
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.lock import FolderLock
from richter.config import Settings
from richter.runtime.feed_run import FeedRun, Ran, open_recorder
from richter.runtime.metrics import ingest_figures, offered
from richter.runtime.publishing import Publisher
from richter.runtime.retaining import retain, trim

__all__ = ["ingest"]


def ingest(
    settings: Settings,
    *,
    minutes: float | None = None,
    save: bool = True,
    publish: bool = True,
) -> Ran:
    """Record a feed and publish it, until it is stopped.

    Args:
        settings: where from and where to.
        minutes: None goes on without end.
        save: into ``raw``; else into ``spool``, which is kept only until a broker has it.
        publish: to Kafka.

    Raises:
        DataFolderError: the data folder is in use or cannot be written to.
    """
    folder = settings.data_dir / ("raw" if save else "spool")
    check_address(settings.feed_url)
    lock = FolderLock(settings.data_dir, "richter ingest")
    try:
        recorder = open_recorder(settings, folder)  # Before the publisher looks where the recording ends.
        with (
            Publisher(settings, folder) if publish else nullcontext() as publisher,
            DeadLetters(settings.data_dir / "dead" / "live.ndjson") as dead,
            recorder,
        ):

            def keep() -> None:
                if save:
                    retain(settings, time.time_ns())
                elif publisher is not None:
                    trim(folder, publisher.positions, time.time_ns())

            worker = FeedRun(settings, recorder, dead, publisher, {}, keep)
            figures = ingest_figures(worker.status, None if publisher is None else publisher.status)
            with offered(settings.metrics, figures):
                worker.run(minutes)
            ran = worker.ran(folder)
        if publisher is not None:
            ran.published = publisher.status
            keep()
        return ran
    finally:
        lock.release()
