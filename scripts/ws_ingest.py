"""Record Coinbase's ticker: `richter ingest` under the name of the course."""

from __future__ import annotations

import sys

import click

from richter.cli.command import App, subcommand
from richter.cli.feed_options import feed_options
from richter.cli.run import run


@subcommand(
    "ws_ingest.py",
    examples=(
        "python scripts/ws_ingest.py --pair BTC-USD --minutes 15 --save-disk",
        "python scripts/ws_ingest.py --pair BTC-USD --pair ETH-USD --minutes 0.5 --save-disk",
    ),
)
@feed_options
@click.option("--save-disk", is_flag=True, help="Keep the recording in raw/; else it is kept in spool/.")
def command(app: App, minutes: float | None, save_disk: bool) -> None:
    """Record the market's ticks and nothing else."""
    from richter.cli.ingest import run_ingest

    run_ingest(app, minutes, save_disk)


if __name__ == "__main__":
    sys.exit(run(command, None, "ws_ingest.py"))
