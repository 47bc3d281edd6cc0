"""The steps, in the order in which the course types them."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from functools import partial

import click
import yaml

from tests.compose.shell import Shell, StepFailed, says
from tests.compose.topics import ends, values

EXCHANGE = "ws://exchange:8765"
NETWORK = "docker_crypto-network"
PROJECT = "richter-compose-test"
CONTAINERS = ("exchange", "market", "stopped")
"""Those that compose does not know."""
RAW, FEATURES = "ticks.raw", "ticks.features"
PIPELINE = {"COINBASE_WS_URL": EXCHANGE, "RICHTER_PRODUCTS": "BTC-USD,ETH-USD"}

_CREATE = """docker exec -it kafka kafka-topics --create \\
  --topic {} \\
  --bootstrap-server localhost:9092 \\
  --partitions 3 \\
  --replication-factor 1"""
_LIST = "docker exec -it kafka kafka-topics --list --bootstrap-server localhost:9092"
_CONSUME = """docker exec -it kafka kafka-console-consumer \\
  --topic ticks.raw \\
  --bootstrap-server localhost:9092 \\
  --from-beginning \\
  --max-messages 10"""
_BUILD = "docker build -f docker/Dockerfile.ingestor -t crypto-ingestor ."
# The course's, but for the minutes and the line with the address of the exchange.
_RUN = f"""docker run --rm \\
  --network docker_crypto-network \\
  -v $(pwd)/data:/app/data \\
  -e KAFKA_BOOTSTRAP_SERVERS=kafka:9092 \\
  -e COINBASE_WS_URL={EXCHANGE} \\
  crypto-ingestor \\
  python scripts/ws_ingest.py --pair BTC-USD --minutes 0.2 --save-disk"""
_RUN_WITHOUT_DISK = f"""docker run --rm --network docker_crypto-network \\
  -e KAFKA_BOOTSTRAP_SERVERS=kafka:9092 \\
  -e COINBASE_WS_URL={EXCHANGE} \\
  crypto-ingestor \\
  python scripts/ws_ingest.py --pair BTC-USD --minutes 0.2"""
_STOPPED = (
    f"docker run -d --name stopped --label {PROJECT} --network {NETWORK} -e COINBASE_WS_URL={EXCHANGE} "
    "crypto-ingestor"
)
_API = (
    "import urllib.request as r; "
    "print(r.urlopen('http://mlflow:5000/api/2.0/mlflow/experiments/search?max_results=1').read().decode())"
)

_EXPERIMENTS = "http://localhost:5001/api/2.0/mlflow/experiments"
_CREATE_EXPERIMENT = (
    f"curl -sS -H 'Content-Type: application/json' -d '{{\"name\": \"kept\"}}' {_EXPERIMENTS}/create"
)
_GET_EXPERIMENT = f"curl -sS '{_EXPERIMENTS}/get-by-name?experiment_name=kept'"


def infrastructure(shell: Shell) -> None:
    """Kafka and MLflow come up, answer, and take topics."""
    shell.step("cd docker\ndocker compose up -d", within_s=900)
    _wait_healthy(shell, "kafka", "mlflow", within_s=180)
    shell.step("cd docker && docker compose ps", _both_up)
    shell.step("curl --silent --show-error http://localhost:5001/health", says("OK"))
    for topic in (RAW, FEATURES):
        shell.step(_CREATE.format(topic), says(f"Created topic {topic}."))
    shell.step(_LIST, lambda output: says(RAW)(output) + ", " + says(FEATURES)(output))
    _settings_in_force(shell)


def image(shell: Shell) -> None:
    """The image is built, steps down from root, and reaches MLflow by its name."""
    shell.step(_BUILD, _last_line, within_s=900)
    shell.step("docker run --rm crypto-ingestor id -u", _line("1000"))
    shell.step("docker run --rm --user 1234:1234 crypto-ingestor id -u", _line("1234"))
    shell.step(
        f'docker run --rm --network {NETWORK} crypto-ingestor python -c "{_API}"',
        says("experiment_id"),
    )


def ingestion(shell: Shell) -> None:
    """Ticks are recorded and published from the host and from containers."""
    _open_exchange(shell, "BTC-USD")
    port = shell.ask("docker port exchange 8765/tcp").rpartition(":")[2]
    shell.step(
        "python scripts/ws_ingest.py --pair BTC-USD --minutes 0.2 --save-disk",
        _recorded,
        more={"COINBASE_WS_URL": f"ws://127.0.0.1:{port}"},
    )
    shell.step("python scripts/kafka_consume_check.py --topic ticks.raw --min 100", _last_line)
    shell.step(_RUN, _recorded)
    _owned(shell)
    shell.step(_RUN_WITHOUT_DISK, _recorded)
    _end_one(shell)
    shell.step("ls -lth data/raw/ | head -5", says("ticks_BTCUSD_"))
    shell.step("head -5 data/raw/ticks_BTCUSD_*.ndjson", _five_ticks)
    shell.step(_CONSUME, says("Processed a total of 10 messages"))


def pipeline(shell: Shell) -> None:
    """The profile's containers turn the market into features."""
    before = {topic: len(values(topic)) for topic in (RAW, FEATURES)}
    _start_pipeline(shell, history="15m")
    _wait_healthy(shell, "ingestor", "featurizer", within_s=120)
    for topic, number in before.items():
        _wait_for(shell, topic, number + 500)
    _owned(shell)


