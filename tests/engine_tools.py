"""What the engine's tests share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from richter.domain import ticks as tk
from richter.engine import kernel
from richter.engine.engine import Block, Engine

Ticks = npt.NDArray[np.int64]


def offsets(ticks: Ticks) -> list[int]:
    """Clock offset of each connection: event minus receive time of its first tick that has both."""
    found: dict[int, int] = {}
    for row in ticks.tolist():
        if row[tk.CONN] not in found and row[tk.TS_RECV] != tk.NO_TIME:
            found[row[tk.CONN]] = row[tk.TS_EVENT] - row[tk.TS_RECV]
    return [found.get(code, 0) for code in range(int(ticks[:, tk.CONN].max()) + 1)]


def engine(ticks: Ticks, stale_after_s: float = 10, decimals: int = 8, products: int = 1) -> Engine:
    """An engine for these ticks' products and connections."""
    return Engine(
        [f"P{code}" for code in range(products)],
        stale_after_s=stale_after_s,
        price_decimals=lambda product: decimals,
        conn_offsets=offsets(ticks),
    )


def run(ticks: Ticks, size: int | None = None, **options: float) -> Block:
    """All of the ticks, in batches of `size`."""
    runner = engine(ticks, **options)  # type: ignore[arg-type]  # keyword by keyword they fit
    size = size or len(ticks)
    blocks = [runner.process(ticks[at : at + size]) for at in range(0, len(ticks), size)]
    return Block(
        np.concatenate([block.values for block in blocks]), np.concatenate([block.meta for block in blocks])
    )


def bits(block: Block, rows: npt.NDArray[np.bool_] | slice = slice(None)) -> npt.NDArray[np.int64]:
    """Everything a block says of these rows, as integers; rows that were dropped have no values."""
    values = block.values.view(np.int64).copy()
    values[~block.accepted()] = 0
    meta = block.meta.copy()
    meta[~block.accepted(), : kernel.OUTCOME] = 0
    return np.concatenate([values, meta], axis=1)[rows]
