"""What can be said of the containers without an engine; `make compose-test` says the rest."""

import copy
import importlib.util
import re
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from richter.config import VARIABLES
from tests.compose.shell import Shell, StepFailed, says
from tests.compose.steps import EXCHANGE, PIPELINE

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
PREFIXES = ("COINBASE_", "KAFKA_", "MLFLOW_", "RICHTER_")


def faults(compose):
    """What is wrong with a compose file, in words."""
    services = compose["services"]
    kafka = services["kafka"]
    published = {port for service in services.values() for port in service.get("ports", [])}
    mounted = {volume for service in services.values() for volume in service.get("volumes", [])}
    environment = kafka["environment"]
    listeners, advertised = (
        dict(each.split("://") for each in environment[name].split(","))
        for name in ("KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS")
    )
    told = {listeners[name].rpartition(":")[2]: address for name, address in advertised.items()}
    tools = [volume.split(":")[0] for volume in mounted if ":/usr/local/bin/" in volume]
    plain = {name for name, service in services.items() if "profiles" not in service}
    variables = {
        name
        for service in services.values()
        if "pipeline" in service.get("profiles", [])
        for name in service["environment"]
        if name.startswith(PREFIXES)
    }
    rules = {
        "a port is open to other machines": all(port.startswith("127.0.0.1:") for port in published),
        "the seed's ports": published == {"127.0.0.1:9092:29092", "127.0.0.1:5001:5000"},
        "clients are sent to the wrong address": told == {"9092": "kafka:9092", "29092": "localhost:9092"},
        "the broker's log is off its volume": f"kafka-data:{environment['KAFKA_LOG_DIRS']}" in mounted,
        "a volume is not mounted": all(
            any(volume.startswith(f"{name}:") for volume in mounted) for name in compose["volumes"]
        ),
        "topics make themselves": environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false",
        "a tool cannot be run": all((DOCKER / tool).stat().st_mode & 0o777 == 0o755 for tool in tools),
        "the course's tools are off the PATH": all(
            f"./kafka/tool:/usr/local/bin/{name}:ro" in mounted
            for name in ("kafka-topics", "kafka-console-consumer")
        ),
        "the network's name": compose["networks"] == {"crypto-network": {"name": "docker_crypto-network"}},
        "a service is on another network": all(
            service["networks"] == ["crypto-network"] for service in services.values()
        ),
        "plain `up` starts other services": plain == {"kafka", "mlflow"},
        "a service has no limit of memory": all("mem_limit" in service for service in services.values()),
        "a service does not say how it is": all("healthcheck" in service for service in services.values()),
        "a service stays down": all(
            service.get("restart") == "unless-stopped" for service in services.values()
        ),
        "an image is not pinned": all(
            re.search(r":\d+\.\d+\.\d+$", service["image"]) or "build" in service
            for service in services.values()
        ),
        "a setting that richter does not know": variables <= set(VARIABLES.values()),
    }
    return [rule for rule, kept in rules.items() if not kept]


def shipped():
    return yaml.safe_load((DOCKER / "docker-compose.yaml").read_text())


def instructions(name, kind):
    lines = (DOCKER / name).read_text().replace("\\\n", " ").splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.startswith(f"{kind} ")]


