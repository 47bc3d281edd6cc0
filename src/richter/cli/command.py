"""What every command has in common: the shared options, examples in the help, settings, one JSON object.

@command("replay", examples=("richter replay --raw 'data/raw/*.ndjson' --out features.parquet",))
@setting("--stale-after", "stale_after_s", metavar="SECONDS")
@click.option("--out", required=True)
def command_(app: App, out: str) -> None:
    ...
    app.emit({"rows": rows}, lambda: print(f"{rows} rows"))
"""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from richter.cli import logs
from richter.config import Given, Resolved, Settings, description, expectation, from_text, resolve

_GIVEN = "richter.given"  # Settings given as flags, in the context's meta


class App(NamedTuple):
    """What a command is called with: the settings, and how to answer."""

    resolved: Resolved
    as_json: bool

    @property
    def settings(self) -> Settings:
        """The settings, decided and checked."""
        return self.resolved.settings

    def emit(self, data: Mapping[str, object], human: Callable[[], object]) -> None:
        """Answer: with `--json` the data as one object on standard output, else by calling `human`.

        NaN becomes null; a path becomes its text.
        """
        if self.as_json:
            click.echo(msgspec.json.encode(data, enc_hook=str))
        else:
            human()


class Command(click.Command):
    """A click command whose help ends with examples, printed as they are typed."""

    examples: tuple[str, ...] = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Group(Command, click.Group):
    """Commands under one name, in the order of use, with examples at the end of the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name them."""
        return list(self.commands)


def group(name: str, *, examples: tuple[str, ...]) -> Callable[[Callable[[], None]], Group]:
    """Make a function the head of a group; its docstring is the help."""

    def decorate(function: Callable[[], None]) -> Group:
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
        made = click.group(name, cls=Group, context_settings=settings)(function)
        made.examples = examples
        return made

    return decorate


def setting(flag: str, name: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that overrides a setting. Its value is checked with the other settings.

    The command's function does not get it as an argument: it reads `app.settings`.
    With `multiple=True` the values make up one list.
    """

    def remember(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is None or value == ():
            return
        text = ",".join(value) if isinstance(value, tuple) else value
        given = Given(from_text(name, text) if isinstance(text, str) else text, f"flag {flag}", is_text=True)
        ctx.meta.setdefault(_GIVEN, {})[name] = given

    attributes.setdefault("help", f"{description(name)} Takes {expectation(name)}.")
    return click.option(flag, f"setting_{name}", expose_value=False, callback=remember, **attributes)


def subcommand(
    name: str, *, examples: tuple[str, ...], configure_logs: bool = True
) -> Callable[[Callable[..., None]], Command]:
    """Make a function a command. It is called with an `App` and with its own options and arguments.

    Args:
        name: The subcommand's name.
        examples: Command lines for the end of its help, at least one.
        configure_logs: False saves a command that logs nothing the 0.2 s of loading the logger.
    """

    def decorate(function: Callable[..., None]) -> Command:
        @functools.wraps(function)
        def call(as_json: bool, config_file: Path | None, **arguments: Any) -> None:
            resolved = resolve(
                click.get_current_context().meta.get(_GIVEN, {}),
                environ=os.environ,
                config_file=config_file,
            )
            if configure_logs:
                logs.configure(resolved.settings.log_format, resolved.settings.log_level)
            return function(App(resolved, as_json), **arguments)

        for option in reversed(_COMMON):
            option(call)
        made = click.command(name, cls=Command)(call)
        made.examples = examples
        return made

    return decorate


def _set_debug(_: click.Context, __: click.Parameter, value: bool) -> None:
    if value:
        os.environ["RICHTER_DEBUG"] = "1"


_COMMON = (
    setting("--data", "data_dir", metavar="DIR", help="The data folder; moves everything richter keeps."),
    click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object on standard output."),
    click.option(
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        envvar="RICHTER_CONFIG",
        help="Read this file in the place of config.yaml.",
    ),
    setting(
        "--log-format", "log_format", type=click.Choice(("auto", "human", "json")), help="Look of log lines."
    ),
    setting(
        "--log-level",
        "log_level",
        type=click.Choice(("debug", "info", "warning", "error")),
        help="The least severe log lines to show.",
    ),
    click.option(
        "--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show tracebacks of errors."
    ),
)
