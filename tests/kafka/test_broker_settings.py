"""What Kafka and Maven are told, and where the jars come from; nothing here starts a broker."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from richter.adapters.broker.cluster import Cluster
from richter.adapters.broker.distribution import obtain
from richter.adapters.broker.probe import free_ports, is_free
from richter.adapters.broker.properties import (
    VERSION,
    Layout,
    arrange,
    java_options,
    log_properties,
    pom,
    render,
    server_properties,
)
from richter.errors import (
    ArgumentsError,
    DataFolderError,
    ExtraMissingError,
    OperatorError,
    TransportError,
)
from tests.kafka import tools

KAFKA = [sys.executable, "-m", "richter", "kafka"]


def script(folder: Path, name: str, text: str) -> None:
    """A program of ours in the place of a real one."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with a Java 21, a Maven that copies two jars, and an empty cache."""
    programs = tmp_path / "programs"
    script(programs, "java", "echo 'openjdk version \"21.0.1\" 2023-10-17' >&2")
    script(
        programs,
        "mvn",
        f"echo run >> '{tmp_path}/runs'\n"
        'for each in "$@"; do case "$each" in -DoutputDirectory=*) out="${each#*=}";; esac; done\n'
        # Each waits for the others, so that they are at it at once.
        f"until [ $(wc -l < '{tmp_path}/runs') -ge ${{AT_ONCE:-1}} ]; do sleep 0.1; done\n"
        f'echo one > "$out/kafka_2.13-{VERSION}.jar"; echo two > "$out/other.jar"',
    )
    return {
        "PATH": f"{programs}:/usr/bin:/bin",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }


def test_a_lone_broker_listens_on_loopback_only_and_keeps_one_copy() -> None:
    layout = Layout("id", arrange(range(9092, 9094), 1))

    told = server_properties(layout, layout.nodes[0], "/data")

    assert told["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert told["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9092"
    assert told["controller.quorum.voters"] == "1@127.0.0.1:9093"
    assert told["log.dirs"] == "/data"
    assert told["auto.create.topics.enable"] == "false"
    assert {value for key, value in told.items() if "replication.factor" in key or "min.isr" in key} == {"1"}
    assert "-Xmx512m" in java_options(1)


def test_three_brokers_keep_three_copies_and_may_lose_one() -> None:
    layout = Layout("id", arrange(range(9092, 9098), 3))

    told = server_properties(layout, layout.nodes[2], "/data")

    assert told["node.id"] == "3"
    assert told["listeners"] == "PLAINTEXT://127.0.0.1:9094,CONTROLLER://127.0.0.1:9097"
    assert told["controller.quorum.voters"] == "1@127.0.0.1:9095,2@127.0.0.1:9096,3@127.0.0.1:9097"
    assert {value for key, value in told.items() if key.endswith("replication.factor")} == {"3"}
    assert told["min.insync.replicas"] == told["transaction.state.log.min.isr"] == "2"
    assert layout.addresses() == "127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094"
    assert {"-Xmx384m", "-XX:+UseSerialGC"} <= set(java_options(3))


def test_further_listeners_have_ports_and_protocols_and_further_settings_win() -> None:
    layout = Layout("id", arrange(range(9092, 9095), 1, ["SECURE"]), {"SECURE": "SASL_SSL"})

    told = server_properties(layout, layout.nodes[0], "/data", {"log.cleaner.threads": "2", "mine": "1"})

    assert told["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9092,SECURE://127.0.0.1:9094"
    assert (
        told["listener.security.protocol.map"] == "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL"
    )
    assert told["inter.broker.listener.name"] == "PLAINTEXT"
    assert (told["log.cleaner.threads"], told["mine"]) == ("2", "1")
    assert layout.addresses("SECURE") == "127.0.0.1:9094"


@pytest.mark.parametrize("brokers", [1, 3])
def test_no_port_is_given_out_twice(brokers: int) -> None:
    needed = brokers * 4

    nodes = arrange(range(9092, 9092 + needed), brokers, ["A", "B"])

    given = [port for node in nodes for port in node.ports]
    assert sorted(given) == list(range(9092, 9092 + needed))
    assert [node.port for node in nodes] == list(range(9092, 9092 + brokers))


def test_ports_above_the_last_one_are_refused() -> None:
    assert arrange(range(65_534, 65_536), 1)[0].controller_port == 65_535
    with pytest.raises(ArgumentsError, match="not enough ports"):
        arrange(range(65_535, 65_537), 1)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a=b:c#d", "a=b:c#d"),
        (" led", "\\ led"),
        ("c:\\x", "c:\\\\x"),
        ("é\U0001f600", "\\u00e9\\ud83d\\ude00"),
        ("one\r\ntwo", "one\\r\\ntwo"),
    ],
)
def test_properties_are_ascii_and_one_a_line(value: str, written: str) -> None:
    assert render({"key": value}) == f"key={written}\n"