def broker_killed(shell: Shell) -> None:
    """The broker is killed while ticks flow, comes back by itself, and those who talk to it go on."""
    started, before = _started(shell), ends(RAW)
    _kill(shell)
    _comes_back(shell, started, before + 20)


def broker_killed_in_a_flood(shell: Shell) -> None:
    """The same while four hours pour in, and the pipeline with them: nearly always in the middle of a commit."""
    before = ends(RAW)
    _start_pipeline(shell, history="4h")
    shell.wait("they begin to pour in", lambda: ends(RAW) >= before + 500, within_s=120)
    started, before = _started(shell), ends(RAW)
    _kill(shell)
    _comes_back(shell, started, before + 5_000)
    _wait_healthy(shell, "ingestor", "featurizer", within_s=120)
    _owned(shell)


def broker_ended(shell: Shell) -> None:
    """The same for a broker that is asked to end."""
    started, before = _started(shell), ends(RAW)
    shell.step("docker exec kafka bash -c 'kill 1'")
    _comes_back(shell, started, before + 20)


def nothing_lost(shell: Shell) -> None:
    """What was recorded on the host's disk is in the topic, each line as it is, once."""
    _stop(shell, "ingestor")
    recorded = Counter(
        line for file in (shell.root / "data/raw").glob("*.ndjson") for line in file.read_bytes().splitlines()
    )
    if not recorded:
        raise StepFailed("nothing was recorded in data/raw")
    shell.wait(
        f"all {recorded.total():,} recorded lines are in {RAW}",
        lambda: recorded <= Counter(values(RAW)),
        within_s=60,
    )
    published = Counter(values(RAW))
    doubled = published.total() - len(published)
    # At least once: who was killed between the broker's answer and its own note of it sends again.
    click.echo(f"  {published.total():,} records in {RAW}, {doubled} of them sent again")


def replay_equals_features(shell: Shell) -> None:
    """What the featurizer published is what a replay of the topic computes, to the last bit."""
    shell.wait("the featurizer has read everything", lambda: _unread(shell) == 0, within_s=60)
    _stop(shell, "featurizer")
    shell.step("richter replay --from-topic ticks.raw", says("✓ Reproducibility verified"))


def recreated(shell: Shell) -> None:
    """New containers find on the volumes what the old ones left."""
    before = Counter(values(RAW))
    shell.step(_CREATE_EXPERIMENT, says("experiment_id"))
    shell.step("cd docker\ndocker compose --profile pipeline down")
    shell.step("cd docker\ndocker compose up -d")
    _wait_healthy(shell, "kafka", "mlflow", within_s=180)
    if Counter(values(RAW)) != before:
        raise StepFailed(f"{RAW} holds other records than before")
    click.echo(f"  the {before.total():,} records of {RAW} are there")
    shell.step(_GET_EXPERIMENT, says('"name": "kept"'))


