"""What Coinbase's two protocols have in common from the exchange's side, without a socket.

A session reads what the client asks for and makes frames of drafts; `advanced` and `exchange` hold one each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, ClassVar, Protocol

import msgspec

from richter.domain.ticks import Ns
from richter.simulate.tickers import Ticker

__all__ = [
    "Beat",
    "Change",
    "Draft",
    "Kind",
    "NonsenseError",
    "Session",
    "change_subscriptions",
    "products_of",
    "read_message",
]


class Kind(Enum):
    """What a frame is."""

    TICK = "tick"
    BEAT = "beat"
    ACK = "ack"
    ERROR = "error"


class Beat(msgspec.Struct, frozen=True):
    """A heartbeat.

    Attributes:
        counter: seconds that the exchange has been up.
        last: the product's last trade, on the Exchange feed.
    """

    counter: int
    last: Ticker | None = None


class Draft(msgspec.Struct, frozen=True):
    """A frame before it is numbered.

    Attributes:
        kind: what it is.
        ts: when the exchange says it was sent.
        content: of a tick or heartbeat; otherwise the JSON object.
        snapshot: whether a tick is the state at subscription.
    """

    kind: Kind
    ts: Ns
    content: Ticker | Beat | Mapping[str, Any]
    snapshot: bool = False


class NonsenseError(Exception):
    """A message that the exchange answers with an error frame.

    Args:
        message: its `message`.
        reason: its `reason`, where there is one.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.frame = {"type": "error", "message": message} | ({} if reason is None else {"reason": reason})


class Change(msgspec.Struct, frozen=True):
    """A subscribe or unsubscribe message.

    Attributes:
        subscribe: which of the two.
        channels: the products of each channel; None for a whole channel.
    """

    subscribe: bool
    channels: dict[str, tuple[str, ...] | None]


class Session(Protocol):
    """The exchange's side of one connection.

    Attributes:
        path: where the protocol is served.
        ack_first: whether the acknowledgement precedes snapshots.
        trades_only: whether ticks without a trade are left out.
    """

    path: ClassVar[str]
    ack_first: ClassVar[bool]
    trades_only: ClassVar[bool]

    def read(self, message: str | bytes) -> Change:
        """Understand a message.

        Raises:
            NonsenseError: it is not understood or asks for what is not served.
        """

    def apply(self, change: Change, without: Collection[str] = ()) -> tuple[str, ...]:
        """Change the subscriptions; return the products whose ticker was asked for, those left out aside."""

    def wants(self, product: str) -> bool:
        """Whether the product's ticker is subscribed to."""

    def ack(self, ts: Ns) -> Draft:
        """Draft the list of all subscriptions."""

    def beats(self, ts: Ns, counter: int, last: Mapping[str, Ticker]) -> list[Draft]:
        """Draft the heartbeats of a second."""

    def number(self, draft: Draft, shift: int = 0) -> bytes:
        """Make the frame and give it the next number; `shift` is added to its times, ns."""


def read_message(message: str | bytes) -> dict[str, Any]:
    """Read a subscribe or unsubscribe message.

    Raises:
        NonsenseError: it is none.
    """
    try:
        asked = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise NonsenseError("failed to parse the message as JSON") from None
    if not isinstance(asked, dict) or asked.get("type") not in ("subscribe", "unsubscribe"):
        raise NonsenseError("type must be subscribe or unsubscribe")
    return asked


def products_of(asked: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the products that an object names, each once.

    Raises:
        NonsenseError: they are no texts.
    """
    products = asked.get("product_ids") or ()
    if not isinstance(products, list | tuple) or not all(isinstance(each, str) for each in products):
        raise NonsenseError("product_ids must be a list of texts")
    return tuple(dict.fromkeys(products))


def change_subscriptions(
    subscribed: dict[str, list[str]], channel: str, products: tuple[str, ...] | None, subscribe: bool
) -> None:
    """Add products to a channel's, or take them away: None or none are all."""
    now = subscribed.setdefault(channel, [])
    if subscribe:
        now += [each for each in products or () if each not in now]
    else:
        gone = products or tuple(now)
        now[:] = [each for each in now if each not in gone]
    if not now:
        del subscribed[channel]