def test_the_pom_names_kafka_its_tools_and_a_log() -> None:
    space = {"m": "http://maven.apache.org/POM/4.0.0"}

    found = ElementTree.fromstring(pom()).findall(".//m:dependency", space)

    told = {each.findtext("m:artifactId", "", space): each.findtext("m:version", "", space) for each in found}
    assert told["kafka_2.13"] == told["kafka-tools"] == VERSION
    assert {"log4j-core", "log4j-slf4j-impl"} <= set(told)
    assert [len(each.findall(".//m:exclusion", space)) for each in found] == [0, 3, 0, 0]


def test_the_log_goes_to_a_file_that_the_command_line_names() -> None:
    assert "appender.file.fileName=${sys:kafka.log}\n" in log_properties()


def test_jars_are_fetched_once(machine: dict[str, str], tmp_path: Path) -> None:
    told: list[str] = []

    first = obtain(told.append, machine)
    second = obtain(told.append, machine)

    assert first == second
    assert first.jars == tmp_path / "cache" / "richter" / f"kafka-{VERSION}"
    assert len(told) == 1
    assert (tmp_path / "runs").read_text() == "run\n"
    assert sorted(each.suffix for each in first.jars.iterdir()) == [".jar", ".jar", ".json"]


@pytest.mark.parametrize("fault", ["a jar is missing", "a jar is cut off", "the list is missing"])
def test_a_half_filled_cache_is_not_used(fault: str, machine: dict[str, str], tmp_path: Path) -> None:
    jars = obtain(print, machine).jars
    match fault:
        case "a jar is missing":
            (jars / "other.jar").unlink()
        case "a jar is cut off":
            (jars / "other.jar").write_text("t")
        case _:
            (jars / "jars.json").unlink()

    again = obtain(print, machine).jars

    assert again == jars
    assert (jars / "other.jar").read_text() == "two\n"
    assert (tmp_path / "runs").read_text() == "run\nrun\n"
    assert [each.name for each in jars.parent.iterdir()] == [jars.name]


