"""`richter featurize`: a process of the group that turns raw ticks into feature rows, and the log of what it writes."""

from __future__ import annotations

import gc
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
import structlog

from richter.adapters.kafka import topics
from richter.adapters.kafka.connection import Broker
from richter.adapters.kafka.feature_records import FeatureDecoder
from richter.adapters.kafka.reading import TopicReader
from richter.adapters.kafka.stage import FencedError, Stage, StageStatus
from richter.adapters.recording.lock import FolderLock
from richter.config import Settings
from richter.errors import DataFolderError, RichterError, SchemaMismatchError, TransportError
from richter.runtime.featurizing import Featurizing
from richter.runtime.metrics import featurize_figures, offered
from richter.runtime.pipeline import Account
from richter.runtime.topic_log import TopicLog, TopicLogStatus
from richter.runtime.warming import warm_up

__all__ = ["Featurized", "featurize"]

AGAIN_S: Final = 2.0
LOCK_S: Final = 2.0
DRAIN_S: Final = 60.0
FENCED_S: Final = 60.0
"""Who loses its place twice within so long leaves it to the other process. Once may be by its own hand: a broker that
was away takes a member's second try to join for another process."""
SLOTS: Final = 64
YOUNG: Final = 50_000
"""Objects between two looks of the garbage collector: a batch makes many, and none in a circle."""
GROUP: Final = "featurize"


class Featurized(msgspec.Struct):
    """What a process of the group did, or has done so far.

    Attributes:
        topic_in: read.
        topic_out: written.
        instance: its place in the group.
        account: where every record went.
        stage: how the stage stands.
        restarts: stages that were lost and begun anew.
        trouble: why nothing moves at the moment; empty while all is well.
        log: the feature log; None where another process, or nobody, writes it.
        log_trouble: why the log waits; empty while all is well.
        folder: of the log.
    """

    topic_in: str
    topic_out: str
    instance: str
    account: Account
    stage: StageStatus
    folder: Path
    restarts: int = 0
    trouble: str = ""
    log: TopicLogStatus | None = None
    log_trouble: str = ""


def featurize(
    settings: Settings,
    *,
    topic_in: str | None = None,
    topic_out: str | None = None,
    minutes: float | None = None,
    parquet: bool = True,
    on_show: Callable[[Featurized], None] = lambda done: None,
) -> Featurized:
    """Compute features of a topic's ticks until the time is over or a signal comes.

    Args:
        settings: brokers, staleness, price scales, data folder.
        topic_in: of raw ticks.
        topic_out: of feature rows.
        minutes: None goes on without end.
        parquet: keep the feature log too, unless another process does.
        on_show: told of the state, about twice a second.

    Raises:
        TransportError: at the start no broker answers; later, another process has this one's place.
        ArgumentsError: the topics have, or come to have, different numbers of partitions.
        SchemaMismatchError: the topic of rows holds something else.
    """
    source = topic_in or settings.kafka_topic_prefix + topics.RAW
    target = topic_out or settings.kafka_topic_prefix + topics.FEATURES
    dead = settings.kafka_topic_prefix + topics.DEAD
    log = structlog.get_logger("richter.featurize")
    broker = Broker(settings, "featurize")
    with _Ending() as ending, _instance(settings) as instance:
        _prepare(broker, settings, source, target, dead)
        warm_up(lambda text: log.info("compiling", text=text))
        gc.freeze()
        gc.set_threshold(YOUNG)
        ending.after(minutes)
        handler = Featurizing(settings, source, target, dead)
        folder = settings.data_dir / "processed" / "features.parquet"
        done = Featurized(source, target, instance, handler.account, StageStatus(), folder)
        shown = 0.0
        fenced_at = float("-inf")

        def is_over() -> bool:
            nonlocal shown
            if done.stage.partitions:
                done.trouble = ""
            if time.monotonic() - shown >= 0.5:
                shown = time.monotonic()
                on_show(done)
            return ending.is_over()

        with (
            offered(settings.metrics, featurize_figures(done)),
            closing(_LogKeeper(broker, target, done)) if parquet else nullcontext(),
        ):
            while not is_over():
                try:
                    if done.restarts:  # A topic may have been made anew, with other partitions.
                        topics.same_partitions(broker, source, target)
                    Stage(broker, source, f"{target}-{GROUP}", instance, handler, done.stage).run(is_over)
                except TransportError as error:
                    if ending.is_over():
                        break
                    if isinstance(error, FencedError):
                        if time.monotonic() - fenced_at < FENCED_S:
                            raise
                        fenced_at = time.monotonic()
                    done.restarts += 1
                    told = error.fact if error.value is None else f"{error.fact}: {error.value}"
                    done.trouble = told
                    log.warning("stage_lost", text=f"{told}; going on from what is committed")
                    ending.wait(AGAIN_S)
                    handler = Featurizing(settings, source, target, dead, handler.account)
    return done


