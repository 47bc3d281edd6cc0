"""SASL_SSL: settings reach every client, refusals are one sentence, and no secret is told."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from richter.adapters.kafka import topics
from richter.adapters.kafka.connection import Broker
from richter.config import Settings
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


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_the_whole_way_works_with_passwords_and_encryption_and_tells_no_secret(
    tmp_path: Path, secure_kafka: SecureKafka, unique: Callable[[str], str], mechanism: str
) -> None:
    prefix = unique("secure") + "."
    env = environment(secure_kafka, KAFKA_SASL_MECHANISM=mechanism, KAFKA_TOPIC_PREFIX=prefix)
    recording = tmp_path / "ticks.ndjson"
    recording.write_bytes(
        b"".join(line(row, "BTC-USD") for row in quiet_and_busy_stream(71, 500, 1.0).tolist())
    )

    steps = [
        richter(tmp_path, env, "replay", "--raw", str(recording), "--to", f"{prefix}ticks.raw", "--json"),
        richter(tmp_path, env, "featurize", "--duration", "0.08", "--json"),
        richter(tmp_path, env, "check", "--topic", f"{prefix}ticks.features", "--json"),
        richter(tmp_path, env, "replay", "--from-topic", f"{prefix}ticks.raw", "--json"),
        richter(tmp_path, env, "config"),
    ]

    sent = json.loads(steps[0].stdout)["sent"]["records"]
    assert json.loads(steps[1].stdout)["featurized"]["account"]["rows"] == sent > 0
    assert json.loads(steps[3].stdout)["same"] is True
    assert all(secure_kafka.password not in step.stdout + step.stderr for step in steps)
    assert secure_kafka.user in steps[4].stdout  # What is no secret is shown.


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"KAFKA_SASL_PASSWORD": "wrong"}, "the Kafka broker refuses us"),
        ({"KAFKA_SASL_USERNAME": "nobody"}, "the Kafka broker refuses us"),
        ({"KAFKA_SSL_CA": "other"}, "certificate or protocol does not fit"),
        ({"KAFKA_SECURITY_PROTOCOL": "plaintext"}, "KAFKA_SECURITY_PROTOCOL=ssl"),
        ({"KAFKA_SECURITY_PROTOCOL": "ssl"}, "Kafka broker"),
    ],
    ids=["password", "user", "ca", "plaintext client", "ssl without sasl"],
)
def test_a_refusal_is_one_sentence_with_its_cure(
    tmp_path: Path, secure_kafka: SecureKafka, changed: dict[str, str], told: str
) -> None:
    if changed.get("KAFKA_SSL_CA"):
        changed = {"KAFKA_SSL_CA": str(secure_kafka.other_ca)}
    env = environment(secure_kafka, KAFKA_SASL_MECHANISM="PLAIN", RICHTER_LOG_LEVEL="info", **changed)

    done = richter(tmp_path, env, "topics", "list", code=1)

    assert told in done.stderr
    assert secure_kafka.bootstrap in done.stderr
    assert done.stderr.count("\n") == 1
    assert secure_kafka.password not in done.stderr


def test_settings_that_cannot_work_are_told_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a user and a password"):
        Broker(Settings(kafka_security_protocol="sasl_ssl"), "test")
    with pytest.raises(ConfigError, match=r"ssl\.ca\.location cannot be read \(No such file"):
        Broker(Settings(kafka_security_protocol="ssl", kafka_ssl_ca=tmp_path / "none.pem"), "test")


def test_a_plaintext_broker_is_refused_by_a_client_that_wants_tls(kafka: str) -> None:
    settings = Settings(kafka_bootstrap_servers=kafka, kafka_security_protocol="ssl")

    with pytest.raises(TransportError, match="certificate or protocol does not fit"):
        topics.describe(Broker(settings, "test"))
