"""The scanner reads what `decode_line` reads, or leaves it alone."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.domain import ticks as tk
from richter.protocol import decoder as decoders
from richter.protocol.decoder import Decoder
from richter.protocol.records import Ignored, Rejected, decode_line, fill_row

SHARED = Path(__file__).parents[2] / "shared" / "data"


def by_decode_line(data: bytes, decoder: Decoder) -> tuple[list[list[int]], Counter[str], list[str]]:
    """What `decode_line` makes of each line, in the decoder's own numbers."""
    rows, ignored, rejected = [], Counter[str](), []
    for number, text in enumerate(data.split(b"\n")[:-1], 1):
        found = decode_line(text, lambda product: 8, number)
        if isinstance(found, Ignored):
            ignored[found.kind] += 1
        elif isinstance(found, Rejected):
            rejected.append(found.reason)
        else:
            for record in found:
                row = np.zeros(tk.TICK_COLUMNS, np.int64)
                conn = decoder.state.conn_ids.index(record.conn_id or "file:x")
                fill_row(row, record, conn, decoder.state.products.index(record.product_id))
                rows.append(row.tolist())
    return rows, ignored, rejected


def check(data: bytes) -> int:
    """Compare the two on whole lines; returns how many ticks there were."""
    decoder = Decoder(lambda product: 8)
    decoder.decode(ours() + courses(), file_conn="file:x")  # so that names are known and the fast way is open
    block = decoder.decode(data, file_conn="file:x")
    rows, ignored, rejected = by_decode_line(data, decoder)
    assert block.ticks.tolist() == rows
    assert block.ignored == ignored
    assert [line.reason for line in block.rejected] == rejected
    assert block.lines == data.count(b"\n")
    return len(rows)


def ours(**changes: object) -> bytes:
    """Our record."""
    raw = {
        "channel": "ticker",
        "timestamp": "2026-01-01T00:00:01.5Z",
        "sequence_num": 7,
        "events": [
            {
                "type": "update",
                "tickers": [
                    {
                        "type": "ticker",
                        "product_id": "BTC-USD",
                        "price": "90000.01",
                        "best_bid_quantity": "0.5",
                        "best_ask_quantity": "1.00000001",
                    }
                ],
            }
        ],
    }
    record: dict[str, object] = {
        "timestamp": "2026-01-01T00:00:01.504000Z",
        "product_id": "BTC-USD",
        "price": "90000.01",
        "volume_24h": "7669.05164882",
        "low_24h": "85690",
        "high_24h": "91980.8",
        "best_bid": "90000",
        "best_ask": "90000.02",
        "ts_event": 1767225601500000000,
        "ts_recv": 1767225601504000000,
        "conn_id": "c1",
        "frame_no": 7,
        "event_index": 0,
        "ticker_index": 0,
        "event_type": "update",
        "gap_before": None,
        "v": 1,
        "raw": raw,
    }
    return json.dumps({**record, **changes}).encode() + b"\n"


def courses(**changes: object) -> bytes:
    """The course's record."""
    raw = {
        "type": "ticker",
        "product_id": "BTC-USD",
        "price": "90000.01",
        "volume_24_h": "7669.05164882",
        "low_24_h": "85690",
        "best_bid_quantity": "0.5",
        "best_ask_quantity": "2",
        "last_size": "0.25",
    }
    record: dict[str, object] = {
        "timestamp": "2025-11-30T23:56:11.637517",
        "product_id": "BTC-USD",
        "price": "90000.01",
        "volume_24h": "7669.05164882",
        "low_24h": "85690",
        "high_24h": "91980.8",
        "best_bid": "90000",
        "best_ask": "90000.02",
        "raw": raw,
    }
    return json.dumps({**record, **changes}).encode() + b"\n"


VALUES: list[object] = [
    None,
    "",
    "0",
    "1",
    1,
    1.5,
    -1,
    "1.5",
    "1e-7",
    "abc",
    "007",
    ".5",
    "5.",
    "é",
    'a"b',
    True,
    {},
    [],
    "BTC-USD",
]
VALUES += [
    "9007199.25474099",
    "90071992.54740992",
    "0.123456789",
    "2025-02-30T00:00:00",
    "2025-01-01T00:00:00+00:00",
]
VALUES += ["snapshot", 10**19, "1767225601500000000"]


@pytest.mark.parametrize("record", [ours, courses])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_any_value_in_any_place_reads_the_same(record: object, value: object) -> None:
    names = list(json.loads(record()))  # type: ignore[operator]  # one of the two functions above

    data = b"".join(record(**{name: value}) for name in names)  # type: ignore[operator]

    check(data + record())  # type: ignore[operator]


@pytest.mark.parametrize("record", [ours, courses])
def test_any_key_may_be_missing_or_come_in_another_order(record: object) -> None:
    whole = json.loads(record())  # type: ignore[operator]  # one of the two functions above
    lines = [json.dumps({name: whole[name] for name in whole if name != left_out}) for left_out in whole]
    lines.append(json.dumps(dict(reversed(whole.items()))))
    lines.append(json.dumps(whole, separators=(",", ":")))
    inner = whole["raw"]
    lines += [
        json.dumps({**whole, "raw": {k: v for k, v in inner.items() if k != left_out}}) for left_out in inner
    ]

    assert check("".join(line + "\n" for line in lines).encode()) > len(lines) // 2


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_lines_read_the_same(data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from([ours(), courses()])))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 2))
        byte = data.draw(st.sampled_from(b'"{}[],:\\ 0123456789.-eabxn\xff\x00\t'))
        edit = data.draw(st.sampled_from(["put", "insert", "delete", "double"]))
        if edit == "put":
            text[at] = byte
        elif edit == "insert":
            text.insert(at, byte)
        elif edit == "delete":
            del text[at]
        else:
            end = data.draw(st.integers(at, len(text) - 1))
            text[at:at] = text[at:end]

    check(bytes(text))


def test_usual_lines_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []

    def counted(line: bytes, *rest: object) -> object:
        taken.append(line)
        return decode_line(line, *rest)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(decoders, "decode_line", counted)
    decoder = Decoder(lambda product: 8)

    block = decoder.decode(ours() * 50 + courses() * 50, file_conn="file:x")

    assert len(block.ticks) == 100
    assert len(taken) <= 2


@pytest.mark.skipif(not SHARED.is_dir() and "CI" not in os.environ, reason="the recordings are not here")
def test_recordings_read_the_same() -> None:
    counts = Counter[str]()
    for path in [
        *sorted((SHARED / "coinbase").glob("*_20251206_0[12]*.ndjson")),
        SHARED / "coinbase_numbers.ndjson",
    ]:
        data = path.read_bytes()
        counts[path.parent.name] += check(data)
    gemini = (SHARED / "gemini" / "ticks_ETHUSD_20210702.ndjson").read_bytes()
    gemini = gemini[: gemini.rindex(b"\n", 0, 4_000_000) + 1]

    assert check(gemini) > 8_000
    assert counts["coinbase"] > 20_000
    assert counts["data"] == 5_028
