"""What a recorded line becomes: ticks with integers for numbers, nothing of interest, or a reason."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from msgspec import Struct

from richter.domain.decimals import NumberError, Quantity, scale_price, split_quantity
from richter.domain.ticks import NO_TIME, TICK_COLUMNS, UNKNOWN, Gap, Ns

__all__ = [
    "Decoded",
    "Ignored",
    "Numbers",
    "Place",
    "PriceDecimals",
    "Rejected",
    "TickRecord",
    "Unreadable",
    "fill_row",
    "make_tick",
    "normalise",
    "show",
]


class TickRecord(Struct, frozen=True, gc=False):
    """One tick, its numbers as integers.

    Attributes:
        product_id: normalised: upper case, parts joined by `-`.
        conn_id: the connection; None in older forms, where the reader knows the file.
        frame_no: the frame's number on its connection; the line's number in older forms.
        event_index: which event of the frame.
        ticker_index: which ticker of the event.
        ts_event: exchange time where there is one, else the capture time; always known.
        ts_recv: capture time, `NO_TIME` where nobody wrote it down.
        snapshot: the state at subscription, no trade.
        gap: why continuity broke before this tick; None where it did not.
        conn_offset: event minus receive time of the connection's first frame in ns, None where not given.
        price: last trade, scaled like the four prices after it; `UNKNOWN` where absent.
        bid: best bid.
        ask: best ask.
        low_24h: lowest trade of 24 h.
        high_24h: highest trade of 24 h.
        volume_24h: traded in 24 h, as whole units and 1e-8, like the three quantities after it.
        last_size: size of the last trade.
        bid_qty: quantity at the best bid.
        ask_qty: quantity at the best ask.
    """

    product_id: str
    conn_id: str | None
    frame_no: int
    event_index: int
    ticker_index: int
    ts_event: Ns
    ts_recv: Ns
    snapshot: bool
    gap: Gap | None
    conn_offset: int | None
    price: int
    bid: int
    ask: int
    low_24h: int
    high_24h: int
    volume_24h: Quantity
    last_size: Quantity
    bid_qty: Quantity
    ask_qty: Quantity


class Ignored(Struct, frozen=True):
    """A line that is known and holds no tick.

    Attributes:
        kind: one of a closed set: "blank", a channel ("other channel" where it is unknown), a message type,
            or a kind of log entry.
    """

    kind: str


class Rejected(Struct, frozen=True):
    """A line that cannot be read, and why: what belongs into the dead-letter file."""

    reason: str


Decoded = list[TickRecord] | Ignored | Rejected
"""What a line is. A line is read as a whole: one bad ticker rejects its neighbours of the same frame too."""

PriceDecimals = Callable[[str], int]
"""The decimals of a product's scaled prices, by its normalised name."""

Place = tuple[str | None, int, int, int, Ns, Ns, bool, Gap | None, int | None]
"""A tick's place in the log: what `TickRecord` has from `conn_id` to `conn_offset`."""

Numbers = Sequence[Any]
"""A tick's nine numbers in the order of `TickRecord`, as the JSON had them: of any type."""

# What the numbers are called in a reason: the names of our own record and of Coinbase.
NUMBERS: Final = (
    "price",
    "best_bid",
    "best_ask",
    "low_24h",
    "high_24h",
    "volume_24h",
    "last_size",
    "best_bid_quantity",
    "best_ask_quantity",
)
PRICES: Final = 5  # The first so many numbers are scaled, the rest are quantities.
PRODUCT_ID: Final = re.compile(r"[A-Z0-9][A-Z0-9.:-]{0,63}")


class Unreadable(Exception):
    """The line has to be rejected; the text says why. Never leaves `decode_line`."""


def make_tick(product: str, place: Place, numbers: Numbers, price_decimals: PriceDecimals) -> TickRecord:
    """Return the tick of a product at a place in the log, its numbers scaled.

    Raises:
        Unreadable: the product is none, or a number does not fit.
    """
    product_id = normalise(product)
    if product_id is None:
        raise Unreadable(f"not a product: {show(product)}")
    decimals = price_decimals(product_id)
    price, bid, ask, low, high, volume, last_size, bid_qty, ask_qty = numbers
    try:
        return TickRecord(
            product_id,
            *place,
            scale_price(price, decimals),
            scale_price(bid, decimals),
            scale_price(ask, decimals),
            scale_price(low, decimals),
            scale_price(high, decimals),
            split_quantity(volume),
            split_quantity(last_size),
            split_quantity(bid_qty),
            split_quantity(ask_qty),
        )
    except NumberError:
        raise Unreadable(_culprit(product_id, numbers, decimals)) from None


def normalise(product: object) -> str | None:
    """Return a product's name in upper case, its parts joined by `-`; None for what is no product."""
    # Longer texts are kept out of the cache: its size is counted in entries.
    return _respelled(product) if isinstance(product, str) and len(product) <= 64 else None


_pack_row = struct.Struct(f"={TICK_COLUMNS}q").pack_into


def fill_row(
    row: np.ndarray[Any, np.dtype[np.int64]], record: TickRecord, conn_code: int, product_code: int
) -> None:
    """Write a tick into one row of a block, in the order of `domain.ticks`.

    Args:
        row: contiguous, `TICK_COLUMNS` long.
        record: the tick.
        conn_code: the block's number of the connection.
        product_code: the block's number of the product.
    """
    gap = record.gap
    cause, since, missing = (0, NO_TIME, UNKNOWN) if gap is None else (gap.cause, gap.from_ns, gap.missing)
    _pack_row(
        row.data,
        0,
        record.ts_event,
        record.ts_recv,
        conn_code,
        record.frame_no,
        record.event_index,
        record.ticker_index,
        product_code,
        record.snapshot,
        cause,
        since,
        UNKNOWN if missing is None else missing,
        record.price,
        record.bid,
        record.ask,
        record.low_24h,
        record.high_24h,
        *record.volume_24h,
        *record.last_size,
        *record.bid_qty,
        *record.ask_qty,
    )


def show(value: object) -> str:
    """Return a value as a reason names it: in a few characters, whatever its size."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    # An integer of thousands of digits has no repr.
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "an endless integer"
    return text if len(text) <= 48 else f"{text[:44]}…'"


@lru_cache(1024)
def _respelled(product: str) -> str | None:
    product_id = product.strip().upper().replace("/", "-").replace("_", "-")
    return product_id if PRODUCT_ID.fullmatch(product_id) else None


def _culprit(product_id: str, numbers: Numbers, decimals: int) -> str:
    """Return the reason of the first number that does not fit."""
    for index, (name, value) in enumerate(zip(NUMBERS, numbers, strict=True)):
        is_price = index < PRICES
        try:
            if is_price:
                scale_price(value, decimals)
            else:
                split_quantity(value)
        except NumberError as why:
            limit = f" for price_decimals {decimals}" if is_price and why.reason != "not a number" else ""
            return f"{product_id}: {name} {show(value)}: {why}{limit}"
    return f"{product_id}: unreadable number"
