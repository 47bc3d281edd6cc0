"""SASL_SSL: settings reach every client, refusals are one sentence, and no secret is told."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from richter.adapters.kafka import topics
from richter.adapters.kafka.connection import Broker
from richter.config import Given, Settings, resolve
from richter.errors import ConfigError, TransportError
from tests.kafka.tools import SecureKafka
from tests.live_tools import RICHTER
from tests.streams import quiet_and_busy_stream
from tests.test_parallel import line

LIMIT_S = 90


def environment(secure: SecureKafka, **changed: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "RICHTER_"))}
    return {
        **kept,
        "KAFKA_BOOTSTRAP_SERVERS": secure.bootstrap,
        "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
        "KAFKA_SASL_USERNAME": secure.user,
        "KAFKA_SASL_PASSWORD": secure.password,
        "KAFKA_SSL_CA": str(secure.ca),
        "RICHTER_LOG_LEVEL": "debug",
        **changed,
    }


def settings_of(secure: SecureKafka, **changed: str) -> Settings:
    given = {
        "kafka_bootstrap_servers": secure.bootstrap,
        "kafka_security_protocol": "sasl_ssl",
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": secure.user,
        "kafka_sasl_password": secure.password,
        "kafka_ssl_ca": str(secure.ca),
        **changed,
    }
    return resolve({name: Given(value, "test", is_text=True) for name, value in given.items()}).settings


def richter(
    folder: Path, env: dict[str, str], *arguments: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*RICHTER, *arguments, "--data", str(folder / "data")],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_the_whole_way_works_with_passwords_and_encryption_and_tells_no_secret(
    tmp_path: Path, secure_kafka: SecureKafka, unique: Callable[[str], str]
) -> None:
    prefix = unique("secure") + "."
    env = environment(secure_kafka, KAFKA_SASL_MECHANISM="SCRAM-SHA-512", KAFKA_TOPIC_PREFIX=prefix)
    recording = tmp_path / "ticks.ndjson"
    recording.write_bytes(
        b"".join(line(row, "BTC-USD") for row in quiet_and_busy_stream(71, 500, 1.0).tolist())
    )

    steps = [
        richter(tmp_path, env, "replay", "--raw", str(recording), "--to", f"{prefix}ticks.raw", "--json"),
        richter(tmp_path, env, "featurize", "--duration", "0.05", "--json"),
        richter(tmp_path, env, "replay", "--from-topic", f"{prefix}ticks.raw", "--json"),
        richter(tmp_path, env, "config"),
    ]

    sent = json.loads(steps[0].stdout)["sent"]["records"]
    assert json.loads(steps[1].stdout)["featurized"]["account"]["rows"] == sent > 0
    assert json.loads(steps[2].stdout)["same"] is True
    assert all(secure_kafka.password not in step.stdout + step.stderr for step in steps)
    assert secure_kafka.user in steps[3].stdout  # What is no secret is shown.


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_each_mechanism_lets_us_in(
    tmp_path: Path, secure_kafka: SecureKafka, mechanism: Literal["PLAIN", "SCRAM-SHA-512"]
) -> None:
    assert Broker(settings_of(secure_kafka, kafka_sasl_mechanism=mechanism), "test").cluster().brokers


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kafka_sasl_password": "wrong"}, "the Kafka broker refuses us"),
        ({"kafka_sasl_username": "nobody"}, "the Kafka broker refuses us"),
        ({"kafka_ssl_ca": "other"}, "certificate or protocol does not fit"),
        ({"kafka_security_protocol": "plaintext"}, "KAFKA_SECURITY_PROTOCOL=ssl"),
        ({"kafka_security_protocol": "ssl"}, "no Kafka broker answers"),
    ],
    ids=["password", "user", "ca", "plaintext client", "ssl without sasl"],
)
def test_a_refusal_names_its_cure_and_no_secret(
    secure_kafka: SecureKafka, changed: dict[str, str], told: str
) -> None:
    if "kafka_ssl_ca" in changed:
        changed = {"kafka_ssl_ca": str(secure_kafka.other_ca)}
    broker = Broker(settings_of(secure_kafka, **changed), "test")

    with pytest.raises(TransportError) as raised:
        broker.cluster()

    assert told in str(raised.value)
    assert secure_kafka.bootstrap in str(raised.value)
    assert secure_kafka.password not in str(raised.value)


def test_a_refused_command_ends_with_one_sentence(tmp_path: Path, secure_kafka: SecureKafka) -> None:
    env = environment(secure_kafka, KAFKA_SASL_PASSWORD="wrong", RICHTER_LOG_LEVEL="info")

    done = richter(tmp_path, env, "featurize", "--duration", "1", code=1)

    assert "the Kafka broker refuses us" in done.stderr
    assert done.stderr.count("\n") == 1


def test_settings_that_cannot_work_are_told_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a user and a password"):
        Broker(Settings(kafka_security_protocol="sasl_ssl"), "test")
    with pytest.raises(ConfigError, match=r"ssl\.ca\.location cannot be read \(No such file"):
        Broker(Settings(kafka_security_protocol="ssl", kafka_ssl_ca=tmp_path / "none.pem"), "test")


def test_a_plaintext_broker_is_refused_by_a_client_that_wants_tls(kafka: str) -> None:
    settings = Settings(kafka_bootstrap_servers=kafka, kafka_security_protocol="ssl")

    with pytest.raises(TransportError, match="certificate or protocol does not fit"):
        topics.describe(Broker(settings, "test"))
