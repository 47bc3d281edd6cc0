"""A topic that is deleted, or made anew, while somebody reads it: the client itself says nothing of it."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import TopicDescription

from richter.adapters.kafka.connection import ANSWER_S, Broker
from richter.errors import TransportError

__all__ = ["TopicWatch"]

WATCH_S: Final = 3.0


class TopicWatch:
    """Asks now and then, without waiting, for a topic: who reads one that was deleted is told nothing of it.

    Args:
        broker: the cluster.
        topic: to be looked after.
        topic_id: it has; None takes the one it has when it is first asked for.
    """

    def __init__(self, broker: Broker, topic: str, topic_id: str | None = None) -> None:
        self._admin = broker.admin()
        self._topic = topic
        self._id = topic_id
        self._asked: Future[TopicDescription] | None = None
        self._asked_at = 0.0
        self._missed = 0

    def look(self) -> None:
        """To be called often.

        Raises:
            TransportError: the topic is gone, or another one has its name.
        """
        self._admin.poll(0)
        if self._asked is None:
            if time.monotonic() - self._asked_at >= WATCH_S:
                self._asked_at = time.monotonic()
                described = self._admin.describe_topics(
                    TopicCollection([self._topic]), request_timeout=ANSWER_S
                )
                self._asked = described[self._topic]
            return
        if not self._asked.done():
            return
        asked, self._asked = self._asked, None
        try:
            found = str(asked.result().topic_id)
        except KafkaException as error:
            # Once may be a broker that has not heard of it yet; without any answer the reader is told so itself.
            self._missed += error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            if self._missed < 2:
                return
            raise TransportError(
                "the topic does not exist any more",
                self._topic,
                f"create it: richter topics create {self._topic}",
            ) from error
        self._missed = 0
        self._id = self._id or found
        if found != self._id:
            raise TransportError("the topic was made anew while it was read", self._topic, "start again")
