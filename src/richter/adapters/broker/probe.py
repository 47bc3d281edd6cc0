"""Questions to the network: is a port free, does a broker answer, which cluster is it."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import NamedTuple

from richter.adapters.broker.properties import HOST

__all__ = ["Answer", "ask", "free_ports", "is_free", "listens", "why_taken"]


class Answer(NamedTuple):
    """What a broker says of its cluster: the id, and which nodes are alive."""

    cluster_id: str
    nodes: frozenset[int]


def ask(servers: str, timeout_s: float = 2.0) -> Answer | None:
    """Ask brokers for their cluster; None when none of them answers in time.

    Args:
        servers: `host:port`, several with commas.
        timeout_s: How long to wait.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        # A refused connection is an answer here, and not a line on standard error.
        with AdminClient(
            {"bootstrap.servers": servers, "log_level": 0, "client.id": "richter-probe"}
        ) as client:
            told = client.list_topics(timeout=timeout_s)
    except KafkaException:
        return None
    # Without a broker's own answer the metadata are what the client made up of the bootstrap list.
    return Answer(told.cluster_id, frozenset(told.brokers)) if told.cluster_id else None


def listens(port: int) -> bool:
    """Whether something takes connections on a port of this machine."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False


def why_taken(port: int) -> str | None:
    """Why a port cannot be listened on; None when it can."""
    with _socket() as probe:
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return "is not allowed to this user"
        except OSError:
            return "is in use by another program"
    return None


def is_free(port: int) -> bool:
    """Whether a port can be listened on."""
    return why_taken(port) is None


def free_ports(number: int) -> list[int]:
    """So many different ports that nobody listens on at this moment."""
    with ExitStack() as held:
        sockets = [held.enter_context(_socket()) for _ in range(number)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As Java does: connections that are closing do not count.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made
