"""What is installed is the same on every machine."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_lock_file_takes_everything_but_richter_from_one_registry():
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]

    sources = {(kind, place) for package in packages for kind, place in package["source"].items()}

    assert ("editable", ".") in sources
    ((kind, place),) = sources - {("editable", ".")}
    assert kind == "registry"
    assert place.startswith("https://")


def test_requirements_are_pinned_and_name_no_place():
    first, *others = (ROOT / "requirements.txt").read_text().splitlines()

    assert first == "-e ."
    assert len(others) > 100
    assert [line for line in others if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; .+)?", line)] == []


def test_requirements_hold_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pinned = set(re.findall(r"^[a-z0-9-]+(?===)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))

    wanted = {re.split(r"[<>=;]", each)[0] for extra in extras.values() for each in extra}

    assert wanted <= pinned
