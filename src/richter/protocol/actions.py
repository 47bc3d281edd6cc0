"""What the protocol object asks of its owner, and what it counts."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from richter.domain.ticks import Ns

__all__ = [
    "OUTCOMES",
    "Action",
    "Cause",
    "Counts",
    "Dead",
    "Deadlines",
    "FeedState",
    "Moved",
    "Reconnect",
    "Record",
    "Send",
    "Warn",
]


class FeedState(StrEnum):
    """Where a connection stands."""

    CONNECTING = "connecting"
    SUBSCRIBING = "subscribing"
    WAITING = "waiting"
    """Acknowledged, no data yet."""
    LIVE = "live"
    QUIET = "quiet"
    """No data for a while, and every heartbeat in time."""
    CLOSED = "closed"


class Cause(StrEnum):
    """Why a connection is given up; the last two are for the owner, when it was not the object that said so."""

    CONNECT_TIMEOUT = "connect_timeout"
    SUBSCRIBE_TIMEOUT = "subscribe_timeout"
    NO_DATA = "no_data"
    NO_BYTES = "no_bytes"
    NO_HEARTBEAT = "no_heartbeat"
    MUTE = "mute"
    ERRORS = "errors"
    SEQUENCE = "sequence"
    CLOSED = "closed"
    STOPPED = "stopped"


class Deadlines(Struct, frozen=True):
    """How long each thing may take, in seconds.

    Attributes:
        connect_s: opening a connection.
        subscribe_s: the first subscription after it is open (the exchange allows 5): `Feed.opened` returns it at once,
            the owner has this long to send it.
        ack_s: the acknowledgement.
        first_data_s: the first ticker after a subscription.
        silence_s: the next frame, and the next heartbeat.
        mute_s: the next ticker, at least; a third of it is quiet.
        mute_spacings: the next ticker, in median spacings of tickers.
    """

    connect_s: float = 10
    subscribe_s: float = 1
    ack_s: float = 5
    first_data_s: float = 10
    silence_s: float = 5
    mute_s: float = 15
    mute_spacings: float = 20


class Send(Struct, frozen=True, gc=False):
    """A frame to send."""

    data: str


class Record(Struct, frozen=True, gc=False):
    """A line to record.

    Attributes:
        product_id: whose tick it is.
        line: the line, its newline included.
        ts_event: when, by the exchange; the time of receipt where it did not say.
        ts_recv: when it came.
    """

    product_id: str
    line: bytes
    ts_event: Ns
    ts_recv: Ns


class Dead(Struct, frozen=True, gc=False):
    """A frame, or a ticker in it, that cannot be recorded: what belongs into the dead-letter file."""

    reason: str
    data: bytes


class Moved(Struct, frozen=True, gc=False):
    """The connection changed its state."""

    state: FeedState
    text: str


class Warn(Struct, frozen=True, gc=False):
    """Something that the operator should know.

    Attributes:
        kind: `missing` and `back` (a product in the acknowledgements), `refused` (a product that a subscription fails
            for), `twin` (a product that comes under another name) or `error` (another error of the exchange's).
        text: one sentence.
    """

    kind: str
    text: str


class Reconnect(Struct, frozen=True, gc=False):
    """Give this connection up."""

    cause: Cause
    text: str


Action = Send | Record | Dead | Moved | Warn | Reconnect

OUTCOMES: Final = (
    "tickers",
    "heartbeats",
    "acks",
    "errors",
    "other",
    "duplicates",
    "out_of_order",
    "dead",
)
"""What a frame can come to: exactly one of these."""


class Counts(Struct):
    """Numbers since the feed was made.

    Attributes:
        frames: received, the sum of the eight after `bytes`.
        bytes: of all frames.
        tickers: frames with tickers, at least one of which could be read.
        heartbeats: heartbeats.
        acks: acknowledgements.
        errors: errors sent by the exchange.
        other: of another channel or type.
        duplicates: received before.
        out_of_order: overtaken by a later frame, and therefore not recorded.
        dead: unreadable, or no ticker of theirs could be recorded.
        ticks: lines to record.
        snapshots: of these, states at subscription.
        dead_tickers: tickers that could not be recorded in frames that otherwise could.
        untimed: ticks without a usable time of the exchange's.
        gaps: jumps in the sequence.
        missing: frames (or trades) that these jumped over.
        lost: frames that the owner had to drop.
        unrecorded: lines that the owner could not record.
        connections: opened.
        resubscribed: subscriptions renewed on a mute connection.
        reconnects: connections given up, by cause.
        channels: frames of other channels or types, by name; beyond a number of names, under "…".
    """

    frames: int = 0
    bytes: int = 0
    tickers: int = 0
    heartbeats: int = 0
    acks: int = 0
    errors: int = 0
    other: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    dead: int = 0
    ticks: int = 0
    snapshots: int = 0
    dead_tickers: int = 0
    untimed: int = 0
    gaps: int = 0
    missing: int = 0
    lost: int = 0
    unrecorded: int = 0
    connections: int = 0
    resubscribed: int = 0
    reconnects: Counter[Cause] = msgspec.field(default_factory=Counter)
    channels: Counter[str] = msgspec.field(default_factory=Counter)
