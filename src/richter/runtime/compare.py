"""Are two feature logs the same, to the last bit? Joined by identity, product by product."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from richter.adapters.tables.features import read_features
from richter.domain.ticks import NO_TIME, GapCause
from richter.engine.digest import Digest
from richter.engine.rows import FeatureRows, reason_text
from richter.engine.table import FEATURE_NAMES, LOOK_BACK_S

__all__ = ["Comparison", "Difference", "compare_logs"]

LOOK_BACK_NS: Final = LOOK_BACK_S * 1_000_000_000
Identity = tuple[str, int, int, int]


class Difference(msgspec.Struct, frozen=True):
    """The first place where two logs of a product part.

    Attributes:
        product: the product.
        identity: conn_id, frame_no, event_index, ticker_index of the row.
        ts_event: its effective time, ns.
        what: the column that differs, or what is wrong with the row.
        replayed: value in the recomputed log.
        live: value in the other.
    """

    product: str
    identity: Identity
    ts_event: int
    what: str
    replayed: str
    live: str


class ProductComparison(msgspec.Struct):
    """One product's part of a comparison; rows outside the common stretch are counted, not compared."""

    compared: int = 0
    warm_up: int = 0
    replayed_before: int = 0
    replayed_after: int = 0
    live_before: int = 0
    live_after: int = 0
    digest_replayed: str = ""
    digest_live: str = ""


class Comparison(msgspec.Struct):
    """What `compare_logs` found.

    Attributes:
        products: by product.
        difference: the first difference; None when there is none.
        rows_match: whether both sides hold the same rows in the common stretch.
    """

    products: dict[str, ProductComparison]
    difference: Difference | None = None
    rows_match: bool = True

    @property
    def compared(self) -> int:
        """Rows compared bit for bit."""
        return sum(product.compared for product in self.products.values())

    @property
    def same(self) -> bool:
        """Whether something was compared and all of it is the same."""
        return self.difference is None and self.compared > 0


class _Extent:
    """Where a product's rows begin and end in one log, and where the other log's ends lie in it."""

    def __init__(self) -> None:
        self.rows = 0
        self.first: Identity | None = None
        self.last: Identity | None = None
        self.first_ts = 0
        self.found: dict[Identity, tuple[int, int]] = {}  # where an identity stands first and last


def compare_logs(replayed: Path, live: Path) -> Comparison:
    """Compare every cell of two feature logs, from the first to the last identity of each product that both hold.

    Where `replayed` begins inside `live`, its first LOOK_BACK is warm-up: counted, not compared.
    """
    ends = [_extents(replayed, {}), _extents(live, {})]
    wanted = [
        {name: [e for e in (x.first, x.last) if e] for name, x in ends[1 - side].items()} for side in (0, 1)
    ]
    extents = [_extents(path, wanted[side]) for side, path in ((0, replayed), (1, live))]
    result = Comparison({})
    ranges: tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]] = ({}, {})
    warm_until: dict[str, int] = {}
    apart: list[str] = []
    for name in sorted(set(extents[0]) | set(extents[1])):
        product = result.products[name] = ProductComparison()
        a, b = extents[0].get(name, _Extent()), extents[1].get(name, _Extent())
        span = _common(a, b)
        if span is None:
            if a.last is not None and b.last is not None:
                apart.append(name)
            product.replayed_before, product.live_before = a.rows, b.rows
            continue
        (a_from, a_to), (b_from, b_to) = span
        product.replayed_before, product.replayed_after = a_from, a.rows - a_to
        product.live_before, product.live_after = b_from, b.rows - b_to
        ranges[0][name], ranges[1][name] = span
        if b_from > 0:
            warm_until[name] = a.first_ts + LOOK_BACK_NS
    _walk(replayed, live, ranges, warm_until, result)
    if apart and ranges[0] and result.difference is None:
        # One product's agreement must not stand for another that was not compared.
        result.rows_match = False
        result.difference = _apart(apart[0], extents[0][apart[0]], extents[1][apart[0]])
    return result


def _apart(name: str, a: _Extent, b: _Extent) -> Difference:
    assert b.first is not None
    rows = f"{a.rows} rows", f"{b.rows} rows"
    return Difference(name, b.first, b.first_ts, "neither log holds the other's first row of it", *rows)


def _extents(path: Path, wanted: dict[str, list[Identity]]) -> dict[str, _Extent]:
    extents: dict[str, _Extent] = {}
    for rows in read_features(path):
        for code in np.unique(rows.product).tolist():
            mine = rows.of_product(code)
            name = rows.products[code]
            extent = extents.setdefault(name, _Extent())
            if extent.first is None:
                extent.first = _identity(mine, 0)
                extent.first_ts = int(mine.ts_event[0])
            extent.last = _identity(mine, len(mine) - 1)
            for identity in wanted.get(name, []):
                hits = _find(mine, identity)
                if len(hits):
                    first, last = extent.rows + int(hits[0]), extent.rows + int(hits[-1])
                    extent.found[identity] = extent.found.get(identity, (first, last))[0], last
            extent.rows += len(mine)
    return extents