def down(shell: Shell) -> None:
    """Take everything away again, volumes too."""
    # Who is still on the network keeps it: a command that took too long goes on in its container.
    who = '{{.ID}} {{.Label "com.docker.compose.project"}}'
    shell.ask(
        f"docker ps -a --filter network={NETWORK} --format '{who}' | awk 'NF == 1' "
        f"| xargs docker rm -f {' '.join(CONTAINERS)}"
    )
    shell.step("cd docker && docker compose --profile pipeline down -v", within_s=120)
    left = shell.ask(
        f"docker ps -aq --filter label=com.docker.compose.project={PROJECT}; "
        f"docker volume ls -q --filter label=com.docker.compose.project={PROJECT}; "
        f"docker network ls -q --filter name=^{NETWORK}$"
    )
    if left:
        raise StepFailed("not everything is gone", left)


def take_leftovers(shell: Shell) -> None:
    """Take away what a run that was killed has left, and nobody else's."""
    shell.ask(f"docker ps -aq --filter label={PROJECT} | xargs docker rm -f")
    shell.ask("cd docker && docker compose --profile pipeline down -v", within_s=120)


def _start_pipeline(shell: Shell, *, history: str) -> None:
    _open_exchange(shell, "BTC-USD", "ETH-USD", history=history)
    _give_away(shell)
    shell.step("cd docker\ndocker compose --profile pipeline up -d", within_s=900, more=PIPELINE)


def _kill(shell: Shell) -> None:
    # From outside: in the container's own name space the kernel spares PID 1.
    shell.step(
        "docker run --rm --pid host --entrypoint bash crypto-ingestor "
        "-c \"kill -9 $(docker inspect -f '{{.State.Pid}}' kafka)\""
    )


def _comes_back(shell: Shell, started: str, number: int) -> None:
    shell.wait("kafka was started again", partial(_is_new, shell, started), within_s=60)
    _wait_healthy(shell, "kafka", within_s=120)
    for topic in (RAW, FEATURES):
        _wait_for(shell, topic, number)


def _wait_for(shell: Shell, topic: str, number: int) -> None:
    shell.wait(f"{number:,} records in {topic}", lambda: len(values(topic)) >= number, within_s=120)


def _open_exchange(shell: Shell, *products: str, history: str = "15m") -> None:
    """A market with a past, in containers: the simulator listens on loopback only, so a relay shares its network."""
    shell.ask("docker rm -f market exchange")
    shell.step(
        f"docker run -d --rm --init --name exchange --label {PROJECT} --network {NETWORK} -p 127.0.0.1::8765 "
        "-v $(pwd)/tests/compose/relay.py:/relay.py:ro crypto-ingestor python /relay.py"
    )
    shell.step(
        f"docker run -d --rm --name market --label {PROJECT} --network container:exchange crypto-ingestor "
        f"richter simulate --history {history} " + " ".join(f"--product {each}" for each in products)
    )
    shell.wait(
        "the exchange listens", lambda: "Advanced Trade" in shell.ask("docker logs market"), within_s=60
    )


def _wait_healthy(shell: Shell, *services: str, within_s: float) -> None:
    def healthy() -> bool:
        states = [
            shell.ask(f"docker inspect -f '{{{{.State.Health.Status}}}}' {_container(shell, service)}")
            for service in services
        ]
        return states == ["healthy"] * len(services)

    shell.wait(f"{' and '.join(services)} healthy", healthy, within_s=within_s)


def _stop(shell: Shell, service: str) -> None:
    container = _container(shell, service)
    shell.step(f"cd docker\ndocker compose --profile pipeline stop {service}", within_s=60)
    _ended_in_order(shell, container)


def _end_one(shell: Shell) -> None:
    """A container that runs what its image says, on its own, ends in order too."""
    shell.step(_STOPPED)
    shell.wait("it records", lambda: "WebSocket connected" in shell.ask("docker logs stopped"), within_s=60)
    shell.step("docker stop stopped")
    _ended_in_order(shell, "stopped")
    shell.step("docker logs stopped", _recorded)
    shell.ask("docker rm stopped")


