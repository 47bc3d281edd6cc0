"""`richter inspect`: what a recording holds."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING

import click

from richter.cli.command import App, setting, subcommand
from richter.cli.progress import progress

if TYPE_CHECKING:
    from richter.runtime.inspecting import Inspection, ProductInspection


@subcommand(
    "inspect",
    examples=("richter inspect 'data/raw/*.ndjson'", "richter inspect ticks.ndjson --json"),
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@setting("--stale-after", "stale_after_s", metavar="SECONDS")
def command(app: App, files: tuple[str, ...]) -> None:
    """Say what recordings hold: products, span, rate, gaps, and what is known of each feature."""
    from richter.runtime.inspecting import inspect

    with progress("reading", shown=not app.as_json) as bar:
        found = inspect(list(files), app.settings, on_total=bar.total, on_bytes=bar.advance)

    app.emit({"inspection": found}, lambda: _show(found, app.settings.stale_after_s))


def _show(found: Inspection, stale_after_s: float) -> None:
    from richter.cli.report import account_lines, several

    account = found.account
    click.echo(
        f"{several(account.files, 'file')}, {several(account.lines, 'line')}, {several(account.rows, 'row')}"
    )
    for text in account_lines(account):
        click.echo(text)
    for letter in found.unreadable:
        click.echo(f"    {letter.source}:{letter.line}: {letter.reason}: {letter.text!r}")
    for name, product in found.products.items():
        _show_product(name, product, stale_after_s)


def _show_product(name: str, product: ProductInspection, stale_after_s: float) -> None:
    from richter.cli.plot import bar, plot
    from richter.cli.report import several
    from richter.domain.times import format_time

    span = (product.last - product.first) / 1e9
    rate = product.ticks / span if span > 0 else math.nan
    click.echo(
        f"\n{name}: {several(product.ticks, 'row')} from {format_time(product.first)[:19]} to "
        f"{format_time(product.last)[:19]} UTC, {rate:.2f}/s, median spacing {product.median_spacing_s:g} s, "
        f"{several(product.connections, 'connection')}"
    )
    click.echo(
        f"  ticks: {product.duplicates:,} duplicates, {product.ahead:,} stamped ahead, {product.clamped:,} "
        f"clamped, {several(product.segments, 'new segment')}"
    )
    quotes = product.quotes
    outside = quotes.price_outside / quotes.good if quotes.good else math.nan
    click.echo(
        f"  quotes: {quotes.good:,} good, {quotes.empty:,} empty, {quotes.zero:,} zero, {quotes.crossed:,} "
        f"crossed; last price outside a good one: {outside:.1%}"
    )
    gaps = ", ".join(f"{number} {cause}" for cause, number in sorted(product.gaps.items()))
    click.echo(
        f"  gaps: {gaps or 'none recorded'}; {several(product.silent, 'silence')} over {stale_after_s:g} s"
    )
    for silence in product.silences:
        click.echo(f"    {silence.seconds:,.0f} s from {format_time(silence.ts_event)[:19]}")
    if product.price_low is not None:
        click.echo(f"  mid, {product.price_low:,.10g} to {product.price_high:,.10g}:")
        for text in plot(product.mid, width=60, height=4, floor=product.price_low):
            click.echo(f"    |{text}|")
    drawn = plot(product.sigma, product.tau, width=60, height=4)
    if drawn:
        click.echo("  60 s volatility (bars) and tau (dots):")
    for text in drawn:
        click.echo(f"    |{text}|")
    known = product.tau_known_from
    click.echo(
        f"  {product.valid:.0%} of the rows are valid; tau is known "
        + ("nowhere" if known is None else f"from {format_time(known)[:19]}")
    )
    click.echo("  known in a share of the rows:")
    cells = [f"{bar(share, 8)} {share:>4.0%} {feature}" for feature, share in product.known.items()]
    for left, right in zip_longest(cells[::2], cells[1::2], fillvalue=""):
        click.echo(f"    {left:<52}{right}")
