"""`python -m richter.cli.docs [--check]`: the pages that are made from the code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from richter.cli.main import COMMANDS, richter_command
from richter.engine.digest import schema_id
from richter.engine.table import FEATURES, LOOK_BACK_S

DOCS = Path(__file__).parents[3] / "docs"


def feature_spec() -> str:
    """The page of the features."""
    rows = "\n".join(
        f"| `{f.name}` | {f.unit} | {f.span_s or ''} | {_cell(f.formula)} | {f.known_when} | {f.source} |"
        for f in FEATURES
    )
    return f"""# Features

Made from the table in `src/richter/engine/table.py` by `make docs`; do not edit.

- **Horizon**: 60 s. **Label** `volatility_spike` = 1 when the volatility of the 60 one-second log mid returns after
  a tick reaches tau, 0 when not, unknown when any second of the window is.
- **Tau**: per product, from the past only: the 90th percentile (nearest rank) of the 60 s volatilities that ended in
  the last hour, at least 900 of them.
- Values are computed tick by tick, from the past only; the rules that formulas share (the one-second grid, windows,
  gaps, unknown seconds) are in [engine.md](engine.md). Unknown is NaN, never 0. Volatilities are not annualised.
- `schema_id` of this table: `{schema_id()}`. No value depends on anything older than {LOOK_BACK_S:,} s.
- A row also carries its identity (`conn_id`, `frame_no`, `event_index`, `ticker_index`), `ts_event`, `ts_recv`,
  `product_id`, `mid`, `stale_after_s`, `gap_before`, `gap_from`, `valid` and `reasons`.

| name | unit | span, s | formula | known when | source |
|---|---|---:|---|---|---|
{rows}
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def command_line() -> str:
    """The page of the commands."""
    parts = ["# Command line\n\nMade from the commands' own help by `make docs`; do not edit.\n"]
    group = click.Context(richter_command, info_name="richter", max_content_width=100)
    for name in COMMANDS:
        command = richter_command.get_command(group, name)
        assert command is not None  # COMMANDS lists what there is
        parts += _help(command, name, group)
    return "".join(parts)


def _help(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    """A command's help, and that of the commands under it."""
    context = click.Context(
        command, parent=parent, info_name=name, max_content_width=100, help_option_names=["-h", "--help"]
    )
    yield f"\n## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            leaf = command.get_command(context, below)
            assert leaf is not None
            yield from _help(leaf, below, context)


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say which differ."""
    stale = []
    for name, made in (("feature_spec.md", feature_spec()), ("cli.md", command_line())):
        path = DOCS / name
        if "--check" in arguments:
            if not path.exists() or path.read_text() != made:
                stale.append(name)
        else:
            path.write_text(made)
    if stale:
        click.echo(f"not what the code says: {', '.join(stale)}; run make docs", err=True)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
