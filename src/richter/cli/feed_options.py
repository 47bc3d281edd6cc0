"""Options of the commands that listen to a feed, and how they end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from richter.cli.command import setting
from richter.errors import FeedError

if TYPE_CHECKING:
    from richter.runtime.feed_run import Ran

__all__ = ["feed_options", "minutes_type", "refuse_nothing", "show_ran"]


class _Minutes(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        minutes = float(super().convert(value, param, ctx))
        if not math.isfinite(minutes):
            self.fail(f"{minutes} is no number of minutes", param, ctx)
        return minutes


minutes_type: Final = _Minutes(min=0, min_open=True, max=1e6)
"""A time in minutes, as an option takes it."""


def feed_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(
        (
            setting(
                "--pair",
                "products",
                multiple=True,
                metavar="PRODUCT",
                help="A product to watch; repeat it for more.",
            ),
            click.option(
                "--minutes",
                type=minutes_type,
                metavar="M",
                help="End after so many minutes; fractions are allowed. Without it: at Ctrl+C.",
            ),
            setting("--url", "coinbase_ws_url", metavar="URL"),
            setting("--feed", "coinbase_feed", type=click.Choice(("advanced", "exchange"))),
            setting("--heartbeat-timeout", "heartbeat_timeout_s", metavar="SECONDS"),
        )
    ):
        function = option(function)
    return function


def refuse_nothing(ran: Ran, minutes: float | None) -> None:
    """A run that was given its time and recorded nothing has not done its job.

    Raises:
        FeedError: nothing was recorded.
    """
    if minutes is not None and not ran.recorded:
        told = f" ({ran.last})" if ran.last else ""
        raise FeedError(
            f"no tick was recorded in {minutes:g} minutes{told}",
            ran.url,
            "check --pair, --url and the network",
        )


def show_ran(ran: Ran) -> None:
    """What a run did, for people."""
    from richter.cli.report import several

    counts = ran.feed
    click.echo(
        f"recorded {several(ran.recorded, 'tick')} ({ran.recorded_bytes / 1e6:,.1f} MB) in {ran.raw}, "
        f"over {several(ran.connections, 'connection')}"
    )
    for number, what in (
        (counts.get("gaps", 0), "gaps in the sequence, each recorded with its extent"),
        (counts.get("duplicates", 0) + counts.get("out_of_order", 0), "late or doubled frames, dropped"),
        (ran.lost_frames, "frames lost because the queue was full, recorded as a gap"),
        (ran.unrecorded, "ticks that the disk refused, recorded as a gap"),
    ):
        if number:
            click.echo(f"  {number:>9,}  {what}")
    for reason, number in sorted(ran.dead.items()):
        click.echo(f"  {number:>9,}  dead letters: {reason}")
