"""Whether a topic holds what it should: how many records, of which products, and what is wrong with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from richter.adapters.kafka.connection import ANSWER_S, Broker
from richter.adapters.kafka.feature_records import FeatureDecoder
from richter.adapters.kafka.reading import Start, TopicReader
from richter.adapters.kafka.topics import FEATURES, RAW, TOPICS, partitions_of
from richter.config import Settings
from richter.domain import ticks as tk
from richter.domain.ticks import NO_TIME, GapCause
from richter.errors import SchemaMismatchError, TransportError
from richter.protocol.decoder import Decoder
from richter.protocol.forms import decode_line
from richter.protocol.records import Ignored, PriceDecimals, show
from richter.runtime.check_report import (
    CheckReport,
    Kind,
    PartitionReport,
    Problem,
    ProductReport,
    Record,
    sample,
)

__all__ = ["Check", "check"]

STALL_S: Final = 3 * ANSWER_S
"""So long the brokers may bring nothing of what they have."""

_NO_CONN: Final = ""
"""Stands for the connection of records that name none; no connection is called so."""

_CAUSES: Final = {int(cause): cause.name.lower() for cause in GapCause if cause}
# A record is anybody's bytes: whatever they do to a decoder is said of that record and ends nothing.
_BROKEN: Final = (SchemaMismatchError, msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


class _Lane:
    """A product in one partition: its latest event time, and the last identity of each connection."""

    def __init__(self) -> None:
        self.latest = NO_TIME
        self.marks: dict[str, tuple[int, ...]] = {}


class _Row(NamedTuple):
    record: Record
    product: str
    conn: str
    identity: tuple[int, ...]
    ts_event: int
    ts_recv: int
    cause: int


class Check:
    """Takes a topic's records, in order within each partition, and keeps what a report needs; never a record.

    Args:
        topic: its name.
        decimals_for: decimals of a product's scaled prices.
        kind: of the records; None: as the first readable one is.
    """

    def __init__(self, topic: str, decimals_for: PriceDecimals, kind: Kind | None = None) -> None:
        self.records = 0
        self._topic = topic
        self._kind = kind
        self._decimals_for = decimals_for
        self._ticks = Decoder(decimals_for)
        self._features = FeatureDecoder()
        self._invalid = 0
        self._without_identity = 0
        self._partitions: dict[int, PartitionReport] = {}
        self._newest_of: dict[int, Record] = {}
        self._products: dict[str, ProductReport] = {}
        self._lanes: dict[tuple[int, str], _Lane] = {}
        self._problems: dict[str, Problem] = {}
        self._received = NO_TIME

    def add(self, records: Sequence[Record]) -> None:
        """Take more records."""
        self.records += len(records)
        for record in records:
            self._partitions.setdefault(record.partition, PartitionReport()).records += 1
            self._newest_of[record.partition] = record
        if self._kind == "other":
            return
        wrong: dict[tuple[str, int, int], str] = {}  # A record counts once for each kind of problem.
        for record in records:
            if record.value is None:
                wrong["tombstone", record.partition, record.offset] = "a key without a value"
        readable = [record for record in records if record.value is not None]
        rows, refused = self._decoded(readable)
        for record, reason in refused:
            wrong["unreadable", record.partition, record.offset] = reason
        for row in rows:
            for kind, reason in self._take(row):
                wrong.setdefault((kind, row.record.partition, row.record.offset), reason)
        for (kind, partition, offset), reason in wrong.items():
            problem = self._problems.setdefault(kind, Problem(kind, 0, partition, offset, reason))
            problem.records += 1
        self._invalid += len({place[1:] for place in wrong})

    def report(self, places: Mapping[int, tuple[int, int]] | None = None) -> CheckReport:
        """What was found so far.

        Args:
            places: partition -> where it begins and ends.
        """
        partitions = {
            number: PartitionReport(self._partitions.get(number, PartitionReport()).records, *ends)
            for number, ends in (places or dict.fromkeys(self._partitions, (0, 0))).items()
        }
        for product in self._products.values():
            span_s = (product.last - product.first) / 1e9
            product.rate_per_s = product.records / span_s if span_s > 0 else None
        newest = max(self._newest_of.values(), key=lambda record: record.timestamp_ms or 0, default=None)
        received = None if self._received == NO_TIME else self._received
        if received is None and newest is not None and newest.timestamp_ms is not None:
            received = newest.timestamp_ms * 1_000_000
        return CheckReport(
            topic=self._topic,
            kind=self._kind,
            records=self.records,
            invalid=self._invalid,
            without_identity=self._without_identity,
            partitions=dict(sorted(partitions.items())),
            products=dict(sorted(self._products.items())),
            problems=[problem for _, problem in sorted(self._problems.items())],
            first=min((product.first for product in self._products.values()), default=None),
            last=max((product.last for product in self._products.values()), default=None),
            newest=received,
            sample=None if newest is None else sample(newest),
        )

    def _take(self, row: _Row) -> list[tuple[str, str]]:
        """Count a row; returns what is wrong with it: kinds and reasons."""
        partition, key = row.record.partition, row.record.key
        product = self._products.get(row.product)
        if product is None:
            product = ProductReport(partition, first=row.ts_event, last=row.ts_event)
            self._products[row.product] = product
        lane = self._lanes.setdefault((partition, row.product), _Lane())
        product.records += 1
        product.first = min(product.first, row.ts_event)
        product.last = max(product.last, row.ts_event)
        self._received = max(self._received, row.ts_recv)
        if row.conn == _NO_CONN:
            self._without_identity += 1
        mark = lane.marks.get(row.conn)
        if row.conn != _NO_CONN and mark is not None and row.identity <= mark:
            product.duplicates += 1
        else:
            lane.marks[row.conn] = row.identity
            product.out_of_order += row.ts_event < lane.latest
            lane.latest = max(lane.latest, row.ts_event)
            if row.cause:
                cause = _CAUSES[row.cause]
                product.gaps[cause] = product.gaps.get(cause, 0) + 1
        problems = []
        if key != row.product.encode():
            told = "no key" if key is None else f"key {show(key.decode(errors='replace'))}"
            problems.append(("wrong key", f"{told} on a record of {row.product}"))
        if partition != product.partition:
            told = f"{row.product} in partition {partition}, its first record was in {product.partition}"
            problems.append(("wrong partition", told))
        return problems

    def _decoded(self, records: list[Record]) -> tuple[list[_Row], list[tuple[Record, str]]]:
        if self._kind is None:
            kinds = (self._kind_of(record.value or b"") for record in records)
            self._kind = next((kind for kind in kinds if kind is not None), None)
        return self._decoded_rows(records) if self._kind == "features" else self._decoded_ticks(records)

    def _kind_of(self, value: bytes) -> Kind | None:
        try:
            found = msgspec.json.decode(value)
        except _BROKEN:
            found = None
        if isinstance(found, dict) and "schema_id" in found:
            return "features"
        return "ticks" if isinstance(decode_line(value, self._decimals_for), list) else None

    def _decoded_ticks(self, records: list[Record]) -> tuple[list[_Row], list[tuple[Record, str]]]:
        values = [(record.value or b"").replace(b"\n", b" ") for record in records]
        block = self._ticks.decode(b"".join(value + b"\n" for value in values), file_conn=_NO_CONN)
        refused = {rejected.line_no: rejected.reason for rejected in block.rejected}
        lines = block.origin[:, 2].tolist()
        columns = [tk.PRODUCT, tk.CONN, tk.TS_EVENT, tk.TS_RECV, tk.GAP_CAUSE]
        names = self._ticks.state
        rows = [
            _Row(records[line - 1], names.products[product], names.conn_ids[conn], tuple(identity), *rest)
            for line, (product, conn, *rest), identity in zip(
                lines,
                block.ticks[:, columns].tolist(),
                block.ticks[:, [tk.FRAME_NO, tk.EVENT_INDEX, tk.TICKER_INDEX]].tolist(),
                strict=True,
            )
        ]
        for line in set(range(1, len(records) + 1)) - set(lines) - set(refused):
            found = decode_line(values[line - 1], self._decimals_for)
            refused[line] = f"no tick ({found.kind})" if isinstance(found, Ignored) else "no tick"
        return rows, [(records[line - 1], reason) for line, reason in sorted(refused.items())]

    def _decoded_rows(self, records: list[Record]) -> tuple[list[_Row], list[tuple[Record, str]]]:
        try:
            return self._rows(records), []
        except _BROKEN as error:
            if len(records) == 1:
                reason = error.fact if isinstance(error, SchemaMismatchError) else f"no feature row ({error})"
                return [], [(records[0], reason)]
        rows, refused = [], []
        for record in records:
            found, why = self._decoded_rows([record])
            rows += found
            refused += why
        return rows, refused

    def _rows(self, records: list[Record]) -> list[_Row]:
        blocks = self._features.decode(record.value or b"" for record in records)
        columns = (
            (
                [block.products[code] for code in block.product.tolist()],
                [block.conn_ids[code] for code in block.conn.tolist()],
                map(tuple, block.identity.tolist()),
                block.ts_event.tolist(),
                block.ts_recv.tolist(),
                block.cause.tolist(),
            )
            for block in blocks
        )
        rows = (row for block in columns for row in zip(*block, strict=True))
        return [_Row(record, *row) for record, row in zip(records, rows, strict=True)]


def check(
    settings: Settings,
    topic: str,
    *,
    start: Start = "beginning",
    minimum: int = 1,
    timeout_s: float = 30.0,
    on_total: Callable[[int], None] = lambda total: None,
    on_done: Callable[[int], None] = lambda done: None,
    on_wait: Callable[[int], None] = lambda records: None,
) -> CheckReport:
    """Read a topic to its end, and on until there are enough records or the time is over.

    Args:
        settings: the brokers, the prefix and decimals of prices.
        topic: its name, with the prefix.
        start: where to begin.
        minimum: so many records are enough.
        timeout_s: how long to wait behind the end, anew with each record.
        on_total: gets the number of offsets up to the end, transactions' markers too.
        on_done: gets how many more of them have been passed.
        on_wait: gets the number of records so far when the end is reached and they are too few.

    Raises:
        TransportError: the brokers do not answer, or the topic is missing.
    """
    broker = Broker(settings, "check")
    others = {
        settings.kafka_topic_prefix + known.name for known in TOPICS if known.name not in (RAW, FEATURES)
    }
    found = Check(topic, settings.decimals_for, "other" if topic in others else None)
    with TopicReader(broker, topic, start=start) as reader:
        on_total(sum(reader.ends.values()) - sum(reader.starts.values()))
        passed, waiting = sum(reader.positions.values()), False
        end = time.monotonic() + STALL_S
        while not (reader.at_end() and found.records >= minimum):
            if reader.at_end() and not waiting:
                waiting = True
                end = time.monotonic() + timeout_s
                on_wait(found.records)
            if time.monotonic() >= end:
                partitions_of(broker, [topic])  # Raises where the brokers or the topic have gone.
                if waiting:
                    break
                raise TransportError(
                    f"a partition has brought nothing for {STALL_S:g} s, though it is not at its end",
                    topic,
                    f"look at it: richter topics describe {topic}",
                )
            found.add([_record(message) for message in reader.read()])
            now_passed = sum(reader.positions.values())
            on_done(now_passed - passed)
            if now_passed > passed:
                end = time.monotonic() + (timeout_s if waiting else STALL_S)
            passed = now_passed
        places = {number: (reader.begins[number], reader.ends[number]) for number in reader.ends}
    return found.report(places)


def _record(message: Message) -> Record:
    kind, timestamp = message.timestamp()
    key: Any = message.key()
    value: Any = message.value()
    return Record(
        message.partition() or 0,
        message.offset() or 0,
        None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        key,
        value,
    )
