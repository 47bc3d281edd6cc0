"""Turn raw ticks into feature rows: `richter featurize` under the name of the course."""

from __future__ import annotations

import sys

from richter.cli.command import App, subcommand
from richter.cli.featurize import featurize_options, run_featurize
from richter.cli.run import run


@subcommand(
    "featurizer.py",
    examples=(
        "python features/featurizer.py --topic_in ticks.raw --topic_out ticks.features",
        "python features/featurizer.py --duration 15",
    ),
)
@featurize_options
def command(
    app: App, topic_in: str | None, topic_out: str | None, duration: float | None, no_parquet: bool
) -> None:
    """Compute features of ticks on Kafka, exactly once, and keep them in the feature log."""
    run_featurize(app, topic_in, topic_out, duration, no_parquet)


if __name__ == "__main__":
    sys.exit(run(command, None, "featurizer.py"))
