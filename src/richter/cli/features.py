"""`richter features`: the table of what is computed."""

from __future__ import annotations

import click

from richter.cli.command import App, subcommand
from richter.cli.text import table


@subcommand("features", examples=("richter features", "richter features --json"), configure_logs=False)
def command(app: App) -> None:
    """List the features: name, unit, span and formula."""
    from richter.engine.digest import schema_id
    from richter.engine.table import FEATURES, LOOK_BACK_S

    def human() -> None:
        rows = [(f.name, f.unit, f"{f.span_s} s" if f.span_s else "", f.formula) for f in FEATURES]
        click.echo(table(("feature", "unit", "span", "formula"), rows))
        click.echo(f"\n{len(FEATURES)} features, schema_id {schema_id()}, look-back {LOOK_BACK_S:,} s")

    app.emit({"schema_id": schema_id(), "look_back_s": LOOK_BACK_S, "features": FEATURES}, human)
