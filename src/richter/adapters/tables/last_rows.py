"""Where a feature log ends, for each product: from there a run goes on."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from richter.adapters.tables.features import parts_of
from richter.domain.ticks import Ns
from richter.errors import InputFileError

__all__ = ["LastRow", "last_rows"]

_COLUMNS = ["product_id", "conn_id", "frame_no", "event_index", "ticker_index", "ts_event"]


class LastRow(NamedTuple):
    """A product's last row.

    Attributes:
        identity: conn_id, frame_no, event_index, ticker_index.
        ts_event: its effective event time, ns.
    """

    identity: tuple[str, int, int, int]
    ts_event: Ns


def last_rows(folder: Path, products: Collection[str]) -> dict[str, LastRow]:
    """The last row of each of these products; one without rows is absent.

    Parts are read from the last one backwards, no further than needed.

    Raises:
        InputFileError: a part is damaged.
    """
    found: dict[str, LastRow] = {}
    for part in reversed(parts_of(folder)):
        if set(products) <= found.keys():
            break
        try:
            table = pq.read_table(part, columns=_COLUMNS)
        except (OSError, pa.ArrowException) as error:
            raise InputFileError(
                "a part of the feature log is damaged",
                str(part),
                "move the log away: it is made anew from the recording",
            ) from error
        names = table.column("product_id").to_pylist() if table.num_rows else []
        if not names:
            continue
        texts, codes = np.unique(np.array(names[::-1], object).astype(str), return_index=True)
        for name, back in zip(texts.tolist(), codes.tolist(), strict=True):
            if name not in found:
                _, *identity, ts_event = (
                    table.column(column)[table.num_rows - 1 - back].as_py() for column in _COLUMNS
                )
                found[name] = LastRow(tuple(identity), ts_event)
    return found
