"""`richter topics` against a real broker."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from richter.adapters.kafka.topics import TOPICS
from richter.cli.main import main
from tests.kafka import tools


@pytest.fixture
def prefix(
    kafka: str, unique: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A prefix of this test's own, set; its topics are removed afterwards."""
    prefix = unique("prefix") + "."
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RICHTER_CONFIG", raising=False)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("KAFKA_TOPIC_PREFIX", prefix)
    yield prefix
    with tools._admin(kafka) as client:
        names = [name for name in client.list_topics(timeout=tools.LIMIT_S).topics if name.startswith(prefix)]
    tools.delete_topics(kafka, names)


class Ran:
    """The exit code and the one object that a command answers with."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.code = main(["topics", *arguments, "--json"])
        told = capsys.readouterr()
        self.err = told.err
        self.data: dict[str, Any] = json.loads(told.out) if told.out else {}


def names(prefix: str) -> list[str]:
    return [prefix + topic.name for topic in TOPICS]


def test_all_of_richters_topics_are_created_once(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = Ran(capsys, "create")
    second = Ran(capsys, "create")

    assert (first.code, first.err, second.code, second.err) == (0, "", 0, "")
    assert sorted(first.data["created"]) == sorted(names(prefix))
    assert first.data["existed"] == []
    assert second.data["created"] == []
    assert second.data["existed"] == names(prefix)
    assert [len(state["partitions"]) for state in second.data["topics"]] == [3] * len(TOPICS)
    cleanup = {state["name"]: state["cleanup"] for state in first.data["topics"]}
    assert cleanup.pop(f"{prefix}ticks.models") == "compact"
    assert set(cleanup.values()) == {"delete"}


def test_people_are_told_what_was_created_and_what_was_there(
    prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["topics", "create", f"{prefix}old"])
    capsys.readouterr()

    code = main(["topics", "create", f"{prefix}old", f"{prefix}new"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split()[:2] for line in lines[1:]] == [
        ["exists", f"{prefix}old"],
        ["created", f"{prefix}new"],
    ]
    assert lines[1].endswith("  7 d")


def test_a_topic_is_made_as_asked_for(prefix: str, kafka: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, other = f"{prefix}six", f"{prefix}day"

    Ran(capsys, "create", name, "--partitions", "6", "--retention-hours", "forever", "--replication", "1")
    Ran(capsys, "create", other, "--retention-hours", "36")
    described = Ran(capsys, "describe", name, other).data["topics"]

    assert [(len(each["partitions"]), each["replication"], each["retention_ms"]) for each in described] == [
        (6, 1, -1),
        (3, 1, 36 * 3_600_000),
    ]
    assert tools.topic_setting(kafka, name, "retention.ms") == "-1"


def test_other_partitions_than_asked_for_are_refused_before_anything_is_made(
    prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = f"{prefix}old", f"{prefix}new"
    Ran(capsys, "create", old, "--partitions", "2")

    refused = Ran(capsys, "create", new, old, "--partitions", "5")
    listed = [each["name"] for each in Ran(capsys, "list").data["topics"]]
    same = Ran(capsys, "create", old, "--partitions", "2")
    unsaid = Ran(capsys, "create", old)

    assert (refused.code, refused.data) == (2, {})
    assert refused.err.startswith(f"richter: {old} exists with 2 partitions, 5 were asked for; ")
    assert refused.err.count("\n") == 1
    assert listed == [old]
    assert (same.code, unsaid.code) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--replication", "3"], "brokers: 1;"),
        (["--partitions", "0"], "'--partitions'"),
        (["--retention-hours", "-1"], "neither a number of hours above 0 nor 'forever'"),
        (["--retention-hours", "nan"], "neither a number of hours above 0 nor 'forever'"),
    ],
)
def test_what_cannot_be_made_is_refused(
    prefix: str, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    ran = Ran(capsys, "create", f"{prefix}new", *arguments)

    assert (ran.code, ran.data) == (2, {})
    assert told in ran.err
    assert Ran(capsys, "list").data["topics"] == []


def test_the_list_says_what_there_is_and_what_is_missing(
    prefix: str, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, own = f"{prefix}ticks.raw", f"{prefix}own"
    Ran(capsys, "create", raw, own)
    tools.produce(kafka, raw, {str(number): "value" for number in range(10)})

    listed = Ran(capsys, "list").data
    main(["topics", "list"])
    told = capsys.readouterr().out

    assert listed["topics"] == [
        {"name": own, "partitions": 3, "records": 0, "holds": None},
        {"name": raw, "partitions": 3, "records": 10, "holds": "recorded ticks, key = product"},
    ]
    assert listed["missing"] == [name for name in names(prefix) if name != raw]
    assert [line.split() for line in told.splitlines()][2][:3] == [raw, "3", "10"]
    assert told.splitlines()[-1].startswith(f"missing: {prefix}ticks.features, ")


def test_a_description_names_each_partition(
    prefix: str, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{prefix}ticks.raw"
    Ran(capsys, "create", name)
    tools.produce(kafka, name, {str(number): "value" for number in range(10)})

    (described,) = Ran(capsys, "describe").data["topics"]
    main(["topics", "describe", name])
    told = capsys.readouterr().out.splitlines()

    assert [each["partition"] for each in described["partitions"]] == [0, 1, 2]
    assert sum(each["end"] for each in described["partitions"]) == 10
    assert {(each["begin"], each["in_sync"]) for each in described["partitions"]} == {(0, 1)}
    assert all(each["leader"] > 0 for each in described["partitions"])
    assert told[0] == f"{name}: recorded ticks, key = product"
    assert told[1] == f"  10 records, 1 copy, kept: 7 d, id {described['topic_id']}"
    assert len(told) == 6


def test_a_missing_topic_is_told(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "describe", f"{prefix}nowhere")

    assert (ran.code, ran.data) == (1, {})
    assert ran.err == (
        f"richter: the topic does not exist: '{prefix}nowhere'; create it: richter topics create {prefix}nowhere\n"
    )


def test_no_topics_at_all_are_no_error(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["topics", "describe"])

    assert code == 0
    assert capsys.readouterr().out == "there are no topics; create them: richter topics create\n"


@pytest.mark.parametrize("name", ["create", "list", "describe"])
def test_a_broker_that_does_not_answer_is_told_in_one_sentence(
    name: str, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # Taken, and not listened on.
        servers = f"127.0.0.1:{nobody.getsockname()[1]}"

        ran = Ran(capsys, name, "--bootstrap", servers)

    assert (ran.code, ran.data) == (1, {})
    assert ran.err.startswith("richter: no Kafka broker answers")
    assert servers in ran.err
    assert ran.err.count("\n") == 1
