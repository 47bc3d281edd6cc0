"""Small plots of unicode blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["bar", "plot"]

_BLOCKS = " ▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(share: float, width: int) -> str:
    """Draw a share of 0..1 as a bar from the left.

    >>> bar(0.5, 4)
    '██  '
    """
    eighths = round(share * width * 8)
    return "".join(_EIGHTHS[min(8, max(0, eighths - 8 * cell))] for cell in range(width))


def plot(
    values: Sequence[float],
    marks: Sequence[float] = (),
    *,
    width: int = 64,
    height: int = 6,
    floor: float = 0.0,
) -> list[str]:
    """Draw values as filled columns from `floor` up and marks as dots over them; unknown stretches stay empty.

    >>> plot([0.0, 1.0], [math.nan, math.nan], width=2, height=1)
    [' █']
    """
    if all(math.isnan(value) for value in values):
        return []
    columns = [_largest(values, i, width) - floor for i in range(width)]
    dots = [_largest(marks, i, width) - floor for i in range(width)]
    top = max((value for value in columns + dots if not math.isnan(value)), default=1.0) or 1.0
    lines = []
    for row in reversed(range(height)):
        line = ""
        for value, dot in zip(columns, dots, strict=True):
            fill = 0.0 if math.isnan(value) else value / top * height - row
            cell = _BLOCKS[min(8, max(0, round(fill * 8)))]
            if not math.isnan(dot) and int(min(dot / top * height, height - 1e-9)) == row:
                cell = "·" if cell == " " else cell
            line += cell
        lines.append(line)
    return lines


def _largest(values: Sequence[float], i: int, width: int) -> float:
    part = values[
        len(values) * i // width : max(len(values) * (i + 1) // width, len(values) * i // width + 1)
    ]
    known = [value for value in part if not math.isnan(value)]
    return max(known) if known else math.nan
