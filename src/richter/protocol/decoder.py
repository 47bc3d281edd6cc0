"""Blocks of recorded lines in, blocks of ticks out: the scanner first, `decode_line` for what it leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from richter.domain import ticks as tk
from richter.errors import ContractError
from richter.protocol import scanner, spans
from richter.protocol.forms import decode_line
from richter.protocol.records import Ignored, Rejected, TickRecord, fill_row

__all__ = ["Decoder", "DecoderState", "RejectedLine", "TickBlock"]

Int64 = NDArray[np.int64]

_USUAL_LINE: Final = 256  # bytes; the block of ticks grows where lines are shorter


class RejectedLine(msgspec.Struct, frozen=True):
    """A line that holds no readable record.

    Attributes:
        line_no: its number, from 1.
        reason: why.
        data: the line.
    """

    line_no: int
    reason: str
    data: bytes


class TickBlock(msgspec.Struct, frozen=True):
    """Ticks of some lines, in their order.

    Attributes:
        ticks: (n, TICK_COLUMNS) int64, see `domain.ticks`.
        origin: (n, 3) int64: start and end of the tick's line in the block's bytes, its number.
        lines: how many lines there were.
        ignored: lines that are known and hold no tick, by kind.
        rejected: lines that cannot be read.
    """

    ticks: Int64
    origin: Int64
    lines: int
    ignored: Counter[str]
    rejected: list[RejectedLine]

    def of_product(self, code: int) -> TickBlock:
        """The block with the ticks of one product alone."""
        mine = self.ticks[:, tk.PRODUCT] == code
        if mine.all():
            return self
        return msgspec.structs.replace(self, ticks=self.ticks[mine], origin=self.origin[mine])


class _Names:
    """Texts with numbers, for the scanner: their bytes, where each ends, what each stands for."""

    def __init__(self) -> None:
        self._text = b""
        self._ends: list[int] = []
        self._values: list[tuple[int, int]] = []
        self._known: set[bytes] = set()
        self._freeze()

    def add(self, name: bytes, code: int, decimals: int = 0) -> None:
        if name in self._known:
            return
        self._known.add(name)
        self._text += name
        self._ends.append(len(self._text))
        self._values.append((code, decimals))
        self._freeze()

    def _freeze(self) -> None:
        self.text = np.frombuffer(self._text or b"\0", np.uint8)
        self.ends = np.array(self._ends, np.int64)
        values = np.array(self._values, np.int64).reshape(-1, 2)
        self.codes = np.ascontiguousarray(values[:, 0])
        self.decimals = np.ascontiguousarray(values[:, 1])


class DecoderState(msgspec.Struct):
    """Names met so far: code -> name, and each connection's clock offset (0 until it is known)."""

    products: list[str] = msgspec.field(default_factory=list)
    conn_ids: list[str] = msgspec.field(default_factory=list)
    conn_offsets: list[int] = msgspec.field(default_factory=list)


