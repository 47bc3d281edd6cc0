"""Brokers, topics and groups for the tests of Kafka."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from richter.adapters.broker.probe import ask
from tests.kafka import tools


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of a real broker: the one in KAFKA_BOOTSTRAP_SERVERS, else one started for the tests."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        if ask(given, timeout_s=10) is None:
            pytest.fail(f"KAFKA_BOOTSTRAP_SERVERS is {given}, where no broker answers", pytrace=False)
        yield given
        return
    with tools.shared(tmp_path_factory, "kafka", tools.start_plain) as servers:
        yield servers


@pytest.fixture(scope="session")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tools.SecureKafka]:
    """A broker of our own that takes SASL_SSL."""
    with tools.shared(tmp_path_factory, "secure-kafka", tools.start_secure) as secure:
        yield secure


@pytest.fixture
def topic(kafka: str, unique: Callable[[str], str]) -> Iterator[Callable[..., str]]:
    """Makes topics of three partitions; call it with further settings: `topic(retention_ms="-1")`."""
    made: list[str] = []

    def make(partitions: int = 3, **config: str) -> str:
        name = unique("topic")
        tools.create_topic(kafka, name, partitions, **config)
        made.append(name)
        return name

    yield make
    tools.delete_topics(kafka, made)


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes names that nobody else uses: of groups, topics, transactional ids."""
    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def group(unique: Callable[[str], str]) -> str:
    """The id of a group of this test."""
    return unique("group")
