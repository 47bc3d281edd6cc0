"""The simulated market as a recording: the same records that a live feed leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from richter.domain.times import format_time, iso_capture
from richter.simulate.market import SECOND, Market

__all__ = ["recorded_lines", "write_recording"]

DELAY_NS: Final = 4_000_000
STEP_DECIMALS: Final = 2


def write_recording(market: Market, folder: Path, product: str, conn_id: str) -> Path:
    """Write the market into one segment of `folder`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    start = iso_capture(int(market.ts[0]))
    stamp = start[:19].replace("-", "").replace(":", "").replace("T", "_")
    path = folder / f"ticks_{product.replace('-', '')}_{stamp}.ndjson"
    with path.open("wb") as out:
        out.writelines(recorded_lines(market, product, conn_id))
    return path


def recorded_lines(market: Market, product: str, conn_id: str) -> Iterator[bytes]:
    """One record a tick: a snapshot first, and one reconnect of 20 s in the middle."""
    encode = msgspec.json.encode
    frame = 0
    conn = conn_id
    traded = 7_669_00000000 + np.cumsum(market.size)
    low = np.minimum.accumulate(market.price)
    high = np.maximum.accumulate(market.price)
    cut = int(market.ts[len(market.ts) // 2])
    reconnected = False
    last_seen = 0
    last_beat = int(market.ts[0]) // SECOND
    for i, ts in enumerate(market.ts.tolist()):
        if len(market.ts) > 1000 and cut <= ts < cut + 20 * SECOND:
            continue  # the connection is down
        gap: dict[str, Any] | None = None
        snapshot = i == 0
        if snapshot:
            gap = {"cause": "start", "from": None, "missing": None}
        elif not reconnected and ts >= cut and len(market.ts) > 1000:
            reconnected, snapshot, frame = True, True, 0
            conn = f"{conn_id}-2"
            gap = {"cause": "reconnect", "from": last_seen, "missing": None}
        # Heartbeats, one a second, take numbers of the same sequence.
        beats = ts // SECOND - last_beat
        frame += 0 if snapshot else 1 + beats
        last_beat, last_seen = ts // SECOND, ts
        numbers = {
            "price": _price(market.price[i]),
            "volume_24_h": _quantity(traded[i]),
            "low_24_h": _price(low[i]),
            "high_24_h": _price(high[i]),
        }
        quotes = {"best_bid": _price(market.bid[i]), "best_ask": _price(market.ask[i])}
        kind = "snapshot" if snapshot else "update"
        ticker = {
            "type": "ticker",
            "product_id": product,
            **numbers,
            **quotes,
            "best_bid_quantity": _quantity(market.bid_size[i]),
            "best_ask_quantity": _quantity(market.ask_size[i]),
        }
        yield (
            encode(
                {
                    "timestamp": iso_capture(ts + DELAY_NS),
                    "product_id": product,
                    "price": numbers["price"],
                    "volume_24h": numbers["volume_24_h"],
                    "low_24h": numbers["low_24_h"],
                    "high_24h": numbers["high_24_h"],
                    **quotes,
                    "ts_event": ts,
                    "ts_recv": ts + DELAY_NS,
                    "conn_id": conn,
                    "frame_no": frame,
                    "event_index": 0,
                    "ticker_index": 0,
                    "event_type": kind,
                    "gap_before": gap,
                    "v": 1,
                    "raw": {
                        "channel": "ticker",
                        "timestamp": format_time(ts),
                        "sequence_num": frame,
                        "events": [{"type": kind, "tickers": [ticker]}],
                    },
                }
            )
            + b"\n"
        )


def _price(steps: np.int64) -> str:
    whole, cents = divmod(int(steps), 10**STEP_DECIMALS)
    return f"{whole}.{cents:02d}".rstrip("0").rstrip(".")


def _quantity(scaled: np.int64) -> str:
    whole, fraction = divmod(int(scaled), 10**8)
    return f"{whole}.{fraction:08d}".rstrip("0").rstrip(".")
