"""Real brokers for tests: one for all of them, shared by pytest's workers, and one with passwords and encryption."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import pytest
import trustme
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from richter.adapters.broker.cluster import Cluster
from richter.adapters.broker.distribution import obtain
from richter.errors import RichterError

Told = TypeVar("Told")

LIMIT_S = 60
SECURE = "SECURE"


class SecureKafka(NamedTuple):
    """A broker that takes SASL (PLAIN and SCRAM-SHA-512) over TLS.

    `other_ca` is a certificate authority that has not signed the broker's certificate; `plain` is the address of the
    listener without any of it.
    """

    bootstrap: str
    ca: Path
    user: str
    password: str
    plain: str
    other_ca: Path

    def client(self, mechanism: str = "PLAIN", other: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The settings of a client; `other` ones win."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": self.user,
            "sasl.password": self.password,
            "ssl.ca.location": str(self.ca),
            "log_level": 0,
            **(other or {}),
        }


def cannot_be_had(error: RichterError) -> NoReturn:
    """End the test: these tests may be left out on somebody's laptop, but not in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"no Kafka for the tests: {error}", pytrace=False)
    pytest.skip(f"no Kafka for the tests: {error}")


def has_kafka() -> None:
    """Go on only where Apache Kafka can be started."""
    try:
        obtain(lambda line: None)
    except RichterError as error:
        cannot_be_had(error)


@contextmanager
def shared(factory: pytest.TempPathFactory, name: str, start: Callable[[Cluster], Told]) -> Iterator[Told]:
    """A cluster that all workers of pytest-xdist use; the first one starts it and the last one stops it.

    Gives what `start` returns; that is called in each worker, under a lock.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    users = folder / "users"
    users.mkdir(parents=True, exist_ok=True)
    mine = users / str(os.getpid())
    cluster = Cluster(folder)
    with _locked(folder):
        has_kafka()
        told = start(cluster)
        mine.touch()
    try:
        yield told
    finally:
        with _locked(folder):
            mine.unlink()
            # A worker that crashed has left its name behind.
            if not any(_is_alive(int(user.name)) for user in users.iterdir()):
                cluster.stop()


def start_plain(cluster: Cluster) -> str:
    """Start a broker without passwords and encryption."""
    cluster.start(1, 0)
    return cluster.addresses()


def start_secure(cluster: Cluster) -> SecureKafka:
    """Start a broker with a SASL_SSL listener; its certificates are made at the first start."""
    keys = cluster.folder / "keys"
    user, password = "richter", "correct-horse"
    ca, other_ca, server = keys / "ca.pem", keys / "other-ca.pem", keys / "server.pem"
    if not server.exists():
        keys.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(ca))
        trustme.CA().cert_pem.write_to_path(str(other_ca))
        server.write_bytes(_key_and_chain(authority.issue_cert("127.0.0.1")))
    prefix = f"listener.name.{SECURE.lower()}"
    login = "org.apache.kafka.common.security"
    cluster.start(
        1,
        0,
        listeners={SECURE: "SASL_SSL"},
        settings={
            f"{prefix}.ssl.keystore.type": "PEM",
            f"{prefix}.ssl.keystore.location": str(server),
            f"{prefix}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            f"{prefix}.plain.sasl.jaas.config": (
                f'{login}.plain.PlainLoginModule required user_{user}="{password}";'
            ),
            f"{prefix}.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
        },
    )
    with _admin(cluster.addresses()) as client:
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wish = UserScramCredentialUpsertion(user, info, password.encode())
        client.alter_user_scram_credentials([wish])[user].result(LIMIT_S)
    return SecureKafka(cluster.addresses(SECURE), ca, user, password, cluster.addresses(), other_ca)


def create_topic(servers: str, name: str, partitions: int = 3, copies: int = -1, **config: str) -> None:
    """Make a topic and wait until each of its partitions has a leader."""
    with _admin(servers) as client:
        settings = {key.replace("_", "."): value for key, value in config.items()}
        client.create_topics([NewTopic(name, partitions, copies, config=settings)])[name].result(LIMIT_S)

        def is_led() -> bool:
            found = client.list_topics(name, timeout=LIMIT_S).topics[name].partitions.values()
            return len(found) == partitions and all(each.leader >= 0 for each in found)

        wait(is_led, f"a leader of each partition of {name}")


def delete_topics(servers: str, names: list[str]) -> None:
    """Remove topics."""
    with _admin(servers) as client:
        for each in client.delete_topics(names).values() if names else ():
            each.result(LIMIT_S)


def in_sync(servers: str, topic: str) -> set[int]:
    """The nodes that have all of a topic's partitions in sync."""
    with _admin(servers) as client:
        partitions = client.list_topics(topic, timeout=LIMIT_S).topics[topic].partitions.values()
    return set.intersection(*(set(each.isrs) for each in partitions))


