"""What the topics of the stack hold."""

from __future__ import annotations

import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from tests.compose.shell import StepFailed

_PATIENCE_S = 20.0
_POLL_S = 0.2


def values(topic: str) -> list[bytes]:
    """The values of all committed records, partition by partition.

    Raises:
        StepFailed: the topic is not there, or its end is not reached in time.
    """
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
        try:
            partitions = consumer.list_topics(topic, _PATIENCE_S).topics[topic].partitions
        except KafkaException as error:
            raise StepFailed(f"the broker does not tell of {topic}: {error}") from error
        if not partitions:
            raise StepFailed(f"there is no topic {topic}")
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
    finally:
        consumer.close()
