"""A topic read from one end to the other by nobody's group: nothing is committed, nobody else is disturbed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Literal, Self

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from richter.adapters.kafka.connection import ANSWER_S, Broker
from richter.adapters.kafka.topics import TRIES, partitions_of
from richter.domain.ticks import Ns
from richter.errors import TransportError

__all__ = ["Start", "TopicReader"]

Start = Literal["beginning", "latest"] | Ns
"""Where to begin: at the oldest record, behind the newest, or at the first whose timestamp is this or later."""

_NO_GROUP: Final = "richter-reading"
_NO_OFFSET: Final = -1
_PASSING: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class TopicReader:
    """Reads all partitions of a topic; sees what is committed, never what a transaction took back.

    Args:
        broker: the cluster.
        topic: its name, with the prefix.
        start: where to begin.

    Attributes:
        begins: partition -> its oldest offset when the reader was opened.
        starts: partition -> where reading begins.
        ends: partition -> offset behind its last record when the reader was opened; records of a transaction
            that was open then lie behind it.
        positions: partition -> offset behind what has been read or is known to hold no record.

    Raises:
        TransportError: the cluster does not answer, or the topic is missing.
    """

    def __init__(self, broker: Broker, topic: str, *, start: Start = "beginning") -> None:
        self.topic = topic
        self._broker = broker
        places = [TopicPartition(topic, number) for number in range(partitions_of(broker, [topic])[topic])]
        admin = broker.admin()
        # The beginnings first: what comes in between must not lie before one, or behind an end.
        self.begins = self._offsets(admin, places, OffsetSpec.earliest())
        at = {} if isinstance(start, str) else self._offsets(admin, places, _since(start))
        self.ends = self._offsets(admin, places, OffsetSpec.latest())
        if start == "beginning":
            self.starts = dict(self.begins)
        else:
            # Where no record is that young, the next one will be.
            self.starts = {
                number: end if at.get(number, _NO_OFFSET) == _NO_OFFSET else at[number]
                for number, end in self.ends.items()
            }
        self.positions = dict(self.starts)
        self._consumer = Consumer(
            broker.config(
                group_id=_NO_GROUP,  # The client wants a name; nothing is ever asked or kept under it.
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                isolation_level="read_committed",
                # Where a log ends with a transaction's marker, this alone tells that nothing more is to come.
                enable_partition_eof=True,
                # Retention may take the oldest records while they are read: then on from the oldest that is left.
                auto_offset_reset="earliest",
                fetch_wait_max_ms=100,
                queued_max_messages_kbytes=16_384,
            )
        )
        self._consumer.assign(
            [TopicPartition(topic, number, offset) for number, offset in self.starts.items()]
        )

    def read(self, max_records: int = 2000, timeout_s: float = 0.2) -> list[Message]:
        """The next records, in order within each partition; none when none come in time.

        Raises:
            TransportError: the topic cannot be read any further.
        """
        try:
            messages: list[Message] = self._consumer.consume(max_records, timeout_s)
        except KafkaException as error:
            raise self._broker.failure(error) from error
        records = []
        for message in messages:
            wrong: KafkaError | None = message.error()
            if wrong is not None and wrong.code() != KafkaError._PARTITION_EOF:
                if wrong.retriable() and not wrong.fatal():
                    continue
                raise self._broker.failure(wrong)
            partition, offset = _place(message)
            if offset < self.positions[partition]:
                raise TransportError("the topic was made anew while it was read", self.topic, "read it again")
            if wrong is None:
                records.append(message)
                offset += 1
            self.positions[partition] = offset
        return records

    def at_end(self) -> bool:
        """Whether everything has been read that was there when the reader was opened."""
        return all(self.positions[partition] >= end for partition, end in self.ends.items())

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _offsets(
        self, admin: AdminClient, places: list[TopicPartition], spec: OffsetSpec
    ) -> Mapping[int, int]:
        for tries_left in reversed(range(TRIES)):
            try:
                asked = admin.list_offsets(
                    dict.fromkeys(places, spec),
                    isolation_level=IsolationLevel.READ_COMMITTED,
                    request_timeout=ANSWER_S,
                )
                return {place.partition: future.result().offset for place, future in asked.items()}
            except KafkaException as error:
                if not (tries_left and error.args[0].code() in _PASSING):
                    raise self._broker.failure(error) from error
                time.sleep(0.1)
        raise AssertionError  # The last try returns or raises.


def _since(ns: Ns) -> OffsetSpec:
    made: OffsetSpec = OffsetSpec.for_timestamp(ns // 1_000_000)  # Records carry milliseconds, the rest cut.
    return made


def _place(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None  # What was consumed has its place.
    return partition, offset