class Decoder:
    """Decodes recorded lines of any form; knows products and connections by number.

    Args:
        price_decimals: decimals of a product's scaled prices.
        names: those known beforehand, with the clock offsets of their connections.

    Attributes:
        state: the names behind the numbers, shared with the engine; grows.
    """

    def __init__(self, price_decimals: Callable[[str], int], names: DecoderState | None = None) -> None:
        self._price_decimals = price_decimals
        self.state = DecoderState()
        if names is not None:  # Copied: each decoder adds its own.
            self.state = DecoderState(list(names.products), list(names.conn_ids), list(names.conn_offsets))
        self._product_codes = {name: code for code, name in enumerate(self.state.products)}
        self._conn_codes = {name: code for code, name in enumerate(self.state.conn_ids)}
        self._offset_known = [True] * len(self.state.conn_ids)
        self._spelled_products = _Names()
        self._spelled_conns = _Names()
        self._spans = np.zeros((spans.SPANS, 2), np.int64)
        self._marks = np.zeros((spans.MARKS, 4), np.int64)

    def decode(self, data: bytes | memoryview, *, file_conn: str, first_line: int = 1) -> TickBlock:
        """Decode whole lines.

        Args:
            data: the lines, the last one ending with a newline too.
            file_conn: connection of records that name none.
            first_line: number of the first line.

        Raises:
            ContractError: the last line has no newline.
        """
        text = np.frombuffer(data, np.uint8)
        if len(text) and text[-1] != spans.NEWLINE:
            # The scanner finds the end of each line by its newline: without the last one it would run on.
            raise ContractError("a block of lines does not end with a newline", bytes(data[-20:]))
        ticks = np.empty((1 + len(text) // _USUAL_LINE, tk.TICK_COLUMNS), np.int64)
        origin = np.empty((len(ticks), 3), np.int64)
        ignored: Counter[str] = Counter()
        rejected: list[RejectedLine] = []
        n, at, line_no = 0, 0, first_line
        own = self._conn(file_conn)
        while True:
            products, conns = self._spelled_products, self._spelled_conns
            why, at, line_no, n = scanner.scan(
                text,
                at,
                line_no,
                own,
                (products.text, products.ends, products.codes, products.decimals),
                (conns.text, conns.ends, conns.codes),
                self._spans,
                self._marks,
                ticks,
                origin,
                n,
            )
            if why == scanner.DONE:
                break
            if why == scanner.FULL:
                ticks, origin = _wider(ticks), _wider(origin)
                continue
            end = _newline(data, at)
            line = bytes(data[at:end])
            found = decode_line(line, self._price_decimals, line_no)
            if isinstance(found, Ignored):
                ignored[found.kind] += 1
            elif isinstance(found, Rejected):
                rejected.append(RejectedLine(line_no, found.reason, line))
            else:
                while n + len(found) > len(ticks):
                    ticks, origin = _wider(ticks), _wider(origin)
                for record in found:
                    conn = own if record.conn_id is None else self._conn(record.conn_id)
                    if record.conn_offset is not None:
                        self._note_offset(conn, record.conn_offset)
                    elif record.conn_id is not None and record.ts_recv != tk.NO_TIME:
                        self._note_offset(conn, record.ts_event - record.ts_recv)
                    fill_row(ticks[n], record, conn, self._product(record.product_id))
                    origin[n] = at, end, line_no
                    n += 1
                if len(found) == 1:
                    self._learn_spelling(line, found[0])
            at = end + 1
            line_no += 1
        self._note_file_offset(own, ticks[:n])
        return TickBlock(ticks[:n], origin[:n], line_no - first_line, ignored, rejected)

    @property
    def known_offsets(self) -> list[int | None]:
        """Each connection's clock offset, None where no tick of it had both times."""
        return [
            offset if known else None
            for offset, known in zip(self.state.conn_offsets, self._offset_known, strict=True)
        ]

    def _product(self, name: str) -> int:
        code = self._product_codes.get(name)
        if code is None:
            code = self._product_codes[name] = len(self.state.products)
            self.state.products.append(name)
        return code

    def _conn(self, conn_id: str) -> int:
        code = self._conn_codes.get(conn_id)
        if code is None:
            code = self._conn_codes[conn_id] = len(self.state.conn_ids)
            self.state.conn_ids.append(conn_id)
            self.state.conn_offsets.append(0)
            self._offset_known.append(False)
        return code

    def _note_offset(self, conn: int, offset: int) -> None:
        if not self._offset_known[conn]:
            self.state.conn_offsets[conn] = offset
            self._offset_known[conn] = True

    def _note_file_offset(self, own: int, ticks: Int64) -> None:
        """Note the offset of the file's connection, once one of its ticks has both times."""
        if self._offset_known[own]:
            return
        timed = np.flatnonzero((ticks[:, tk.CONN] == own) & (ticks[:, tk.TS_RECV] != tk.NO_TIME))
        if len(timed):
            first = ticks[timed[0]]
            self._note_offset(own, int(first[tk.TS_EVENT] - first[tk.TS_RECV]))

    def _learn_spelling(self, line: bytes, record: TickRecord) -> None:
        """Let the scanner know how this line's product and connection are spelled."""
        span = self._spans[spans.PRODUCT_ID]
        spelled = record.product_id.encode()
        if span[0] >= 0 and spelled in line:
            self._spelled_products.add(
                spelled, self._product(record.product_id), self._price_decimals(record.product_id)
            )
        # The scanner notes no clock offsets: it gets a connection once its offset is known.
        if record.conn_id is not None and self._offset_known[self._conn(record.conn_id)]:
            self._spelled_conns.add(record.conn_id.encode(), self._conn(record.conn_id))


def _newline(data: bytes | memoryview, at: int) -> int:
    """Where the line at `at` ends, without a copy of all that follows it."""
    step = 4096
    while True:
        found = bytes(data[at : at + step]).find(b"\n")
        if found >= 0:
            return at + found
        step *= 16


def _wider(array: Int64) -> Int64:
    wider = np.empty((2 * len(array), array.shape[1]), np.int64)
    wider[: len(array)] = array
    return wider
