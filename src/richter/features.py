"""Features as a library: DataFrames from recordings and from feature logs.

>>> from richter import features
>>> len(features.FEATURES) == len(features.FEATURE_NAMES)
True
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from richter.adapters.recording.reader import expand
from richter.adapters.tables.features import parts_of, read_features, record_batch
from richter.config import Given, resolve
from richter.engine.digest import schema_id
from richter.engine.table import FEATURE_NAMES, FEATURES, LOOK_BACK_S, Feature
from richter.errors import ExtraMissingError
from richter.runtime.pipeline import Pipeline

__all__ = ["FEATURES", "FEATURE_NAMES", "LOOK_BACK_S", "Feature", "from_files", "read", "schema_id"]

Library = Literal["polars", "pandas"]


def from_files(
    *patterns: str | Path,
    stale_after_s: float = 10,
    price_decimals: dict[str, int] | None = None,
    frame: Library = "polars",
) -> Any:
    """Compute the features of recordings.

    Args:
        patterns: files, folders or globs, in order.
        stale_after_s: an older value is unknown, 1..60.
        price_decimals: product -> decimals of its prices, where 8 do not fit.
        frame: polars or pandas.

    Returns:
        A DataFrame with the columns of the feature log, a row a tick; unknown is NaN. Without a readable tick it has no
        rows; `richter inspect` says why.

    Raises:
        ConfigError: an argument is out of range.
        InputFileError: nothing to read.
    """
    given = {"stale_after_s": stale_after_s, "price_decimals": price_decimals or {}}
    settings = resolve(
        {name: Given(value, "the call", is_text=False) for name, value in given.items()},
        folder=Path("/dev/null"),
    ).settings
    files = expand([str(pattern) for pattern in patterns])
    return _frame((record_batch([rows]) for rows in Pipeline(settings).run(files) if len(rows)), frame)


def read(path: str | Path, *, frame: Library = "polars") -> Any:
    """Read a feature log of this version's features into a DataFrame.

    Raises:
        InputFileError: absent or unreadable.
        SchemaMismatchError: made with another set of features.
    """
    parts_of(Path(path))
    return _frame((record_batch([rows]) for rows in read_features(Path(path))), frame)


def _frame(batches: Any, frame: Library) -> Any:
    import polars as pl
    import pyarrow as pa

    from richter.adapters.tables.features import feature_schema

    table = pa.Table.from_batches(batches, schema=feature_schema()).unify_dictionaries()
    if frame == "polars":
        return pl.from_arrow(table)
    if find_spec("pandas") is None:
        raise ExtraMissingError.naming("pandas", "pandas")
    return table.to_pandas()
