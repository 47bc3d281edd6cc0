"""The exchange, one connection after another: frames and times in; records, dead letters, frames and deadlines out.

The object does no I/O and knows no clock. Its owner opens connections, hands over what they bring, does what the
returned actions say in their order, and calls `wake` at `deadline`:

    actions = feed.connect(conn_id, now)    then, when it is open,
    actions = feed.opened(now)              and for each frame
    actions = feed.receive(frame, ts_recv, now)

States and deadlines are the table of `protocol.states`.

References:
    https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-overview
    https://docs.cdp.coinbase.com/exchange/websocket-feed/best-practices
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from richter.domain.ticks import NO_TIME, Ns
from richter.domain.times import SECOND
from richter.errors import ContractError
from richter.protocol.actions import (
    OUTCOMES,
    Action,
    Cause,
    Counts,
    Dead,
    Deadlines,
    FeedState,
    Moved,
    Reconnect,
    Record,
    Send,
    Warn,
)
from richter.protocol.dialect import Ack, Dialect, Kind, Message, UnreadableError
from richter.protocol.gaps import ProductGaps
from richter.protocol.line import LineMaker
from richter.protocol.order import Order
from richter.protocol.states import (
    BYTES,
    DATA,
    HEARTBEAT,
    MOVES,
    OPENED,
    RESUBSCRIBE,
    RESUBSCRIBED,
    Clocks,
    Event,
)

__all__ = [
    "OUTCOMES",
    "Action",
    "Cause",
    "Counts",
    "Dead",
    "Deadlines",
    "Dialect",
    "Feed",
    "FeedState",
    "Moved",
    "Reconnect",
    "Record",
    "Send",
    "Warn",
]

PRODUCT_ID: Final = re.compile(r"[A-Z0-9][A-Z0-9.:-]{0,63}")
"""What a reader of records takes for a product as it stands."""

NO_NAME: Final = re.compile(r"[^A-Z0-9.:-]+")

MOST_ERRORS: Final = 3
_TOLD: Final = {
    Cause.CONNECT_TIMEOUT: "not connected",
    Cause.SUBSCRIBE_TIMEOUT: "no acknowledgement",
    Cause.NO_DATA: "no ticker",
    Cause.NO_BYTES: "no frame",
    Cause.NO_HEARTBEAT: "no heartbeat",
    Cause.MUTE: "no ticker after a renewed subscription",
}
MOST_CHANNELS: Final = 32

LATEST: Final = 2**63 - 1
IS_TICKER, IS_HEARTBEAT, IS_ACK, IS_ERROR = Kind.TICKER, Kind.HEARTBEAT, Kind.ACK, Kind.ERROR
LIVE: Final = FeedState.LIVE


class Feed:
    """One exchange connection after another for a set of products; remembers across connections what gaps need.

    `now` is a monotonic clock everywhere, `ts_recv` the wall clock (UTC), both in ns.

    Args:
        dialect: how the exchange is spoken to.
        products: the products, in the exchange's names.
        deadlines: how long things may take.
        last_good: event time of each product's last record of an earlier run.

    Attributes:
        state: where the connection stands.
        conn_id: the connection, also after it was closed; None before the first.
        counts: what happened so far.

    Raises:
        ContractError: there is no product, or a name is none of the exchange's.
    """

    def __init__(
        self,
        dialect: Dialect,
        products: Sequence[str],
        deadlines: Deadlines | None = None,
        *,
        last_good: Mapping[str, Ns] | None = None,
    ) -> None:
        for product in products:
            if not PRODUCT_ID.fullmatch(product):
                raise ContractError("a feed for what is no product", product)
        if not products:
            raise ContractError("a feed without products")
        self.state = FeedState.CLOSED
        self.conn_id: str | None = None
        self.counts = Counts()
        self._dialect = dialect
        self._read = dialect.read
        twins = {product: dialect.twin(product) for product in dict.fromkeys(products)}
        # Where both are wanted, one comes twice.
        self._wanted = tuple(product for product, twin in twins.items() if twin not in twins)
        self._twin_of = {twin: product for product, twin in twins.items() if twin and product in self._wanted}
        since = last_good or {}
        names = {name: self._twin_of.get(name, name) for name in (*self._wanted, *self._twin_of)}
        self._order = Order(
            {name: since.get(name, since.get(wanted, NO_TIME)) for name, wanted in names.items()}, self.counts
        )
        self._products = self._order.products
        self._doubled = [product for product in twins if product not in self._wanted]
        self._clocks = Clocks(deadlines or Deadlines())
        self._missing: frozenset[str] = frozenset()
        self._told: set[str] = set()
        self._errors = 0  # in a row, before any connection was live
        self._begin("")

    def _begin(self, conn_id: str) -> None:
        """Forget what belongs to one connection."""
        self._lines = LineMaker(conn_id)
        self._asked = self._wanted
        self._acks = 0
        self._sends = 0
        self._given_up = False
        self._offset_known = False
        self._frame_no = -1
        self._last_data: Ns | None = None

    # What the owner calls.

    def connect(self, conn_id: str, now: Ns) -> list[Action]:
        """Begin a connection: it is being opened.

        Args:
            conn_id: its name, never used before.
            now: monotonic time.
        """
        actions = self.closed("replaced by another connection", now)
        if not conn_id:
            raise ContractError("a connection without a name")
        if self.conn_id is not None:
            self._order.connect()
        self.conn_id = conn_id
        self._begin(conn_id)
        self._clocks.reset(now)
        self.counts.connections += 1
        self._move(Event.CONNECT, f"connecting as {conn_id}", actions)
        return actions

    def opened(self, now: Ns) -> list[Action]:
        """Return the subscriptions, now that the connection is open.

        Raises:
            ContractError: no connection was being opened.
        """
        if self.state != FeedState.CONNECTING:
            raise ContractError("a connection opened that was not being opened", self.state.value)
        self._clocks.at[OPENED] = self._clocks.at[BYTES] = now
        frames = self._dialect.subscribe(self._asked)
        self._sends = len(frames)
        actions: list[Action] = [Send(frame) for frame in frames]
        for product in self._doubled:
            actions.append(
                Warn("twin", f"{product} comes as {self._dialect.twin(product)}, which is wanted too")
            )
        self._doubled = []
        self._move(Event.OPENED, f"subscribing to {', '.join(self._asked)}", actions)
        return actions

    def receive(self, frame: bytes, ts_recv: Ns, now: Ns) -> list[Action]:
        """Take a frame. It is counted as exactly one of `OUTCOMES`.

        Args:
            frame: its bytes.
            ts_recv: wall clock, UTC.
            now: monotonic time.

        Raises:
            ContractError: there never was a connection, or the time cannot be written.
        """
        if self.conn_id is None or not 0 <= ts_recv <= LATEST:
            raise ContractError("a frame without a connection, or at no time", ts_recv)
        counts = self.counts
        counts.frames += 1
        counts.bytes += len(frame)
        self._clocks.at[BYTES] = now
        self._frame_no += 1
        try:
            message = self._read(frame)
        except UnreadableError as why:
            counts.dead += 1
            return [Dead(str(why), frame)]
        actions: list[Action] = []
        order = self._order
        sequence = message.sequence
        if sequence is not None:
            numbers = order.numbers
            if sequence == numbers.next:
                numbers.next = sequence + 1
                numbers.refused = 0
            else:
                refused = order.frame(sequence, now)
                if order.broken:
                    self._give_up(Cause.SEQUENCE, order.broken, actions)
                if refused:
                    return [Dead(refused, frame), *actions]
            self._frame_no = sequence
        ts_event = message.ts_event
        if not self._offset_known and ts_event is not None:
            self._offset_known = True
            self._lines.set_offset(ts_event - ts_recv)
            order.set_offset(ts_event - ts_recv)
        kind = message.kind
        if kind is IS_TICKER:
            self._tickers(message, ts_recv, now, actions)
        elif kind is IS_HEARTBEAT:
            counts.heartbeats += 1
            self._clocks.at[HEARTBEAT] = now
            if message.product_id in self._products:
                order.heard(self._products[message.product_id], message.trade_id, ts_event, ts_recv)
        elif kind is IS_ACK:
            counts.acks += 1
            if message.ack is not None:
                self._acknowledged(message.ack, now, actions)
        elif kind is IS_ERROR:
            counts.errors += 1
            self._error(message.text, actions)
        else:
            counts.other += 1
            known = len(counts.channels) < MOST_CHANNELS or message.text in counts.channels
            counts.channels[message.text[:64] if known else "…"] += 1
        if ts_event is not None and (ts_event > order.good or order.fresh):
            order.know(ts_event, ts_recv)
        return actions

    def lost(self, frames: int, now: Ns) -> None:
        """Note that the owner had to drop frames that came after those received so far."""
        self.counts.lost += frames
        self._frame_no += frames
        self._order.lost(frames)

    def not_recorded(self, product_id: str) -> None:
        """Note that a record's line could not be written; to be called before the next frame is received.

        Raises:
            ContractError: no record can have been of this product.
        """
        if product_id not in self._products:
            raise ContractError("not recorded, and not of this feed", product_id)
        self.counts.unrecorded += 1
        self._products[product_id].not_recorded()

    def closed(self, text: str, now: Ns) -> list[Action]:
        """Note that the connection ended, by whomever and with whatever code."""
        actions: list[Action] = []
        self._move(Event.CLOSED, text, actions)
        return actions

    def wake(self, now: Ns) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        while not self._given_up:
            due = self._clocks.due(self.state, now)
            if due is None:
                break
            when, then = due
            waited = (now - (self._clocks.at[when.since] or 0)) / SECOND
            if isinstance(then, FeedState):
                self.state = then
                actions.append(Moved(then, f"no ticker for {waited:.1f} s"))
            elif isinstance(then, Cause):
                self._give_up(then, f"{_TOLD[then]} for {waited:.1f} s", actions)
            elif then == RESUBSCRIBE:
                self._resubscribe(now, actions)
        return actions

    def deadline(self) -> Ns | None:
        """Return the monotonic time at which `wake` has something to do, None where nothing is waited for."""
        return None if self._given_up else self._clocks.deadline(self.state)

    # Frames, by kind.

    def _tickers(self, message: Message, ts_recv: Ns, now: Ns, actions: list[Action]) -> None:
        counts = self.counts
        ts_event = message.ts_event
        time = ts_recv if ts_event is None else ts_event
        order = self._order
        before = order.good
        written = dead = 0
        for event_index, ticker_index, snapshot, quote, part in message.tickers:
            product = None
            try:
                if isinstance(quote, str):
                    raise UnreadableError(quote)
                product = self._products.get(quote.product_id)
                if product is None:
                    raise UnreadableError("a ticker of a product that is not wanted")
                if snapshot is None:
                    snapshot = not product.seen
                    if message.trade_id is not None:
                        refused = order.trade(product, message.trade_id, snapshot)
                        if order.broken:
                            self._give_up(Cause.SEQUENCE, order.broken, actions)
                        if refused:
                            actions.append(Dead(refused, part))
                            return
                if not product.seen:
                    self._first_sight(product, actions)
                line = self._lines.line(
                    product.head,
                    quote,
                    time,
                    ts_recv,
                    self._frame_no,
                    event_index,
                    ticker_index,
                    snapshot,
                    product.pending,
                    message.frame,
                )
            except UnreadableError as why:
                dead += 1
                actions.append(Dead(str(why), part))
                if product is not None:
                    product.spoiled(before)
                continue
            product.take(counts.frames, before)
            written += 1
            if snapshot:
                counts.snapshots += 1
            actions.append(Record(product.name, line, time, ts_recv))
            if message.trade_id is not None and ts_event is not None and order.believes(ts_event, ts_recv):
                product.good = ts_event
        if dead:
            if not written:
                counts.dead += 1
                return
            counts.dead_tickers += dead
        counts.tickers += 1
        counts.ticks += written
        if ts_event is None:
            counts.untimed += written
        if written:
            self._data(now, actions)

    def _data(self, now: Ns, actions: list[Action]) -> None:
        at = self._clocks.at
        # The burst of snapshots at the beginning says nothing about how often ticks come.
        if self._last_data is not None and self.state is not FeedState.SUBSCRIBING:
            self._clocks.spaced(now - self._last_data)
        self._last_data = at[DATA] = now
        at[RESUBSCRIBED] = None
        if self.state is not LIVE:
            self._live(actions)

    def _live(self, actions: list[Action]) -> None:
        self._move(Event.DATA, "ticks are coming", actions)
        if self.state is LIVE:
            self._errors = 0

    def _first_sight(self, product: ProductGaps, actions: list[Action]) -> None:
        product.seen = True
        wanted = self._twin_of.get(product.name)
        if wanted is not None and wanted not in self._told:
            self._told.add(wanted)
            actions.append(Warn("twin", f"{wanted} comes as {product.name} and is recorded as that"))

    def _acknowledged(self, ack: Ack, now: Ns, actions: list[Action]) -> None:
        self._acks += 1
        tickers = ack.tickers
        if tickers is None and self._acks >= self._sends and ack.heartbeats:
            tickers = frozenset()  # All is answered, and of tickers there is nothing.
        if tickers is None or (not tickers and self._clocks.at[RESUBSCRIBED] is not None):
            return
        twins = {wanted for twin, wanted in self._twin_of.items() if twin in tickers}
        missing = frozenset(self._wanted) - tickers - twins
        for product in sorted(missing - self._missing):
            actions.append(Warn("missing", f"the exchange sends no {product}: its acknowledgement lacks it"))
        for product in sorted(self._missing - missing):
            actions.append(Warn("back", f"the exchange sends {product} again"))
        self._missing = missing
        if ack.heartbeats and self.state is FeedState.SUBSCRIBING:
            self._clocks.at[HEARTBEAT] = self._clocks.at[HEARTBEAT] or now
            self._move(Event.ACKED, f"subscribed to {len(self._wanted) - len(missing)} products", actions)
            if self._last_data is not None:
                self._live(actions)

    def _error(self, text: str, actions: list[Action]) -> None:
        starting = self.state not in (FeedState.LIVE, FeedState.QUIET)
        named = set(NO_NAME.split(text)) & set(self._asked) if starting else set[str]()
        rest = tuple(product for product in self._asked if product not in named)
        if named and rest:
            # One bad product spoils the whole subscription of the Exchange feed: go on with the rest.
            self._asked = rest
            for product in sorted(named - self._missing):
                actions.append(Warn("refused", f"the exchange refuses {product}: {text[:200]}"))
            self._missing |= named
            frames = self._dialect.subscribe(rest)
            self._sends += len(frames)
            actions.extend(Send(frame) for frame in frames)
            return
        actions.append(Warn("error", f"the exchange says: {text[:200]}"))
        if starting:
            self._errors += 1
            if self._errors >= MOST_ERRORS:
                self._errors = 0
                self._give_up(Cause.ERRORS, f"{MOST_ERRORS} errors before any data: {text[:200]}", actions)

    # States.

    def _move(self, event: Event, text: str, actions: list[Action]) -> None:
        then = MOVES.get((self.state, event))
        if isinstance(then, FeedState):
            self.state = then
            actions.append(Moved(then, text))

    def _resubscribe(self, now: Ns, actions: list[Action]) -> None:
        self.counts.resubscribed += 1
        self._clocks.at[DATA] = None
        self._clocks.at[RESUBSCRIBED] = now
        for product in self._products.values():
            product.seen = False  # The next ticker is a snapshot.
        actions.extend(Send(frame) for frame in self._dialect.resubscribe(self._asked))

    def _give_up(self, cause: Cause, text: str, actions: list[Action]) -> None:
        if not self._given_up:
            self._given_up = True
            self.counts.reconnects[cause] += 1
            actions.append(Reconnect(cause, text))
