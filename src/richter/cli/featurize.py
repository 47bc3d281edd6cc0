"""`richter featurize`: features of ticks on Kafka."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from richter.cli.command import App, setting, subcommand
from richter.cli.feed_options import minutes_type

if TYPE_CHECKING:
    from richter.runtime.featurize import Featurized

__all__ = ["command", "featurize_options", "run_featurize"]


def featurize_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(
        (
            click.option(
                "--topic_in",
                "--topic-in",
                metavar="TOPIC",
                help="Where ticks come from. Default: ticks.raw.",
            ),
            click.option(
                "--topic_out", "--topic-out", metavar="TOPIC", help="Where rows go. Default: ticks.features."
            ),
            click.option(
                "--duration",
                type=minutes_type,
                metavar="MINUTES",
                help="End after so many minutes; fractions are allowed. Without it: at Ctrl+C.",
            ),
            click.option("--no-parquet", is_flag=True, help="Keep no feature log in the data folder."),
            setting("--bootstrap", "kafka_bootstrap_servers", metavar="HOST:PORT"),
            setting("--instance", "kafka_instance", metavar="NAME"),
            setting("--stale-after", "stale_after_s", metavar="SECONDS"),
            setting("--metrics", "metrics", metavar="HOST:PORT"),
        )
    ):
        function = option(function)
    return function


@subcommand(
    "featurize",
    examples=(
        "richter featurize",
        "richter featurize --topic_in ticks.raw --topic_out ticks.features --duration 15",
        "richter featurize --no-parquet      # one more process of the group",
    ),
)
@featurize_options
def command(
    app: App, topic_in: str | None, topic_out: str | None, duration: float | None, no_parquet: bool
) -> None:
    """Compute features of ticks on Kafka, exactly once, and keep them in the feature log.

    Start as many as there are partitions: they share the work, and take over from each other.
    """
    run_featurize(app, topic_in, topic_out, duration, no_parquet)


def run_featurize(
    app: App, topic_in: str | None, topic_out: str | None, duration: float | None, no_parquet: bool
) -> None:
    """Compute until the time is over or Ctrl+C, and say what was done."""
    from richter.cli import logs
    from richter.runtime.featurize import featurize

    logs.write_on_a_thread()
    done = featurize(
        app.settings, topic_in=topic_in, topic_out=topic_out, minutes=duration, parquet=not no_parquet
    )
    app.emit({"featurized": done}, lambda: _show(done))


def _show(done: Featurized) -> None:
    from richter.cli.report import several

    account = done.account
    click.echo(
        f"{several(account.lines, 'record')} of {done.topic_in} made {several(account.rows, 'row')} of "
        f"{done.topic_out}, in {several(done.stage.commits, 'transaction')}"
    )
    for number, what in (
        (account.duplicates, "doubled ticks, dropped by their identity"),
        (account.clamped, "times set back by up to 2 s, clamped"),
        (done.restarts, "times the stage was lost and went on from what was committed"),
    ):
        if number:
            click.echo(f"  {number:>9,}  {what}")
    for reason, number in sorted(account.dead.items()):
        click.echo(f"  {number:>9,}  dead letters: {reason}")
    if done.log is not None:
        click.echo(f"  {done.log.rows:>9,}  rows written to {done.folder}")
    if done.log_trouble:
        click.echo(f"the feature log: {done.log_trouble}")
