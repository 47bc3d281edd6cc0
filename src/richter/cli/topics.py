"""`richter topics`: make the topics and look at them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from richter.cli.command import App, group, setting, subcommand
from richter.cli.kafka_text import aligned, span_text
from richter.errors import ArgumentsError

if TYPE_CHECKING:
    from richter.adapters.kafka.connection import Broker
    from richter.adapters.kafka.topics import TopicState

# What is heavy is imported by the functions: `--help` does without.

_bootstrap = setting("--bootstrap", "kafka_bootstrap_servers", metavar="HOST:PORT", help="The Kafka brokers.")


@group(
    "topics",
    examples=(
        "richter topics create",
        "richter topics list",
        "richter topics describe ticks.raw",
    ),
)
def command() -> None:
    """Create the Kafka topics, list them, and say how each is made.

    Names are whole: with the prefix, where KAFKA_TOPIC_PREFIX sets one.

    Each command takes --bootstrap, --data, --json, --config, --log-format, --log-level and --debug.
    """


class _Retention(click.ParamType[float]):
    name = "hours"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read hours or `forever`."""
        if value == "forever":
            return math.inf
        try:
            hours = float(value)
        except ValueError:
            hours = math.nan
        if not 0 < hours < 1e9:
            self.fail(f"{value!r} is neither a number of hours above 0 nor 'forever'.", param, ctx)
        return hours


@subcommand(
    "create",
    examples=(
        "richter topics create",
        "richter topics create ticks.raw --partitions 6 --retention-hours 24",
        "richter topics create replay.raw --retention-hours forever",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option(
    "--partitions",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Partitions of each.  [default: kafka_partitions, 3]",
)
@click.option(
    "--replication",
    type=click.IntRange(1, 100),
    metavar="N",
    help="Copies of each.  [default: kafka_replication, or 3 where there are so many brokers, else 1]",
)
@click.option(
    "--retention-hours",
    type=_Retention(),
    metavar="HOURS",
    help="How long records are kept, or `forever`.  [default: kafka_retention_hours, 168]",
)
@_bootstrap
def create(
    app: App,
    names: tuple[str, ...],
    partitions: int | None,
    replication: int | None,
    retention_hours: float | None,
) -> None:
    """Create topics: all of richter's, or those named. Existing ones are left as they are."""
    from richter.adapters.kafka.topics import TOPICS, describe
    from richter.adapters.kafka.topics import create as create_topics

    broker = _broker(app)
    wanted = list(dict.fromkeys(names or (app.settings.kafka_topic_prefix + topic.name for topic in TOPICS)))
    existing = broker.cluster().topics
    if partitions is not None:
        # Before anything is made: nothing is left half done.
        for name in wanted:
            if name in existing and len(existing[name].partitions) not in (0, partitions):
                raise ArgumentsError(
                    f"{name} exists with {len(existing[name].partitions)} partitions, {partitions} were asked for",
                    None,
                    "leave --partitions away, or delete the topic first: "
                    "with other partitions the order of a product would be lost",
                )
    created = create_topics(
        broker,
        wanted,
        app.settings,
        partitions=partitions,
        replication=replication,
        retention_hours=retention_hours,
    )
    states = describe(broker, wanted)

    def human() -> None:
        rows = [
            (
                "created" if state.name in created else "exists",
                state.name,
                len(state.partitions),
                state.replication,
                _kept(state),
            )
            for state in states
        ]
        click.echo(aligned(("", "topic", "partitions", "copies", "kept"), rows, left=(0, 1, 4)))

    app.emit(
        {
            "created": created,
            "existed": [state.name for state in states if state.name not in created],
            "topics": states,
        },
        human,
    )


@subcommand("list", examples=("richter topics list", "richter topics list --json"))
@_bootstrap
def list_(app: App) -> None:
    """List the topics: partitions, records, what they hold.

    With KAFKA_TOPIC_PREFIX set, only those whose names begin with it. Records are offsets between the ends:
    transactions' markers count too.
    """
    from richter.adapters.kafka.topics import TOPICS, describe

    broker = _broker(app)
    prefix = app.settings.kafka_topic_prefix
    states = describe(broker, _present(broker, prefix))
    holds = _holds(prefix)
    present = {state.name for state in states}
    missing = [prefix + topic.name for topic in TOPICS if prefix + topic.name not in present]

    def human() -> None:
        rows = [
            (state.name, len(state.partitions), state.records, holds.get(state.name, "")) for state in states
        ]
        if rows:
            click.echo(aligned(("topic", "partitions", "records", "holds"), rows, left=(0, 3)))
        if missing:
            click.echo(f"missing: {', '.join(missing)}; create them: richter topics create")

    app.emit(
        {
            "topics": [
                {
                    "name": state.name,
                    "partitions": len(state.partitions),
                    "records": state.records,
                    "holds": holds.get(state.name),
                }
                for state in states
            ],
            "missing": missing,
        },
        human,
    )


@subcommand(
    "describe",
    examples=("richter topics describe", "richter topics describe ticks.raw --json"),
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@_bootstrap
def describe_(app: App, names: tuple[str, ...]) -> None:
    """Say how topics are made, partition by partition.

    Each partition's oldest offset and the one behind its last record, its leader, and how many copies are in sync;
    how long records are kept, and the id, which changes when a topic is made anew.
    """
    from richter.adapters.kafka.topics import describe

    broker = _broker(app)
    prefix = app.settings.kafka_topic_prefix
    states = describe(broker, list(dict.fromkeys(names)) or _present(broker, prefix))
    holds = _holds(prefix)

    def human() -> None:
        if not states:
            click.echo("there are no topics; create them: richter topics create")
        for state in states:
            what = f": {holds[state.name]}" if state.name in holds else ""
            click.echo(f"{state.name}{what}")
            copies = "1 copy" if state.replication == 1 else f"{state.replication} copies"
            click.echo(f"  {state.records:,} records, {copies}, kept: {_kept(state)}, id {state.topic_id}")
            rows = [
                (
                    str(part.partition),
                    part.begin,
                    part.end,
                    part.leader,
                    f"{part.in_sync}/{state.replication}",
                )
                for part in state.partitions
            ]
            click.echo(aligned(("partition", "begin", "end", "leader", "in sync"), rows))

    app.emit({"topics": states}, human)


for _command in (create, list_, describe_):
    command.add_command(_command)


def _broker(app: App) -> Broker:
    from richter.adapters.kafka.connection import Broker

    return Broker(app.settings, "topics")


def _present(broker: Broker, prefix: str) -> Sequence[str]:
    """The topics with this prefix that are not Kafka's own."""
    return sorted(
        name for name in broker.cluster().topics if name.startswith(prefix) and not name.startswith("__")
    )


def _holds(prefix: str) -> dict[str, str]:
    from richter.adapters.kafka.topics import TOPICS

    return {prefix + topic.name: topic.what for topic in TOPICS}


def _kept(state: TopicState) -> str:
    if "delete" not in state.cleanup:
        return "the last of each key"
    return "for ever" if state.retention_ms < 0 else span_text(state.retention_ms / 1000)
