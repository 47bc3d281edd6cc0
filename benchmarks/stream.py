"""A seeded stream of BTC-like ticks, as integers and as recorded lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from richter.domain import ticks as tk
from richter.domain.times import iso_capture

CENT = 10**6


def make_ticks(n: int, rate: float = 8.0, seed: int = 1) -> np.ndarray:
    """(n, TICK_COLUMNS) ticks, Poisson arrivals, a random walk on a grid of 0.01."""
    rng = np.random.default_rng(seed)
    ticks = np.zeros((n, tk.TICK_COLUMNS), np.int64)
    at = np.cumsum(rng.exponential(1 / rate, n) * 1e6).astype(np.int64) * 1000
    ticks[:, tk.TS_EVENT] = ticks[:, tk.TS_RECV] = 1_764_547_200 * 10**9 + at
    ticks[:, tk.FRAME_NO] = np.arange(n) + 1
    ticks[:, tk.GAP_FROM] = tk.NO_TIME
    ticks[:, tk.GAP_MISSING] = tk.UNKNOWN
    bid = np.round(9_000_000 * np.exp(np.cumsum(rng.normal(0, 1e-5, n)))).astype(np.int64) * CENT
    ticks[:, tk.BID] = ticks[:, tk.PRICE] = bid
    ticks[:, tk.ASK] = bid + rng.integers(1, 200, n) * CENT
    ticks[:, tk.LOW_24H] = bid.min()
    ticks[:, tk.HIGH_24H] = bid.max()
    traded = np.cumsum(rng.integers(0, 3, n) * rng.integers(0, 10**7, n))
    ticks[:, tk.VOLUME_24H_U] = 8000 + traded // 10**8
    ticks[:, tk.VOLUME_24H_F] = traded % 10**8
    ticks[:, tk.LAST_SIZE_U] = tk.UNKNOWN
    ticks[:, tk.BID_QTY_F] = rng.integers(1, 10**8, n)
    ticks[:, tk.ASK_QTY_F] = rng.integers(1, 10**8, n)
    return ticks


def write_lines(ticks: np.ndarray, path: Path) -> None:
    """Write the ticks as the course's records: strings, `raw` the inner ticker."""

    def price(scaled: int) -> str:
        return f"{scaled / 1e8:.2f}"

    with path.open("w") as out:
        for row in ticks.tolist():
            volume = f"{row[tk.VOLUME_24H_U]}.{row[tk.VOLUME_24H_F]:08d}"
            low, high = price(row[tk.LOW_24H]), price(row[tk.HIGH_24H])
            bid, ask, last = price(row[tk.BID]), price(row[tk.ASK]), price(row[tk.PRICE])
            raw = {
                "type": "ticker",
                "product_id": "BTC-USD",
                "price": last,
                "volume_24_h": volume,
                "low_24_h": low,
                "high_24_h": high,
                "low_52_w": "74420.69",
                "high_52_w": "126296",
                "price_percent_chg_24_h": "-5.61449971215879",
                "best_bid": bid,
                "best_ask": ask,
                "best_bid_quantity": f"0.{row[tk.BID_QTY_F]:08d}",
                "best_ask_quantity": f"0.{row[tk.ASK_QTY_F]:08d}",
            }
            record = {
                "timestamp": iso_capture(row[tk.TS_EVENT]).removesuffix("Z"),
                "product_id": "BTC-USD",
                "price": last,
                "volume_24h": volume,
                "low_24h": low,
                "high_24h": high,
                "best_bid": bid,
                "best_ask": ask,
                "raw": raw,
            }
            out.write(json.dumps(record) + "\n")
