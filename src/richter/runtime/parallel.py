"""Replay on several cores: history splits anywhere, because no value looks back further than LOOK_BACK.

First every part of the input is decoded, in parallel, into integers. What a part needs to know of those before it
(names, clock offsets, how far each connection had come) is then merged in order. Last, in parallel again, each part is
computed from a LOOK_BACK before its beginning on and written as a part of the feature log. The bits are those of the
plain replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from richter.adapters.recording import reader
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.tables.features import write_part
from richter.config import Settings
from richter.domain import ticks as tk
from richter.engine import kernel as k
from richter.engine.engine import Counts, Engine
from richter.engine.rows import FeatureRows
from richter.engine.table import LOOK_BACK_S
from richter.protocol.decoder import Decoder, RejectedLine
from richter.runtime.pipeline import Account, bury, file_connection

__all__ = ["replay_parts"]

PART_BYTES: Final = 48 * 1024 * 1024
LOOK_BACK_NS: Final = LOOK_BACK_S * 1_000_000_000
Identity = tuple[int, int, int]


class _Decoded(msgspec.Struct):
    """What a part of the input holds; its ticks are in a file."""

    ticks: Path
    account: Account
    rejected: list[RejectedLine]
    left_out: list[reader.Rejected]
    products: list[str]
    conn_ids: list[str]
    offsets: list[int | None]
    furthest: dict[tuple[int, int], Identity]
    first_time: dict[int, int]
    earliest: dict[int, int]


class _Names(msgspec.Struct):
    """Names and offsets merged over all parts."""

    products: list[str]
    conn_ids: list[str]
    offsets: list[int]


class _Saved(msgspec.Struct):
    """A part's ticks on disk, and what its codes are in the merged names."""

    path: Path
    product_codes: np.ndarray[Any, Any]
    conn_codes: np.ndarray[Any, Any]


class _Computed(msgspec.Struct):
    counts: Counts
    ahead: list[tuple[int, int]]  # line number and event time of each stamp from the future


def replay_parts(
    files: list[Path],
    folder: Path,
    scratch: Path,
    settings: Settings,
    workers: int,
    dead: DeadLetters,
    *,
    on_bytes: Callable[[int], None],
    part_bytes: int = PART_BYTES,
) -> Account:
    """Replay files into the parts of a feature log, on `workers` processes.

    Args:
        files: recordings, in order.
        folder: the feature log; its empty first part is there.
        scratch: a folder for decoded ticks.
        settings: staleness and price scales.
        workers: processes.
        dead: where unreadable lines go.
        on_bytes: told of bytes as they are decoded.
        part_bytes: about so many bytes make a part.
    """
    import joblib

    ranges = [
        part for path in files for part in reader.split(path, max(1, round(path.stat().st_size / part_bytes)))
    ]
    # Workers outlive a job: the folder they were started in may be another one by now.
    folder, scratch = folder.absolute(), scratch.absolute()
    pool = joblib.Parallel(n_jobs=workers, prefer="threads", return_as="generator")
    decoded: list[_Decoded] = []
    for result in pool(
        joblib.delayed(_decode)(
            msgspec.structs.replace(part, path=part.path.absolute()), scratch / f"{number:06d}.npy", settings
        )
        for number, part in enumerate(ranges)
    ):
        decoded.append(result)
        on_bytes(result.account.bytes)
    names, saved = _merge(decoded)
    starts = _starts(decoded, saved)
    known = _known_before(decoded, saved)
    account = Account(files=len(files))
    results: Iterable[_Computed] = pool(
        joblib.delayed(_compute)(
            saved[start : number + 1],
            names,
            known[start],
            folder / f"part-{number + 1:06d}.parquet",
            settings,
        )
        for number, start in enumerate(starts)
    )
    for part, decoded_part, computed in zip(ranges, decoded, results, strict=True):
        account.absorb(decoded_part.account, computed.counts)
        source = str(part.path)
        for left_out in decoded_part.left_out:
            bury(account, dead, left_out.reason.value, left_out.data, source, left_out.line)
        for line in decoded_part.rejected:
            bury(account, dead, line.reason, line.data, source, line.line_no)
        if computed.ahead:
            times = dict(computed.ahead)
            for number, data in _lines(part, set(times)):
                bury(account, dead, "stamped more than 2 s ahead", data, source, number, times[number])
    return account


