"""Recorded lines as tickers again, to the letter.

What a line means is the project's decoder's to say. The texts are then looked up in the line: a text stands for a
number of the tick if it is under one of the number's names and scales to the same integer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from richter.domain.decimals import NumberError, scale_price, split_quantity
from richter.domain.ticks import UNKNOWN
from richter.protocol import forms
from richter.protocol.records import Ignored, PriceDecimals, Rejected, TickRecord, normalise
from richter.simulate.tickers import Ticker

__all__ = ["LineReader"]

_MAX_DEPTH: Final = 8

# Fields of Coinbase's tickers that a tick does not keep.
_FURTHER: Final[Mapping[str, tuple[str, ...]]] = {
    "low_52w": ("low_52_w", "low_52w"),
    "high_52w": ("high_52_w", "high_52w"),
    "change_24h": ("price_percent_chg_24_h",),
    "open_24h": ("open_24h", "open_24_h"),
    "volume_30d": ("volume_30d", "volume_30_d"),
    "side": ("side",),
}
_PRICES: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("price", "price", forms.PRICE),
    ("best_bid", "bid", forms.BID),
    ("best_ask", "ask", forms.ASK),
    ("low_24h", "low_24h", forms.LOW),
    ("high_24h", "high_24h", forms.HIGH),
)
_QUANTITIES: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("volume_24h", "volume_24h", forms.VOLUME),
    ("last_size", "last_size", forms.LAST_SIZE),
    ("best_bid_quantity", "bid_qty", forms.BID_QTY),
    ("best_ask_quantity", "ask_qty", forms.ASK_QTY),
)

# Floats stay the texts they are.
_decode = msgspec.json.Decoder(float_hook=str).decode


class LineReader:
    """Reads recorded lines in their order.

    Args:
        price_decimals: gives a product's decimals.

    Attributes:
        rejected: lines that could not be read, by reason.
    """

    def __init__(self, price_decimals: PriceDecimals) -> None:
        self.rejected: dict[str, int] = {}
        self._price_decimals = price_decimals
        self._trades: dict[str, int] = {}
        self._sequences: dict[str, int] = {}

    def read(self, line: bytes, line_no: int = 0) -> list[Ticker]:
        """Return the tickers of a line, none where it holds none or cannot be read."""
        decoded = forms.decode_line(line, self._price_decimals, line_no)
        if isinstance(decoded, Ignored):
            return []
        if isinstance(decoded, Rejected):
            kind = decoded.reason.rsplit(": ", 1)[-1]
            self.rejected[kind] = self.rejected.get(kind, 0) + 1
            return []
        objects = list(_objects(_parsed(line), 0))
        return [self._ticker(tick, objects) for tick in decoded]

    def _ticker(self, tick: TickRecord, objects: list[Mapping[str, Any]]) -> Ticker:
        product = tick.product_id
        mine = _of_tick(tick, objects)
        decimals = self._price_decimals(product)
        texts: dict[str, Any] = {}
        for ours, attribute, names in _PRICES:
            texts[ours] = _text(mine, names, getattr(tick, attribute), decimals)
        for ours, attribute, names in _QUANTITIES:
            texts[ours] = _text(mine, names, getattr(tick, attribute), None)
        for ours, names in _FURTHER.items():
            texts[ours] = next(
                (each[name] for each in mine for name in names if isinstance(each.get(name), str)), None
            )
        trade = _number("trade_id", mine)
        self._trades[product] = self._trades.get(product, 0) + 1 if trade is None else trade
        sequence = _number("sequence", mine)
        self._sequences[product] = self._sequences.get(product, 0) + 1 if sequence is None else sequence
        return Ticker(
            tick.ts_event,
            product,
            **texts,
            snapshot=tick.snapshot,
            sequence=self._sequences[product],
            trade_id=self._trades[product],
        )


def _parsed(line: bytes) -> object:
    for start in (b"{", b'"'):
        at = line.find(start)
        if at >= 0 and (start == b"{" or line[:at].strip() in (b"", b"\xef\xbb\xbf")):
            try:
                return _decode(line[at:].rstrip())
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                continue
    return None


def _objects(value: object, depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield every object of a line, outer ones first, JSON inside texts too."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        if value[:1] in ("{", '"'):
            yield from _objects(_parsed(value.encode("utf-8", "replace")), depth + 1)
    elif isinstance(value, dict):
        yield value
        for inner in value.values():
            if isinstance(inner, dict | list) or (isinstance(inner, str) and inner[:1] in ("{", '"')):
                yield from _objects(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner, depth + 1)


def _of_tick(tick: TickRecord, objects: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the objects that may tell of this tick: not those of other products, nor other tickers of its frame."""
    for envelope in objects:
        events = envelope.get("events")
        if isinstance(events, list):
            try:
                own = events[tick.event_index]["tickers"][tick.ticker_index]
            except (LookupError, TypeError):
                break
            if isinstance(own, dict) and _product(own) in (None, tick.product_id):
                return [each for each in objects if each is own or not _is_ticker(each, events)]
            break
    return [each for each in objects if _product(each) in (None, tick.product_id)]


def _is_ticker(value: Mapping[str, Any], events: list[Any]) -> bool:
    return any(
        value is ticker
        for event in events
        if isinstance(event, dict) and isinstance(event.get("tickers"), list)
        for ticker in event["tickers"]
    )


def _product(value: Mapping[str, Any]) -> str | None:
    return next((normalise(value[name]) for name in forms.PRODUCT if isinstance(value.get(name), str)), None)


def _text(
    objects: list[Mapping[str, Any]], names: tuple[str, ...], wanted: Any, decimals: int | None
) -> str | None:
    """Return the text that stands for a number; None where there is none."""
    unknown = wanted == UNKNOWN or wanted == (UNKNOWN, 0)
    for each in objects:
        for name in names:
            value = each.get(name)
            if value is None or isinstance(value, bool | dict | list):
                continue
            if unknown:
                if value == "":
                    return ""
                continue
            try:
                found = split_quantity(value) if decimals is None else scale_price(value, decimals)
            except NumberError:
                continue
            if found == wanted:
                return str(value)
    return None if unknown else _formatted(wanted, decimals)


def _formatted(wanted: Any, decimals: int | None) -> str:
    """Write a number whose text was not found: a float that was rounded to the scale."""
    places = 8 if decimals is None else decimals
    whole, fraction = wanted if decimals is None else divmod(wanted, 10**places)
    return f"{whole}.{fraction:0{places}}".rstrip("0").rstrip(".") if places else str(whole)


def _number(name: str, objects: list[Mapping[str, Any]]) -> int | None:
    for each in objects:
        value = each.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None
