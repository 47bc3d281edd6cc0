"""Replay on several cores: history splits anywhere, because no value looks back further than LOOK_BACK.

First the input is surveyed, in parallel: what a part needs to know of those before it is names, clock offsets, how far
each connection had come, and where LOOK_BACK before its beginning lies. Then, in parallel again, each part is computed
from there on and written as a part of the feature log. The bits are those of the plain replay.

Workers are threads: reading, computing, writing and hashing all leave Python's lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from richter.adapters.recording import reader
from richter.adapters.recording.dead import DeadLetters
from richter.adapters.recording.reader import Range
from richter.adapters.tables.features import read_features
from richter.adapters.tables.parts import PartWriter
from richter.config import Settings
from richter.domain import ticks as tk
from richter.engine.digest import Digest, pack
from richter.engine.kernel import AHEAD_NS
from richter.engine.rows import FeatureRows
from richter.engine.table import LOOK_BACK_S
from richter.protocol.decoder import Decoder, DecoderState
from richter.runtime.pipeline import Account, Letter, Pipeline, file_connection

__all__ = ["replay_parts"]

PART_BYTES: Final = 64 * 1024 * 1024
LOOK_BACK_NS: Final = LOOK_BACK_S * 1_000_000_000
SURVEY_SHARE: Final = 0.2
"""Of the whole work, for the progress bar."""
Identity = tuple[int, int, int]


class _Facts(msgspec.Struct):
    """What a block of lines holds.

    Attributes:
        part: number of the part it belongs to.
        start: where it begins.
        earliest: product -> its earliest event time.
        settled: product -> its first tick that no engine takes for one from the future: event time, connection,
            identity.
        furthest: (product, connection) -> highest identity.
    """

    part: int
    start: Range
    earliest: dict[str, int]
    settled: dict[str, tuple[int, str, Identity]]
    furthest: dict[tuple[str, str], Identity]


class _Survey(msgspec.Struct):
    """A part's blocks in order, its names in order of appearance, and its connections' clock offsets."""

    blocks: list[_Facts]
    products: list[str]
    conn_ids: list[str]
    offsets: list[int | None]
    bytes: int


class _Job(msgspec.Struct):
    """A part to compute, the ranges that are its look-back, and how far connections had come before those."""

    part: Range
    look_back: list[Range]
    known: dict[tuple[str, str], Identity]


class _Computed(msgspec.Struct):
    """What became of a part; ``packed``: the bytes that each product's digest is of."""

    account: Account
    letters: list[Letter]
    packed: dict[str, list[bytes]]


def replay_parts(
    files: list[Path],
    folder: Path,
    settings: Settings,
    workers: int,
    dead: DeadLetters,
    digests: dict[str, Digest],
    *,
    on_bytes: Callable[[int], None],
    on_rows: Callable[[FeatureRows], None] | None = None,
    part_bytes: int = PART_BYTES,
) -> Account:
    """Replay files into the parts of a feature log, on `workers` threads.

    Args:
        files: recordings, in order.
        folder: the feature log; its empty first part is there.
        settings: staleness and price scales.
        workers: threads.
        dead: where unreadable lines go.
        digests: product -> its digest, advanced.
        on_bytes: told of bytes as they are done.
        on_rows: told of the rows in order.
        part_bytes: about so many bytes make a part.
    """
    import joblib

    parts = [part for path in files for part in _split(path, part_bytes, workers)]
    pool = joblib.Parallel(n_jobs=workers, prefer="threads", return_as="generator")
    surveys: list[_Survey] = []
    for survey in pool(joblib.delayed(_survey)(number, part, settings) for number, part in enumerate(parts)):
        surveys.append(survey)
        on_bytes(round(survey.bytes * SURVEY_SHARE))
    names = _merge(surveys)
    account = Account(files=len(files))
    targets = [folder / f"part-{number + 1:06d}.parquet" for number in range(len(parts))]
    results: Iterable[_Computed] = pool(
        joblib.delayed(_compute)(job, names, target, settings)
        for job, target in zip(_jobs(parts, surveys), targets, strict=True)
    )
    for target, survey, computed in zip(targets, surveys, results, strict=True):
        account.absorb(computed.account)
        for letter in computed.letters:
            letter.to(dead)
        for product, packed in computed.packed.items():
            for rows in packed:
                digests.setdefault(product, Digest()).add(rows)
        if on_rows is not None:
            for batch in read_features(target):
                on_rows(batch)
        on_bytes(survey.bytes - round(survey.bytes * SURVEY_SHARE))
    return account


def _split(path: Path, part_bytes: int, workers: int) -> list[Range]:
    """Parts of about `part_bytes`; of a long file as many as keep all workers busy to its end."""
    parts = max(1, round(path.stat().st_size / part_bytes))
    return reader.split(path, parts if parts < workers else math.ceil(parts / workers) * workers)


def _survey(number: int, part: Range, settings: Settings) -> _Survey:
    decoder = Decoder(settings.decimals_for)
    names = decoder.state
    conn = file_connection(part.path)
    survey = _Survey([], names.products, names.conn_ids, [], 0)
    for block in reader.read_blocks(
        part.path,
        part.start,
        part.stop,
        first_line=part.first_line,
        on_rejected=lambda rejected: None,
    ):
        ticks = decoder.decode(block.data, file_conn=conn, first_line=block.first_line).ticks
        start = Range(part.path, block.offset, part.stop, block.first_line)
        survey.blocks.append(_facts(number, start, ticks, names))
        survey.bytes += len(block.data)
    survey.offsets = decoder.known_offsets
    return survey


