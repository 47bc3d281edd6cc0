"""Where the exchange's ticks come from: the simulated market, or a recording."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Final

import numpy as np

from richter.domain.ticks import Ns
from richter.domain.times import SECOND
from richter.errors import ArgumentsError
from richter.simulate.market import PRESETS, MarketParameters, endless_market
from richter.simulate.tickers import Pace, Ticker

__all__ = ["MarketSource", "RecordingSource"]

STRETCH_S: Final = 900
"""The market is drawn in stretches of this length: all that is ever held of it."""

# The market's own clock begins here, at noon: prices do not depend on when somebody starts it.
_EPOCH: Final = 1_764_936_000 * SECOND
# So long before it is first asked for, a market without history begins: there is a quote to start with.
_LEAD_NS: Final = SECOND

_PRICES: Final = {"BTC": 90_000.0, "ETH": 3_000.0, "SOL": 150.0}
_OTHER_PRICE: Final = 100.0
_STEP: Final = 0.01
_TRADED: Final = 7_669 * 10**8  # of 24 h, 1e-8
_TRADED_30D: Final = 30 * _TRADED
_FIRST_TRADE: Final = 900_000_000
_FIRST_SEQUENCE: Final = 115_000_000_000


class MarketSource:
    """Products of a simulated market, each with a seed of its own.

    The same seed gives the same prices and sizes at the same distances, whenever the market begins. What are 24 h on
    the real exchange counts from the market's beginning here.

    Args:
        products: what is traded; a product's market does not depend on the others.
        seed: of all of them.
        preset: the law, a name of `PRESETS`.
        history_s: the market begins so many seconds before it is first asked for, and these come as fast as they are
            read.

    Raises:
        ArgumentsError: there is no such preset, no product, or the history is negative.
    """

    pace = Pace.WALL
    speed = 1.0

    def __init__(
        self,
        products: Sequence[str] = ("BTC-USD",),
        *,
        seed: int = 7,
        preset: str = "realistic",
        history_s: float = 0,
    ) -> None:
        if preset not in PRESETS:
            raise ArgumentsError(
                "no such preset of the market", preset, f"choose one of {', '.join(PRESETS)}"
            )
        if not products:
            raise ArgumentsError("a simulated market needs a product", fix="give one such as BTC-USD")
        if history_s < 0:
            raise ArgumentsError("a history cannot be negative", history_s, "give 0 or more")
        self.products = tuple(dict.fromkeys(products))
        self.description = f"market {preset}, seed {seed}"
        self.waits = history_s > 0
        self._seed = seed
        self._law = PRESETS[preset]
        self._history_ns = round(history_s * SECOND)

    def begin(self, now: Ns) -> Iterator[Ticker]:
        """The market's ticks, for ever."""
        start = (now - max(self._history_ns, _LEAD_NS)) // SECOND * SECOND
        return heapq.merge(
            *(
                _tickers(product, self._law, _seed_of(self._seed, product), start - _EPOCH)
                for product in self.products
            ),
            key=attrgetter("ts"),
        )


class RecordingSource:
    """A recording, to be served again.

    Args:
        products: that occur in it and are served.
        read: gives its ticks in their order, from the beginning.
        speed: so many of its seconds a second; None for as fast as the reader reads.
        description: what it is, for people.

    Raises:
        ArgumentsError: the speed is not positive.
    """

    waits = True

    def __init__(
        self,
        products: Sequence[str],
        read: Callable[[], Iterable[Ticker]],
        *,
        speed: float | None = 1.0,
        description: str = "recording",
    ) -> None:
        if speed is not None and not 0 < speed < float("inf"):
            raise ArgumentsError("a speed must be positive", speed, "give a number such as 10, or max")
        self.products = tuple(products)
        self.description = description
        self.pace = Pace.READER if speed is None else Pace.RECORDED
        self.speed = 1.0 if speed is None else speed
        self._read = read

    def begin(self, now: Ns) -> Iterator[Ticker]:
        """The recording's ticks of the products that are served."""
        served = frozenset(self.products)
        return (ticker for ticker in self._read() if ticker.product_id in served)


def _seed_of(seed: int, product: str) -> int:
    """A product's seed: it follows from the market's and from the product's name alone."""
    return int(np.random.SeedSequence((seed, *product.encode())).generate_state(1, np.uint64)[0])


def _tickers(product: str, law: MarketParameters, seed: int, shift: int) -> Iterator[Ticker]:
    """The ticks of one product; `shift` is added to the market's own time."""
    price = _PRICES.get(product.partition("-")[0], _OTHER_PRICE)
    traded, low, high, trades, sequence = _TRADED, 2**62, 0, _FIRST_TRADE, _FIRST_SEQUENCE
    opened = round(price / _STEP)
    first = True
    for market in endless_market(law, seed=seed, start_ns=_EPOCH, seconds=STRETCH_S, price=price, step=_STEP):
        for ts, bid, ask, paid, size, bid_size, ask_size in zip(
            (market.ts + shift).tolist(),
            market.bid.tolist(),
            market.ask.tolist(),
            market.price.tolist(),
            market.size.tolist(),
            market.bid_size.tolist(),
            market.ask_size.tolist(),
            strict=True,
        ):
            if first:  # The Exchange feed begins with the last trade, however old.
                size, first = max(size, 1), False
            traded += size
            trades += size > 0
            low, high = min(low, paid), max(high, paid)
            sequence += 1 + bid_size % 97  # Orders that the ticker does not tell of.
            yield Ticker(
                ts,
                product,
                price=_price(paid),
                best_bid=_price(bid),
                best_ask=_price(ask),
                low_24h=_price(low),
                high_24h=_price(high),
                volume_24h=_quantity(traded),
                last_size=_quantity(size) if size else None,
                best_bid_quantity=_quantity(bid_size),
                best_ask_quantity=_quantity(ask_size),
                low_52w=_price(min(opened * 3 // 5, low)),
                high_52w=_price(max(opened * 7 // 5, high)),
                change_24h=f"{100 * (paid - opened) / opened:.14f}",
                open_24h=_price(opened),
                volume_30d=_quantity(_TRADED_30D - _TRADED + traded),
                side="buy" if paid == ask else "sell",
                traded=size > 0,
                sequence=sequence,
                trade_id=trades,
            )


def _price(steps: int) -> str:
    whole, cents = divmod(steps, 100)
    return f"{whole}.{cents:02}".rstrip("0").rstrip(".")


def _quantity(scaled: int) -> str:
    whole, fraction = divmod(scaled, 10**8)
    return f"{whole}.{fraction:08}".rstrip("0").rstrip(".")