def test_the_compose_file_is_as_it_should_be():
    assert faults(shipped()) == []


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("services.kafka.ports", ["9092:29092"], "a port is open to other machines"),
        ("services.mlflow.ports", ["127.0.0.1:5000:5000"], "the seed's ports"),
        (
            "services.kafka.environment.KAFKA_ADVERTISED_LISTENERS",
            "NETWORK://localhost:9092,HOST://localhost:9092",
            "clients are sent to the wrong address",
        ),
        ("services.kafka.environment.KAFKA_LOG_DIRS", "/tmp/logs", "the broker's log is off its volume"),
        ("services.mlflow.volumes", [], "a volume is not mounted"),
        ("services.kafka.environment.KAFKA_AUTO_CREATE_TOPICS_ENABLE", "true", "topics make themselves"),
        (
            "services.ingestor.volumes",
            ["./docker-compose.yaml:/usr/local/bin/kafka-x:ro"],
            "a tool cannot be run",
        ),
        ("services.kafka.volumes", ["kafka-data:/var/lib/kafka/data"], "the course's tools are off the PATH"),
        ("networks.crypto-network", {}, "the network's name"),
        ("services.mlflow.networks", ["default"], "a service is on another network"),
        ("services.ingestor.profiles", None, "plain `up` starts other services"),
        ("services.mlflow.mem_limit", None, "a service has no limit of memory"),
        ("services.featurizer.healthcheck", None, "a service does not say how it is"),
        ("services.kafka.restart", "no", "a service stays down"),
        ("services.kafka.image", "apache/kafka:latest", "an image is not pinned"),
        ("services.ingestor.environment.RICHTER_PRODUCT", "BTC-USD", "a setting that richter does not know"),
    ],
)
def test_each_fault_of_a_compose_file_is_found(path, value, fault):
    compose = copy.deepcopy(shipped())
    *way, last = path.split(".")
    place = compose
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value

    assert fault in faults(compose)


def test_the_shell_passes_on_every_setting_that_the_stack_does_not_fix():
    lines = (DOCKER / "passed.env").read_text().splitlines()
    fixed = {
        name
        for name in VARIABLES.values()
        if name in shipped()["services"]["featurizer"]["environment"] or re.match("KAFKA_(SASL|SSL)_", name)
    }

    passed = [line for line in lines if not line.startswith("#")]

    assert passed == [name for name in VARIABLES.values() if name not in fixed]


def locked(image):
    """The versions that an image is made of, by name."""
    lines = (DOCKER / f"requirements.{image}.txt").read_text().splitlines()
    return dict(line.partition(" ;")[0].split("==") for line in lines)


@pytest.mark.parametrize("image", ["ingestor", "mlflow"])
def test_an_image_installs_the_locked_versions_and_nothing_else(image):
    """That they are uv.lock's is what `make requirements-check` says."""
    (install,) = re.findall(r"pip install .*?&&", " ".join(instructions(f"Dockerfile.{image}", "RUN")))

    assert {"--no-deps", "-r"} <= set(install.split())
    assert f"docker/requirements.{image}.txt /tmp/requirements.txt" in instructions(
        f"Dockerfile.{image}", "COPY"
    )
    assert "pip check" in "".join(instructions(f"Dockerfile.{image}", "RUN"))
    assert all(locked(image).values())


def test_the_ingestor_has_what_richter_needs_and_mlflow_the_version_of_its_clients():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}

    assert wanted <= locked("ingestor").keys()
    assert "mlflow" not in locked("ingestor")
    assert project["optional-dependencies"]["tracking"] == [f"mlflow=={locked('mlflow')['mlflow']}"]


@pytest.mark.parametrize("name", ["Dockerfile.ingestor", "Dockerfile.mlflow"])
def test_images_stand_on_a_version_and_copy_only_what_is_sent(name):
    first, *others = (ROOT / ".dockerignore").read_text().replace("!", "").split("\n*\n")
    sent = set(others[0].split())

    assert first.startswith("#")
    assert instructions(name, "FROM") == ["python:3.11-slim"]
    for line in instructions(name, "COPY"):
        assert all(any(fnmatch(source, each) for each in sent) for source in line.split()[:-1])
    assert not sent & {".env", ".git", ".venv", "data"}


def test_mlflow_keeps_everything_on_its_volume():
    (command,) = instructions("Dockerfile.mlflow", "CMD")
    (volume,) = shipped()["services"]["mlflow"]["volumes"]

    kept = re.findall(r'"(?:sqlite:///)?(/[^"]+)"', command)

    assert kept == ["/mlflow/mlflow.db", "/mlflow/artifacts"]
    assert volume == "mlflow-data:/mlflow"


