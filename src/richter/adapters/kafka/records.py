"""Consumed records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

__all__ = ["Record", "records_of"]


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record of a topic.

    Attributes:
        partition: it is in.
        offset: its number there.
        key: None where there is none.
        value: None for a tombstone.
        message: the client's.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    message: Any

    @property
    def headers(self) -> dict[str, bytes]:
        """The last of each name."""
        return {name: value or b"" for name, value in self.message.headers() or ()}


def records_of(messages: Iterable[Message], ends: dict[int, int] | None = None) -> dict[int, list[Record]]:
    """The records among what was consumed, by partition, in order.

    Args:
        messages: consumed.
        ends: takes partition -> offset where a consumer with `enable.partition.eof` met the end of one.

    Raises:
        KafkaException: an error among them that does not pass by itself.
    """
    found: dict[int, list[Record]] = {}
    for message in messages:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF and ends is not None:
                place: Any = message.partition()
                ends[place] = message.offset() or 0
                continue
            if error.fatal() or not error.retriable():
                raise KafkaException(error)
            continue
        partition: Any = message.partition()
        offset: Any = message.offset()
        key: Any = message.key()
        value: Any = message.value()
        found.setdefault(partition, []).append(Record(partition, offset, key, value, message))
    return found
