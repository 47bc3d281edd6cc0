"""What one ticker frame costs: ``python -m tests.protocol.speed``.

Every frame is another, as on the wire: a parser's caches see nothing twice but the second.
"""

from __future__ import annotations

import json
import sys
import timeit
from collections.abc import Callable

from richter.protocol.advanced import AdvancedTrade
from richter.protocol.exchange import ExchangeFeed
from richter.protocol.feed import Feed, FeedState
from richter.protocol.line import LineMaker, line_head
from tests.protocol.frames import START, ack, listed, ticker, trade

FRAMES = 20_000
ROUNDS = 7


def best(work: Callable[[], object]) -> float:
    """Microseconds a frame, the best of some rounds."""
    return min(timeit.repeat(work, number=1, repeat=ROUNDS)) / FRAMES * 1e6


def each(parse: Callable[[bytes], object], frames: list[bytes]) -> Callable[[], object]:
    def work() -> None:
        for data in frames:
            parse(data)  # not kept: keeping what it makes costs as much again

    return work


def fed(feed: Feed, frames: list[bytes], acknowledgement: bytes) -> Callable[[], object]:
    def work() -> None:
        feed.connect(f"conn-{feed.counts.connections}", 0)
        feed.opened(0)
        feed.receive(acknowledgement, START, 0)
        for data in frames:
            feed.receive(data, START, 0)
        assert feed.state is FeedState.LIVE
        assert feed.counts.gaps == feed.counts.dead == 0

    return work


def main() -> None:
    prices = [f"{79_000 + n % 997}.{n % 100:02d}" for n in range(FRAMES)]
    frames = [ticker(n + 1, START + n * 250_000, price=price) for n, price in enumerate(prices)]
    trades = [trade("BTC-USD", n, START + n * 250_000, price=price) for n, price in enumerate(prices)]
    dialect = AdvancedTrade()
    lines, head = LineMaker("conn-1"), line_head("BTC-USD")

    def made() -> None:
        for data in frames:
            message = dialect.read(data)
            _, _, snapshot, quote, _ = message.tickers[0]
            lines.line(head, quote, message.ts_event, START, message.sequence, 0, 0, snapshot, None, data)  # type: ignore[arg-type]  # all there

    results = {
        "json.loads of the frame": best(each(json.loads, frames)),
        "read alone": best(each(dialect.read, frames)),
        "frame to record line": best(made),
        "feed, Advanced Trade": best(fed(Feed(dialect, ["BTC-USD"]), frames, ack(0, START, "BTC-USD"))),
        "feed, Exchange": best(fed(Feed(ExchangeFeed(), ["BTC-USD"]), trades, listed("BTC-USD"))),
    }
    base = results["json.loads of the frame"]
    for name, cost in results.items():
        sys.stdout.write(f"{name:26} {cost:6.2f} us  {cost / base:5.2f} x json.loads\n")


if __name__ == "__main__":
    main()
