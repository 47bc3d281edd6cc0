"""Segments of the recording: their names, their manifests, and what lies in a folder.

A segment is one NDJSON file of one product, ``ticks_BTCUSD_20260131_235959.ndjson``, named by the UTC second
of its first capture. It is sealed when a manifest stands beside it, ``….ndjson.manifest.json``, whose name a
glob for ``*.ndjson`` does not match. A sealed segment may be compressed, ``….ndjson.zst``; its manifest tells
of the uncompressed bytes and stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from richter.adapters.recording.reader import first_line
from richter.domain.ticks import Ns
from richter.errors import InputFileError

__all__ = [
    "MANIFEST_SUFFIX",
    "MANIFEST_VERSION",
    "ZSTD_SUFFIX",
    "Manifest",
    "Position",
    "Segment",
    "SegmentName",
    "create_segment",
    "inspect_segment",
    "list_segments",
    "manifest_path",
    "names_of",
    "parse_name",
    "symbol_of",
]

MANIFEST_SUFFIX: Final = ".manifest.json"
MANIFEST_VERSION: Final = 1
ZSTD_SUFFIX: Final = ".zst"

_NAME = re.compile(r"ticks_(?P<symbol>[A-Z0-9]+)_(?P<start>[0-9]{8}_[0-9]{6})\.ndjson")
_START_FORMAT: Final = "%Y%m%d_%H%M%S"


class SegmentName(msgspec.Struct, frozen=True, order=True):
    """What a segment's name says; in the order of the log.

    Attributes:
        symbol: the product without its dashes; two products can share one.
        started_s: UTC second of the segment's start.
    """

    symbol: str
    started_s: int

    def __str__(self) -> str:
        start = datetime.fromtimestamp(self.started_s, UTC)
        return f"ticks_{self.symbol}_{start.strftime(_START_FORMAT)}.ndjson"


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in a product's log: everything before it is recorded.

    Attributes:
        segment: file name, of the uncompressed form.
        offset: in uncompressed bytes.
    """

    segment: str
    offset: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a sealed segment holds.

    Times are the least and the greatest, in ns; None when no line gave one. An event time can step back by a
    little, so the last line's need not be the greatest.

    Attributes:
        product_id: the exchange's, with its dash.
        count: lines.
        size: uncompressed bytes.
        sha256: of the uncompressed bytes.
        first_recv: capture time.
        last_recv: capture time.
        first_event: exchange time, else capture time.
        last_event: exchange time, else capture time.
        connections: every conn_id, in order of appearance.
        sealed_at: by the recorder's clock, in ns.
        v: version of this form.
    """

    product_id: str
    count: int
    size: int
    sha256: str
    first_recv: Ns | None
    last_recv: Ns | None
    first_event: Ns | None
    last_event: Ns | None
    connections: tuple[str, ...]
    sealed_at: Ns
    v: int = MANIFEST_VERSION


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment in a folder.

    Attributes:
        name: parsed file name.
        path: the plain file where there is one, else the compressed one.
        product_id: from the manifest, else from the first line; None when neither tells.
        size_on_disk: bytes of the file and its manifest.
        manifest: None while unsealed, and when it cannot be read.
        manifest_fault: why an existing manifest cannot be read, else empty.
    """

    name: SegmentName
    path: Path
    product_id: str | None
    size_on_disk: int
    manifest: Manifest | None
    manifest_fault: str = ""

    @property
    def is_sealed(self) -> bool:
        """Whether a manifest stands beside it, readable or not."""
        return self.manifest is not None or bool(self.manifest_fault)

    @property
    def is_compressed(self) -> bool:
        """Whether only the compressed form exists."""
        return self.path.name.endswith(ZSTD_SUFFIX)


def symbol_of(product_id: str) -> str:
    """Return a product's part of the file name.

    >>> symbol_of("BTC-USD")
    'BTCUSD'
    """
    return re.sub(r"[^A-Z0-9]", "", product_id.upper()) or "UNKNOWN"


def parse_name(name: str) -> SegmentName | None:
    """Read a segment's file name, plain or compressed; None when it is another file's.

    >>> parse_name("ticks_BTCUSD_19700101_000130.ndjson.zst")
    SegmentName(symbol='BTCUSD', started_s=90)
    >>> parse_name("ticks_BTCUSD_19700101_000130.ndjson.manifest.json") is None
    True
    """
    found = _NAME.fullmatch(name.removesuffix(ZSTD_SUFFIX))
    if found is None:
        return None
    try:
        start = datetime.strptime(found["start"], _START_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return SegmentName(found["symbol"], int(start.timestamp()))


def manifest_path(segment: Path) -> Path:
    """Return where the manifest of a segment is, whether the segment is plain or compressed."""
    return segment.with_name(segment.name.removesuffix(ZSTD_SUFFIX) + MANIFEST_SUFFIX)


def create_segment(folder: Path, product_id: str, ts_recv: Ns) -> tuple[int, Path]:
    """Create the product's next segment and open it for appending.

    Args:
        folder: made when it is missing.
        product_id: the exchange's.
        ts_recv: capture time of the first line to come.

    Returns:
        The descriptor (O_APPEND) and the path.

    Raises:
        OSError: whatever the file system says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    symbol = symbol_of(product_id)
    taken = [name.started_s for name in names_of(folder) if name.symbol == symbol]
    # Names must follow the log, also when the wall clock was set back since the last segment.
    started_s = max([ts_recv // 1_000_000_000, *(second + 1 for second in taken)])
    while True:
        path = folder / str(SegmentName(symbol, started_s))
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return os.open(path, flags, 0o644), path
        except FileExistsError:
            started_s += 1


def list_segments(folder: Path, product_id: str | None = None) -> list[Segment]:
    """List a folder's segments, product by product, each in the order of its log.

    Args:
        folder: an absent one has none.
        product_id: only this product's.
    """
    if not folder.is_dir():
        return []
    symbol = None if product_id is None else symbol_of(product_id)
    found = (
        inspect_segment(folder, name)
        for name in sorted(set(names_of(folder)))
        if symbol in (None, name.symbol)
    )
    # Two products can share a symbol: A-BUSD and AB-USD.
    return [segment for segment in found if product_id is None or segment.product_id in (product_id, None)]


def names_of(folder: Path) -> Iterator[SegmentName]:
    """The segments' names in a folder, also of those whose manifest alone is left; some twice."""
    # A manifest alone occupies its name too: a new segment must not find one that is not its own.
    with os.scandir(folder) as entries:
        for entry in entries:
            name = parse_name(entry.name.removesuffix(MANIFEST_SUFFIX))
            if name is not None:
                yield name


def inspect_segment(folder: Path, name: SegmentName) -> Segment:
    """Look at one segment of a folder."""
    plain = folder / str(name)
    compressed = plain.with_name(plain.name + ZSTD_SUFFIX)
    path = plain if plain.exists() or not compressed.exists() else compressed
    manifest, fault = _read_manifest(manifest_path(plain))
    return Segment(
        name=name,
        path=path,
        product_id=_product_in(path) if manifest is None else manifest.product_id,
        size_on_disk=_size(path) + _size(manifest_path(plain)),
        manifest=manifest,
        manifest_fault=fault,
    )


def _read_manifest(path: Path) -> tuple[Manifest | None, str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, msgspec.MsgspecError) as error:
        return None, str(error) or type(error).__name__


class _ProductOnly(msgspec.Struct):
    product_id: str | None = None


def _product_in(path: Path) -> str | None:
    try:
        return msgspec.json.decode(first_line(path), type=_ProductOnly).product_id
    except (InputFileError, msgspec.MsgspecError):
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
