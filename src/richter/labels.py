"""Labels as a library: did volatility spike in the minute after each tick?

>>> from richter import labels
>>> labels.HORIZON_S
60
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from richter.adapters.tables.features import feature_schema, read_features, record_batch
from richter.domain.ticks import GapCause
from richter.engine.labels import HORIZON_S, sigma_future, volatility_spike
from richter.errors import SchemaMismatchError

__all__ = ["HORIZON_S", "from_features"]

_IDENTITY = ("product_id", "conn_id", "frame_no", "event_index", "ticker_index", "ts_event")
_NEEDED = (*_IDENTITY, "mid", "gap_before", "gap_from", "stale_after_s", "tau_rolling")
_CAUSES = {"": 0, **{cause.name.lower(): int(cause) for cause in GapCause if cause}}


def from_features(source: Any) -> Any:
    """Label the rows of a feature log.

    Args:
        source: a polars or pandas DataFrame with the columns of a feature log, or the log's path.

    Returns:
        A DataFrame as the one given (polars for a path), a row for each row of the log in its order: product_id, the
        identity, ts_event, sigma_future (NaN unknown), tau (rolling, NaN unknown) and volatility_spike (1, 0, or null
        where either is unknown).

    Raises:
        SchemaMismatchError: the frame lacks columns of a feature log.
    """
    import polars as pl

    if not isinstance(source, str | Path | pl.DataFrame):
        labelled: pl.DataFrame = from_features(pl.from_pandas(source, nan_to_null=False))
        return labelled.to_pandas()
    log = _read(Path(source)) if isinstance(source, str | Path) else source
    missing = [name for name in _NEEDED if name not in log.columns]
    if missing:
        raise SchemaMismatchError(
            "the frame lacks columns of a feature log",
            ", ".join(missing),
            "give one made by richter.features",
        )
    future = np.full(len(log), np.nan)
    products = log["product_id"].cast(pl.String).to_numpy()
    stale = log["stale_after_s"].to_numpy()
    causes = log["gap_before"].cast(pl.String).replace_strict(_CAUSES, return_dtype=pl.Int64).to_numpy()
    for product in log["product_id"].cast(pl.String).unique(maintain_order=True).to_list():
        rows = np.flatnonzero(products == product)
        # A live log may span a change of the setting: each row is labelled by its own.
        for limit in np.unique(stale[rows]).tolist():
            own = stale[rows] == limit
            future[rows[own]] = sigma_future(
                log["ts_event"].to_numpy()[rows],
                log["mid"].to_numpy()[rows],
                causes[rows],
                log["gap_from"].to_numpy()[rows],
                limit,
            )[own]
    tau = log["tau_rolling"].to_numpy()
    spike = pl.Series("volatility_spike", volatility_spike(future, tau))
    return log.select(_IDENTITY).with_columns(
        sigma_future=future, tau=tau, volatility_spike=spike.replace({-1: None})
    )


def _read(path: Path) -> Any:
    import polars as pl
    import pyarrow as pa

    batches = (record_batch([rows]).select(_NEEDED) for rows in read_features(path))
    names = pa.schema([feature_schema().field(name) for name in _NEEDED])
    return pl.from_arrow(pa.Table.from_batches(batches, schema=names).unify_dictionaries())