def test_mlflow_answers_to_its_name_on_the_network_and_on_the_host():
    (command,) = instructions("Dockerfile.mlflow", "CMD")

    hosts = re.search(r'"--allowed-hosts", "([^"]+)"', command)[1].split(",")

    assert {"mlflow:*", "localhost:*", "127.0.0.1:*"} <= set(hosts)


@pytest.fixture
def entrypoint(monkeypatch):
    spec = importlib.util.spec_from_file_location("entrypoint", DOCKER / "entrypoint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "is_namespace", lambda: False)
    monkeypatch.setattr(module, "os", System())
    return module


class System:
    """As much of `os` as the owners of a folder's entries need; who is not named is gone."""

    def __init__(self):
        self.owners = {}
        self.given = []

    def hold(self, **owners):
        self.owners = {Path("data"): owners.pop("data")}
        self.owners |= {Path("data", name): owner for name, owner in owners.items()}

    def walk(self, folder):
        yield folder, ["gone"], [path.name for path in self.owners if path != folder]

    def lstat(self, path):
        if path not in self.owners:
            raise FileNotFoundError(path)
        return SimpleNamespace(st_uid=self.owners[path], st_gid=self.owners[path])

    def chown(self, path, user, group, *, follow_symlinks):
        assert not follow_symlinks
        self.given.append((path.name, user, group))


def test_a_container_runs_as_the_owner_of_the_data_and_gives_them_what_root_left(entrypoint):
    entrypoint.os.hold(data=501, raw=0, spool=501, other=7)

    assert entrypoint.take_over(Path("data")) == (501, 501)
    assert entrypoint.os.given == [("raw", 501, 501)]


def test_a_folder_that_docker_made_goes_to_the_first_user(entrypoint):
    entrypoint.os.hold(data=0, raw=0, spool=1000)

    assert entrypoint.take_over(Path("data")) == (1000, 1000)
    assert entrypoint.os.given == [("data", 1000, 1000), ("raw", 1000, 1000)]


def test_under_a_rootless_engine_root_is_the_person_and_keeps_the_folder(entrypoint, monkeypatch):
    monkeypatch.setattr(entrypoint, "is_namespace", lambda: True)
    entrypoint.os.hold(data=0, raw=0)

    assert entrypoint.take_over(Path("data")) == (0, 0)
    assert entrypoint.os.given == []


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path, {"PATH": "/usr/bin:/bin"})


def test_a_step_shows_the_command_as_typed_and_its_result_in_two_lines(shell, capsys):
    shell.step("echo one \\\n  two", says("one two"))

    command, result = capsys.readouterr().out.splitlines()
    assert command == "$ echo one two"
    assert re.fullmatch(r"  \d+\.\d s  one two", result)


@pytest.mark.parametrize(
    ("command", "within_s", "told"),
    [
        ("echo gone; exit 3", 60, "exit code 3"),
        ("echo gone | cat; false | true", 60, "exit code 1"),
        ("echo gone", 60, "the output lacks 'here'"),
        ("echo gone; sleep 60", 2, "not done within 2 s"),
    ],
)
def test_a_step_that_fails_says_why_and_keeps_the_output(shell, command, within_s, told):
    with pytest.raises(StepFailed) as raised:
        shell.step(command, says("here"), within_s=within_s)

    assert str(raised.value) == told
    assert raised.value.output == "gone\n"


def test_a_step_gets_a_terminal_when_it_asks_for_one(shell):
    looks = f"{sys.executable} -c 'import sys; print(sys.stdin.isatty(), sys.argv[1])'"

    assert shell.step(f"{looks} -it ") == "True -it\n"
    assert shell.step(f"{looks} none") == "False none\n"


def test_the_pipeline_is_tried_against_the_simulated_exchange_only():
    assert PIPELINE["COINBASE_WS_URL"] == EXCHANGE == "ws://exchange:8765"
