"""How far a recording is on its way to Kafka: a small file beside it, rewritten as a whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from richter.adapters.recording.sealing import sync_folder
from richter.adapters.recording.segments import Position, parse_name
from richter.errors import DataFolderError

__all__ = ["Published", "load_published", "save_published"]

FILE: Final = "published.json"
VERSION: Final = 1


class Published(msgspec.Struct, frozen=True):
    """What a topic has acknowledged.

    Attributes:
        topic: its name.
        cluster: id of its cluster; empty until it has answered.
        positions: product -> everything before it is in the topic; None where nothing is.
        v: version of this form.
    """

    topic: str
    cluster: str
    positions: dict[str, Position | None]
    v: int = VERSION


def load_published(folder: Path) -> Published | None:
    """Read it; None when there is none.

    Raises:
        DataFolderError: it cannot be read.
    """
    path = folder / FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Published)
        _check(found)
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataFolderError(
            f"the note of what is published cannot be read ({error})",
            str(path),
            "delete it: what was recorded until then counts as published",
        ) from error


def save_published(folder: Path, published: Published) -> None:
    """Write it, onto the disk.

    Raises:
        DataFolderError: the disk refuses.
    """
    path = folder / FILE
    temporary = path.with_name(f".{FILE}.tmp")  # One name: what a crash leaves is written over.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(published))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(folder)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataFolderError(
            f"the note of what is published cannot be written ({error.strerror})", str(path), "free space"
        ) from error


def _check(published: Published) -> None:
    if published.v != VERSION:
        raise ValueError(f"form {published.v}, this richter knows {VERSION}")
    for product, position in published.positions.items():
        if position is not None and (
            str(parse_name(position.segment)) != position.segment or position.offset < 0
        ):
            raise ValueError(f"no place in a recording for {product}")