def _identity(rows: FeatureRows, i: int) -> Identity:
    frame, event, ticker = rows.identity[i].tolist()
    return rows.conn_ids[int(rows.conn[i])], frame, event, ticker


def _find(rows: FeatureRows, identity: Identity) -> NDArray[np.int64]:
    try:
        conn = list(rows.conn_ids).index(identity[0])
    except ValueError:
        return np.empty(0, np.int64)
    return np.flatnonzero((rows.conn == conn) & (rows.identity == np.array(identity[1:])).all(axis=1))


def _common(a: _Extent, b: _Extent) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The ranges of row numbers of the common stretch; None when there is none."""
    if a.first is None or b.first is None or a.last is None or b.last is None:
        return None
    if b.first in a.found:
        start = a.found[b.first][0], 0
    elif a.first in b.found:
        start = 0, b.found[a.first][0]
    else:
        return None
    if b.last in a.found:
        stop = a.found[b.last][1] + 1, b.rows
    elif a.last in b.found:
        stop = a.rows, b.found[a.last][1] + 1
    else:
        stop = a.rows, b.rows
    if stop[0] <= start[0] or stop[1] <= start[1]:
        return None
    return (start[0], stop[0]), (start[1], stop[1])


def _stretches(path: Path, ranges: dict[str, tuple[int, int]]) -> Iterator[tuple[str, FeatureRows]]:
    """The rows of each product inside its range, in pieces."""
    seen: dict[str, int] = {}
    for rows in read_features(path):
        for code in np.unique(rows.product).tolist():
            name = rows.products[code]
            if name not in ranges:
                continue
            mine = rows.of_product(code)
            start, stop = ranges[name]
            at = seen.get(name, 0)
            seen[name] = at + len(mine)
            piece = mine.take(slice(max(0, start - at), max(0, stop - at)))
            if len(piece):
                yield name, piece


def _walk(
    replayed: Path,
    live: Path,
    ranges: tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]],
    warm_until: dict[str, int],
    result: Comparison,
) -> None:
    sides = (_stretches(replayed, ranges[0]), _stretches(live, ranges[1]))
    waiting: tuple[dict[str, list[FeatureRows]], dict[str, list[FeatureRows]]] = ({}, {})
    digests = {name: (Digest(), Digest()) for name in ranges[0]}
    previous: dict[str, Identity] = {}
    open_sides = [True, True]
    while any(open_sides):
        for side in (0, 1):
            piece = next(sides[side], None)
            if piece is None:
                open_sides[side] = False
            else:
                waiting[side].setdefault(piece[0], []).append(piece[1])
        for name in list(waiting[0]):
            while waiting[0].get(name) and waiting[1].get(name):
                a, b = waiting[0][name].pop(0), waiting[1][name].pop(0)
                n = min(len(a), len(b))
                same = _compare(
                    name, a.take(slice(0, n)), b.take(slice(0, n)), warm_until, digests[name], result
                )
                if result.difference is not None:
                    return
                if same:
                    previous[name] = _identity(a, same - 1)
                if same < n:
                    rest = [a.take(slice(same, None)), b.take(slice(same, None))]
                    later = [
                        chain([mine], waiting[side][name], (p for other, p in sides[side] if other == name))
                        for side, mine in enumerate(rest)
                    ]
                    result.rows_match = False
                    result.difference = _out_of_step(name, rest, later, previous.get(name))
                    return
                for side, mine in enumerate((a, b)):
                    if len(mine) > n:
                        waiting[side][name].insert(0, mine.take(slice(n, None)))
    for side, other in ((0, "the live log"), (1, "the replay")):
        for name, pieces in waiting[side].items():
            if pieces and result.difference is None:
                result.rows_match = False
                result.difference = _twice(name, pieces[0], 1 - side, previous.get(name)) or _missing(
                    name, pieces[0], other
                )
    for name, (ours, theirs) in digests.items():
        result.products[name].digest_replayed = ours.hexdigest()
        result.products[name].digest_live = theirs.hexdigest()


def _missing(name: str, rows: FeatureRows, side: str) -> Difference:
    there, absent = "present", "absent"
    in_live = side == "the replay"
    return Difference(
        name,
        _identity(rows, 0),
        int(rows.ts_event[0]),
        f"the row is missing in {side}",
        absent if in_live else there,
        there if in_live else absent,
    )


def _compare(
    name: str,
    a: FeatureRows,
    b: FeatureRows,
    warm_until: dict[str, int],
    digests: tuple[Digest, Digest],
    result: Comparison,
) -> int:
    """Compare rows of the same numbers, up to the first two that are different ticks; return how many those are."""
    unlike = (a.identity != b.identity).any(axis=1)
    unlike |= a.conn != _codes_in(a, b)[b.conn]
    count = int(np.argmax(unlike)) if unlike.any() else len(a)
    product = result.products[name]
    start = 0
    if name in warm_until:
        warm = (a.ts_event[:count] >= warm_until[name]) | (a.cause[:count] == GapCause.CLOCK)
        start = int(np.argmax(warm)) if warm.any() else count
        product.warm_up += start
        if start < count:
            del warm_until[name]
    x, y = a.take(slice(start, count)), b.take(slice(start, count))
    difference = _first_cell(name, x, y)
    if difference is not None:
        result.difference = difference
        return count
    product.compared += len(x)
    for digest, rows in zip(digests, (x, y), strict=True):
        digest.update(rows)
    return count


def _codes_in(a: FeatureRows, b: FeatureRows) -> NDArray[np.int64]:
    """For each connection code of b, a's code of the same connection; -1 where a has none."""
    codes = {name: code for code, name in enumerate(a.conn_ids)}
    return np.array([codes.get(name, -1) for name in b.conn_ids], np.int64)


