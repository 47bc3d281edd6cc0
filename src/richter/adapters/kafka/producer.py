"""An idempotent producer: each record once and in order on its partition, for as long as the producer lives.

A record's timestamp is when it was published, not when the tick was received: topics are cleared by it, and an old
recording, or a long outage's, would be gone before anyone has read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from richter.adapters.kafka.connection import Broker
from richter.errors import TransportError

__all__ = ["PRODUCER", "Headers", "RecordProducer", "TooLargeError"]

Headers = list[tuple[str, str | bytes | None]]

MESSAGE_BYTES: Final = 1_000_000  # Below a broker's default limit, which counts the record's frame too.

PRODUCER: Final[dict[str, Any]] = {
    "enable_idempotence": True,
    "compression_type": "zstd",
    "linger_ms": 5,
    "message_max_bytes": MESSAGE_BYTES,
    "queue_buffering_max_kbytes": 65536,
    "partitioner": "murmur2_random",  # The Java clients' own; a key then lies where they would put it.
    "retry_backoff_ms": 5,  # 100 by default, which each transaction would pay.
    "retry_backoff_max_ms": 200,
}


class TooLargeError(Exception):
    """A record is larger than brokers take."""


class RecordProducer:
    """Sends records to one topic.

    Nothing times out: while no broker answers, what was sent waits here, as much as the caller lets it. Once `failure`
    is set, what was not acknowledged has to be sent again by a new producer.

    Args:
        broker: the cluster.
        topic: the topic.

    Attributes:
        outstanding: records sent and not acknowledged.
        failure: why no more can be sent; None while all is well.
    """

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        # With a timeout a record could be given up while a later one arrives: the order would be lost.
        self._producer = Producer(broker.config(**PRODUCER, message_timeout_ms=0))
        self._is_closed = False
        self.outstanding = 0
        self.failure: TransportError | None = None

    def send(
        self,
        key: bytes,
        value: bytes,
        headers: Headers,
        acknowledged: Callable[[], None],
    ) -> bool:
        """Send a record; `acknowledged` is called by a later `poll`, in the order of the records of a key.

        Returns:
            False when there is no room at the moment.

        Raises:
            TooLargeError: the record is too large.
        """

        def reported(error: KafkaError | None, _: Message) -> None:
            self.outstanding -= 1
            if self._is_closed:
                return
            if error is not None:
                self.failure = self.failure or self._broker.failure(error)
            elif self.failure is None:
                acknowledged()

        try:
            self._producer.produce(self._topic, value, key, headers=headers, on_delivery=reported)
        except BufferError:
            return False
        except KafkaException as error:
            if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                raise TooLargeError from error
            self.failure = self.failure or self._broker.failure(error)
            return False
        self.outstanding += 1
        return True

    def poll(self, timeout_s: float = 0.0) -> None:
        """Serve what has come back; to be called ten times a second at least."""
        self._producer.poll(timeout_s)

    def close(self, timeout_s: float = 0.0) -> int:
        """Wait for what is outstanding, then let go; returns how many records are left."""
        self._producer.flush(timeout_s)
        left = self.outstanding
        self._is_closed = True  # What is thrown away now is no failure.
        self._producer.purge()
        self._producer.flush(1.0)
        return left
