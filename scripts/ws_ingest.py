"""Record Coinbase's ticker and publish it: `richter ingest` under the name of the course."""

from __future__ import annotations

import sys

from richter.cli.command import App, subcommand
from richter.cli.ingest import ingest_options, run_ingest
from richter.cli.run import run


@subcommand(
    "ws_ingest.py",
    examples=(
        "python scripts/ws_ingest.py --pair BTC-USD --minutes 15 --save-disk",
        "python scripts/ws_ingest.py --pair BTC-USD --pair ETH-USD --minutes 0.5 --save-disk --no-kafka",
    ),
)
@ingest_options
def command(app: App, minutes: float | None, save_disk: bool, no_kafka: bool) -> None:
    """Record the market's ticks and publish them to Kafka."""
    run_ingest(app, minutes, save_disk, no_kafka)


if __name__ == "__main__":
    sys.exit(run(command, None, "ws_ingest.py"))
