"""Replay: recompute features from recordings, write them, and compare with a live log."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.reader import expand
from richter.adapters.tables.parts import FeatureLogWriter, replace_log
from richter.config import Settings
from richter.engine.digest import Digest, schema_id
from richter.engine.rows import FeatureRows
from richter.errors import ArgumentsError, InputFileError
from richter.runtime.compare import Comparison, compare_logs
from richter.runtime.parallel import replay_parts
from richter.runtime.pipeline import Account, Pipeline

__all__ = ["Replayed", "digest_rows", "replay"]


class Replayed(msgspec.Struct):
    """What a replay did.

    Attributes:
        out: the feature log written.
        schema_id: of its columns.
        account: where every line went.
        digests: product -> digest of its whole log.
        dead_letters: the file they are in; None when there are none.
        comparison: with the other log; None when there was none to compare with.
    """

    out: Path
    schema_id: str
    account: Account
    digests: dict[str, str]
    dead_letters: Path | None = None
    comparison: Comparison | None = None


def digest_rows(digests: dict[str, Digest], rows: FeatureRows) -> None:
    """Add rows to their products' digests."""
    for code in sorted(set(rows.product.tolist())) if len(rows.products) > 1 else ([0] if len(rows) else []):
        digests.setdefault(rows.products[code], Digest()).update(rows.of_product(code))


def replay(
    raw: list[str],
    out: Path,
    settings: Settings,
    *,
    compare: Path | None = None,
    workers: int = 1,
    on_total: Callable[[int], None] = lambda total: None,
    on_bytes: Callable[[int], None] = lambda size: None,
    on_rows: Callable[[FeatureRows], None] | None = None,
) -> Replayed:
    """Recompute the features of recordings into `out`; compare them with another log.

    Args:
        raw: files, folders or globs of recordings, in order.
        out: the feature log to write; replaced when complete, untouched when the replay fails.
        settings: staleness, price scales and the data folder.
        compare: a feature log to compare with, bit for bit.
        workers: processes; the bits do not depend on their number.
        on_total: told how many bytes there are to read.
        on_bytes: told of bytes as they are done.
        on_rows: told of the rows as they are made.

    Raises:
        InputFileError: nothing to read, or no tick in it.
    """
    if compare is not None and compare.resolve() == out.resolve():
        raise ArgumentsError("--out and --compare are the same log", str(out), "give two different ones")
    files = expand(raw)
    on_total(sum(path.stat().st_size for path in files))
    dead_path = settings.data_dir / "dead" / "replay.ndjson"
    dead_path.unlink(missing_ok=True)
    building = out.with_name(f".{out.name}.building.{os.getpid()}")
    digests: dict[str, Digest] = {}
    try:
        with (
            DeadLetters(dead_path, file_limit=None) as dead,
            FeatureLogWriter(building, durable=False) as log,
        ):
            if workers == 1:
                pipeline = Pipeline(settings, on_letter=lambda letter: letter.to(dead), on_bytes=on_bytes)
                for rows in pipeline.run(files):
                    digest_rows(digests, rows)
                    if on_rows is not None:
                        on_rows(rows)
                    log.append(rows)
                account = pipeline.account
            else:
                account = replay_parts(
                    files, building, settings, workers, dead, digests, on_bytes=on_bytes, on_rows=on_rows
                )
        if account.rows == 0:
            kept = f"; what could not be read is in {dead_path}" if account.dead else ""
            raise InputFileError(
                f"no readable tick in {account.lines} lines of {account.files} files, the first of them",
                str(files[0]),
                f"richter inspect says what is in them{kept}",
            )
        replace_log(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Replayed(
        out=out,
        schema_id=schema_id(),
        account=account,
        digests={name: digest.hexdigest() for name, digest in digests.items()},
        dead_letters=dead_path if account.dead else None,
        comparison=None if compare is None else compare_logs(out, compare),
    )
