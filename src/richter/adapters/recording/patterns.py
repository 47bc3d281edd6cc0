"""From what was typed (files, folders, globs) to a list of files of lines."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from richter.errors import InputFileError

__all__ = ["expand"]

_ZSTD: Final = ".zst"
_IN_FOLDERS: Final = ("*.ndjson", "*.jsonl")
_SHOWN: Final = 5


def expand(patterns: Sequence[str | Path]) -> list[Path]:
    """Find the files that patterns name, in the patterns' order, each pattern's in order of name.

    A pattern for X.ndjson also finds X.ndjson.zst, and of the two forms of one segment the plain one is
    taken. A file that two patterns name comes once, where it came first. A folder stands for its ``.ndjson``
    and ``.jsonl`` files; manifests are never data.

    Raises:
        InputFileError: a pattern finds nothing.
    """
    files: dict[str, Path] = {}
    for pattern in patterns:
        found = [path for path in _find(str(pattern)) if not path.name.endswith(".manifest.json")]
        if not found:
            raise _nothing_found(str(pattern))
        for path in sorted(found, key=_plain_name):
            key = os.path.realpath(_plain_name(path))
            # A path that was put in keeps its place when its plain form comes later.
            if key not in files or files[key].name.endswith(_ZSTD):
                files[key] = path
    return list(files.values())


def _plain_name(path: Path) -> str:
    return str(path).removesuffix(_ZSTD)


def _find(pattern: str) -> Iterable[Path]:
    pattern = str(Path(pattern).expanduser())
    path = Path(pattern)
    if path.is_dir():
        return [file for kind in _IN_FOLDERS for file in _glob(os.path.join(glob.escape(pattern), kind))]  # noqa: PTH118 - joins a pattern, not a path
    if path.exists():  # Also a file whose name holds a bracket.
        return [path]
    return _glob(pattern)


def _glob(pattern: str) -> Iterable[Path]:
    # glob.glob, not Path.glob: patterns may be absolute, and files whose name begins with a dot stay out.
    names = set(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not pattern.endswith(_ZSTD):
        names |= set(glob.glob(pattern + _ZSTD, recursive=True))  # noqa: PTH207
    return [path for path in map(Path, names) if path.is_file()]


def _nothing_found(pattern: str) -> InputFileError:
    folder = Path(pattern).expanduser().absolute()
    if folder.is_dir():
        return InputFileError("the folder holds no recording (*.ndjson)", pattern, _holds(folder))
    folder = folder.parent
    while glob.has_magic(str(folder)) or not folder.is_dir():
        folder = folder.parent
    return InputFileError("no file matches", pattern, _holds(folder))


def _holds(folder: Path) -> str:
    try:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    except OSError as error:
        return f"looked in {folder}, which cannot be listed ({error.strerror})"
    if not names:
        return f"looked in {folder}, which is empty"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"looked in {folder}, which holds {', '.join(names[:_SHOWN])}{more}"
