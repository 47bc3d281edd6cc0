"""What a dialect of the exchange makes of a frame: one `Message`, the same for every dialect."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final, Protocol

import msgspec
from msgspec import Raw, Struct

from richter.domain.ticks import Ns

__all__ = [
    "JSON_ERRORS",
    "Ack",
    "Dialect",
    "Kind",
    "Message",
    "Placed",
    "Quote",
    "UnreadableError",
    "check_whole",
    "quote_of",
    "text_of",
]

JSON_ERRORS: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Kind(StrEnum):
    """What a frame is for."""

    TICKER = "ticker"
    HEARTBEAT = "heartbeat"
    ACK = "ack"
    ERROR = "error"
    OTHER = "other"


class Quote(Struct, gc=False):
    """One ticker: its product, and its numbers as the JSON that the exchange sent; empty where it sent none.

    The first six go into the record; a reader finds the others in its `raw`.
    """

    product_id: str
    price: Raw = Raw()
    volume_24h: Raw = Raw()
    low_24h: Raw = Raw()
    high_24h: Raw = Raw()
    best_bid: Raw = Raw()
    best_ask: Raw = Raw()
    best_bid_quantity: Raw = Raw()
    best_ask_quantity: Raw = Raw()
    best_bid_size: Raw = Raw()
    best_ask_size: Raw = Raw()
    last_size: Raw = Raw()


Placed = tuple[int, int, bool | None, Quote | str, bytes]
"""A ticker in its frame: event index, ticker index, whether it is of a snapshot (None where the dialect does not say
so), the ticker or why it cannot be read, and then its bytes."""


class Ack(Struct, frozen=True):
    """What the exchange says is subscribed: always the whole set.

    Attributes:
        tickers: the products whose tickers it sends; None where it does not speak of tickers.
        heartbeats: whether it sends heartbeats.
    """

    tickers: frozenset[str] | None
    heartbeats: bool


class Message(Struct, gc=False):
    """A frame that was read.

    Attributes:
        kind: what it is for.
        frame: its bytes.
        sequence: its number among all frames of the connection, None in a dialect or a frame without one.
        ts_event: the exchange's time, None where there is no usable one.
        tickers: its tickers.
        trade_id: of the ticker's trade or of the product's last one, where the dialect numbers trades.
        product_id: of a heartbeat that belongs to one product.
        ack: of an acknowledgement.
        text: what an error says; the name of another channel.
    """

    kind: Kind
    frame: bytes
    sequence: int | None
    ts_event: Ns | None
    tickers: Sequence[Placed] = ()
    trade_id: int | None = None
    product_id: str | None = None
    ack: Ack | None = None
    text: str = ""


class UnreadableError(Exception):
    """The frame, or a part of it, cannot be read; the text says why."""


class Dialect(Protocol):
    """How one of the exchange's feeds is spoken.

    Attributes:
        numbers_frames: whether each frame has a number of its own; else the frames are counted.
    """

    numbers_frames: bool

    def subscribe(self, products: Sequence[str]) -> list[str]:
        """Return the frames that ask for the tickers of these products and for heartbeats."""

    def resubscribe(self, products: Sequence[str]) -> list[str]:
        """Return the frames that end the tickers' subscription and ask for it anew."""

    def twin(self, product: str) -> str | None:
        """Return another name under which the exchange may send the product, None for none."""

    def read(self, frame: bytes) -> Message:
        """Read one frame.

        Raises:
            UnreadableError: it cannot be read.
        """


_read_any = msgspec.json.Decoder(float_hook=float).decode


def check_whole(frame: bytes) -> None:
    """Raise `UnreadableError` where the frame is not JSON from its first byte to its last."""
    try:
        value = _read_any(frame)
    except UnicodeError:
        raise UnreadableError("not UTF-8") from None
    except RecursionError:
        raise UnreadableError("nested too deeply") from None
    except msgspec.MsgspecError:
        raise UnreadableError("not JSON") from None
    if not isinstance(value, dict):
        raise UnreadableError("not an object")


_as_text = msgspec.json.Decoder(str).decode


def text_of(raw: Raw | None) -> str | None:
    """Return the text that a JSON string holds, None for anything else."""
    if not raw:
        return None
    try:
        return _as_text(raw)
    except JSON_ERRORS:
        return None


_as_object = msgspec.json.Decoder(dict[str, Raw]).decode


def quote_of(part: Raw, make: type[Quote]) -> Quote | str:
    """Read a ticker of unusual make; returns why it cannot be read where it cannot.

    Args:
        part: the ticker's JSON.
        make: a quote under the dialect's names.
    """
    try:
        found = _as_object(part)
    except JSON_ERRORS:
        return "a ticker that is no object"
    product = text_of(found.get("product_id"))
    if product is None:
        return "a ticker without product_id"
    return Quote(product, *(found.get(name, Raw()) for name in _names(make)))


@lru_cache
def _names(make: type[Quote]) -> list[str]:
    """Return what the dialect calls a quote's numbers."""
    called = {field.name: field.encode_name for field in msgspec.structs.fields(make)}
    return [called[name] for name in Quote.__struct_fields__[1:]]
