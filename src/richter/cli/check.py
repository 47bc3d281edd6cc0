"""`richter check`: whether a topic holds what it should."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from richter.cli.command import App, setting, subcommand
from richter.errors import ArgumentsError

if TYPE_CHECKING:
    from richter.runtime.check_report import CheckReport, Sample

__all__ = ["Wanted", "check_options", "command", "run_check"]

_SAMPLE_LINES = 24
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Wanted(NamedTuple):
    """What a topic is asked for."""

    topic: str | None
    minimum: int
    begin: str | None
    since: str | None
    timeout_s: float


def check_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a check; the function gets them as `wanted`."""

    def call(
        app: App,
        topic: str | None,
        minimum: int,
        begin: str | None,
        since: str | None,
        timeout_s: float,
    ) -> None:
        function(app, Wanted(topic, minimum, begin, since, timeout_s))

    call.__doc__ = function.__doc__
    for option in reversed(_OPTIONS):
        option(call)
    return call


_OPTIONS = (
    click.option("--topic", metavar="TOPIC", help="The topic.  [default: ticks.raw, behind the prefix]"),
    click.option(
        "--min",
        "minimum",
        type=click.IntRange(min=0),
        default=1,
        metavar="N",
        show_default=True,
        help="So many messages are enough; fewer are waited for.",
    ),
    click.option(
        "--from",
        "begin",
        type=click.Choice(("beginning", "latest")),
        help="Where to begin; `latest` counts what comes from now on.  [default: beginning]",
    ),
    click.option(
        "--since",
        metavar="TIME",
        help="Begin with the messages of the last 15m or 2h, or since 2026-01-31T12:00 (UTC): from the beginning "
        "those of earlier runs count too.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, max=86_400),
        default=30.0,
        metavar="SECONDS",
        show_default=True,
        help="How long to wait for more at the end of the topic.",
    ),
    setting("--bootstrap", "kafka_bootstrap_servers", metavar="HOST:PORT", help="The Kafka brokers."),
)


@subcommand(
    "check",
    examples=(
        "richter check",
        "richter check --topic ticks.raw --min 100 --since 15m",
        "richter check --topic ticks.features --from latest --timeout 60 --json",
    ),
    configure_logs=False,
)
@check_options
def command(app: App, wanted: Wanted) -> None:
    """Check a Kafka topic: how many messages, of which products, and what is wrong with them.

    Each message is decoded; its key must be its product, and a product must stay in one partition. Nothing is
    committed and no consumer group is joined. The exit code is 1 when messages are too few or invalid. Duplicates and
    messages out of order are told and do no harm: features leave them out.
    """
    run_check(app, wanted)


def run_check(app: App, wanted: Wanted) -> None:
    """Check, report, and exit with 1 when messages are too few or invalid."""
    now = time.time_ns()
    start = _start(wanted, now)
    from richter.adapters.kafka.topics import RAW
    from richter.runtime.checking import check

    topic = wanted.topic or app.settings.kafka_topic_prefix + RAW
    with _bar(not app.as_json) as (on_total, on_done, clear):

        def on_wait(records: int) -> None:
            clear()
            if not app.as_json and wanted.timeout_s:
                click.echo(
                    f"{_messages(records)} so far, waiting up to {wanted.timeout_s:g} s for "
                    f"{wanted.minimum - records:,} more",
                    err=True,
                )

        found = check(
            app.settings,
            topic,
            start=start,
            minimum=wanted.minimum,
            timeout_s=wanted.timeout_s,
            on_total=on_total,
            on_done=on_done,
            on_wait=on_wait,
        )
    age_s = None if found.newest is None else (time.time_ns() - found.newest) / 1e9
    enough, valid = found.records >= wanted.minimum, not found.invalid
    app.emit(
        {
            "ok": enough and valid,
            "enough": enough,
            "valid": valid,
            "wanted": wanted.minimum,
            "age_s": age_s,
            "check": found,
        },
        lambda: _show(found, wanted, age_s),
    )
    if not (enough and valid):
        raise SystemExit(1)


def _start(wanted: Wanted, now: int) -> Any:
    from richter.domain.times import parse_time

    if wanted.since is None:
        return wanted.begin or "beginning"
    if wanted.begin is not None:
        raise ArgumentsError("--from and --since both say where to begin", None, "give one of them")
    length = _DURATION.fullmatch(wanted.since.strip())
    if length:
        return max(0, now - round(float(length[1]) * _UNITS_S[length[2]] * 1e9))
    # A bare number would be taken for seconds since 1970.
    since = None if wanted.since.strip().replace(".", "").isdigit() else parse_time(wanted.since)
    if since is None:
        raise ArgumentsError("--since is no time", wanted.since, "give 15m, 2h, 1d or 2026-01-31T12:00:00Z")
    if since > now:
        raise ArgumentsError("--since lies in the future", wanted.since, "to count what comes: --from latest")
    return since


@contextmanager
def _bar(
    shown: bool,
) -> Iterator[tuple[Callable[[int], None], Callable[[int], None], Callable[[], None]]]:
    """A bar of messages on a terminal: sets the total, advances, takes the bar away."""
    if not shown or not sys.stderr.isatty():
        yield (lambda total: None), (lambda done: None), (lambda: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("reading", total=None)
        yield (
            lambda total: bars.update(task, total=total),
            lambda done: bars.advance(task, done),
            bars.stop,
        )


def _show(found: CheckReport, wanted: Wanted, age_s: float | None) -> None:
    from richter.cli.report import several
    from richter.cli.text import table
    from richter.domain.times import format_time

    what = {"other": "; such are counted, not validated", None: ""}.get(found.kind, f" of {found.kind}")
    where = f"since {wanted.since}" if wanted.since else f"from the {wanted.begin or 'beginning'}"
    where = "from now on" if wanted.begin == "latest" else where
    click.echo(f"{found.topic}: {_messages(found.records)}{what}, read {where}" if found.kind != "other" else "")
    del several, table, format_time


def _messages(number: int) -> str:
    from richter.cli.report import several

    return several(number, "message")
