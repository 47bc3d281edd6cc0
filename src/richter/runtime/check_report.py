"""What a check of a topic finds."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import msgspec

from richter.protocol.records import show

__all__ = ["CheckReport", "Kind", "PartitionReport", "Problem", "ProductReport", "Record", "Sample", "sample"]

Kind = Literal["ticks", "features", "other"]

_LONG_TEXT: Final = 100


class Record(NamedTuple):
    """A record of a topic; its timestamp in ms, None where it has none."""

    partition: int
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None


class Problem(msgspec.Struct):
    """Records that should not be there: how many, and where and why the first.

    Attributes:
        kind: unreadable, tombstone, wrong key or wrong partition.
    """

    kind: str
    records: int
    partition: int
    offset: int
    reason: str


class PartitionReport(msgspec.Struct):
    """A partition: what was read of it, its oldest offset and the one behind its last record at the start."""

    records: int = 0
    begin: int = 0
    end: int = 0


class ProductReport(msgspec.Struct):
    """A product of a topic.

    Attributes:
        partition: where its first record lay.
        records: all of them.
        first: earliest event time, ns.
        last: latest.
        rate_per_s: over this time; None where there is none between the two.
        duplicates: records whose identity is not above their connection's last.
        out_of_order: other ones whose event time lies before an earlier record's.
        gaps: recorded gaps by cause.
    """

    partition: int
    records: int = 0
    first: int = 0
    last: int = 0
    rate_per_s: float | None = None
    duplicates: int = 0
    out_of_order: int = 0
    gaps: dict[str, int] = msgspec.field(default_factory=dict)


class Sample(msgspec.Struct, frozen=True):
    """A record to look at; of its value's fields the long ones are cut."""

    partition: int
    offset: int
    timestamp_ms: int | None
    key: str | None
    value: object


class CheckReport(msgspec.Struct):
    """What was found.

    Attributes:
        topic: its name.
        kind: ticks, features, or other records, which are counted only; None: nothing that could be read.
        records: read, good or not.
        invalid: with at least one problem.
        without_identity: name no connection: duplicates among them cannot be told.
        partitions: number -> its records.
        products: name -> its records.
        problems: by kind.
        first: earliest event time, ns; None where no record has one.
        last: latest.
        newest: receive time of the newest record, ns; its timestamp where no record has a receive time.
        sample: the newest record.
    """

    topic: str
    kind: Kind | None
    records: int
    invalid: int
    without_identity: int
    partitions: dict[int, PartitionReport]
    products: dict[str, ProductReport]
    problems: list[Problem]
    first: int | None
    last: int | None
    newest: int | None
    sample: Sample | None


def sample(record: Record) -> Sample:
    """A record to look at."""
    value: object = None
    if record.value is not None:
        try:
            found = msgspec.json.decode(record.value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            found = record.value.decode(errors="replace")
        value = {name: _cut(cell) for name, cell in found.items()} if isinstance(found, dict) else _cut(found)
    key = None if record.key is None else record.key.decode(errors="replace")
    return Sample(record.partition, record.offset, record.timestamp_ms, key, value)


def _cut(value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):  # Larger ones have no JSON.
        return value if -(2**63) <= value < 2**64 else show(value)
    try:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    except (OverflowError, RecursionError):
        text = show(value)
    return text if len(text) <= _LONG_TEXT else f"{text[:_LONG_TEXT]}…"
