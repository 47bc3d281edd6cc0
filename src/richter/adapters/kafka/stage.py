"""Consume, transform, produce, exactly once: offsets and outputs commit in one transaction, or neither does.

Classic group protocol, static membership, one transactional id for each place in the group: so a process that is
started again goes on within a second or two, and one that was given up cannot write any more. Whatever fails, the
stage is of no use afterwards and a new one goes on from what is committed: there is no state to be put back.

References:
    https://cwiki.apache.org/confluence/display/KAFKA/KIP-447%3A+Producer+scalability+for+exactly+once+semantics
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from richter.adapters.kafka.connection import ANSWER_S, Broker
from richter.adapters.kafka.producer import PRODUCER, Headers
from richter.adapters.kafka.records import Record, records_of
from richter.adapters.kafka.topic_watch import TopicWatch
from richter.errors import TransportError

__all__ = ["COMMIT_S", "FencedError", "Handler", "Output", "Stage", "StageStatus"]

BATCH: Final = 2000
COMMIT_S: Final = 0.05
"""A transaction commits when its input is drained, and at the latest after so long."""
BEHIND_COMMIT_S: Final = 0.5
"""And after so long while input waits: a commit costs some 40 ms, and nobody sees these rows sooner by it."""
PATIENCE_S: Final = 60.0
"""So long a broker that does not answer is asked again before the stage gives up."""
LEAVING_S: Final = 5.0
"""And so long once the stage is to end."""
HANGS_S: Final = 3.0
"""A call that takes so much longer than its timeout does not come back."""
LAG_S: Final = 2.0
TRANSACTION_MS: Final = 10_000
SESSION_MS: Final = 6_000
HEARTBEAT_MS: Final = SESSION_MS // 4

_REPLACED: Final = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()

Result = TypeVar("Result")


class FencedError(TransportError):
    """Another process has taken this one's place in the group."""


class Output(msgspec.Struct, frozen=True, gc=False):
    """A record to be written."""

    topic: str
    value: bytes
    key: bytes | None
    partition: int = -1
    headers: Headers | None = None


class Handler(Protocol):
    """What a stage does with records; each partition has a state of its own."""

    def assigned(self, partition: int, committed: int, note: str | None, begin: int) -> int:
        """The partition is ours from now on.

        Args:
            partition: its number.
            committed: the first offset whose outputs are not committed.
            note: what `note` said at that commit; None where nothing is committed.
            begin: of the partition's log.

        Returns:
            The offset to read from: outputs of records before `committed` are not written.
        """

    def revoked(self, partition: int) -> None:
        """The partition is not ours any more."""

    def take(self, partition: int, records: list[Record], writes: bool) -> Iterable[Output]:
        """Work on records of a partition; without `writes` for the state alone."""

    def note(self, partition: int) -> str:
        """What the next owner has to know."""


class StageStatus(msgspec.Struct):
    """How a stage stands.

    Attributes:
        partitions: that are ours.
        commits: transactions committed.
        aborts: and given up.
        lag: records not read yet, of our partitions; None until it was asked.
        rebuild_s: what the last rebuild of state took.
        rebuilt: records read for it.
    """

    partitions: list[int] = msgspec.field(default_factory=list)
    commits: int = 0
    aborts: int = 0
    lag: int | None = None
    rebuild_s: float = 0.0
    rebuilt: int = 0


class _Place(msgspec.Struct):
    """A partition: from where on it writes, and what comes next."""

    writes_from: int
    next: int
    assigned_at: float
    read: int = 0
    dirty: bool = False
    rebuilding: bool = False


