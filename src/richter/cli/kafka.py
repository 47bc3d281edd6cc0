"""`richter kafka`: a real broker on this machine, without Docker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from richter.cli.command import App, group, subcommand

if TYPE_CHECKING:
    from richter.adapters.broker.cluster import Cluster, ClusterStatus
    from richter.adapters.broker.probe import Answer

# What is heavy is imported by the functions: `--help` does without.

_folder: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the broker's data, settings and logs are.  [default: kafka in the data folder]",
)


@group("kafka", examples=("richter kafka up", "richter kafka status --json", "richter kafka down"))
def command() -> None:
    """Start, stop and look at a Kafka broker on this machine, without Docker.

    It is Apache Kafka itself: it needs Java 17 or newer, and Maven when it is fetched for the first time. It listens
    on 127.0.0.1 only and keeps its data over restarts.

    Each command takes --data, --json, --config, --log-format, --log-level and --debug.
    """


@subcommand(
    "up",
    examples=(
        "richter kafka up",
        "richter kafka up --brokers 3 --dir data/kafka-three",
        "richter kafka up --port 0 --json",
    ),
    configure_logs=False,
)
@click.option(
    "--brokers",
    type=click.Choice(("1", "3")),
    help="Three survive the loss of one.  [default: as many as before, then 1]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    metavar="N",
    help="The first broker's; the other brokers' follow, then one each for the controllers. 0 takes free ones.  "
    "[default: as before, then 9092]",
)
@_folder
def up(app: App, brokers: str | None, port: int | None, folder: Path | None) -> None:
    """Start the broker, or three, and wait until they answer.

    Where KAFKA_BOOTSTRAP_SERVERS names a broker that answers, that one is used and nothing is started.
    """
    cluster = _cluster(app, folder)
    other = _other(app, cluster)
    started: tuple[int, ...] = ()
    if other is None:
        started = cluster.start(int(brokers) if brokers else None, port)
    status = cluster.status()

    def human() -> None:
        if other is not None:
            click.echo(f"{_told(app, other)}: it is used, nothing was started.")
            return
        if not started:
            click.echo("It runs already.")
        _show(status)
        _hint(app, status)

    app.emit({"started": started, **_data(app, cluster, status, other)}, human)


@subcommand(
    "down",
    examples=("richter kafka down", "richter kafka down --dir data/kafka-three"),
    configure_logs=False,
)
@_folder
def down(app: App, folder: Path | None) -> None:
    """Stop what `richter kafka up` started; the data stay."""
    cluster = _cluster(app, folder)
    stopped = cluster.stop()

    def human() -> None:
        if not stopped:
            click.echo(f"No broker of {_shown(cluster.folder)} runs.")
        for each in stopped:
            how = ", which had to be killed" if each.killed else ""
            click.echo(f"Stopped broker {each.node_id}, pid {each.pid}{how}.")

    app.emit({"stopped": stopped, "dir": cluster.folder}, human)


@subcommand(
    "status",
    examples=("richter kafka status", "richter kafka status --json"),
    configure_logs=False,
)
@_folder
def status(app: App, folder: Path | None) -> None:
    """Say which brokers run and answer; exit with 1 when none answers."""
    cluster = _cluster(app, folder)
    found = cluster.status()
    other = _other(app, cluster)

    def human() -> None:
        if found.nodes:
            _show(found)
        else:
            click.echo(f"No broker was started in {_shown(cluster.folder)} yet.")
        if other is not None:
            click.echo(f"{_told(app, other)}.")

    app.emit(_data(app, cluster, found, other), human)
    if not found.answers and other is None:
        click.get_current_context().exit(1)


for _each in (up, down, status):
    command.add_command(_each)


def _cluster(app: App, folder: Path | None) -> Cluster:
    from richter.adapters.broker.cluster import Cluster

    return Cluster(folder or app.settings.data_dir / "kafka", lambda line: click.echo(line, err=True))


def _other(app: App, cluster: Cluster) -> Answer | None:
    """The answer of the broker that the settings name, where somebody named one and it is not this cluster's."""
    from richter.adapters.broker.probe import ask

    if app.resolved.sources["kafka_bootstrap_servers"] == "default":
        return None
    answer = ask(app.settings.kafka_bootstrap_servers)
    layout = cluster.layout
    return None if answer and layout and answer.cluster_id == layout.cluster_id else answer


def _data(app: App, cluster: Cluster, status: ClusterStatus, other: Answer | None) -> dict[str, object]:
    return {
        "answers": status.answers or other is not None,
        "dir": cluster.folder,
        "cluster_id": status.cluster_id,
        "bootstrap_servers": status.bootstrap_servers,
        "brokers": status.nodes,
        "other": other
        and {"bootstrap_servers": app.settings.kafka_bootstrap_servers, "cluster_id": other.cluster_id},
    }


def _show(status: ClusterStatus) -> None:
    for node in status.nodes:
        told = f"broker {node.node_id} on {node.address}"
        if node.pid is None:
            click.echo(f"{told} does not run, cluster {status.cluster_id}")
            continue
        memory = f", {node.rss_mib:.0f} MiB" if node.rss_mib else ""
        silent = "" if node.answers else ", DOES NOT ANSWER"
        click.echo(f"{told}, pid {node.pid}{memory}, cluster {status.cluster_id}{silent}")


def _hint(app: App, status: ClusterStatus) -> None:
    """Say how the rest of richter finds this broker, where it would look for it elsewhere."""
    servers = app.settings.kafka_bootstrap_servers
    if status.bootstrap_servers and servers.replace("localhost", "127.0.0.1") != status.bootstrap_servers:
        source = app.resolved.sources["kafka_bootstrap_servers"]
        told = "" if source == "default" else f" (now {servers} from {source}, where no broker answers)"
        click.echo(f"Use it with KAFKA_BOOTSTRAP_SERVERS={status.bootstrap_servers}{told}")


def _told(app: App, other: Answer) -> str:
    source = app.resolved.sources["kafka_bootstrap_servers"]
    return (
        f"A broker answers at {app.settings.kafka_bootstrap_servers} ({source}), cluster {other.cluster_id}"
    )


def _shown(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
