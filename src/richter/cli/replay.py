"""`richter replay`: recompute features from recordings and prove that they match a live log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from richter.cli.command import App, setting, subcommand
from richter.cli.progress import progress

# What is heavy is imported by the function: `--help` does without.

CHECKS = (
    "✓ Features match between live and replay",
    "✓ Row counts identical",
    "✓ Reproducibility verified",
)


@subcommand(
    "replay",
    examples=(
        'richter replay --raw "data/raw/*.ndjson" --out data/processed/features_replay.parquet',
        "richter replay --raw data/raw --out f.parquet --compare data/processed/features.parquet",
        "richter replay --raw data/raw --out f.parquet --alerts",
        "richter replay --raw data/raw --out f.parquet --workers 4",
        "richter replay --raw data/raw --to ticks.raw --speed 60",
        "richter replay --from-topic ticks.raw      # and compare with ticks.features",
    ),
)
@click.option(
    "--raw",
    "raw",
    multiple=True,
    metavar="GLOB",
    help="Recordings: a file, a folder or a quoted glob; may be given several times, in order.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The feature log to write (a folder of Parquet parts).",
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A feature log to compare with, bit for bit; exit code 1 when they differ.",
)
@click.option(
    "--alerts", is_flag=True, help="Run the alert rule too: print onsets and all-clears, write the alert log."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    show_default=True,
    help="Processes; the bits are the same for any number.",
)
@click.option("--to", metavar="TOPIC", help="Publish the recordings to this topic of Kafka, as they are.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="With --to: so many times faster than they were received. Without it: as fast as it goes.",
)
@click.option(
    "--from-topic",
    metavar="TOPIC",
    help="Recompute what this topic of raw ticks holds, in the place of --raw.",
)
@click.option(
    "--compare-topic",
    metavar="TOPIC",
    help="With --from-topic: the rows to compare with. Default: ticks.features.",
)
@setting("--bootstrap", "kafka_bootstrap_servers", metavar="HOST:PORT")
@setting("--stale-after", "stale_after_s", metavar="SECONDS")
def command(
    app: App,
    raw: tuple[str, ...],
    out: Path | None,
    compare: Path | None,
    alerts: bool,
    workers: int,
    to: str | None,
    speed: float | None,
    from_topic: str | None,
    compare_topic: str | None,
) -> None:
    """Recompute features from recordings and compare them bit for bit.

    With --to the recordings are published to Kafka instead; with --from-topic the ticks come from there.
    """
    if from_topic is not None:
        _refuse(
            "--from-topic",
            raw=raw,
            to=to,
            speed=speed,
            compare=compare,
            alerts=alerts,
            workers=workers > 1,
        )
        run_replay_topic(app, from_topic, compare_topic, out)
        return
    if not raw:
        raise click.UsageError("--raw GLOB or --from-topic TOPIC is needed: where the ticks come from")
    _refuse("--raw", compare_topic=compare_topic)
    if to is not None:
        _refuse("--to", out=out, compare=compare, alerts=alerts, workers=workers > 1)
        run_publish(app, list(raw), to, speed)
        return
    _refuse("a replay without --to", speed=speed)
    if out is None:
        raise click.UsageError("--out FILE is needed: the feature log to write")
    run_replay(app, list(raw), out, compare=compare, alerts=alerts, workers=workers)


def _refuse(what: str, **others: object) -> None:
    """Options that mean nothing beside another one."""
    for name, value in others.items():
        if value:
            raise click.UsageError(f"--{name.replace('_', '-')} means nothing with {what}")


def run_publish(app: App, raw: list[str], topic: str, speed: float | None) -> None:
    """Publish recordings and say what was done."""
    from richter.runtime.topic_replay import publish_recordings

    with progress("publishing", shown=not app.as_json) as bar:
        sent = publish_recordings(
            raw, topic, app.settings, speed=speed, on_total=bar.total, on_bytes=bar.advance
        )

    def human() -> None:
        from richter.cli.report import several

        click.echo(f"{several(sent.files, 'file')} -> {several(sent.records, 'record')} in {sent.topic}")
        parts = [(number, f"lines without ticks: {kind}") for kind, number in sorted(sent.unread.items())]
        parts += [(sent.too_large, "lines too large for a record, kept as dead letters")]
        parts += [(sent.restarts, "producers that failed, and sent again what was not acknowledged")]
        for number, what in parts:
            if number:
                click.echo(f"  {number:>9,}  {what}")

    app.emit({"sent": sent}, human)


def run_replay_topic(app: App, topic: str, compare_topic: str | None, out: Path | None) -> None:
    """Recompute from a topic, report, and exit with 1 when the rows on Kafka differ."""
    from richter.adapters.kafka.topics import FEATURES
    from richter.runtime.topic_replay import replay_topic

    settings = app.settings
    rows = compare_topic or settings.kafka_topic_prefix + FEATURES
    with progress("reading the topics", shown=not app.as_json, unit="records") as bar:
        done = replay_topic(
            topic,
            rows,
            out or settings.data_dir / "processed" / "features_replay.parquet",
            settings,
            on_total=bar.total,
            on_records=bar.advance,
        )
    assert done.comparison is not None
    comparison = done.comparison

    def human() -> None:
        from richter.cli.report import account_lines, several, show_comparison

        account = done.account
        click.echo(
            f"{several(account.lines, 'record')} of {topic} -> {several(account.rows, 'feature row')} in "
            f"{done.out}, compared with {rows}"
        )
        for line in account_lines(account):
            click.echo(line)
        show_comparison(comparison, CHECKS)

    app.emit({"replay": done, "same": comparison.same}, human)
    if not comparison.same:
        raise SystemExit(1)


def run_replay(
    app: App, raw: list[str], out: Path, *, compare: Path | None, alerts: bool = False, workers: int = 1
) -> None:
    """Replay, report, and exit with 1 when the logs differ."""
    from richter.runtime.alerting import AlertRun
    from richter.runtime.replay import replay

    alerting = AlertRun(app.settings) if alerts else None
    with progress("replaying", shown=not app.as_json) as bar:
        done = replay(
            raw,
            out,
            app.settings,
            compare=compare,
            workers=workers,
            on_total=bar.total,
            on_bytes=bar.advance,
            on_rows=alerting.take if alerting else None,
        )
    report = alerting.finish(app.settings.data_dir / "alerts" / "replay_alerts.ndjson") if alerting else None

    def human() -> None:
        from richter.cli.report import show_account, show_alerts, show_comparison

        show_account(done)
        if report is not None:
            show_alerts(report)
        if done.comparison is None:
            click.echo("Nothing to compare with: no live feature log was given or found.")
        else:
            show_comparison(done.comparison, CHECKS)

    answer: dict[str, Any] = {
        "replay": done,
        "same": None if done.comparison is None else done.comparison.same,
    }
    if report is not None:
        answer["alerts"] = report
    app.emit(answer, human)
    if done.comparison is not None and not done.comparison.same:
        raise SystemExit(1)
