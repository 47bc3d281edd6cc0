"""The generated pages say what the code says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from richter.cli import docs
from richter.cli.main import COMMANDS, richter_command
from richter.engine.table import FEATURES

PAGES = Path(__file__).parents[1] / "docs"


def test_the_pages_are_up_to_date() -> None:
    assert docs.main(["--check"]) == 0


def _leaves() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(richter_command)
    for name in COMMANDS:
        command = richter_command.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", leaf) for below, leaf in command.commands.items())
        else:
            yield name, command


@pytest.mark.parametrize(("name", "command"), [pytest.param(*leaf, id=leaf[0]) for leaf in _leaves()])
def test_every_command_and_option_is_documented(name: str, command: click.Command) -> None:
    page = (PAGES / "cli.md").read_text()

    section = page.partition(f"\n## richter {name}\n")[2].partition("\n## ")[0]

    options = [text for each in command.params if isinstance(each, click.Option) for text in each.opts]
    assert options
    assert [text for text in options if text not in section] == []
    assert "Examples:" in section


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_help_begins_with(name: str) -> None:
    command = richter_command.get_command(click.Context(richter_command), name)

    assert command is not None
    assert (command.help or "").splitlines()[0] == COMMANDS[name][1]


def test_every_feature_is_in_the_spec() -> None:
    page = (PAGES / "feature_spec.md").read_text()

    assert [each.name for each in FEATURES if f"| `{each.name}` |" not in page] == []


def test_a_page_that_differs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs, "DOCS", tmp_path)
    docs.main([])
    (tmp_path / "cli.md").write_text("old")

    code = docs.main(["--check"])

    assert code == 1
    assert "cli.md" in capsys.readouterr().err
