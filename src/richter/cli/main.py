"""The `richter` program: its list of subcommands and the way in."""

from collections.abc import Mapping, Sequence
from importlib import import_module

import click

import richter
from richter.cli.run import run

# One line a command: name, where it is defined, what it does. Nothing is imported before it is called for.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": (
        "richter.cli.demo:command",
        "Watch a simulated market live, offline, and prove that its recording replays to the same bits.",
    ),
    "run": (
        "richter.cli.live:command",
        "Watch the market live: record it, compute features, raise alerts.",
    ),
    "ingest": (
        "richter.cli.ingest:command",
        "Record the market's ticks and publish them to Kafka.",
    ),
    "kafka": (
        "richter.cli.kafka:command",
        "Start, stop and look at a Kafka broker on this machine, without Docker.",
    ),
    "topics": (
        "richter.cli.topics:command",
        "Create the Kafka topics, list them, and say how each is made.",
    ),
    "check": (
        "richter.cli.check:command",
        "Check a Kafka topic: how many messages, of which products, and what is wrong with them.",
    ),
    "featurize": (
        "richter.cli.featurize:command",
        "Compute features of ticks on Kafka, exactly once, and keep them in the feature log.",
    ),
    "replay": (
        "richter.cli.replay:command",
        "Recompute features from recordings and compare them bit for bit.",
    ),
    "inspect": (
        "richter.cli.inspect:command",
        "Say what recordings hold: products, span, rate, gaps, and what is known of each feature.",
    ),
    "simulate": (
        "richter.cli.simulate:command",
        "Serve a simulated market or a recording as Coinbase would, with faults on request.",
    ),
    "features": ("richter.cli.features:command", "List the features: name, unit, span and formula."),
    "config": ("richter.cli.config:command", "Show every setting and where its value comes from."),
}


class LazyGroup(click.Group):
    """Subcommands which are imported when they run, and listed from the table above."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of the table, which is the order of use."""
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    commands=[click.Command(name) for name in COMMANDS],  # So that click suggests them for a misspelt one.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every command has its own --help, with examples.",
)
@click.version_option(richter.__version__, message="%(prog)s %(version)s")
def richter_command() -> None:
    """Watch crypto markets and predict spikes of their volatility a minute ahead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `richter` with these arguments (default: the process's own) and return the exit code."""
    return run(richter_command, arguments, "richter")
