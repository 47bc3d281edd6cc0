"""A connection to the brokers: settings in, librdkafka's configuration out, and its errors in words.

References:
    https://docs.confluent.io/platform/current/clients/librdkafka/html/md_CONFIGURATION.html
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from richter.config import Settings
from richter.errors import ConfigError, TransportError

__all__ = ["ANSWER_S", "Broker"]

ANSWER_S: Final = 5.0
"""So long a broker may take to answer a question."""
PATIENCE_S: Final = (1.0, 1.5, 3.0)
"""Tries of the first question, which also connects."""

_LEVELS: Final = (
    "error",
    "error",
    "error",
    "error",
    "warning",
    "info",
    "info",
    "debug",
)  # By syslog's number.
_REFUSED: Final = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}


class _Log:
    """What librdkafka logs with."""

    def log(self, level: int, text: str, *arguments: object) -> None:
        told = text % arguments if arguments else text
        if "FAIL" not in told:  # Its clients reconnect by themselves and tell of each try, hundreds a second.
            structlog.get_logger("richter.kafka").debug("librdkafka", text=told, severity=level)


class Broker:
    """Where the brokers are, how to speak to them, and what they said last.

    Args:
        settings: addresses and security.
        client: what this process calls itself.
    """

    def __init__(self, settings: Settings, client: str) -> None:
        self.servers = settings.kafka_bootstrap_servers
        self._client = client
        self._security = _security(settings)
        self._protocol = settings.kafka_security_protocol
        self._lock = threading.Lock()
        self._last: KafkaError | None = None

    def config(self, **more: Any) -> dict[str, Any]:
        """Configuration of a client; names are librdkafka's with underscores for dots."""
        return {
            "bootstrap.servers": self.servers,
            "client.id": f"richter-{self._client}",
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 1000,
            "error_cb": self._note,
            "logger": _Log(),
            **self._security,
            **{name.replace("_", "."): value for name, value in more.items()},
        }

    def admin(self) -> AdminClient:
        """A client for questions about the cluster."""
        return AdminClient(self.config())

    def cluster(self, admin: AdminClient | None = None) -> ClusterMetadata:
        """What the cluster is made of.

        Raises:
            TransportError: no broker answers, or it refuses us.
        """
        asked = admin or self.admin()
        for patience_s in PATIENCE_S:
            try:
                return asked.list_topics(timeout=patience_s)
            except KafkaException as error:
                asked.poll(0)  # What is wrong comes through the callback.
                failure, last = self.failure(error), patience_s == PATIENCE_S[-1]
                if last or self._is_refused():
                    raise failure from error
        raise AssertionError  # The last try returns or raises.

    def _is_refused(self) -> bool:
        """Whether somebody is there who will not have us: there is nothing to wait for."""
        with self._lock:
            return self._last is not None and self._last.code() in (*_REFUSED, KafkaError._SSL)

    def failure(self, error: KafkaException | KafkaError) -> TransportError:
        """Say what a client's failure means, and what to do about it."""
        found = error.args[0] if isinstance(error, KafkaException) else error
        with self._lock:
            last = self._last
        told = (
            last
            if last is not None
            and found.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)
            else found
        )
        text = told.str().split("(after ")[0].strip().rstrip(".")
        if told.code() in _REFUSED:
            return TransportError(
                f"the Kafka broker refuses us ({text})",
                self.servers,
                "check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM, and what this user may do",
            )
        if told.code() == KafkaError._SSL or "ssl" in text.lower():
            return TransportError(
                f"the Kafka broker's certificate or protocol does not fit ({text})",
                self.servers,
                "check KAFKA_SSL_CA and KAFKA_SECURITY_PROTOCOL",
            )
        if told.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            return TransportError(
                f"a topic is missing ({text})", self.servers, "create it: richter topics create"
            )
        if found.code() in (
            KafkaError._TRANSPORT,
            KafkaError._TIMED_OUT,
            KafkaError._ALL_BROKERS_DOWN,
            KafkaError._RESOLVE,
        ):
            hint = (
                ""
                if "ssl" in self._protocol
                else "; a broker that speaks TLS wants KAFKA_SECURITY_PROTOCOL=ssl"
            )
            return TransportError(
                f"no Kafka broker answers ({text})",
                self.servers,
                f"start one with `richter kafka up`, or set KAFKA_BOOTSTRAP_SERVERS{hint}",
            )
        return TransportError(
            f"the Kafka client failed ({text})", self.servers, "see its log with --log-level debug"
        )

    def _note(self, error: KafkaError) -> None:
        with self._lock:
            known = self._last is not None and self._last.code() == error.code()
            # That nobody is left to ask says less than why.
            if error.code() != KafkaError._ALL_BROKERS_DOWN or self._last is None:
                self._last = error
        if not known:
            structlog.get_logger("richter.kafka").debug("client_error", text=error.str(), code=error.name())


def _security(settings: Settings) -> Mapping[str, Any]:
    protocol = settings.kafka_security_protocol
    config: dict[str, Any] = {"security.protocol": protocol}
    if protocol.startswith("sasl"):
        if not settings.kafka_sasl_username or settings.kafka_sasl_password is None:
            raise ConfigError(
                f"kafka_security_protocol {protocol} needs a user and a password",
                None,
                "set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
            )
        config |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_sasl_username,
            "sasl.password": settings.kafka_sasl_password,
        }
    if "ssl" in protocol:
        for name, path in (
            ("ssl.ca.location", settings.kafka_ssl_ca),
            ("ssl.certificate.location", settings.kafka_ssl_certificate),
            ("ssl.key.location", settings.kafka_ssl_key),
        ):
            if path is not None:
                config[name] = str(_readable(name, path))
        if settings.kafka_ssl_key_password is not None:
            config["ssl.key.password"] = settings.kafka_ssl_key_password
    return config


def _readable(name: str, path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(
            f"the file for {name} cannot be read ({error.strerror})",
            str(path),
            "check the KAFKA_SSL_ settings",
        ) from error
    return path
