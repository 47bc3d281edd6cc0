"""`richter config`: the settings and their sources."""

import re

import click

from richter.cli.command import App, subcommand
from richter.cli.text import table
from richter.config import is_secret


@subcommand(
    "config",
    examples=(
        "richter config",
        "richter config --json",
        "RICHTER_STALE_AFTER_S=5 richter config --config mine.yaml",
    ),
    configure_logs=False,
)
def command(app: App) -> None:
    """Show every setting and where its value comes from.

    Flags win over the environment, the environment over .env, .env over config.yaml,
    and config.yaml over the defaults. Passwords are not shown.
    """
    rows = [
        (name, "***" if value is not None and is_secret(name) else _without_password(value), source)
        for name, value, source in app.resolved.rows()
    ]
    app.emit(
        {name: {"value": value, "source": source} for name, value, source in rows},
        lambda: click.echo(table(("setting", "value", "source"), [(n, _text(v), s) for n, v, s in rows])),
    )


def _without_password(value: object) -> object:
    return re.sub(r"//[^/@]*@", "//***@", value) if isinstance(value, str) else value


def _text(value: object) -> str:
    """A value as it is written in config.yaml."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{key}={each}" for key, each in value.items()) or "{}"
        case _:
            return str(value)
