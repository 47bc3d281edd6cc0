"""The engine: one kernel state per product, fed blocks of ticks in log order."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from richter.domain import ticks as tk
from richter.engine import kernel as k
from richter.engine import state as s
from richter.engine.grid import N_BOXES, N_GRID
from richter.engine.state import Float64, Int64, new_state
from richter.engine.table import FEATURES
from richter.errors import InputFileError

__all__ = ["Block", "Counts", "Engine", "Float64", "Int64"]


class Counts(msgspec.Struct):
    """What became of the ticks given to an engine."""

    rows: int = 0
    duplicates: int = 0
    ahead: int = 0
    clamped: int = 0
    segments: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            *(
                a + b
                for a, b in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
            )
        )


class Block(msgspec.Struct, frozen=True):
    """What the engine made of a block of ticks; row i belongs to tick i.

    Attributes:
        values: (n, 1 + len(FEATURES)) float64: mid, then FEATURES in order. NaN is unknown.
        meta: (n, META_COLUMNS) int64: effective time, gap cause and where the gap begins, reasons, outcome.
    """

    values: Float64
    meta: Int64

    def accepted(self) -> NDArray[np.bool_]:
        """(n,) whether the tick made a row."""
        result: NDArray[np.bool_] = (self.meta[:, k.OUTCOME] & 3) == k.ROW
        return result

    def counts(self) -> Counts:
        """How many ticks made rows, and what became of the others."""
        outcome = self.meta[:, k.OUTCOME]
        kind = outcome & 3
        return Counts(
            rows=int(np.count_nonzero(kind == k.ROW)),
            duplicates=int(np.count_nonzero(kind == k.DUPLICATE)),
            ahead=int(np.count_nonzero(kind == k.AHEAD)),
            clamped=int(np.count_nonzero(outcome & k.CLAMPED)),
            segments=int(np.count_nonzero(outcome & k.SEGMENT)),
        )


class _Product:
    """The kernel's state of one product, and how far each of its connections had come."""

    def __init__(self, name: str, scale: float) -> None:
        self.name = name
        self.scale = scale
        self.state = new_state(N_BOXES, N_GRID)
        self.seen: dict[int, tuple[int, int, int]] = {}

    def turn_to(self, conn: int, offset: int) -> None:
        """Another connection carries the product now."""
        head = self.state.head
        if head[s.H_CONN] >= 0:
            self.seen[int(head[s.H_CONN])] = (
                int(head[s.H_FRAME]),
                int(head[s.H_EVENT]),
                int(head[s.H_TICKER]),
            )
        head[s.H_FRAME], head[s.H_EVENT], head[s.H_TICKER] = self.seen.get(conn, (-1, -1, -1))
        head[s.H_CONN] = conn
        head[s.H_CONN_OFFSET] = offset

    def grow(self) -> None:
        """Make room for more ticks in 300 s."""
        if len(self.state.ring) >= s.RING_LIMIT:
            raise InputFileError(
                f"{self.name} has more ticks in 300 s than the engine holds",
                s.RING_LIMIT,
                "check the recording's timestamps; richter reads tickers, not order books",
            )
        self.state = s.with_wider_ring(self.state)


class Engine:
    """Features of any number of products, each a pure function of its own ticks in log order.

    Args:
        products: name of product code c at index c; may grow between calls.
        stale_after_s: an as-of value older than this is unknown, 1..60.
        price_decimals: product -> decimals of its scaled prices.
        conn_offsets: connection code -> event minus receive time of the connection's first frame, ns.
    """

    def __init__(
        self,
        products: list[str],
        *,
        stale_after_s: float = 10,
        price_decimals: Callable[[str], int] = lambda product: 8,
        conn_offsets: list[int] | None = None,
    ) -> None:
        self._products = products
        self._stale_ns = round(stale_after_s * 1e9)
        self._price_decimals = price_decimals
        self._conn_offsets = [] if conn_offsets is None else conn_offsets
        self._known: dict[int, _Product] = {}

    def process(self, ticks: Int64) -> Block:
        """Take a block of ticks, (n, TICK_COLUMNS) int64 in log order, any mix of products."""
        n = len(ticks)
        block = Block(np.empty((n, 1 + len(FEATURES))), np.zeros((n, k.META_COLUMNS), np.int64))
        if n == 1:
            self._advance(int(ticks[0, tk.PRODUCT]), ticks, _ONE, block)
            return block
        products = np.ascontiguousarray(ticks[:, tk.PRODUCT])
        if n and (products == products[0]).all():
            self._advance(int(products[0]), ticks, np.arange(n), block)
            return block
        for product in np.unique(products).tolist():
            self._advance(product, ticks, np.flatnonzero(products == product), block)
        return block

    def _advance(self, product: int, ticks: Int64, rows: Int64, block: Block) -> None:
        known = self._of(product)
        position = 0
        if (conn := int(known.state.head[s.H_CONN])) >= 0:
            known.state.head[s.H_CONN_OFFSET] = self._offset(conn)  # It may have become known since.
        while True:
            need, position = k.advance(
                ticks, rows, position, known.state, block.values, block.meta, self._stale_ns, known.scale
            )
            if need == k.NEED_CONN:
                conn = int(ticks[rows[position], tk.CONN])
                known.turn_to(conn, self._offset(conn))
            elif need == k.NEED_RING:
                known.grow()
            else:
                return

    def remember(self, product: int, conn: int, identity: tuple[int, int, int]) -> None:
        """Tell how far a connection had come before the first tick that this engine is given."""
        self._of(product).seen[conn] = identity

    def _offset(self, conn: int) -> int:
        return self._conn_offsets[conn] if conn < len(self._conn_offsets) else 0

    def _of(self, product: int) -> _Product:
        known = self._known.get(product)
        if known is None:
            name = self._products[product]
            known = self._known[product] = _Product(name, 10.0 ** self._price_decimals(name))
        return known

    @property
    def nbytes(self) -> int:
        """Bytes of all product states."""
        return sum(s.nbytes(known.state) for known in self._known.values())


_ONE = np.zeros(1, np.int64)