def _twice(name: str, rows: FeatureRows, is_replay: int, previous: Identity | None) -> Difference | None:
    """The first row, if it is the one before it once more."""
    if _identity(rows, 0) != previous:
        return None
    where, counts = ("replay", ("twice", "once")) if is_replay else ("live log", ("once", "twice"))
    return Difference(name, previous, int(rows.ts_event[0]), f"the row stands twice in the {where}", *counts)


def _out_of_step(
    name: str, rest: list[FeatureRows], later: Sequence[Iterable[FeatureRows]], previous: Identity | None
) -> Difference:
    """The first rows of both sides are different ticks: doubled, missing on one side, or in another order."""
    a, b = rest
    twice = _twice(name, b, False, previous) or _twice(name, a, True, previous)
    if twice is not None:
        return twice
    mine, theirs = _identity(a, 0), _identity(b, 0)
    theirs_comes = any(len(_find(rows, theirs)) for rows in later[0])
    mine_comes = any(len(_find(rows, mine)) for rows in later[1])
    if theirs_comes and mine_comes:
        shown = (" ".join(map(str, identity)) for identity in (mine, theirs))
        return Difference(name, mine, int(a.ts_event[0]), "the order of the rows", *shown)
    return _missing(name, a, "the live log") if theirs_comes else _missing(name, b, "the replay")


def _first_cell(name: str, a: FeatureRows, b: FeatureRows) -> Difference | None:
    columns = [
        ("ts_event", a.ts_event, b.ts_event),
        ("ts_recv", a.ts_recv, b.ts_recv),
        ("gap_before", a.cause, b.cause),
        ("gap_from", a.gap_from, b.gap_from),
        ("reasons", a.reasons, b.reasons),
    ]
    bits_a = np.ascontiguousarray(a.values).view(np.int64)
    bits_b = np.ascontiguousarray(b.values).view(np.int64)
    first: tuple[int, str, object, object] | None = None
    if len(a) and a.stale_after_s != b.stale_after_s:
        first = 0, "stale_after_s", a.stale_after_s, b.stale_after_s
    for column, x, y in columns:
        unlike = x != y
        if unlike.any():
            i = int(np.argmax(unlike))
            if first is None or i < first[0]:
                first = i, column, x[i], y[i]
    unlike_cells = bits_a != bits_b
    if unlike_cells.any():
        i, j = divmod(int(np.argmax(unlike_cells)), unlike_cells.shape[1])
        if first is None or i < first[0]:
            first = i, ("mid", *FEATURE_NAMES)[j], a.values[i, j], b.values[i, j]
    if first is None:
        return None
    i, column, mine, theirs = first
    return Difference(
        name, _identity(a, i), int(a.ts_event[i]), column, _show(column, mine), _show(column, theirs)
    )


def _show(column: str, value: object) -> str:
    if column == "gap_before":
        return GapCause(int(value)).name.lower()  # type: ignore[call-overload]  # an integer of the column
    if column == "reasons":
        return reason_text(int(value)) or "none"  # type: ignore[call-overload]  # an integer of the column
    if isinstance(value, np.integer):
        return "unknown" if int(value) == NO_TIME else str(int(value))
    return repr(float(value))  # type: ignore[arg-type]  # a float of the column
