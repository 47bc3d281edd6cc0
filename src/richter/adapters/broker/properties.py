"""What Kafka and Maven read: the pom, the brokers' settings and the settings of their log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

import msgspec

from richter.errors import ArgumentsError

__all__ = [
    "HOST",
    "VERSION",
    "Layout",
    "Node",
    "arrange",
    "java_options",
    "log_properties",
    "pom",
    "render",
    "server_properties",
]

VERSION: Final = "4.3.1"
HOST: Final = "127.0.0.1"
"""Brokers listen here only: whoever reaches them may do anything."""

_PLAIN: Final = "PLAINTEXT"
_CONTROLLER: Final = "CONTROLLER"

# kafka-tools formats the storage. Its Connect parts are 20 MB that neither the brokers nor its other tools need.
# Kafka logs through slf4j 1.7, so the bridge is log4j-slf4j-impl and not log4j-slf4j2-impl.
_JARS: Final = (
    ("org.apache.kafka", "kafka_2.13", VERSION, ()),
    ("org.apache.kafka", "kafka-tools", VERSION, ("connect-runtime", "connect-json", "connect-api")),
    ("org.apache.logging.log4j", "log4j-core", "2.26.1", ()),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.26.1", ()),
)


class Node(msgspec.Struct, frozen=True):
    """A broker and its ports; each is its own controller too.

    Args:
        node_id: from 1.
        port: where clients without encryption connect; the brokers among themselves as well.
        controller_port: where the controllers agree on the cluster's metadata.
        more_ports: of further listeners, by their name.
    """

    node_id: int
    port: int
    controller_port: int
    more_ports: dict[str, int] = {}

    @property
    def ports(self) -> tuple[int, ...]:
        """All of them."""
        return (self.port, self.controller_port, *self.more_ports.values())

    def address(self, listener: str | None = None) -> str:
        """`host:port` of a listener; None is the one without encryption."""
        return f"{HOST}:{self.port if listener is None else self.more_ports[listener]}"


class Layout(msgspec.Struct, frozen=True):
    """A cluster: its id, its brokers, and the protocols of further listeners by their name."""

    cluster_id: str
    nodes: tuple[Node, ...]
    protocols: dict[str, str] = {}

    def addresses(self, listener: str | None = None) -> str:
        """Where clients begin: `host:port` of each broker, with commas between."""
        return ",".join(node.address(listener) for node in self.nodes)


def arrange(ports: Sequence[int], brokers: int, listeners: Sequence[str] = ()) -> tuple[Node, ...]:
    """Give out ports: first one a broker for clients, then one each for the controllers, then further listeners.

    >>> [node.ports for node in arrange(range(9092, 9098), 3)]
    [(9092, 9095), (9093, 9096), (9094, 9097)]

    Raises:
        ArgumentsError: The last port would be above 65535.
    """
    if max(ports) > 65_535:
        raise ArgumentsError(
            "there are not enough ports from here on", ports[0], "choose another with --port"
        )
    return tuple(
        Node(
            each + 1,
            ports[each],
            ports[brokers + each],
            {name: ports[(2 + nth) * brokers + each] for nth, name in enumerate(listeners)},
        )
        for each in range(brokers)
    )


def server_properties(
    layout: Layout, node: Node, data: str, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """A broker's settings.

    Args:
        layout: The cluster.
        node: The broker.
        data: The folder of its log, an absolute path.
        more: Further settings; they win over these.

    References:
        https://kafka.apache.org/documentation/#brokerconfigs
    """
    clients = {_PLAIN: node.port, **node.more_ports}
    advertised = ",".join(f"{name}://{HOST}:{port}" for name, port in clients.items())
    protocols = {_PLAIN: _PLAIN, _CONTROLLER: _PLAIN, **layout.protocols}
    copies = str(len(layout.nodes))
    least = str(
        max(1, len(layout.nodes) - 1)
    )  # In sync, so that one of three may be lost without losing writes.
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.node_id),
        "controller.quorum.voters": ",".join(
            f"{each.node_id}@{HOST}:{each.controller_port}" for each in layout.nodes
        ),
        "controller.listener.names": _CONTROLLER,
        "listeners": f"{advertised},{_CONTROLLER}://{HOST}:{node.controller_port}",
        "advertised.listeners": advertised,
        "inter.broker.listener.name": _PLAIN,
        "listener.security.protocol.map": ",".join(f"{name}:{value}" for name, value in protocols.items()),
        "log.dirs": data,
        # A misspelt topic is an error and no new topic.
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": least,
        # One partition costs ten files; the defaults are 50 of each.
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": least,
        "share.coordinator.state.topic.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": least,
        # A lone consumer need not wait 3 s for others.
        "group.initial.rebalance.delay.ms": "0",
        # A broker that was killed may come back, or is replaced, after 3 s in the place of 9.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # What a killed producer left open holds up readers at most 1 s longer than its own timeout, not 10 s.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # 128 MiB by default.
        "log.cleaner.dedupe.buffer.size": "16777216",
        "log.cleaner.threads": "1",
        **(more or {}),
    }


def java_options(brokers: int) -> tuple[str, ...]:
    """The memory that a broker gets, and that it ends where this does not suffice instead of limping on."""
    memory = ("-Xms256m", "-Xmx512m") if brokers == 1 else ("-Xmx384m", "-XX:+UseSerialGC")
    return (*memory, "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")


def log_properties() -> str:
    """Settings of log4j: warnings and worse go to the file named by the system property kafka.log."""
    return render(
        {
            "status": "error",
            "rootLogger.level": "warn",
            "rootLogger.appenderRef.file.ref": "file",
            "appender.file.type": "File",
            "appender.file.name": "file",
            "appender.file.fileName": "${sys:kafka.log}",
            "appender.file.layout.type": "PatternLayout",
            "appender.file.layout.pattern": "%d{ISO8601} %p %m (%c{1})%n",
        }
    )


def render(properties: Mapping[str, str]) -> str:
    r"""Write Java properties: ASCII, one a line.

    >>> render({"log.dirs": "/tmp/Zoë", "two": "a\nb"})
    'log.dirs=/tmp/Zo\\u00eb\ntwo=a\\nb\n'
    """
    return "".join(f"{key}={_escaped(value)}\n" for key, value in properties.items())


def _escaped(value: str) -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    if value.startswith(" "):
        value = f"\\{value}"  # Else Java takes it for the space before a value.
    # Java reads Latin-1, and what is beyond the basic plane as two surrogates.
    units = memoryview(value.encode("utf-16-be")).cast("B")
    codes = (units[at] << 8 | units[at + 1] for at in range(0, len(units), 2))
    return "".join(chr(code) if code < 0x7F else f"\\u{code:04x}" for code in codes)


def pom() -> str:
    """The list of jars for Maven.

    References:
        https://maven.apache.org/pom.html
    """
    dependencies = "".join(
        f"<dependency><groupId>{escape(group)}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version><exclusions>{''.join(_exclusion(group, each) for each in without)}"
        "</exclusions></dependency>\n"
        for group, artifact, version, without in _JARS
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0">\n<modelVersion>4.0.0</modelVersion>\n'
        "<groupId>richter</groupId><artifactId>kafka</artifactId><version>1</version>"
        f"<packaging>pom</packaging>\n<dependencies>\n{dependencies}</dependencies>\n</project>\n"
    )


def _exclusion(group: str, artifact: str) -> str:
    return f"<exclusion><groupId>{group}</groupId><artifactId>{artifact}</artifactId></exclusion>"
