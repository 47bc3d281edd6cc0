"""`richter inspect`: what a recording holds."""

from __future__ import annotations

import math
from itertools import zip_longest

import click

from richter.cli.command import App, setting, subcommand
from richter.cli.progress import progress


@subcommand(
    "inspect",
    examples=("richter inspect 'data/raw/*.ndjson'", "richter inspect ticks.ndjson --json"),
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@setting("--stale-after", "stale_after_s", metavar="SECONDS")
def command(app: App, files: tuple[str, ...]) -> None:
    """Say what recordings hold: products, span, rate, gaps, and what is known of each feature."""
    from richter.domain.times import format_time
    from richter.runtime.inspecting import Inspection, inspect

    with progress("reading", shown=not app.as_json) as bar:
        found = inspect(list(files), app.settings, on_total=bar.total, on_bytes=bar.advance)

    def human(found: Inspection) -> None:
        from richter.cli.plot import plot
        from richter.cli.report import account_lines

        account = found.account
        click.echo(f"{account.files:,} files, {account.lines:,} lines, {account.rows:,} ticks")
        for text in account_lines(account):
            click.echo(text)
        for name, product in found.products.items():
            span = (product.last - product.first) / 1e9
            rate = product.ticks / span if span > 0 else math.nan
            click.echo(
                f"\n{name}: {product.ticks:,} ticks from {format_time(product.first)[:19]} to "
                f"{format_time(product.last)[:19]} UTC, {rate:.2f}/s, median spacing {product.median_spacing_s:g} s, "
                f"{product.connections} connections or files"
            )
            if product.price_low is not None:
                click.echo(f"  mid {product.price_low:,.8g} to {product.price_high:,.8g}")
            if product.bad_quotes:
                click.echo(f"  {product.bad_quotes:,} ticks without a good quote")
            gaps = ", ".join(f"{number} {cause}" for cause, number in sorted(product.gaps.items()))
            click.echo(
                f"  gaps: {gaps or 'none recorded'}; {product.silent} silences over {app.settings.stale_after_s:g} s"
            )
            for silence in product.silences:
                click.echo(f"    {silence.seconds:,.0f} s from {format_time(silence.ts_event)[:19]}")
            known = product.tau_known_from
            click.echo(
                f"  {product.valid:.0%} of the rows are valid; tau is known "
                + ("nowhere" if known is None else f"from {format_time(known)[:19]}")
            )
            drawn = plot(product.sigma, product.tau, width=60, height=4)
            if drawn:
                click.echo("  60 s volatility (bars) and tau (dots):")
            for text in drawn:
                click.echo(f"    |{text}|")
            click.echo("  known in a share of the rows:")
            cells = [f"{share:>4.0%} {feature}" for feature, share in product.known.items()]
            for left, right in zip_longest(cells[::2], cells[1::2], fillvalue=""):
                click.echo(f"    {left:<40}{right}")

    app.emit({"inspection": found}, lambda: human(found))