class Stage:
    """Runs a handler over a topic until it is over or lost.

    Args:
        broker: the cluster.
        topic: to be read.
        group: of the consumers.
        instance: this process's place in it.
        handler: does the work.
        status: is kept up to date.
        commit_s: see `COMMIT_S`.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        group: str,
        instance: str,
        handler: Handler,
        status: StageStatus,
        *,
        commit_s: float = COMMIT_S,
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._instance = instance
        self._handler = handler
        self._status = status
        self._commit_s = commit_s
        self._places: dict[int, _Place] = {}
        self._begun: float | None = None
        self._is_over: Callable[[], bool] = lambda: False
        self._lost = False
        self._replaced = False
        self._lag_at = 0.0
        self._watch = TopicWatch(broker, topic)
        self._log = structlog.get_logger("richter.stage")
        self._producer = Producer(
            broker.config(
                **PRODUCER, transactional_id=f"{group}-{instance}", transaction_timeout_ms=TRANSACTION_MS
            )
        )
        consumer = broker.config(
            group_id=group,
            group_instance_id=instance,
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="error",  # A jump over lost records has to be told.
            isolation_level="read_committed",
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            fetch_wait_max_ms=100,
            queued_max_messages_kbytes=65536,
        )
        note = consumer["error_cb"]

        def noted(error: KafkaError) -> None:
            self._replaced = self._replaced or _is_replaced(error)
            note(error)

        self._consumer = Consumer({**consumer, "error_cb": noted})

    def run(self, is_over: Callable[[], bool]) -> None:
        """Work until it is over.

        Raises:
            FencedError: another process has this one's place.
            TransportError: the stage is lost; a new one goes on from what is committed.
        """
        self._is_over = is_over
        try:
            self._patiently(lambda: self._producer.init_transactions(5.0))
            self._consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not is_over():
                self._round()
            self._commit()
        except KafkaException as error:
            self._lost = True
            raise self._failure(error.args[0]) from error
        except BaseException:
            self._lost = True
            raise
        finally:
            self._close()

    def _measure_lag(self) -> None:
        """Ask how much is left to read."""
        lag = 0
        for partition, place in list(self._places.items()):
            with suppress(KafkaException):
                _, end = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, partition), cached=True
                )
                lag += max(0, end - place.next)
        self._status.lag = lag

    def _round(self) -> None:
        self._watch.look()
        if time.monotonic() - self._lag_at >= LAG_S:
            self._lag_at = time.monotonic()
            self._measure_lag()
        # One call: from its own batch the client takes what a rebalance meanwhile has made void.
        messages = self._consumer.consume(BATCH, 0)
        if not messages and self._begun is None:
            messages = self._consumer.consume(1, 0.1)
        self._producer.poll(0)
        for partition, records in records_of(messages).items():
            place = self._places.get(partition)
            if place is not None:
                self._take(partition, place, records)
        patience_s = self._commit_s if len(messages) < BATCH else max(self._commit_s, BEHIND_COMMIT_S)
        if self._begun is not None and (not messages or time.monotonic() - self._begun >= patience_s):
            self._commit()

    def _take(self, partition: int, place: _Place, records: list[Record]) -> None:
        if records[0].offset < place.next:
            raise TransportError(
                "the topic was made anew while it was read", f"{self._topic} [{partition}]", "start again"
            )
        known = [record for record in records if record.offset < place.writes_from]
        if known:
            place.read += len(known)
            for _ in self._handler.take(partition, known, writes=False):
                pass
        new = records[len(known) :] if known else records
        if place.rebuilding and records[-1].offset >= place.writes_from - 1:
            place.rebuilding = False
            self._status.rebuild_s = time.monotonic() - place.assigned_at
            self._status.rebuilt = place.read
        place.next = records[-1].offset + 1
        if not new:
            return
        if self._begun is None:
            self._producer.begin_transaction()
            self._begun = time.monotonic()
        place.dirty = True
        for output in self._handler.take(partition, new, writes=True):
            self._produce(output)

    def _produce(self, output: Output) -> None:
        while True:
            try:
                self._producer.produce(
                    output.topic,
                    output.value,
                    output.key,
                    partition=output.partition,
                    headers=output.headers,
                )
                return
            except BufferError:
                self._producer.poll(0.05)

    def _commit(self) -> None:
        """Commit what was consumed and produced since the last time."""
        if self._begun is None:
            return
        offsets = [
            TopicPartition(self._topic, partition, place.next, metadata=self._handler.note(partition))
            for partition, place in self._places.items()
            if place.dirty
        ]
        self._patiently(lambda: self._send_offsets(offsets))
        self._patiently(lambda: self._producer.commit_transaction(5.0))
        self._begun = None
        self._status.commits += 1
        for place in self._places.values():
            place.dirty = False

    def _send_offsets(self, offsets: list[TopicPartition]) -> None:
        """Add the offsets to the transaction.

        When the group's coordinator goes down meanwhile, the client forgets its timeout and may never come back. Then
        the call is left behind on a thread of its own, and the stage with its producer is given up.

        Raises:
            TransportError: it does not come back.

        References:
            https://github.com/confluentinc/librdkafka/issues/5456
            https://github.com/confluentinc/librdkafka/issues/5511
        """
        group = self._consumer.consumer_group_metadata()
        failed: list[BaseException] = []

        def send() -> None:
            try:
                self._producer.send_offsets_to_transaction(offsets, group, ANSWER_S)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=send, name="offsets", daemon=True)
        thread.start()
        thread.join(ANSWER_S + HANGS_S)
        if thread.is_alive():
            raise TransportError("the Kafka client hangs: the group's coordinator went down during a commit")
        if failed:
            raise failed[0]

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        if not assigned or self._lost:
            consumer.incremental_assign([])
            return
        self._commit()  # What follows may take longer than a transaction may stay open.
        for place in self._committed(assigned):
            begin, end = self._patiently(lambda place=place: consumer.get_watermark_offsets(place, 5.0))  # type: ignore[misc]
            committed = min(max(place.offset, begin), end)
            if place.offset >= 0 and committed != place.offset:
                self._log.error(
                    "records_lost",
                    text=f"{self._topic} [{place.partition}] has {begin} to {end}, and {place.offset} is next: "
                    f"goes on at {committed}",
                )
            note = place.metadata if place.offset >= 0 else None
            start = max(begin, self._handler.assigned(place.partition, committed, note, begin))
            self._places[place.partition] = _Place(
                committed, start, time.monotonic(), rebuilding=start < committed
            )
            consumer.incremental_assign([TopicPartition(self._topic, place.partition, start)])
            self._log.info(
                "assigned",
                text=f"{self._topic} [{place.partition}] is ours: goes on at {committed}"
                + (f", reads from {start} for its state" if start < committed else ""),
            )
        self._status.partitions = sorted(self._places)

    def _committed(self, assigned: list[TopicPartition]) -> list[TopicPartition]:
        """Where each of these partitions stands; waits for a transaction of the last owner to end."""

        def ask() -> list[TopicPartition]:
            found = self._consumer.committed(
                [TopicPartition(place.topic, place.partition) for place in assigned], 5.0
            )
            for place in found:
                if place.error is not None:
                    raise KafkaException(place.error)
            return found

        return self._patiently(ask)

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        # A transaction left open across a rebalance is committed under the new generation: rows would be doubled.
        if not self._lost:
            self._commit()
        self._forget(revoked)
        consumer.incremental_unassign(revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        self._forget(lost)
        self._lost = True
        raise KafkaException(
            KafkaError(KafkaError._ASSIGNMENT_LOST, "the group went on without this process")
        )

    def _forget(self, places: list[TopicPartition]) -> None:
        for place in places:
            if self._places.pop(place.partition, None) is not None:
                self._handler.revoked(place.partition)
                self._log.info("revoked", text=f"{self._topic} [{place.partition}] is not ours any more")
        self._status.partitions = sorted(self._places)

    def _patiently(self, ask: Callable[[], Result]) -> Result:
        """Ask the broker, and again while it cannot answer."""
        began = time.monotonic()
        while True:
            try:
                return ask()
            except KafkaException as error:
                found = error.args[0]
                again = found.retriable() or found.code() in (
                    KafkaError._TIMED_OUT,
                    KafkaError._TRANSPORT,
                    KafkaError.UNSTABLE_OFFSET_COMMIT,
                )
                patience_s = LEAVING_S if self._is_over() else PATIENCE_S
                late = time.monotonic() - began > patience_s
                if found.fatal() or found.txn_requires_abort() or not again or late:
                    raise

    def _failure(self, error: KafkaError) -> TransportError:
        self._replaced = self._replaced or _is_replaced(error)
        if error.code() == KafkaError._FENCED and not self._replaced:
            # So is who slept through the end of a transaction. The group says who else has this one's place.
            self._ask_group()
        if self._replaced:
            return FencedError(
                "another process has taken this one's place in the group",
                self._instance,
                "give each process a KAFKA_INSTANCE of its own",
            )
        return self._broker.failure(error)

    def _ask_group(self) -> None:
        """Wait until the group has answered a heartbeat or two."""
        end = time.monotonic() + 2 * HEARTBEAT_MS / 1000
        while not self._replaced and time.monotonic() < end:
            try:
                found = [message.error() for message in self._consumer.consume(BATCH, 0.1)]
            except KafkaException as error:  # It also says that partitions were lost.
                found = [error.args[0]]
            self._replaced = self._replaced or any(
                error is not None and _is_replaced(error) for error in found
            )

    def _close(self) -> None:
        self._status.partitions = []
        if self._begun is not None:
            self._status.aborts += 1
            with suppress(KafkaException):  # Else the coordinator does, when its time is over.
                self._producer.abort_transaction(2.0)
        with suppress(KafkaException):
            self._consumer.close()
        with suppress(KafkaException):  # One that was fenced says so once more.
            self._producer.purge()
            self._producer.flush(0.5)


def _is_replaced(error: KafkaError) -> bool:
    """Whether another member has this one's `group.instance.id`; a consumer tells it as a fatal error's text too."""
    if error.code() == KafkaError._FATAL:
        return _REPLACED in error.str()
    return bool(error.code() == KafkaError.FENCED_INSTANCE_ID)
