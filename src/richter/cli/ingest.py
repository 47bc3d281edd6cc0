"""`richter ingest`: the recording, and its way to Kafka."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from richter.cli.command import App, setting, subcommand
from richter.cli.feed_options import feed_options, refuse_nothing, show_ran
from richter.errors import TransportError

if TYPE_CHECKING:
    from richter.runtime.feed_run import Ran

__all__ = ["command", "ingest_options", "run_ingest"]


def ingest_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of recording and publishing to a command."""
    for option in reversed(
        (
            click.option(
                "--save-disk", is_flag=True, help="Keep the recording in raw/; else it is kept in spool/."
            ),
            click.option("--no-kafka", is_flag=True, help="Record and publish nothing."),
            setting("--bootstrap", "kafka_bootstrap_servers", metavar="HOST:PORT"),
            setting("--metrics", "metrics", metavar="HOST:PORT"),
        )
    ):
        function = option(function)
    return feed_options(function)


@subcommand(
    "ingest",
    examples=(
        "richter ingest --pair BTC-USD --minutes 15 --save-disk",
        "richter ingest --pair BTC-USD --pair ETH-USD --bootstrap localhost:9092",
        "richter ingest --pair BTC-USD --save-disk --no-kafka",
    ),
)
@ingest_options
def command(app: App, minutes: float | None, save_disk: bool, no_kafka: bool) -> None:
    """Record the market's ticks and publish them to Kafka.

    The recording comes first: while no broker answers it goes on, and what is not published yet is
    published as soon as one does, in order, by this run or by the next.
    """
    run_ingest(app, minutes, save_disk, no_kafka)


def run_ingest(app: App, minutes: float | None, save_disk: bool, no_kafka: bool) -> None:
    """Record and publish until the time is over or Ctrl+C, and say what was done.

    Raises:
        TransportError: something recorded is not published yet.
    """
    from richter.cli import logs
    from richter.runtime.ingesting import ingest

    logs.write_on_a_thread()
    ran = ingest(app.settings, minutes=minutes, save=save_disk, publish=not no_kafka)
    app.emit({"ran": ran}, lambda: _show(ran))
    refuse_nothing(ran, minutes)
    if ran.published is not None and ran.published.left:
        raise TransportError(
            f"{ran.published.left:,} recorded lines are not published yet"
            + (f" ({ran.published.trouble})" if ran.published.trouble else ""),
            None,
            f"they are kept in {ran.raw}: the next start that records there publishes them; --no-kafka only records",
        )


def _show(ran: Ran) -> None:
    show_ran(ran)
    if ran.published is not None:
        click.echo(f"  {ran.published.published:>9,}  published to {ran.published.topic}")
        if ran.published.refused:
            click.echo(
                f"  {ran.published.refused:>9,}  too large for a record or unreadable, kept as dead letters"
            )