def _facts(part: int, start: Range, ticks: np.ndarray[Any, Any], names: DecoderState) -> _Facts:
    facts = _Facts(part, start, {}, {}, {})
    for code, mine in _by_code(ticks, tk.PRODUCT):
        product = names.products[code]
        times, received = mine[:, tk.TS_EVENT], mine[:, tk.TS_RECV]
        facts.earliest[product] = int(times.min())
        settled = np.flatnonzero((received == tk.NO_TIME) | (times - received <= AHEAD_NS))
        if len(settled):
            first = mine[settled[0]]
            facts.settled[product] = int(first[tk.TS_EVENT]), names.conn_ids[first[tk.CONN]], _identity(first)
        for conn, furthest in _by_code(mine, tk.CONN):
            for column in (tk.FRAME_NO, tk.EVENT_INDEX, tk.TICKER_INDEX):
                furthest = furthest[furthest[:, column] == furthest[:, column].max()]
            facts.furthest[product, names.conn_ids[conn]] = _identity(furthest[0])
    return facts


def _identity(tick: np.ndarray[Any, Any]) -> Identity:
    frame, event, ticker = tick[tk.FRAME_NO : tk.TICKER_INDEX + 1].tolist()
    return frame, event, ticker


def _by_code(ticks: np.ndarray[Any, Any], column: int) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """The ticks of each code in a column; without a copy where there is one code."""
    codes = ticks[:, column]
    if len(ticks) and (codes == codes[0]).all():
        yield int(codes[0]), ticks
        return
    for code in np.unique(codes).tolist():
        yield code, ticks[codes == code]


def _merge(surveys: list[_Survey]) -> DecoderState:
    """All names and, of each connection, the first known offset."""
    products: dict[str, None] = {}
    offsets: dict[str, int | None] = {}
    for survey in surveys:
        products.update(dict.fromkeys(survey.products))
        for conn_id, offset in zip(survey.conn_ids, survey.offsets, strict=True):
            if offsets.get(conn_id) is None:
                offsets[conn_id] = offset
    return DecoderState(list(products), list(offsets), [offset or 0 for offset in offsets.values()])


def _jobs(parts: list[Range], surveys: list[_Survey]) -> Iterator[_Job]:
    """The parts with what each needs to know of those before it."""
    before: list[_Facts] = []
    reached: dict[tuple[str, str], Identity] = {}
    known: dict[tuple[str, str], Identity] = {}
    passed = 0
    for part, survey in zip(parts, surveys, strict=True):
        first = _look_back(before, {product for product, _ in reached}, survey.blocks)
        if first < passed:  # A look-back hardly ever begins before that of the part before.
            known, passed = {}, 0
        for facts in before[passed:first]:
            _advance(known, facts)
        passed = first
        starts = {facts.part: facts.start for facts in reversed(before[first:])}
        yield _Job(part, [starts[number] for number in sorted(starts)], dict(known))
        for facts in survey.blocks:
            # A tick that is there for the second time says nothing of how far back its block reaches.
            for product, (_, conn_id, identity) in list(facts.settled.items()):
                if identity <= reached.get((product, conn_id), (-1, -1, -1)):
                    del facts.settled[product]
            _advance(reached, facts)
        before += survey.blocks


def _advance(known: dict[tuple[str, str], Identity], facts: _Facts) -> None:
    for pair, identity in facts.furthest.items():
        known[pair] = max(identity, known.get(pair, identity))


def _look_back(before: list[_Facts], seen: set[str], blocks: list[_Facts]) -> int:
    """The block to begin from so that LOOK_BACK of every product lies before `blocks`."""
    needed: dict[str, int] = {}
    for facts in blocks:
        for product, time in facts.earliest.items():
            needed[product] = min(time - LOOK_BACK_NS, needed.get(product, time))
    first = len(before)
    missing = needed.keys() & seen
    while missing and first:
        first -= 1
        for product, (time, *_) in before[first].settled.items():
            if product in missing and time <= needed[product]:
                missing.remove(product)
    return first


def _compute(job: _Job, names: DecoderState, target: Path, settings: Settings) -> _Computed:
    """Write the rows of a part."""
    pipeline = Pipeline(settings, names=names)
    for (product, conn_id), identity in job.known.items():
        pipeline.engine.remember(names.products.index(product), names.conn_ids.index(conn_id), identity)
    for _ in pipeline.ranges(job.look_back):
        pass
    letters: list[Letter] = []
    pipeline.account, pipeline.on_letter = Account(), letters.append
    writer = PartWriter(target, durable=False)
    packed: dict[str, list[bytes]] = {}
    for rows in pipeline.ranges([job.part]):
        if len(rows):
            writer.add(rows)
            for code in np.unique(rows.product).tolist():
                packed.setdefault(rows.products[code], []).append(pack(rows.of_product(code)))
    writer.finish()
    return _Computed(pipeline.account, letters, packed)