def _decode(part: reader.Range, target: Path, settings: Settings) -> _Decoded:
    decoder = Decoder(settings.decimals_for)
    conn = file_connection(part.path)
    account = Account()
    rejected: list[RejectedLine] = []
    left_out: list[reader.Rejected] = []
    blocks = []
    for block in reader.read_blocks(
        part.path, part.start, part.stop, first_line=part.first_line, on_rejected=left_out.append
    ):
        decoded = decoder.decode(block.data, file_conn=conn, first_line=block.first_line)
        account.add(decoded, Counts())
        account.bytes += len(block.data)
        rejected.extend(decoded.rejected)
        blocks.append(np.concatenate([decoded.ticks, decoded.origin[:, 2:]], axis=1))
    ticks = np.concatenate(blocks) if blocks else np.empty((0, tk.TICK_COLUMNS + 1), np.int64)
    np.save(target, ticks)
    furthest: dict[tuple[int, int], Identity] = {}
    first_time: dict[int, int] = {}
    earliest: dict[int, int] = {}
    if len(ticks):
        by_identity = np.lexsort(ticks[:, [tk.TICKER_INDEX, tk.EVENT_INDEX, tk.FRAME_NO]].T)
        # The last one of a pair in ascending order stays.
        for product, connection, frame, event, ticker in ticks[by_identity][
            :, [tk.PRODUCT, tk.CONN, tk.FRAME_NO, tk.EVENT_INDEX, tk.TICKER_INDEX]
        ][_last_of_pairs(ticks[by_identity])].tolist():
            furthest[product, connection] = frame, event, ticker
        for product in np.unique(ticks[:, tk.PRODUCT]).tolist():
            times = ticks[ticks[:, tk.PRODUCT] == product, tk.TS_EVENT]
            first_time[product] = int(times[0])
            earliest[product] = int(times.min())
    return _Decoded(
        target,
        account,
        rejected,
        left_out,
        decoder.state.products,
        decoder.state.conn_ids,
        decoder.known_offsets,
        furthest,
        first_time,
        earliest,
    )


def _last_of_pairs(ticks: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Row of the last tick of each (product, connection)."""
    _, last = np.unique(ticks[::-1, tk.PRODUCT] * (1 << 32) + ticks[::-1, tk.CONN], return_index=True)
    return len(ticks) - 1 - last


def _merge(decoded: list[_Decoded]) -> tuple[_Names, list[_Saved]]:
    products: dict[str, int] = {}
    conns: dict[str, int] = {}
    offsets: dict[int, int] = {}
    saved = []
    for part in decoded:
        product_codes = [products.setdefault(name, len(products)) for name in part.products]
        conn_codes = [conns.setdefault(name, len(conns)) for name in part.conn_ids]
        for code, offset in zip(conn_codes, part.offsets, strict=True):
            if offset is not None:
                offsets.setdefault(code, offset)
        saved.append(_Saved(part.ticks, np.array(product_codes, np.int64), np.array(conn_codes, np.int64)))
    names = _Names(list(products), list(conns), [offsets.get(code, 0) for code in range(len(conns))])
    return names, saved


def _starts(decoded: list[_Decoded], saved: list[_Saved]) -> list[int]:
    """For each part, the part to begin from so that LOOK_BACK of every product lies before it."""
    starts = []
    for number, part in enumerate(decoded):
        needed = {
            int(saved[number].product_codes[code]): time - LOOK_BACK_NS
            for code, time in part.earliest.items()
        }
        start = number
        while start > 0 and needed:
            start -= 1
            for code, time in decoded[start].first_time.items():
                product = int(saved[start].product_codes[code])
                if product in needed and time <= needed[product]:
                    del needed[product]
        starts.append(start)
    return starts


def _known_before(decoded: list[_Decoded], saved: list[_Saved]) -> list[dict[tuple[int, int], Identity]]:
    """How far each (product, connection) had come before each part."""
    known: list[dict[tuple[int, int], Identity]] = [{}]
    for part, codes in zip(decoded, saved, strict=True):
        after = dict(known[-1])
        for (product, conn), identity in part.furthest.items():
            key = int(codes.product_codes[product]), int(codes.conn_codes[conn])
            after[key] = max(identity, after.get(key, identity))
        known.append(after)
    return known


def _compute(
    parts: list[_Saved],
    names: _Names,
    known: dict[tuple[int, int], Identity],
    target: Path,
    settings: Settings,
) -> _Computed:
    """Write the rows of the last part; those before it are its look-back."""
    engine = Engine(
        names.products,
        stale_after_s=settings.stale_after_s,
        price_decimals=settings.decimals_for,
        conn_offsets=names.offsets,
    )
    for (product, conn), identity in known.items():
        engine.remember(product, conn, identity)
    for earlier in parts[:-1]:
        engine.process(_load(earlier)[0])
    ticks, lines = _load(parts[-1])
    block = engine.process(ticks)
    rows = FeatureRows.of(ticks, block, names.products, names.conn_ids, float(settings.stale_after_s))
    if len(rows):
        write_part(target, rows, durable=False)
    ahead = np.flatnonzero((block.meta[:, k.OUTCOME] & 3) == k.AHEAD)
    return _Computed(block.counts(), [(int(lines[i]), int(ticks[i, tk.TS_EVENT])) for i in ahead.tolist()])


def _load(part: _Saved) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A part's ticks in the merged codes, and their line numbers."""
    saved = np.load(part.path)
    ticks = np.ascontiguousarray(saved[:, : tk.TICK_COLUMNS])
    if len(ticks):
        ticks[:, tk.PRODUCT] = part.product_codes[ticks[:, tk.PRODUCT]]
        ticks[:, tk.CONN] = part.conn_codes[ticks[:, tk.CONN]]
    return ticks, saved[:, tk.TICK_COLUMNS]


def _lines(part: reader.Range, wanted: set[int]) -> Iterable[tuple[int, bytes]]:
    for block in reader.read_blocks(
        part.path, part.start, part.stop, first_line=part.first_line, on_rejected=lambda rejected: None
    ):
        for number, line in enumerate(block.lines(), block.first_line):
            if number in wanted:
                yield number, line