def test_two_may_fetch_at_once(machine: dict[str, str], tmp_path: Path) -> None:
    found: list[Path] = []
    together = {**machine, "AT_ONCE": "3"}
    threads = [threading.Thread(target=lambda: found.append(obtain(print, together).jars)) for _ in range(3)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(tools.LIMIT_S)

    assert len(found) == 3
    assert len(set(found)) == 1
    assert (tmp_path / "runs").read_text() == "run\n" * 3
    assert [each.name for each in found[0].parent.iterdir()] == [found[0].name]


def test_what_maven_says_is_told_and_nothing_is_left(machine: dict[str, str], tmp_path: Path) -> None:
    script(
        tmp_path / "programs",
        "mvn",
        "printf '\\033[31m[ERROR]\\033[m Could not resolve kafka: No route to host -> [Help 1]\\n[ERROR] \\n"
        "[ERROR] Re-run Maven using the -X switch\\n'; exit 1",
    )

    with pytest.raises(TransportError) as raised:
        obtain(print, machine)

    assert "Maven says: Could not resolve kafka: No route to host;" in str(raised.value)
    assert "KAFKA_BOOTSTRAP_SERVERS" in str(raised.value)
    assert list((tmp_path / "cache" / "richter").iterdir()) == []


@pytest.mark.parametrize(
    ("java", "fact"),
    [
        ("echo 'java version \"1.8.0_202\"' >&2", "is Java 8"),
        ("echo 'openjdk version \"11.0.2\"' >&2", "is Java 11"),
        ("echo 'Unable to locate a Java Runtime.' >&2; exit 1", "does not tell its version"),
    ],
)
def test_a_java_that_cannot_run_kafka_is_told(
    java: str, fact: str, machine: dict[str, str], tmp_path: Path
) -> None:
    script(tmp_path / "programs", "java", java)

    with pytest.raises(ExtraMissingError, match=fact) as raised:
        obtain(print, machine)

    assert "install openjdk-17-jre-headless and maven" in str(raised.value)


def test_java_home_wins_over_the_path(machine: dict[str, str], tmp_path: Path) -> None:
    script(tmp_path / "programs", "java", "echo 'java version \"1.8.0_202\"' >&2")
    (tmp_path / "home").mkdir()
    script(tmp_path / "home" / "bin", "java", "echo 'openjdk version \"17\"' >&2")

    found = obtain(print, {**machine, "JAVA_HOME": str(tmp_path / "home")})

    assert found.java == str(tmp_path / "home" / "bin" / "java")


@pytest.mark.parametrize(("missing", "fact"), [("java", "there is no java"), ("mvn", "there is no mvn")])
def test_without_java_or_maven_the_command_says_so_in_one_sentence(
    missing: str, fact: str, machine: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "programs" / missing).unlink()
    environ = {**machine, "PATH": str(tmp_path / "programs")}

    done = subprocess.run(
        [*KAFKA, "up", "--port", "0"], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("richter: ")
    assert fact in done.stderr
    assert "or set KAFKA_BOOTSTRAP_SERVERS" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_that_cannot_be_written_to_is_told(machine: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")

    with pytest.raises(DataFolderError, match="XDG_CACHE_HOME"):
        obtain(print, machine)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        done = subprocess.run(
            [*KAFKA, "up", "--port", str(port)],
            env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr == (
        f"richter: port {port} is in use by another program; choose other ports with --port, 0 for free ones\n"
    )


def test_the_controllers_port_counts_as_well(tmp_path: Path) -> None:
    # Somebody may have the port below.
    while not is_free((port := free_ports(1)[0]) - 1):
        continue
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(OperatorError, match=f"port {port} is in use"),
    ):
        Cluster(tmp_path).start(1, port - 1)


def remembered(folder: Path, theirs: str) -> Cluster:
    """A folder with the data of a cluster."""
    layout = Layout("AAAAAAAAAAAAAAAAAAAAAA", arrange(range(9092, 9094), 1))
    (folder / "broker-1" / "data").mkdir(parents=True)
    (folder / "broker-1" / "data" / "meta.properties").write_text(
        f"#\nversion=1\ncluster.id={theirs}\nnode.id=1\n"
    )
    (folder / "cluster.json").write_text(
        json.dumps(
            {
                "cluster_id": layout.cluster_id,
                "nodes": [{"node_id": 1, "port": 9092, "controller_port": 9093, "more_ports": {}}],
                "protocols": {},
            }
        )
    )
    return Cluster(folder)


def test_the_data_of_another_cluster_are_refused(tmp_path: Path) -> None:
    cluster = remembered(tmp_path, "BBBBBBBBBBBBBBBBBBBBBB")

    with pytest.raises(DataFolderError) as raised:
        cluster.start(port=0)

    assert str(raised.value) == (
        "the data of broker 1 belong to the cluster BBBBBBBBBBBBBBBBBBBBBB, not to AAAAAAAAAAAAAAAAAAAAAA: "
        f"'{tmp_path}/broker-1/data'; move them away, or choose another folder with --dir"
    )


def test_a_folder_with_another_number_of_brokers_is_refused(tmp_path: Path) -> None:
    cluster = remembered(tmp_path, "AAAAAAAAAAAAAAAAAAAAAA")

    with pytest.raises(ArgumentsError, match="a cluster of 1, which cannot become one of 3"):
        cluster.start(3, 0)


def test_data_without_what_tells_whose_they_are_are_refused(tmp_path: Path) -> None:
    cluster = remembered(tmp_path, "AAAAAAAAAAAAAAAAAAAAAA")
    (tmp_path / "cluster.json").unlink()

    with pytest.raises(DataFolderError, match=r"cluster\.json is missing"):
        cluster.start(port=0)


def test_a_broken_memory_is_told(tmp_path: Path) -> None:
    cluster = remembered(tmp_path, "AAAAAAAAAAAAAAAAAAAAAA")
    (tmp_path / "cluster.json").write_text("{")

    with pytest.raises(DataFolderError, match="cannot be read"):
        cluster.status()


def test_another_process_with_the_id_of_a_broker_is_left_alone(tmp_path: Path) -> None:
    cluster = remembered(tmp_path, "AAAAAAAAAAAAAAAAAAAAAA")

    with subprocess.Popen(["sleep", "600"]) as other:
        (tmp_path / "broker-1" / "pid").write_text(f"{other.pid}\n")
        stopped = cluster.stop()
        cluster.kill_node(1)
        ended = other.poll()
        other.kill()

    assert stopped == ()
    assert ended is None
    assert not cluster.is_running


def test_a_folder_that_kafka_would_take_for_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="comma in its name"):
        Cluster(tmp_path / "a,b").start(port=0)


def test_settings_are_for_their_owner_only(tmp_path: Path) -> None:
    from richter.adapters.broker.node import Broker

    layout = Layout("AAAAAAAAAAAAAAAAAAAAAA", arrange(range(9092, 9094), 1))

    Broker(tmp_path, layout.nodes[0]).write(layout, {"secret": "x"})

    assert stat.S_IMODE((tmp_path / "broker-1" / "server.properties").stat().st_mode) == 0o600


class Counted:
    """Stands for a cluster, and counts."""

    def __init__(self, folder: Path) -> None:
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1


@pytest.mark.parametrize(("other", "stops"), [("alive", 0), ("dead", 1), ("none", 1)])
def test_the_last_user_of_a_shared_broker_stops_it(
    other: str,
    stops: int,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    unique: Callable[[str], str],
) -> None:
    monkeypatch.setattr(tools, "Cluster", Counted)
    monkeypatch.setattr(tools, "has_kafka", lambda: None)
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    name = unique("shared")
    users = tmp_path_factory.getbasetemp().parent / name / "users"

    with tools.shared(tmp_path_factory, name, lambda cluster: cluster) as cluster:
        if other == "alive":
            (users / str(os.getppid())).touch()
        if other == "dead":
            with subprocess.Popen(["true"]) as ended:
                pass
            (users / str(ended.pid)).touch()
        before = cluster.stops

    assert (before, cluster.stops) == (0, stops)


def test_without_kafka_tests_are_left_out_but_not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tools, "obtain", lambda tell: (_ for _ in ()).throw(ExtraMissingError("there is no java"))
    )

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="there is no java"):
        tools.has_kafka()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="there is no java"):
        tools.has_kafka()