def topic_setting(servers: str, topic: str, name: str) -> str | None:
    """The value of a topic's setting."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    with _admin(servers) as client:
        return client.describe_configs([resource])[resource].result(LIMIT_S)[name].value


def produce(servers: str, topic: str, records: Mapping[str, str]) -> None:
    """Produce records and wait until all are acknowledged."""
    failed = []
    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True})
    for key, value in records.items():
        producer.produce(
            topic, value, key, on_delivery=lambda error, _: failed.append(error) if error else None
        )
    assert producer.flush(LIMIT_S) == 0
    assert failed == []


def consume(servers: str, topic: str, group: str, number: int) -> list[tuple[int, str, str]]:
    """Partition, key and value of a topic's first records, as a group reads them, at least so many."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    read: list[tuple[int, str, str]] = []
    try:
        consumer.subscribe([topic])
        end = time.monotonic() + LIMIT_S
        while len(read) < number:
            assert time.monotonic() < end, f"{len(read)} of {number} records after {LIMIT_S} s"
            for message in consumer.consume(500, timeout=0.5):
                if message.error():
                    raise KafkaException(message.error())
                read.append((message.partition(), message.key().decode(), message.value().decode()))
        # What would be too many is there by now too.
        for message in consumer.consume(500, timeout=0.5):
            read.append((message.partition(), message.key().decode(), message.value().decode()))
    finally:
        consumer.close()
    return read


class Writing:
    """Produces numbered records without pause, in the background, and remembers which were acknowledged and when."""

    def __init__(self, servers: str, topic: str) -> None:
        self.acknowledged: list[str] = []
        self.failed: list[str] = []
        self.times: list[float] = []
        self._servers, self._topic = servers, topic
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Writing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()

    def more(self, number: int) -> None:
        """Wait for so many more acknowledgements."""
        wanted = len(self.acknowledged) + number
        wait(lambda: len(self.acknowledged) >= wanted, f"{number} more acknowledgements")

    @property
    def longest_gap_s(self) -> float:
        """The longest time between two acknowledgements."""
        return max(after - before for before, after in zip(self.times, self.times[1:], strict=False))

    def _run(self) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self._servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "retry.backoff.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        number = 0
        while not self._over.wait(0.002):
            number += 1
            name = str(number)
            producer.produce(self._topic, name, name, on_delivery=self._on_delivery)
            producer.poll(0)
        assert producer.flush(LIMIT_S) == 0

    def _on_delivery(self, error: Any, message: Any) -> None:
        if error:
            self.failed.append(str(error))
        else:
            self.acknowledged.append(message.key().decode())
            self.times.append(time.monotonic())


def wait(condition: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait for a condition, or fail."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"no {what} after {limit_s} s"
        time.sleep(0.05)


def _admin(servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": servers, "log_level": 0})


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "users.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _key_and_chain(certificate: trustme.LeafCert) -> bytes:
    # Kafka reads keys in PKCS #8 only; trustme writes the older form.
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return b"".join([pem, *(each.bytes() for each in certificate.cert_chain_pems)])
