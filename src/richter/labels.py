"""Labels as a library: did volatility spike in the minute after each tick?

>>> from richter import labels
>>> labels.HORIZON_S
60
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from richter import features
from richter.domain.ticks import GapCause
from richter.engine.labels import HORIZON_S, sigma_future, volatility_spike

__all__ = ["HORIZON_S", "from_features"]

_CAUSES = {"": 0, **{cause.name.lower(): int(cause) for cause in GapCause if cause}}


def from_features(source: Any) -> Any:
    """Label the rows of a feature log.

    Args:
        source: a polars DataFrame with the columns of a feature log, or the log's path.

    Returns:
        A polars DataFrame, a row for each row of the log in its order: product_id, the identity, ts_event,
        sigma_future (NaN unknown), tau (rolling, NaN unknown) and volatility_spike (1, 0, or null where either is
        unknown).
    """
    import polars as pl

    log = features.read(source) if isinstance(source, str | Path) else source
    future = np.full(len(log), np.nan)
    products = log["product_id"].cast(pl.String).to_numpy()
    causes = log["gap_before"].cast(pl.String).replace_strict(_CAUSES, return_dtype=pl.Int64).to_numpy()
    for product in log["product_id"].cast(pl.String).unique(maintain_order=True).to_list():
        rows = np.flatnonzero(products == product)
        future[rows] = sigma_future(
            log["ts_event"].to_numpy()[rows],
            log["mid"].to_numpy()[rows],
            causes[rows],
            log["gap_from"].to_numpy()[rows],
            float(log["stale_after_s"][int(rows[0])]),
        )
    tau = log["tau_rolling"].to_numpy()
    spike = pl.Series("volatility_spike", volatility_spike(future, tau))
    identity = ["product_id", "conn_id", "frame_no", "event_index", "ticker_index", "ts_event"]
    return log.select(identity).with_columns(
        sigma_future=future, tau=tau, volatility_spike=spike.replace({-1: None})
    )
