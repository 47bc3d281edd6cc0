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
    ),
)
@click.option(
    "--raw",
    "raw",
    required=True,
    multiple=True,
    metavar="GLOB",
    help="Recordings: a file, a folder or a quoted glob; may be given several times, in order.",
)
@click.option(
    "--out",
    required=True,
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
@setting("--stale-after", "stale_after_s", metavar="SECONDS")
def command(
    app: App, raw: tuple[str, ...], out: Path, compare: Path | None, alerts: bool, workers: int
) -> None:
    """Recompute features from recordings and compare them bit for bit."""
    run_replay(app, list(raw), out, compare=compare, alerts=alerts, workers=workers)


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
