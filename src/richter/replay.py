"""Replay as a library: recompute, compare, and put a number on a feature log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from richter.config import Given, resolve
from richter.engine.digest import Digest
from richter.runtime.compare import Comparison, compare_logs
from richter.runtime.replay import Replayed, digest_rows
from richter.runtime.replay import replay as _replay

__all__ = ["Comparison", "Replayed", "compare", "digest", "replay"]


def replay(
    raw: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    compare: str | Path | None = None,
    stale_after_s: float = 10,
    price_decimals: dict[str, int] | None = None,
    workers: int = 1,
    data_dir: str | Path = "data",
) -> Replayed:
    """Recompute the features of recordings into a feature log; see `richter replay`.

    Raises:
        ConfigError: an argument is out of range.
        InputFileError: nothing to read, or no tick in it.
    """
    given = {
        "stale_after_s": stale_after_s,
        "price_decimals": price_decimals or {},
        "data_dir": str(data_dir),
    }
    settings = resolve(
        {name: Given(value, "the call", is_text=False) for name, value in given.items()},
        folder=Path("/dev/null"),
    ).settings
    patterns = [str(raw)] if isinstance(raw, str | Path) else [str(each) for each in raw]
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
