"""`richter ingest`: the recording alone."""

from __future__ import annotations

import socket

import click
import structlog

from richter.cli.command import App, subcommand
from richter.cli.feed_options import feed_options, refuse_nothing, show_ran

__all__ = ["command", "run_ingest"]


@subcommand(
    "ingest",
    examples=(
        "richter ingest --pair BTC-USD --minutes 15 --save-disk",
        "richter ingest --pair BTC-USD --pair ETH-USD --save-disk",
    ),
)
@feed_options
@click.option("--save-disk", is_flag=True, help="Keep the recording in raw/; else it is kept in spool/.")
def command(app: App, minutes: float | None, save_disk: bool) -> None:
    """Record the market's ticks and nothing else."""
    run_ingest(app, minutes, save_disk)


def run_ingest(app: App, minutes: float | None, save_disk: bool) -> None:
    """Record until the time is over or Ctrl+C, and say what was written."""
    from richter.cli import logs
    from richter.runtime.running import ingest

    logs.write_on_a_thread()
    servers = app.settings.kafka_bootstrap_servers
    told = "a broker answers, and this version does not publish" if _answers(servers) else "no broker answers"
    structlog.get_logger("richter.ingest").warning(
        "recording_only", text=f"{told} at {servers}: recording only"
    )
    ran = ingest(app.settings, minutes=minutes, save=save_disk)
    app.emit({"ran": ran}, lambda: show_ran(ran))
    refuse_nothing(ran, minutes)


def _answers(servers: str) -> bool:
    """Whether the first of these `host:port` takes a connection."""
    host, _, port = servers.split(",")[0].strip().rpartition(":")
    try:
        with socket.create_connection((host or "localhost", int(port)), timeout=1.0):
            return True
    except (OSError, ValueError):
        return False
