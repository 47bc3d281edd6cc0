"""Recompute features from the recording and compare them with the live ones: `richter replay` with defaults."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from richter.cli.command import App, setting, subcommand
from richter.cli.run import run


@subcommand(
    "replay.py",
    examples=(
        'python scripts/replay.py --raw "data/raw/*.ndjson" --out data/processed/features_replay.parquet',
        'python scripts/replay.py --raw "data/raw/*.ndjson"',
    ),
)
@click.option("--raw", required=True, multiple=True, metavar="GLOB", help="Recordings, in order.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Default: processed/features_replay.parquet in the data folder.",
)
@setting("--stale-after", "stale_after_s", metavar="SECONDS")
def command(app: App, raw: tuple[str, ...], out: Path | None) -> None:
    """Recompute features; compare with processed/features.parquet of the data folder where it exists."""
    from richter.cli.replay import run_replay

    processed = app.settings.data_dir / "processed"
    live = processed / "features.parquet"
    run_replay(
        app, list(raw), out or processed / "features_replay.parquet", compare=live if live.exists() else None
    )


if __name__ == "__main__":
    sys.exit(run(command, None, "replay.py"))
