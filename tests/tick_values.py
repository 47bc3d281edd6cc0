"""Records of topics for tests: ticks and feature rows as they are written."""

from __future__ import annotations

import json
from typing import Any

from richter.domain.times import format_time
from richter.engine.digest import schema_id
from richter.engine.table import FEATURE_NAMES

SECOND = 10**9
START_NS = 1_788_646_230 * SECOND


def tick_value(number: int, product: str = "BTC-USD", **fields: Any) -> bytes:
    """A tick of connection conn-1, a second after the one before."""
    at = START_NS + number * SECOND
    return json.dumps(
        {
            "timestamp": format_time(at),
            "product_id": product,
            "price": "79879.1",
            "volume_24h": "14152.6699",
            "low_24h": "79445",
            "high_24h": "80206",
            "best_bid": "79879",
            "best_ask": "79879.1",
            "ts_event": at,
            "ts_recv": at + 30_000_000,
            "conn_id": "conn-1",
            "frame_no": number,
            "event_index": 0,
            "ticker_index": 0,
            "event_type": "update",
            "gap_before": None,
            "v": 1,
            "raw": {"channel": "ticker", "events": []},
        }
        | fields
    ).encode()


def row_value(number: int, product: str = "BTC-USD", **fields: Any) -> bytes:
    """A feature row of connection conn-1, a second after the one before, in which little is known."""
    at = START_NS + number * SECOND
    return json.dumps(
        {
            "product_id": product,
            "conn_id": "conn-1",
            "frame_no": number,
            "event_index": 0,
            "ticker_index": 0,
            "ts_event": at,
            "ts_recv": at + 30_000_000,
            "gap_before": None,
            "gap_from": None,
            "valid": True,
            "reasons": "",
            "stale_after_s": 10.0,
            "schema_id": schema_id(),
            "mid": 79_879.05,
            **dict.fromkeys(FEATURE_NAMES),
        }
        | fields
    ).encode()
