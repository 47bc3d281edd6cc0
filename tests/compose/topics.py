"""What the topics of the stack hold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from tests.compose.shell import StepFailed

_PATIENCE_S = 20.0
_POLL_S = 0.2


def values(topic: str) -> list[bytes]:
    """The values of all committed records, partition by partition.

    Raises:
        StepFailed: the topic is not there, or its end is not reached in time.
    """
    with _consumer() as consumer:
        partitions = _partitions(consumer, topic)
        consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions])
        found: dict[int, list[bytes]] = {each: [] for each in partitions}
        open_ones = set(partitions)
        deadline = time.monotonic() + _PATIENCE_S
        while open_ones:
            if time.monotonic() > deadline:
                raise StepFailed(f"{topic} was not read to its end within {_PATIENCE_S:g} s")
            for message in consumer.consume(1000, _POLL_S):
                error = message.error()
                if error is None:
                    found[message.partition()].append(message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_ones.discard(message.partition())
        return [value for each in found.values() for value in each]


def ends(topic: str) -> int:
    """How many records a topic has been given in all, counting those that end transactions.

    Raises:
        StepFailed: the topic is not there, or nobody answers.
    """
    with _consumer() as consumer:
        try:
            return sum(
                consumer.get_watermark_offsets(TopicPartition(topic, each), _PATIENCE_S)[1]
                for each in _partitions(consumer, topic)
            )
        except KafkaException as error:
            raise StepFailed(f"the broker does not tell where {topic} ends: {error}") from error


@contextmanager
def _consumer() -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": "localhost:9092",
            "group.id": "compose-test",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    try:
        found = consumer.list_topics(topic, _PATIENCE_S).topics[topic].partitions
    except KafkaException as error:
        raise StepFailed(f"the broker does not tell of {topic}: {error}") from error
    if not found:
        raise StepFailed(f"there is no topic {topic}")
    return list(found)
