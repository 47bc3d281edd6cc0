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

from richter.adapters.recording import reader
from richter.domain import ticks as tk
from richter.errors import ContractError
from richter.protocol import decoder as decoders
from richter.protocol.decoder import Decoder
from richter.protocol.forms import decode_line
from richter.protocol.records import Ignored, Rejected, fill_row

NO_DATA = "the recordings are not here"
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
    """Compare the two on whole lines, alone and beside others; returns how many ticks there were."""
    if data.count(b"\n") < 50:
        # The scanner compares a line with the one before it.
        beside = (before + line for line in data.splitlines(keepends=True) for before in (ours(), courses()))
        compare(b"".join(beside) + ours())
    return compare(data)


def compare(data: bytes) -> int:
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


@pytest.mark.skipif(not SHARED.is_dir() and "CI" not in os.environ, reason=NO_DATA)
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


digits = st.text("0123456789", min_size=1, max_size=12)
number = st.one_of(
    st.builds("{}.{}".format, digits, st.text("0123456789", max_size=10)),
    st.builds("{:.2f}".format, st.floats(0, 90_000_000)),
    digits,
    st.sampled_from(["", "0", "0.00000000", "90071992.54740991", "90071992.54740992"]),
)
stamp = st.builds(
    "{:%Y-%m-%dT%H:%M:%S}{}{}".format,
    st.datetimes(),
    st.one_of(st.just(""), st.from_regex(r"[.][0-9]{1,10}", fullmatch=True)),
    st.sampled_from(["", "Z", "+00:00", "+01:00", "z"]),
)
count = st.integers(0, 2**63 - 1)
quantities = st.fixed_dictionaries(
    {},
    optional={
        "product_id": st.sampled_from(["BTC-USD", "ETH-USD"]),
        "best_bid_quantity": number,
        "best_ask_quantity": number,
        "best_bid_size": number,
        "last_size": number,
        "type": st.sampled_from(["ticker", "update"]),
        "low_24_h": number,
        "trade_id": count,
        "side": st.sampled_from(["buy", "low", "volume"]),
    },
)
event = st.fixed_dictionaries(
    {"type": st.sampled_from(["update", "snapshot"]), "tickers": st.lists(quantities, max_size=2)}
)
raw = st.one_of(
    quantities,
    st.fixed_dictionaries({"events": st.lists(event, max_size=2)}),
    st.builds(lambda flat, events: flat | {"events": events}, quantities, st.lists(event, max_size=1)),
)
day = {
    "timestamp": stamp,
    "price": number,
    "volume_24h": number,
    "low_24h": number,
    "high_24h": st.one_of(st.none(), number),
    "best_bid": number,
    "best_ask": number,
    "raw": raw,
}
identity = {
    "ts_event": count,
    "ts_recv": count,
    "frame_no": count,
    "event_index": st.sampled_from([0, 0, 0, 1]),
    "ticker_index": st.sampled_from([0, 0, 0, 1]),
    "event_type": st.sampled_from(["update", "snapshot", "snapshop", "upside"]),
    "conn_offset": st.one_of(st.none(), st.integers(-(2**63), 2**63), st.floats(-5, 5), st.booleans()),
}
spacing = st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "  :\r"), (",\r", ":\t ")])


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_lines_of_any_values_spacing_and_order_read_the_same(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from([ours, courses]))
    values = data.draw(st.fixed_dictionaries({}, optional=day | (identity if form is ours else {})))
    record = json.loads(form(**values))
    keys = data.draw(st.permutations(list(record)))

    text = json.dumps({key: record[key] for key in keys}, separators=data.draw(spacing))

    check(text.encode() + b"\n" + form())


ODD_RAWS: dict[str, object] = {
    "quantities before events": {
        "best_bid_quantity": "9",
        "events": [{"type": "update", "tickers": [{"product_id": "BTC-USD"}]}],
    },
    "quantities behind events": {
        "events": [{"type": "update", "tickers": [{"product_id": "BTC-USD"}]}],
        "best_bid_quantity": "9",
    },
    "the second ticker's": {"events": [{"tickers": [{"price": "1"}, {"best_bid_quantity": "9"}]}]},
    "the second event's": {"events": [{"type": "update"}, {"tickers": [{"best_bid_quantity": "9"}]}]},
    "elsewhere": {"events": [], "other": [{"tickers": [{"best_bid_quantity": "9"}]}]},
    "deep elsewhere": {"events": [{"other": [{"best_bid_quantity": "9"}]}]},
    "a number among events": {"events": [{"tickers": [{"best_bid_quantity": "9"}]}, 1]},
    "a number among tickers": {"events": [{"tickers": [{"best_bid_quantity": "9"}, 1]}]},
    "a list among tickers": {"events": [{"tickers": [{"best_bid_quantity": "9"}, []]}]},
    "events in an object": {"events": {"a": [{"best_bid_quantity": "9"}]}},
    "tickers in an object": {"events": [{"tickers": {"best_bid_quantity": "9"}}]},
    "a type of no text": {"events": [{"type": 5, "tickers": [{"best_bid_quantity": "9"}]}]},
    "a type that is a list": {"events": [{"type": [], "tickers": [{"best_bid_quantity": "9"}]}]},
    "a list": [{"best_bid_quantity": "9"}],
    "a list with the day's low": [{"low": "5"}],
    "as text": json.dumps({"best_bid_quantity": "9"}),
    "nothing": {},
    "both names": {"best_bid_quantity": "", "best_bid_size": "9"},
    "the day's low": {"low": "5", "volume": 3, "bid_size": "2"},
    "a name like the day's low": {"low_52_w": "5", "bid_size": "2", "side": "high"},
}