def _prepare(broker: Broker, settings: Settings, source: str, target: str, dead: str) -> None:
    log = structlog.get_logger("richter.featurize")
    created = topics.ensure(broker, [source], settings)
    partitions = topics.partitions_of(broker, [source])[source]
    created += topics.ensure(broker, [target], settings, partitions=partitions)
    created += topics.ensure(broker, [dead], settings)
    for name in created:
        log.info("topic_created", text=f"created the topic {name}", topic=name)
    topics.same_partitions(broker, source, target)
    _check_rows(broker, target)


def _check_rows(broker: Broker, topic: str) -> None:
    """Refuse a topic whose oldest row is none of this version's: no reader could make sense of both."""
    with TopicReader(broker, topic) as reader:
        while not reader.at_end():
            values = [message.value() for message in reader.read(1)]
            try:
                if FeatureDecoder().decode(value for value in values if value is not None):
                    return
            except SchemaMismatchError as error:
                raise SchemaMismatchError(
                    error.fact, topic, "make the topic anew, or give another --topic_out"
                ) from error


@contextmanager
def _instance(settings: Settings) -> Iterator[str]:
    """A place in the group that nobody else on this data folder has, the same one again after a restart."""
    if settings.kafka_instance is not None:
        yield settings.kafka_instance
        return
    for number in range(SLOTS):
        try:
            lock = FolderLock(settings.data_dir / "places" / f"{GROUP}-{number}", "richter featurize")
        except DataFolderError:
            if number + 1 == SLOTS:
                raise
            continue
        try:
            yield f"{socket.gethostname()}-{number}"
        finally:
            lock.release()
        return


class _Ending:
    """When to end: after some minutes, or at the first signal. A second signal ends at once."""

    def __init__(self) -> None:
        self._end: float | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> _Ending:
        self._before = {each: signal.signal(each, self._stop) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def after(self, minutes: float | None) -> None:
        """End so many minutes from now."""
        self._end = None if minutes is None else time.monotonic() + minutes * 60

    def is_over(self) -> bool:
        """Whether to end now."""
        return self._stopped.is_set() or (self._end is not None and time.monotonic() >= self._end)

    def wait(self, seconds: float) -> None:
        """Wait, unless it is over."""
        self._stopped.wait(seconds)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped.set()
        signal.signal(number, signal.SIG_DFL)


class _LogKeeper:
    """Keeps the feature log, on a thread; where another process does, it waits to take over."""

    def __init__(self, broker: Broker, topic: str, done: Featurized) -> None:
        self._broker = broker
        self._topic = topic
        self._done = done
        self._stopped = threading.Event()
        self._logger = structlog.get_logger("richter.features")
        self._thread = threading.Thread(target=self._run, name="log")
        self._thread.start()

    def close(self) -> None:
        """Write what is committed, and stop."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            lock = self._lock()
            if lock is None:
                return
            try:
                self._keep()
                return
            except RichterError as error:
                self._tell(str(error))
            except Exception as error:  # The stage goes on without a log; this must not pass unseen.
                self._logger.exception("log_failed")
                self._tell(f"{type(error).__name__}: {error}")
            finally:
                lock.release()
            if self._stopped.wait(AGAIN_S):
                return

    def _lock(self) -> FolderLock | None:
        while True:
            with suppress(DataFolderError):
                return FolderLock(self._done.folder.parent, "richter featurize")
            self._tell("another process writes the feature log")
            if self._stopped.wait(LOCK_S):
                return None

    def _keep(self) -> None:
        log = TopicLog(self._broker, self._topic, self._done.folder, self._done.log)
        try:
            self._done.log, self._done.log_trouble = log.status, ""
            while not self._stopped.is_set():
                log.step()
            if not log.drain(DRAIN_S):
                self._tell(f"the feature log was not complete after {DRAIN_S:g} s; the next start goes on")
        finally:
            log.close()

    def _tell(self, trouble: str) -> None:
        if trouble != self._done.log_trouble:
            self._done.log_trouble = trouble
            self._logger.warning("log_waits", text=trouble)
