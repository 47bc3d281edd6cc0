"""Check a Kafka topic: how many messages, of which products, and what is wrong with them: `richter check`."""

from __future__ import annotations

import sys

from richter.cli.check import Wanted, check_options, run_check
from richter.cli.command import App, subcommand
from richter.cli.run import run


@subcommand(
    "kafka_consume_check.py",
    examples=(
        "python scripts/kafka_consume_check.py --topic ticks.raw --min 100",
        "python scripts/kafka_consume_check.py --topic ticks.features --since 15m",
    ),
)
@check_options
def command(app: App, wanted: Wanted) -> None:
    """Check a Kafka topic: how many messages, of which products, and what is wrong with them."""
    run_check(app, wanted)


if __name__ == "__main__":
    sys.exit(run(command, None, "kafka_consume_check.py"))