def _ended_in_order(shell: Shell, container: str) -> None:
    code = shell.ask(f"docker inspect -f '{{{{.State.ExitCode}}}}' {container}")
    if code != "0":
        raise StepFailed(
            f"{container} was stopped and exited with {code}", shell.ask(f"docker logs --tail 50 {container}")
        )


def _container(shell: Shell, service: str) -> str:
    return shell.ask(f"cd docker && docker compose --profile pipeline ps -aq {service}")


def _unread(shell: Shell) -> int | None:
    """How many records of raw ticks the featurizer has still to read; None when that is not known."""
    output = shell.ask(
        "docker exec kafka kafka-consumer-groups --bootstrap-server localhost:9092 --describe --all-groups"
    )
    # Group, topic, partition, position, end; without a position nothing was read, and often nothing is there.
    rows = re.findall(rf"^\S+ +{RAW} +\d+ +(-|\d+) +(\d+) ", output, re.MULTILINE)
    return sum(int(end) - int(position.replace("-", "0")) for position, end in rows) if rows else None


def _started(shell: Shell) -> str:
    return shell.ask("docker inspect -f '{{.State.StartedAt}} {{.State.Running}}' kafka")


def _is_new(shell: Shell, started: str) -> bool:
    now = _started(shell)
    return now != started and now.endswith("true")


def _settings_in_force(shell: Shell) -> None:
    """A misspelt variable of the broker would say nothing."""
    compose = yaml.safe_load((shell.root / "docker/docker-compose.yaml").read_text())
    wanted = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for name, value in compose["services"]["kafka"]["environment"].items()
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
    }

    def judge(output: str) -> str:
        found = dict(re.findall(r"^  ([a-z.]+)=(.*?) sensitive=", output, re.MULTILINE))
        for name, value in wanted.items():
            if found.get(name) != value:
                raise StepFailed(f"the broker has {name}={found.get(name)}, not {value}")
        return f"{len(wanted)} settings of docker-compose.yaml are in force"

    shell.step(
        "docker exec kafka kafka-configs --bootstrap-server localhost:9092 --describe --all --entity-type brokers "
        "--entity-name 1",
        judge,
    )


def _both_up(output: str) -> str:
    rows = [line for line in output.splitlines() if line.startswith(("kafka", "mlflow"))]
    if len(rows) != 2 or not all(" Up " in row for row in rows):
        raise StepFailed("kafka and mlflow are not both Up")
    return "kafka Up, mlflow Up"


def _recorded(output: str) -> str:
    found = re.search(r"^recorded [1-9].*", output, re.MULTILINE)
    if found is None:
        raise StepFailed("it does not say what it recorded")
    return found[0]


def _five_ticks(output: str) -> str:
    ticks = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if not ticks or not all(each["product_id"] == "BTC-USD" and each["raw"] for each in ticks):
        raise StepFailed("these are no ticks of BTC-USD")
    return f"{len(ticks)} ticks of BTC-USD"


def _last_line(output: str) -> str:
    return output.strip().splitlines()[-1]


def _line(wanted: str) -> Callable[[str], str]:
    def judge(output: str) -> str:
        if output.strip() != wanted:
            raise StepFailed(f"expected {wanted}")
        return wanted

    return judge


def _give_away(shell: Shell) -> None:
    """Where we may, make data/ somebody's who is neither root nor known in the image."""
    if os.geteuid() == 0:
        shell.step("chown -R 1234:1234 data")


def _owned(shell: Shell) -> None:
    """What containers wrote to the host's disk belongs to whoever has the folder, and that is not root."""
    data = shell.root / "data"
    owners = {path.stat().st_uid for path in (data, *data.rglob("*"))}
    if len(owners) != 1 or owners == {0}:
        raise StepFailed(f"data/ has several owners or is root's: {owners}")
    click.echo(f"  all of data/ belongs to user {owners.pop()}")


SHORT: tuple[Callable[[Shell], None], ...] = (infrastructure, image, ingestion)
LATER = (broker_ended, nothing_lost, replay_equals_features, recreated)
FULL = (*SHORT, pipeline, broker_killed, *LATER)
FLOOD = (*SHORT, broker_killed_in_a_flood, *LATER)
