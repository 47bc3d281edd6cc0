"""What was compiled names what it was compiled from."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from richter import compiled
from richter.domain import ticks
from richter.engine import fixed_point, grid, kernel, labels, state, windows
from richter.protocol import scanner, spans, texts

COMPILED_IN = {
    kernel: (compiled, fixed_point, grid, state, windows, ticks),
    labels: (compiled, fixed_point, state, ticks),
    scanner: (compiled, spans, texts, ticks),
}
"""numba's cache sees changes of the file that holds the cached function, and of no other."""


def text(module: ModuleType) -> bytes:
    assert module.__file__ is not None
    return Path(module.__file__).read_bytes()


def fingerprint(texts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


@pytest.mark.parametrize("module", COMPILED_IN, ids=lambda module: module.__name__)
def test_a_compiled_module_names_the_sources_that_it_holds(module: ModuleType) -> None:
    current = fingerprint(map(text, COMPILED_IN[module]))

    assert current == module.SOURCES_FINGERPRINT, (
        "what was compiled is older than its sources: touch the file by setting in "
        f"{module.__name__} SOURCES_FINGERPRINT to {current}"
    )


@pytest.mark.parametrize("module", COMPILED_IN, ids=lambda module: module.__name__)
def test_one_byte_in_any_source_changes_the_fingerprint(module: ModuleType) -> None:
    texts = [text(part) for part in COMPILED_IN[module]]

    changed = [fingerprint([*texts[:at], each + b"#", *texts[at + 1 :]]) for at, each in enumerate(texts)]

    assert module.SOURCES_FINGERPRINT not in changed
    assert len(set(changed)) == len(texts)


@pytest.mark.parametrize("module", COMPILED_IN, ids=lambda module: module.__name__)
def test_the_sources_are_all_that_a_compiled_module_imports(module: ModuleType) -> None:
    # The table has a fingerprint of its own; errors and the table hold nothing that is compiled.
    listed = {part.__name__ for part in COMPILED_IN[module]} | {"richter.engine.table", "richter.errors"}

    imported = {
        f"{node.module}.{name.name}" if node.module in ("richter", "richter.domain") else node.module
        for each in (module, *COMPILED_IN[module])
        for node in ast.walk(ast.parse(text(each)))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if node.module and node.module.startswith("richter.")
    }

    assert imported <= listed


def test_only_functions_of_fingerprinted_modules_are_cached() -> None:
    # A cached function in grid.py would outlive a change of fixed_point.py, whatever kernel.py says.
    parts = set(COMPILED_IN).union(*COMPILED_IN.values())
    cached = {part for part in parts if b"cache=True" in text(part)}

    assert cached == set(COMPILED_IN)
