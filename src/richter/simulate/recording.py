"""The simulated market as a recording: the same records that a live feed leaves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from richter.domain.times import format_time, iso_capture
from richter.simulate.market import SECOND, Market

__all__ = ["recorded_lines", "write_recording"]

DELAY_NS: Final = 4_000_000
OUTAGE_S: Final = 20
STEP_DECIMALS: Final = 2
ROTATE_NS: Final = 3_600 * SECOND
# Too short a market is not interrupted.
_MIN_TICKS: Final = 1_000
# The feed acknowledges each of two subscriptions (ticker, heartbeats) after the snapshot.
_ACKS: Final = 2


def write_recording(market: Market, folder: Path, product: str, conn_id: str) -> list[Path]:
    """Write the market into `folder`, a segment for each hour of it; returns their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    records = _records(market, product, conn_id)
    for _, records_of_hour in groupby(
        records, key=lambda record: (record[0] - int(market.ts[0])) // ROTATE_NS
    ):
        hour = list(records_of_hour)
        stamp = iso_capture(hour[0][0])[:19].replace("-", "").replace(":", "").replace("T", "_")
        path = folder / f"ticks_{product.replace('-', '')}_{stamp}.ndjson"
        with path.open("wb") as out:
            out.writelines(line for _, line in hour)
        paths.append(path)
    return paths


def recorded_lines(market: Market, product: str, conn_id: str) -> Iterator[bytes]:
    """One record a tick: a snapshot first, and in the middle an outage that ends with a second connection.

    `raw` is the complete envelope of Coinbase's ticker channel. As there, heartbeats and acknowledgements take
    numbers of the same sequence.
    """
    return (line for _, line in _records(market, product, conn_id))


def _records(market: Market, product: str, conn_id: str) -> Iterator[tuple[int, bytes]]:
    encode = msgspec.json.encode
    frame = 0
    conn = conn_id
    traded = 7_669_00000000 + np.cumsum(market.size)
    low = np.minimum.accumulate(market.price)
    high = np.maximum.accumulate(market.price)
    opened = int(market.price[0])
    low_52w, high_52w = (
        _price(min(opened * 3 // 5, int(low[-1]))),
        _price(max(opened * 7 // 5, int(high[-1]))),
    )
    interrupted = len(market.ts) > _MIN_TICKS
    cut = int(market.ts[len(market.ts) // 2])
    reconnected = False
    after_snapshot = False
    last_seen = 0
    last_beat = int(market.ts[0]) // SECOND
    for i, ts in enumerate(market.ts.tolist()):
        if interrupted and cut <= ts < cut + OUTAGE_S * SECOND:
            continue
        gap: dict[str, Any] | None = None
        snapshot = i == 0
        if snapshot:
            gap = {"cause": "start", "from": None, "missing": None}
        elif interrupted and not reconnected and ts >= cut:
            reconnected, snapshot, frame = True, True, 0
            conn = f"{conn_id}-2"
            gap = {"cause": "reconnect", "from": last_seen, "missing": None}
        if not snapshot:
            beats = ts // SECOND - last_beat
            frame += 1 + beats + (_ACKS if after_snapshot else 0)
        last_beat, last_seen, after_snapshot = ts // SECOND, ts, snapshot
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
            "low_52_w": low_52w,
            "high_52_w": high_52w,
            "price_percent_chg_24_h": f"{100 * (int(market.price[i]) - opened) / opened:.14f}",
            **quotes,
            "best_bid_quantity": _quantity(market.bid_size[i]),
            "best_ask_quantity": _quantity(market.ask_size[i]),
        }
        yield (
            ts,
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
            + b"\n",
        )


def _price(steps: np.int64 | int) -> str:
    whole, cents = divmod(int(steps), 10**STEP_DECIMALS)
    return f"{whole}.{cents:02d}".rstrip("0").rstrip(".")


def _quantity(scaled: np.int64) -> str:
    whole, fraction = divmod(int(scaled), 10**8)
    return f"{whole}.{fraction:08d}".rstrip("0").rstrip(".")
