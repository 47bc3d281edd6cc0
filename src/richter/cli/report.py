"""What a replay prints for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from richter.cli.text import table
from richter.domain.times import format_time

if TYPE_CHECKING:
    from richter.runtime.alerting import AlertReport
    from richter.runtime.compare import Comparison
    from richter.runtime.pipeline import Account
    from richter.runtime.replay import Replayed

__all__ = ["account_lines", "several", "show_account", "show_alerts", "show_comparison"]

_MOST_ALERTS = 20


def several(number: int, what: str) -> str:
    """Write a number of things.

    >>> several(1, "file"), several(2_000, "file")
    ('1 file', '2,000 files')
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def show_account(done: Replayed) -> None:
    """Where every line went, and the digests."""
    account = done.account
    click.echo(
        f"{several(account.files, 'file')}, {several(account.lines, 'line')} -> "
        f"{several(account.rows, 'feature row')} in {done.out}"
    )
    for line in account_lines(account):
        click.echo(line)
    if done.dead_letters is not None:
        click.echo(f"  dead letters are in {done.dead_letters}")
    for product, digest in sorted(done.digests.items()):
        click.echo(f"  digest {product}  {digest}")


def account_lines(account: Account) -> list[str]:
    """What became of the ticks and lines that made no row of their own or were changed."""
    parts = [
        (account.duplicates, "duplicate ticks dropped"),
        (account.clamped, "times clamped (up to 2 s backwards)"),
        (account.segments, "new segments (time further back)"),
        *((number, f"lines without ticks: {kind}") for kind, number in sorted(account.ignored.items())),
        *((number, f"dead letters: {reason}") for reason, number in sorted(account.dead.items())),
    ]
    return [f"  {number:>9,}  {what}" for number, what in parts if number]


def show_comparison(comparison: Comparison, checks: tuple[str, str, str]) -> None:
    """The seed's three lines, or the first difference."""
    for name, product in sorted(comparison.products.items()):
        for number, what in (
            (product.warm_up, "ticks of warm-up, not compared"),
            (product.replayed_before, "replayed ticks before the first live feature"),
            (product.replayed_after, "replayed ticks after the last live feature"),
            (product.live_before, "live features before the first replayed tick"),
            (product.live_after, "live features after the last replayed tick"),
        ):
            if number:
                click.echo(f"  {name}: {number:,} {what}")
        if product.digest_live and comparison.difference is None:
            click.echo(f"  {name}: {product.compared:,} rows compared")
            click.echo(f"    replay {product.digest_replayed}\n    live   {product.digest_live}")
    difference = comparison.difference
    if difference is not None:
        conn, frame, event, ticker = difference.identity
        click.echo(
            f"✗ {difference.product} differs at {format_time(difference.ts_event)} "
            f"(connection {conn}, frame {frame}, event {event}, ticker {ticker}): {difference.what}"
        )
        click.echo(f"    replay {difference.replayed}\n    live   {difference.live}")
    elif not comparison.compared:
        click.echo("✗ Nothing to compare: neither log holds the first row of the other.")
    else:
        for line in checks:
            click.echo(line)


def show_alerts(report: AlertReport) -> None:
    """Onsets with what followed, then the balance."""
    click.echo(f"\nAlerts of the rule (60 s volatility over tau), written to {report.path}")
    rows = [
        (
            format_time(alert.ts_event)[:19],
            alert.product_id,
            alert.kind,
            f"{alert.score:.2f}",
            alert.followed,
            "" if alert.lead_s is None else f"{alert.lead_s:.0f} s",
        )
        for alert in report.alerts
    ]
    if len(rows) > _MOST_ALERTS:
        click.echo(f"  (the last {_MOST_ALERTS} of {len(rows)})")
        rows = rows[-_MOST_ALERTS:]
    if rows:
        click.echo(table(("time (UTC)", "product", "event", "score", "followed by", "lead"), rows))
    for name, summary in sorted(report.summaries.items()):
        click.echo(f"  {name}: {summary}")
