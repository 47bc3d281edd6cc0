"""The topic of feature rows as a feature log on disk: what is committed, read by a consumer of its own.

A part holds rows of one partition and is named by it and by the offsets it covers, up to the second one:
`part-002-000000001000-000000002000.parquet`. The last name says where to go on, so nothing else is kept. The first
part has no rows and says which topic the log is of.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from richter.adapters.kafka.connection import ANSWER_S, Broker
from richter.adapters.kafka.feature_records import FeatureDecoder
from richter.adapters.kafka.records import Record, records_of
from richter.adapters.kafka.topic_watch import TopicWatch
from richter.adapters.kafka.topics import describe
from richter.adapters.tables.parts import PART_ROWS, PartWriter, open_log
from richter.engine.rows import FeatureRows

__all__ = ["TopicLog", "TopicLogStatus"]

PART_S: Final = 300.0
BATCH: Final = 2000
_NAME = re.compile(r"part-(?P<partition>\d{3,})-(?P<begin>\d{12,})-(?P<end>\d{12,})")


class TopicLogStatus(msgspec.Struct):
    """How the log stands.

    Attributes:
        rows: on disk, of this run.
        parts: of them.
        missed: records that the topic had dropped before they were read.
    """

    rows: int = 0
    parts: int = 0
    missed: int = 0


class _Part:
    """Rows of a partition that have no name yet."""

    def __init__(self, path: Path, begin: int, source: str, now: float) -> None:
        self.begin = begin
        self.since = now
        self.writer = PartWriter(path, durable=True, source=source)


class TopicLog:
    """Writes the log until it is stopped.

    Args:
        broker: the cluster.
        topic: of feature rows.
        folder: of the log; one that is not of this topic is moved aside.
        status: to go on with.
        monotonic: s.

    Attributes:
        status: how it stands.

    Raises:
        TransportError: the cluster does not answer, or has no such topic.
        DataFolderError: the log cannot be written.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        folder: Path,
        status: TopicLogStatus | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        (state,) = describe(broker, [topic])
        self._broker = broker
        self._topic = topic
        self._folder = folder
        self._monotonic = monotonic
        self._log = structlog.get_logger("richter.features")
        self.status = status or TopicLogStatus()
        self._source = f"{topic}/{state.topic_id}"
        self._watch = TopicWatch(broker, topic, state.topic_id)
        aside = open_log(folder, self._source)
        if aside is not None:
            self._log.warning("log_moved_aside", text=f"a feature log of something else is now {aside}")
        self._decoders = {part.partition: FeatureDecoder() for part in state.partitions}
        self._parts: dict[int, _Part] = {}
        self._ends: dict[int, int] = {}  # Where reading met the end of a partition.
        self._next = {part.partition: 0 for part in state.partitions}
        for path in folder.glob("part-*.parquet"):
            found = _NAME.fullmatch(path.stem)
            if found is not None and int(found["partition"]) in self._next:
                partition = int(found["partition"])
                self._next[partition] = max(self._next[partition], int(found["end"]))
        for part in state.partitions:
            if self._next[part.partition] < part.begin:
                self._skip(part.partition, part.begin)
        self._consumer = Consumer(
            broker.config(
                group_id=f"{topic}-log",  # Asked for, and never used: no offset is committed.
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="error",  # Rows that are gone are told of by the next start, which comes at once.
                isolation_level="read_committed",
                # Where a partition ends with a transaction's marker, this alone tells that nothing more is to come.
                enable_partition_eof=True,
                fetch_wait_max_ms=100,
                queued_max_messages_kbytes=65536,
            )
        )
        self._consumer.assign(
            [TopicPartition(topic, partition, offset) for partition, offset in self._next.items()]
        )

    def step(self, timeout_s: float = 0.2) -> int:
        """Read what is there and write what is due; returns how many rows came.

        Raises:
            TransportError: the topic cannot be read.
            DataFolderError: the log cannot be written.
            SchemaMismatchError: the topic holds something else.
        """
        self._watch.look()
        first = self._consumer.poll(timeout_s)
        messages = [] if first is None else [first, *self._consumer.consume(BATCH - 1, 0)]
        try:
            by_partition = records_of(messages, self._ends)
        except KafkaException as error:
            raise self._broker.failure(error) from error
        now = self._monotonic()
        for partition, records in by_partition.items():
            self._add(partition, records, now)
        for partition, part in list(self._parts.items()):
            if now - part.since >= PART_S or part.writer.rows >= PART_ROWS:
                self._finish(partition)
        return len(messages)

    def drain(self, deadline_s: float) -> bool:
        """Read up to what is committed now, and give everything a name; False when that took too long."""
        end = self._monotonic() + deadline_s
        ends = {}
        for partition in self._next:
            try:
                _, ends[partition] = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, partition), min(ANSWER_S, deadline_s)
                )
            except KafkaException as error:
                raise self._broker.failure(error) from error
        while not all(
            max(self._next[partition], self._ends.get(partition, 0)) >= offset
            for partition, offset in ends.items()
        ):
            if self._monotonic() > end:
                return False
            self.step(0.05)
        self.flush()
        return True

    def flush(self) -> None:
        """Give everything a name."""
        for partition in list(self._parts):
            self._finish(partition)

    def close(self) -> None:
        """Let go; what has no name yet is read again by the next one."""
        for part in self._parts.values():
            part.writer.discard()
        self._consumer.close()

    def _add(self, partition: int, records: list[Record], now: float) -> None:
        part = self._parts.get(partition)
        if part is None:
            begin = self._next[partition]
            path = self._folder / f"part-{partition:03d}-{begin:012d}.parquet"
            part = self._parts[partition] = _Part(path, begin, self._source, now)
        rows: list[FeatureRows] = self._decoders[partition].decode(
            record.value for record in records if record.value is not None
        )
        for block in rows:
            part.writer.add(block)
        self._next[partition] = records[-1].offset + 1

    def _finish(self, partition: int) -> None:
        part = self._parts.pop(partition)
        if not part.writer.rows:
            part.writer.discard()
            return
        end = self._next[partition]
        part.writer.finish(self._folder / f"part-{partition:03d}-{part.begin:012d}-{end:012d}.parquet")
        self.status.rows += part.writer.rows
        self.status.parts += 1

    def _skip(self, partition: int, begin: int) -> None:
        if self._next[partition]:
            missed = begin - self._next[partition]
            self.status.missed += missed
            self._log.error(
                "rows_missed",
                text=f"{self._topic} [{partition}] begins at {begin}: {missed:,} records after the log's end are gone",
            )
        self._next[partition] = begin
