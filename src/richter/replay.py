"""Replay as a library: recompute, compare, and put a number on a feature log."""

from __future__ import annotations

from pathlib import Path

import msgspec

from richter.config import Settings
from richter.engine.digest import Digest
from richter.runtime.compare import Comparison, compare_logs
from richter.runtime.replay import Replayed, digest_rows
from richter.runtime.replay import replay as _replay

__all__ = ["Comparison", "Replayed", "compare", "digest", "replay"]


def replay(
    raw: str | Path | list[str],
    out: str | Path,
    *,
    compare: str | Path | None = None,
    stale_after_s: int = 10,
    workers: int = 1,
    data_dir: str | Path = "data",
) -> Replayed:
    """Recompute the features of recordings into a feature log; see `richter replay`."""
    settings = msgspec.convert(
        {"stale_after_s": stale_after_s, "data_dir": str(data_dir)}, Settings, strict=False
    )
    patterns = [str(raw)] if isinstance(raw, str | Path) else raw
    other = None if compare is None else Path(compare)
    return _replay(patterns, Path(out), settings, compare=other, workers=workers)


def compare(replayed: str | Path, live: str | Path) -> Comparison:
    """Compare two feature logs bit for bit, joined by identity."""
    return compare_logs(Path(replayed), Path(live))


def digest(path: str | Path) -> dict[str, str]:
    """The digest of each product of a feature log."""
    from richter.adapters.tables.features import read_features

    digests: dict[str, Digest] = {}
    for rows in read_features(Path(path)):
        digest_rows(digests, rows)
    return {name: made.hexdigest() for name, made in digests.items()}
