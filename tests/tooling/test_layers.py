"""The contracts on imports hold, and would fail if they did not."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).parent / "lint-imports"


def contracts():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


@pytest.fixture
def lint(tmp_path):
    """Run the project's contracts over a `richter` made of the modules given."""

    def run(modules):
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
        shutil.copytree(ROOT / "tools", tmp_path / "tools")
        for name, code in {"cli": "", "config": "", "errors": "", "compiled": "", **modules}.items():
            file = tmp_path / "richter" / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            for package in (file.parent, tmp_path / "richter"):
                (package / "__init__.py").touch()
            file.write_text(code)
        environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
        return subprocess.run(
            [LINTER, "--no-cache"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


CLEAN = {
    "cli": "import asyncio, richter.adapters.kafka, richter.engine.kernel",
    "adapters/kafka": "import socket, richter.ports, richter.errors",
    "adapters/recording": "import os, richter.ports",
    "ports": "from richter.domain import ticks",
    "engine/kernel": "import math, numpy.random, richter.domain.ticks",
    "protocol/parse": "import re, richter.domain.ticks",
    "domain/ticks": "from collections import abc; import richter.errors",
}


def test_a_package_that_keeps_the_layers_passes(lint):
    done = lint(CLEAN)

    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "code", "told"),
    [
        ("domain/ticks", "import time", "richter.domain.ticks may not import time (l.1)"),
        ("domain/ticks", "import os.path", "richter.domain.ticks may not import os (l.1)"),
        (
            "protocol/parse",
            "def f():\n    from random import random",
            "richter.protocol.parse may not import random (l.2)",
        ),
        ("engine/kernel", "import websockets.sync", "richter.engine.kernel may not import websockets (l.1)"),
        ("models", "import polars", "richter.models may not import polars (l.1)"),
        ("domain/ticks", "import richter.engine.kernel", "Imports point downwards BROKEN"),
        ("protocol/parse", "import richter.engine.kernel", "Imports point downwards BROKEN"),
        ("adapters/kafka", "import richter.adapters.recording", "Adapters meet in the wiring only BROKEN"),
        ("helpers", "", "Imports point downwards BROKEN"),
    ],
)
def test_an_import_that_breaks_the_layers_fails(lint, module, code, told):
    done = lint({**CLEAN, module: code})

    assert done.returncode == 1
    assert told in done.stdout


def test_nothing_on_the_allowlist_can_touch_the_world():
    (core,) = (each for each in contracts() if each["type"] == "allowlist")

    worldly = {
        "asyncio",
        "io",
        "os",
        "pathlib",
        "random",
        "secrets",
        "socket",
        "subprocess",
        "sys",
        "threading",
        "time",
    }

    assert not worldly & set(core["allowed_modules"])
