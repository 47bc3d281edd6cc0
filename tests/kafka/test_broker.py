"""Real brokers: they answer, keep what they acknowledged, and are started and stopped by what richter remembers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient

from richter.adapters.broker.cluster import Cluster
from richter.adapters.broker.probe import ask, free_ports
from richter.errors import ArgumentsError, TransportError
from tests.kafka import tools
from tests.kafka.test_broker_settings import KAFKA


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker to stop and to kill."""
    tools.has_kafka()
    cluster = Cluster(tmp_path_factory.mktemp("one") / "a folder's = name")
    yield cluster
    cluster.stop()


def run(cluster: Cluster) -> None:
    """See that it runs; its first start takes free ports."""
    cluster.start(port=None if cluster.layout else 0)


def richter(*arguments: str, folder: Path, **environ: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the answer of `richter kafka … --json`."""
    done = subprocess.run(
        [*KAFKA, *arguments, "--json"],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_broker_answers_and_a_free_port_does_not(kafka: str) -> None:
    answer = ask(kafka, timeout_s=10)

    assert answer is not None
    assert answer.nodes
    assert ask(f"127.0.0.1:{free_ports(1)[0]}", timeout_s=0.5) is None


def test_records_go_in_and_come_out(kafka: str, topic: Callable[..., str], group: str) -> None:
    name = topic()
    records = {f"key-{each}": f"value-{each}" for each in range(300)}

    tools.produce(kafka, name, records)
    read = tools.consume(kafka, name, group, len(records))

    assert len(read) == 300
    assert {key: value for _, key, value in read} == records
    assert {partition for partition, _, _ in read} == {0, 1, 2}


def test_a_misspelt_topic_is_not_made(kafka: str, unique: Callable[[str], str]) -> None:
    name, failed = unique("never-made"), []
    producer = Producer({"bootstrap.servers": kafka, "topic.metadata.propagation.max.ms": 100})

    producer.produce(name, "x", on_delivery=lambda error, _: failed.append(error.code()))
    producer.flush(tools.LIMIT_S)

    assert failed == [KafkaError.UNKNOWN_TOPIC_OR_PART]
    with AdminClient({"bootstrap.servers": kafka}) as client:
        assert name not in client.list_topics(timeout=10).topics


def test_two_starts_at_once_start_one_broker_and_it_does_not_share_our_session(one: Cluster) -> None:
    one.stop()
    started: list[tuple[int, ...]] = []
    threads = [threading.Thread(target=lambda: started.append(one.start(port=0))) for _ in range(2)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * tools.LIMIT_S)

    (node,) = one.status().nodes
    assert sorted(started) == [(), (1,)]
    assert node.answers
    assert node.rss_mib is not None
    assert 50 < node.rss_mib < 2000
    assert node.pid is not None
    assert os.getsid(node.pid) != os.getsid(0)


def test_a_running_cluster_is_not_moved(one: Cluster) -> None:
    run(one)
    before = one.addresses()

    with pytest.raises(ArgumentsError, match=f"runs already, on {before}"):
        one.start(port=free_ports(1)[0])

    assert one.start() == ()
    assert one.addresses() == before


def test_a_killed_broker_comes_back_with_all_that_it_acknowledged(
    one: Cluster, unique: Callable[[str], str], group: str
) -> None:
    run(one)
    name = unique("kept")
    tools.create_topic(one.addresses(), name)
    before = one.status().nodes[0].pid

    with tools.Writing(one.addresses(), name) as writing:
        writing.more(300)
        one.kill_node(1)
        killed = one.status()
        one.start_node(1)
        writing.more(300)
    read = tools.consume(one.addresses(), name, group, len(writing.acknowledged))

    assert (killed.nodes[0].pid, killed.answers) == (None, False)
    assert one.status().nodes[0].pid not in (None, before)
    assert len(writing.acknowledged) >= 600
    assert set(writing.acknowledged) <= {key for _, key, _ in read}
    assert len({key for _, key, _ in read}) == len(read)
    # Else the kill struck between two records, and proves nothing.
    assert writing.longest_gap_s > 0.5


def test_data_and_address_outlive_a_stop_and_ports_may_change(
    one: Cluster, unique: Callable[[str], str], group: str
) -> None:
    run(one)
    name, before = unique("kept"), one.addresses()
    tools.create_topic(one.addresses(), name)
    tools.produce(one.addresses(), name, {"a": "1", "b": "2"})
    cluster_id = one.status().cluster_id

    (stopped,) = one.stop()
    run(one)
    same = one.addresses()
    one.stop()
    one.start(port=0)
    read = tools.consume(one.addresses(), name, group, 2)

    assert not stopped.killed
    assert same == before
    assert one.addresses() != before
    assert one.status().cluster_id == cluster_id
    assert sorted((key, value) for _, key, value in read) == [("a", "1"), ("b", "2")]


def test_the_commands_start_look_and_stop_and_touch_no_other_broker(
    one: Cluster, kafka: str, tmp_path: Path
) -> None:
    one.stop()
    where = ("--dir", str(one.folder))

    down_code, down = richter("status", *where, folder=tmp_path, KAFKA_BOOTSTRAP_SERVERS="")
    up_code, up = richter("up", "--port", "0", *where, folder=tmp_path, KAFKA_BOOTSTRAP_SERVERS="")
    again_code, again = richter("up", *where, folder=tmp_path, KAFKA_BOOTSTRAP_SERVERS="")
    status_code, status = richter("status", *where, folder=tmp_path, KAFKA_BOOTSTRAP_SERVERS="")
    stop_code, stop = richter("down", *where, folder=tmp_path)
    none_code, none = richter("down", *where, folder=tmp_path)

    assert (down_code, down["answers"]) == (1, False)
    assert (up_code, up["started"], up["answers"]) == (0, [1], True)
    assert (again_code, again["started"], again["brokers"][0]["pid"]) == (0, [], up["brokers"][0]["pid"])
    assert (status_code, status["brokers"][0]["answers"]) == (0, True)
    assert status["bootstrap_servers"] == up["bootstrap_servers"] == one.addresses()
    assert (stop_code, [each["pid"] for each in stop["stopped"]]) == (0, [up["brokers"][0]["pid"]])
    assert (none_code, none["stopped"]) == (0, [])
    assert not one.is_running
    assert ask(one.addresses(), timeout_s=0.5) is None
    assert ask(kafka, timeout_s=10) is not None


def test_a_broker_that_the_settings_name_is_used_and_none_is_started(kafka: str, tmp_path: Path) -> None:
    code, told = richter("up", folder=tmp_path, KAFKA_BOOTSTRAP_SERVERS=kafka)
    status_code, status = richter("status", folder=tmp_path, KAFKA_BOOTSTRAP_SERVERS=kafka)
    silent = f"127.0.0.1:{free_ports(1)[0]}"
    silent_code, _ = richter("status", folder=tmp_path, KAFKA_BOOTSTRAP_SERVERS=silent)

    assert (code, told["started"], told["answers"]) == (0, [], True)
    assert told["other"]["bootstrap_servers"] == kafka
    assert (status_code, status["other"]["cluster_id"]) == (0, told["other"]["cluster_id"])
    assert silent_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_broker_that_ends_while_it_starts_is_told_with_its_log(one: Cluster) -> None:
    run(one)  # So that its folder is formatted.
    one.stop()

    with pytest.raises(TransportError) as raised:
        one.start(settings={"broker.heartbeat.interval.ms": "often"})

    assert "broker 1 ended while it was starting; " in str(raised.value)
    assert "Invalid value often for configuration broker.heartbeat.interval.ms" in str(raised.value)
    assert not one.is_running
    assert one.start() == (1,)


def test_three_brokers_go_on_without_one_and_take_it_back(
    tmp_path: Path, unique: Callable[[str], str], group: str
) -> None:
    tools.has_kafka()
    cluster, name = Cluster(tmp_path / "three"), unique("copied")
    try:
        cluster.start(3, 0)
        servers = cluster.addresses()
        tools.create_topic(servers, name)
        all_in_sync, least = (
            tools.in_sync(servers, name),
            tools.topic_setting(servers, name, "min.insync.replicas"),
        )

        with tools.Writing(servers, name) as writing:
            writing.more(200)
            cluster.kill_node(2)
            tools.wait(lambda: tools.in_sync(servers, name) == {1, 3}, "new leaders")
            writing.more(200)
            while_two = cluster.status()
            cluster.start_node(2)
            tools.wait(lambda: tools.in_sync(servers, name) == {1, 2, 3}, "third copy")
            writing.more(200)
        read = tools.consume(servers, name, group, len(writing.acknowledged))
    finally:
        # Not in good order, as the last of three would take its time.
        cluster.stop(deadline_s=1)

    assert (all_in_sync, least) == ({1, 2, 3}, "2")
    assert [node.answers for node in while_two.nodes] == [True, False, True]
    assert writing.failed == []
    assert set(writing.acknowledged) <= {key for _, key, _ in read}
    assert len({key for _, key, _ in read}) == len(read)
    assert writing.longest_gap_s < 20
    assert not cluster.is_running


def test_a_lone_node_that_does_not_exist_is_told(one: Cluster) -> None:
    run(one)

    with pytest.raises(ArgumentsError, match="no such broker: 4; it has 1"):
        one.kill_node(4)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_the_secure_broker_takes_the_password_and_only_that(
    mechanism: str, secure_kafka: tools.SecureKafka
) -> None:
    errors: list[int] = []
    told = {"error_cb": lambda error: errors.append(error.code())}
    right = secure_kafka.client(mechanism)
    wrong = secure_kafka.client(mechanism, {"sasl.password": "guess", **told})
    stranger = secure_kafka.client(mechanism, {"ssl.ca.location": str(secure_kafka.other_ca), **told})

    assert AdminClient(right).list_topics(timeout=20).cluster_id
    for settings, code in ((wrong, KafkaError._AUTHENTICATION), (stranger, KafkaError._SSL)):
        errors.clear()
        client = AdminClient(settings)
        tools.wait(lambda client=client, code=code: client.poll(0.1) >= 0 and code in errors, f"error {code}")
    assert ask(secure_kafka.bootstrap, timeout_s=1) is None
    assert ask(secure_kafka.plain, timeout_s=10) is not None


def test_an_interrupted_start_leaves_nothing_behind(one: Cluster) -> None:
    one.stop()
    process = subprocess.Popen(
        [*KAFKA, "up", "--port", "0", "--dir", str(one.folder)],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    tools.wait(lambda: one.is_running, "process of the broker")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=tools.LIMIT_S)

    assert process.returncode == 130
    assert "interrupted" in told
    tools.wait(lambda: not one.is_running, "end of the broker")