@pytest.mark.parametrize("name", ODD_RAWS)
def test_a_message_of_odd_build_reads_the_same(name: str) -> None:
    day_unknown = {"volume_24h": "", "low_24h": None, "high_24h": ""}
    lines = [form(raw=ODD_RAWS[name], **more) for form in (ours, courses) for more in ({}, day_unknown)]

    # The negative control is in the lines beside: they have quantities that the odd ones must not take over.
    ticks = check(ours() + ours().join(lines) + ours())

    assert ticks >= 5


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_changed_byte_of_any_value_reads_the_same(data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from([ours(event_type="snapshot", conn_offset=5), courses()])))

    text[data.draw(st.integers(0, len(text) - 2))] = data.draw(
        st.integers(0, 255).filter(lambda byte: byte != ord("\n"))
    )

    check(bytes(text))


@pytest.mark.parametrize("kind", ["snapshot", "snapshop", "update", "uhdate", "", "sn", "UPDATE"])
def test_only_a_snapshot_is_one(kind: str) -> None:
    decoder = Decoder(lambda product: 8)

    block = decoder.decode(ours() + ours(event_type=kind), file_conn="file:x")

    assert block.ticks[:, tk.SNAPSHOT].tolist() == [0, kind == "snapshot"]


@pytest.mark.parametrize("offset", [1.5, True, "5", 10**19, -(10**19), {}])
def test_a_clock_offset_of_no_integer_spoils_the_line(offset: object) -> None:
    decoder = Decoder(lambda product: 8)

    block = decoder.decode(ours() + ours(conn_offset=offset) + ours(conn_offset=-5), file_conn="file:x")

    assert len(block.ticks) == 2
    assert [line.line_no for line in block.rejected] == [2]


def test_the_offset_of_a_connection_is_its_first_known_one() -> None:
    whole = json.loads(ours(conn_id="c2"))
    timeless = json.dumps({k: v for k, v in whole.items() if k not in ("ts_recv", "timestamp")})
    decoder = Decoder(lambda product: 8)

    block = decoder.decode(timeless.encode() + b"\n" + ours(conn_id="c2") * 3, file_conn="file:x")

    assert len(block.ticks) == 4
    assert decoder.state.conn_ids == ["file:x", "c2"]
    assert decoder.known_offsets == [None, -4_000_000]


def test_a_block_of_nothing_holds_nothing() -> None:
    block = Decoder(lambda product: 8).decode(b"", file_conn="file:x")

    assert (len(block.ticks), block.lines) == (0, 0)


@pytest.mark.skipif(not SHARED.is_dir() and "CI" not in os.environ, reason=NO_DATA)
@pytest.mark.parametrize(
    ("pattern", "most"), [("coinbase/*_20251205_20*.ndjson", 0.001), ("gemini/*01.ndjson", 0.001)]
)
def test_recordings_take_the_fast_way(monkeypatch: pytest.MonkeyPatch, pattern: str, most: float) -> None:
    taken: list[bytes] = []

    def counted(line: bytes, *rest: object) -> object:
        taken.append(line)
        return decode_line(line, *rest)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(decoders, "decode_line", counted)
    decoder = Decoder(lambda product: 8)

    blocks = [
        decoder.decode(block.data, file_conn=path.name, first_line=block.first_line)
        for path in sorted(SHARED.glob(pattern))
        for block in reader.read_blocks(path)
    ]

    lines = sum(block.lines for block in blocks)
    assert lines == sum(len(block.ticks) for block in blocks) > 5_000
    assert len(taken) <= most * lines


@pytest.mark.skipif(not SHARED.is_dir() and "CI" not in os.environ, reason=NO_DATA)
def test_frames_read_the_same() -> None:
    ticks = 0
    for path in sorted((SHARED / "frames").iterdir()):
        for block in reader.read_blocks(path):
            ticks += check(bytes(block.data))

    assert ticks > 160


def test_a_block_without_its_last_newline_is_refused() -> None:
    with pytest.raises(ContractError, match="newline"):
        Decoder(lambda product: 8).decode(ours()[:-1], file_conn="file:x")
