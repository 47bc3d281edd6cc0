"""Frames broken in every way that comes to mind, for the feed to survive."""

from __future__ import annotations

import json
import random
from collections import Counter
from copy import deepcopy
from typing import Any, Final

from richter.protocol.feed import Dead, FeedState, Reconnect, Record, Send
from richter.protocol.forms import decode_line
from richter.protocol.order import MOST_REFUSED
from richter.protocol.records import Rejected
from tests.protocol.frames import (
    SECOND,
    Driver,
    ack,
    advanced,
    beat,
    exchange,
    heartbeat,
    listed,
    outcomes,
    ticker,
    trade,
)

PRODUCTS: Final = ("BTC-USD", "ETH-USD")
BETWEEN_CHECKS: Final = 100
ODD: Final = (
    *(None, True, False, 0, -1, 1.5, 1e300, 2**63, 2**70, 10**30, "", " ", "NaN", "1e9", "-1", "٣", "\ud7ff"),
    *(
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2026-02-30T00:00:00Z",
        "BTC-USD",
        "ticker",
        "snapshot",
    ),
    *([], {}, [[]], [{}], {"a": [1]}, [None, 1]),
)
TOKENS: Final = (
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"1e400",
        b"\0",
        b"\n",
        b"\r\n",
        b"\xff",
        b"\xc3\xa9",
    ),
    *(b"\\u0000", b"\\ud800", b"-", b".", b"0", b"[" * 70 + b"]" * 70, b'{"a":' * 1500, b"0" * 400),
    *(
        b'"price":"1"',
        b'"sequence_num":7',
        b'"type":"error"',
        b'"channel":"heartbeats"',
        b"BTC-USD",
        b"ETH-USD",
    ),
)


