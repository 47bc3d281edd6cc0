"""`richter check`: whether a topic holds what it should."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from richter.cli.command import App, setting, subcommand
from richter.cli.kafka_text import aligned, messages, printable, span_text
from richter.errors import ArgumentsError

if TYPE_CHECKING:
    from richter.adapters.kafka.reading import Start
    from richter.runtime.check_report import CheckReport, Sample

__all__ = ["Wanted", "check_options", "command", "run_check"]

_SAMPLE_FIELDS = 24
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
        help="How long to wait for the next message at the end of the topic, while --min are not there.",
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
                    f"{messages(records)} so far, waiting for {wanted.minimum - records:,} more; it gives up when "
                    f"none comes for {wanted.timeout_s:g} s",
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


def _start(wanted: Wanted, now: int) -> Start:
    if wanted.since is None:
        return "latest" if wanted.begin == "latest" else "beginning"
    if wanted.begin is not None:
        raise ArgumentsError("--from and --since both say where to begin", None, "give one of them")
    length = _DURATION.fullmatch(wanted.since.strip())
    if length:
        return max(0, now - round(float(length[1]) * _UNITS_S[length[2]] * 1e9))
    try:
        since = datetime.fromisoformat(wanted.since.strip())
    except ValueError as error:
        raise ArgumentsError(
            "--since is no time", wanted.since, "give 15m, 2h, 1d, 2026-01-31 or 2026-01-31T12:00"
        ) from error
    if since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    since_ns = (since - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    if not 0 <= since_ns <= now:
        raise ArgumentsError(
            "--since lies before 1970 or in the future",
            wanted.since,
            "to count what comes from now on: --from latest",
        )
    return since_ns


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
    begin = "from now on" if wanted.begin == "latest" else "from the beginning"
    begin = f"since {wanted.since}" if wanted.since else begin
    what = {"other": ", counted and not validated", None: ""}.get(found.kind, f" of {found.kind}")
    click.echo(f"{printable(found.topic)}: {messages(found.records)}{what}, {begin}")
    rows = [(str(number), each.records, each.begin, each.end) for number, each in found.partitions.items()]
    click.echo(aligned(("partition", "messages", "begin", "end"), rows))
    if found.products:
        click.echo(_product_table(found))
    if found.without_identity:
        click.echo(f"  {messages(found.without_identity)} without a connection: duplicates cannot be told")
    if found.first is not None and found.last is not None:
        span = span_text((found.last - found.first) / 1e9)
        click.echo(f"  {_second(found.first)} to {_second(found.last)} UTC, {span}")
    if age_s is not None:
        told = f"{span_text(age_s)} ago" if age_s >= 0 else f"{span_text(-age_s)} ahead of this clock"
        click.echo(f"  the newest came in {told}")
    if found.sample is not None:
        _show_sample(found.sample)
    for problem in found.problems:
        click.echo(
            f"✗ {messages(problem.records)}: {problem.kind}, the first in partition {problem.partition} at offset "
            f"{problem.offset}: {printable(problem.reason)}"
        )
    click.echo(_verdict(found, wanted))


def _second(ns: int) -> str:
    from richter.domain.times import format_time

    try:
        return format_time(ns)[:19]
    except ValueError:  # A feature row may say anything.
        return f"{ns} ns"


def _product_table(found: CheckReport) -> str:
    rows = [
        (
            printable(name),
            each.partition,
            each.records,
            _second(each.first),
            _second(each.last),
            "" if each.rate_per_s is None else f"{each.rate_per_s:.2f}",
            each.duplicates,
            each.out_of_order,
            ", ".join(f"{number:,} {cause}" for cause, number in sorted(each.gaps.items())) or "none",
        )
        for name, each in found.products.items()
    ]
    head = ("product", "partition", "messages", "first (UTC)", "last", "per s", "duplicates", "out of order")
    return aligned((*head, "gaps"), rows, left=(0, len(head)))


def _show_sample(sample: Sample) -> None:
    import msgspec

    from richter.domain.times import format_time

    stamp = "" if sample.timestamp_ms is None else f", {format_time(sample.timestamp_ms * 1_000_000)[:23]}Z"
    key = "no key" if sample.key is None else f"key {printable(sample.key)}"
    click.echo(f"  the last message, partition {sample.partition}, offset {sample.offset}, {key}{stamp}:")
    value = sample.value if isinstance(sample.value, dict) else {"": sample.value}
    for name, cell in list(value.items())[:_SAMPLE_FIELDS]:
        # What was an object stands here as its text: quoted once more it would be hard to read.
        nested = isinstance(cell, str) and cell[:1] in ("{", "[")
        text = str(cell) if nested else msgspec.json.encode(cell).decode()
        click.echo(f"    {printable(name)}: {printable(text)}" if name else f"    {printable(text)}")
    if len(value) > _SAMPLE_FIELDS:
        click.echo(f"    … {len(value) - _SAMPLE_FIELDS} more")


def _verdict(found: CheckReport, wanted: Wanted) -> str:
    here = f"{messages(found.records)} in {printable(found.topic)}"
    if found.records < wanted.minimum:
        empty = not any(each.end - each.begin for each in found.partitions.values())
        why = "no more came" if found.records else "it is empty, none came" if empty else "none came"
        writer = "is `richter ingest` running?" if found.kind in ("ticks", None) else "is its writer running?"
        return f"✗ {here}, {wanted.minimum:,} wanted: {why} within {wanted.timeout_s:g} s; {writer}"
    if found.invalid:
        return f"✗ {here}, {found.invalid:,} of them invalid"
    return f"✓ {here} (at least {wanted.minimum:,} wanted)"
