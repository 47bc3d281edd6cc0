"""The topics: which there are, what they are made like, and their creation."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicMetadata,
)

from richter.adapters.kafka.connection import ANSWER_S, Broker
from richter.config import Settings
from richter.errors import ArgumentsError, TransportError

__all__ = [
    "DEAD",
    "FEATURES",
    "RAW",
    "TOPICS",
    "PartitionState",
    "Topic",
    "TopicState",
    "create",
    "describe",
    "ensure",
    "partitions_of",
    "same_partitions",
]

RAW: Final = "ticks.raw"
FEATURES: Final = "ticks.features"
DEAD: Final = "ticks.dead"


TRIES: Final = 50
"""A tenth of a second each: a moment passes until every broker knows of a topic."""
UNKNOWN_TRIES: Final = 3
"""And so many of these where a broker knows nothing of it at all."""
_NOT_YET: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class Topic(msgspec.Struct, frozen=True):
    """A topic of richter.

    Attributes:
        name: without the prefix.
        what: it holds.
        compact: keeps the last record of each key for ever; else each record for a time.
    """

    name: str
    what: str
    compact: bool = False


TOPICS: Final = (
    Topic(RAW, "recorded ticks, key = product"),
    Topic(FEATURES, "feature rows"),
    Topic("ticks.predictions", "probabilities of a spike"),
    Topic("ticks.outcomes", "what then happened"),
    Topic("ticks.alerts", "onsets and all-clears"),
    Topic(DEAD, "records that cannot be read, with the reason"),
    Topic("ticks.models", "models in service", compact=True),
)


class PartitionState(msgspec.Struct, frozen=True):
    """A partition: where its log begins and ends, who leads it, and who is in step."""

    partition: int
    begin: int
    end: int
    leader: int
    in_sync: int


class TopicState(msgspec.Struct, frozen=True):
    """A topic as the cluster has it.

    Attributes:
        name: with the prefix.
        topic_id: changes when the topic is deleted and made again.
        replication: copies.
        retention_ms: -1 is for ever.
        cleanup: delete or compact.
        partitions: in order.
    """

    name: str
    topic_id: str
    replication: int
    retention_ms: int
    cleanup: str
    partitions: list[PartitionState]

    @property
    def records(self) -> int:
        """Offsets between the ends; markers of transactions count too."""
        return sum(partition.end - partition.begin for partition in self.partitions)


def create(
    broker: Broker,
    names: Iterable[str],
    settings: Settings,
    *,
    partitions: int | None = None,
    replication: int | None = None,
    retention_hours: float | None = None,
) -> list[str]:
    """Create those of these topics that do not exist.

    Args:
        broker: the cluster.
        names: of topics, with their prefix.
        settings: partitions, copies and retention where they are not given.
        partitions: of each.
        replication: copies of each.
        retention_hours: how long records are kept; infinity is for ever.

    Returns:
        The created ones.

    Raises:
        TransportError: the cluster does not answer, or refuses.
    """
    admin = broker.admin()
    cluster = broker.cluster(admin)
    missing = [name for name in dict.fromkeys(names) if name not in cluster.topics]
    if not missing:
        return []
    copies = replication or settings.kafka_replication or (3 if len(cluster.brokers) >= 3 else 1)
    hours = settings.kafka_retention_hours if retention_hours is None else retention_hours
    compacted = {settings.kafka_topic_prefix + topic.name for topic in TOPICS if topic.compact}

    def made(name: str) -> NewTopic:
        config = {"retention.ms": "-1" if hours == float("inf") else str(round(hours * 3_600_000))}
        if name in compacted:
            config = {"cleanup.policy": "compact"}
        if copies >= 3:
            config["min.insync.replicas"] = "2"
        return NewTopic(
            name,
            num_partitions=partitions or settings.kafka_partitions,
            replication_factor=copies,
            config=config,
        )

    created = []
    for name, future in admin.create_topics(
        [made(name) for name in missing], request_timeout=ANSWER_S
    ).items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:  # Another process was faster.
                continue
            if error.args[0].code() in (
                KafkaError.INVALID_REPLICATION_FACTOR,
                KafkaError.INVALID_PARTITIONS,
                KafkaError.TOPIC_EXCEPTION,
                KafkaError.INVALID_CONFIG,
            ):
                raise ArgumentsError(
                    f"the Kafka cluster cannot make this topic ({error.args[0].str().rstrip('.')})",
                    name,
                    f"brokers: {len(cluster.brokers)}; choose fewer copies, other partitions or another name",
                ) from error
            raise broker.failure(error) from error
    return created


def ensure(
    broker: Broker, names: Iterable[str], settings: Settings, *, partitions: int | None = None
) -> list[str]:
    """As `create`; returns when the topics can be used."""
    wanted = list(names)
    created = create(broker, wanted, settings, partitions=partitions)
    admin = broker.admin()
    for tries_left in reversed(range(TRIES)):
        known = broker.cluster(admin).topics
        if all(name in known and _is_led(known[name]) for name in wanted):
            return created
        if tries_left:
            time.sleep(0.1)
    raise TransportError("the topics cannot be used yet", ", ".join(wanted), "look at the brokers")


def partitions_of(broker: Broker, names: Iterable[str]) -> dict[str, int]:
    """How many partitions each of these topics has.

    Raises:
        TransportError: the cluster does not answer, or a topic is missing.
    """
    wanted = list(names)
    admin = broker.admin()
    for tries_left in reversed(range(TRIES)):
        cluster = broker.cluster(admin)
        found = {
            name: len(cluster.topics[name].partitions)
            for name in wanted
            if name in cluster.topics and _is_led(cluster.topics[name])
        }
        if len(found) == len(set(wanted)):
            return found
        unknown = [name for name in wanted if name not in cluster.topics]
        if not tries_left or (unknown and tries_left < TRIES - UNKNOWN_TRIES):
            break
        time.sleep(0.1)
    for name in unknown:
        raise TransportError("the topic does not exist", name, f"create it: richter topics create {name}")
    leaderless = next(name for name in wanted if name not in found)
    raise TransportError("a partition of the topic has no leader", leaderless, "look at the brokers")


def _is_led(topic: TopicMetadata) -> bool:
    """Whether each partition of a topic has a leader."""
    return bool(
        topic.error is None
        and topic.partitions
        and all(part.leader >= 0 for part in topic.partitions.values())
    )


def same_partitions(broker: Broker, one: str, other: str) -> int:
    """How many partitions two topics have.

    Raises:
        ArgumentsError: not the same number: a product's order would be lost between them.
    """
    found = partitions_of(broker, [one, other])
    if found[one] != found[other]:
        raise ArgumentsError(
            f"{one} has {found[one]} partitions and {other} has {found[other]}",
            None,
            f"make {other} anew with {found[one]}: richter topics create {other} --partitions {found[one]}",
        )
    return found[one]


def describe(broker: Broker, names: Iterable[str] | None = None) -> list[TopicState]:
    """The state of these topics, or of all that are not Kafka's own.

    Raises:
        TransportError: the cluster does not answer, or a topic is missing.
    """
    admin = broker.admin()
    if names is None:
        wanted = sorted(name for name in broker.cluster(admin).topics if not name.startswith("__"))
    else:
        wanted = list(partitions_of(broker, names))
    if not wanted:
        return []
    for tries_left in reversed(range(TRIES)):
        try:
            return _states(admin, wanted)
        except KafkaException as error:
            if not (tries_left and error.args[0].code() in _NOT_YET):
                raise broker.failure(error) from error
            time.sleep(0.1)
    raise AssertionError  # The last try returns or raises.


def _states(admin: AdminClient, names: list[str]) -> list[TopicState]:
    described = admin.describe_topics(TopicCollection(names), request_timeout=ANSWER_S)
    asked = {name: future.result() for name, future in described.items()}
    places = [TopicPartition(name, part.id) for name, topic in asked.items() for part in topic.partitions]
    ends = [
        {
            (place.topic, place.partition): future.result().offset
            for place, future in admin.list_offsets(
                dict.fromkeys(places, spec), request_timeout=ANSWER_S
            ).items()
        }
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
    ]
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    configs = {
        resource.name: future.result()
        for resource, future in admin.describe_configs(resources, request_timeout=ANSWER_S).items()
    }
    return [
        TopicState(
            name=name,
            topic_id=str(asked[name].topic_id),
            replication=len(asked[name].partitions[0].replicas),
            retention_ms=int(configs[name]["retention.ms"].value),
            cleanup=configs[name]["cleanup.policy"].value,
            partitions=[
                PartitionState(
                    part.id,
                    ends[0][name, part.id],
                    ends[1][name, part.id],
                    -1 if part.leader is None else part.leader.id,
                    len(part.isr),
                )
                for part in asked[name].partitions
            ],
        )
        for name in names
    ]