def chaos(frames: int, seed: int = 0) -> Counter[str]:
    """Give a feed of each dialect half of so many mutated frames, among as many good ones.

    Returns what became of them. Raises AssertionError where a frame is not counted as exactly one thing, a line is
    recorded that no reader reads, or the feed does not work again once good frames come.
    """
    found = Counter[str]()
    for make in (_Advanced, _Exchange):
        found += make(random.Random(seed)).run(frames // 2)
    return found


class _Chaos:
    def __init__(self, rng: random.Random, driver: Driver) -> None:
        self.rng = rng
        self.driver = driver
        self.given = 0
        self.found = Counter[str]()

    def run(self, frames: int) -> Counter[str]:
        self.open()
        for number in range(1, frames + 1):
            self.driver.now += self.rng.randrange(SECOND // 5)
            good = self.next_frame()
            if self.rng.random() < 0.5:
                self.give(good)
            self.give(self.mutated(good))
            if number % BETWEEN_CHECKS == 0:
                self.check_alive()
        counts = self.driver.feed.counts
        assert outcomes(counts) == counts.frames == self.given
        assert counts.bytes > 0
        return self.found

    def give(self, data: bytes) -> int:
        """Give a frame and do as the actions say; returns how many records there were."""
        driver = self.driver
        before = outcomes(driver.feed.counts)
        actions = driver.give(data)
        self.given += 1
        assert outcomes(driver.feed.counts) == before + 1 == driver.feed.counts.frames, data
        self.found.update(type(action).__name__ for action in actions)
        written = 0
        for action in actions:
            if isinstance(action, Record):
                written += 1
                check_line(action, data)
                if self.rng.random() < 0.01:
                    driver.feed.not_recorded(action.product_id)
            elif isinstance(action, Dead):
                assert action.reason
                assert action.data in data
            elif isinstance(action, Send):
                json.loads(action.data)
        actions += driver.feed.wake(driver.now)
        if any(isinstance(action, Reconnect) for action in actions):
            driver.feed.closed("asked for", driver.now)
            self.open()
        return written

    def check_alive(self) -> None:
        """After what came last, good frames are recorded, at the latest on the next connection."""
        for _ in range(len(PRODUCTS) * MOST_REFUSED + 2):  # A wrong trade_id concerns one product.
            if self.give(self.tick()):
                break
        else:
            raise AssertionError("good frames are not recorded")
        self.driver.now += 30 * SECOND
        self.driver.feed.wake(self.driver.now)
        self.driver.feed.closed("a new start", self.driver.now)
        self.open()
        self.give(self.tick())
        assert self.driver.feed.state == FeedState.LIVE

    def mutated(self, data: bytes) -> bytes:
        kind = self.rng.randrange(4)
        if kind == 0:
            try:
                value = json.loads(data)
                for _ in range(self.rng.randrange(1, 3)):
                    self.twist(value)
                return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
            except RecursionError:
                return data
        out = bytearray(data)
        for _ in range(self.rng.choice((1, 1, 1, 2, 5))):
            at = self.rng.randrange(len(out) + 1)
            end = min(len(out), at + self.rng.randrange(1, 20))
            start, end, put = self.rng.choice(
                (
                    (at, at + 1, bytes([self.rng.randrange(256)])),
                    (at, at + 1, b"%d" % self.rng.randrange(10)),
                    (at, end, b""),
                    (at, at, bytes(out[at:end])),
                    (at, at, self.rng.choice(TOKENS)),
                    (at, end, self.rng.choice(TOKENS)),
                    (at, len(out), b""),
                )
            )
            out[start:end] = put
        return bytes(out)

    def twist(self, value: Any) -> None:
        """Change something within a JSON value, in place."""
        while isinstance(value, dict | list) and value:
            key = self.rng.choice(list(value)) if isinstance(value, dict) else self.rng.randrange(len(value))
            if isinstance(value[key], dict | list) and value[key] and self.rng.random() < 0.8:
                value = value[key]
                continue
            what = self.rng.randrange(4)
            if what == 0:
                del value[key]
            elif what == 1 and isinstance(value, list):
                value.append(deepcopy(value[key]))
            elif what == 2 and isinstance(value, dict):
                value[self.rng.choice(("type", "channel", "events", "tickers", "x"))] = deepcopy(value[key])
            else:
                value[key] = deepcopy(self.rng.choice(ODD))
            return

    def open(self) -> None:
        raise NotImplementedError

    def next_frame(self) -> bytes:
        raise NotImplementedError

    def tick(self) -> bytes:
        raise NotImplementedError


class _Advanced(_Chaos):
    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, advanced(*PRODUCTS))

    def open(self) -> None:
        self.driver.connect()
        self.give(self.numbered(ack, *PRODUCTS))

    def numbered(self, make: Any, *rest: Any, **more: Any) -> bytes:
        self.driver.sequence += 1
        data: bytes = make(self.driver.sequence, self.driver.at, *rest, **more)
        return data

    def tick(self) -> bytes:
        return self.numbered(ticker, self.rng.choice(PRODUCTS), price=str(self.rng.randrange(10**6) / 100))

    def next_frame(self) -> bytes:
        what = self.rng.random()
        if what < 0.7:
            return self.tick()
        if what < 0.8:
            return self.numbered(ticker, *PRODUCTS, kind="snapshot")
        if what < 0.9:
            return self.numbered(heartbeat)
        if what < 0.95:
            return self.numbered(ack, *PRODUCTS)
        return b'{"type":"error","message":"BTC-USD is not a valid product"}'


class _Exchange(_Chaos):
    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, exchange(*PRODUCTS))
        self.trades = dict.fromkeys(PRODUCTS, 1000)

    def open(self) -> None:
        self.driver.connect()
        self.give(listed(*PRODUCTS))

    def tick(self) -> bytes:
        product = self.rng.choice(PRODUCTS)
        self.trades[product] += 1
        return trade(
            product, self.trades[product], self.driver.at, price=str(self.rng.randrange(10**6) / 100)
        )

    def next_frame(self) -> bytes:
        what = self.rng.random()
        product = self.rng.choice(PRODUCTS)
        if what < 0.75:
            return self.tick()
        if what < 0.9:
            return beat(product, self.trades[product], self.driver.at)
        if what < 0.95:
            return listed(*PRODUCTS)
        return b'{"type":"error","message":"Failed to subscribe","reason":"ETH-USD is not a valid product"}'


def check_line(record: Record, data: bytes) -> None:
    """A line is one line, holds its frame, and reads back as one tick, but for numbers that a setting forbids."""
    line = record.line
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    raw = line[line.index(b'"raw":') + 6 : -2]
    assert raw == data.replace(b"\n", b" ").replace(b"\r", b" ")
    found = decode_line(line, lambda product: 8)
    if isinstance(found, Rejected):
        assert "out of range" in found.reason or "too many decimals" in found.reason, (found, data)
        return
    assert isinstance(found, list), (found, data)
    (tick,) = found
    assert (tick.product_id, tick.ts_event, tick.ts_recv) == (
        record.product_id,
        record.ts_event,
        record.ts_recv,
    )
