"""What the commands about topics print alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from richter.cli.text import table

__all__ = ["aligned", "messages", "printable", "span_text"]

_UNITS = (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0))


def aligned(head: Sequence[str], rows: Sequence[Sequence[object]], left: Collection[int] = (0,)) -> str:
    """A table, indented; numbers to the right, the columns of `left` to the left.

    >>> print(aligned(("name", "n"), [("a", 1), ("b", 2_000)]))
      name      n
      a         1
      b     2,000
    """
    cells = [head, *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    placed = [
        [cell if at in left else cell.rjust(widths[at]) for at, cell in enumerate(row)] for row in cells
    ]
    return "\n".join(f"  {line}" for line in table(placed[0], placed[1:]).splitlines())


def messages(number: int) -> str:
    """Write a number of messages.

    >>> messages(1), messages(2_000)
    ('1 message', '2,000 messages')
    """
    return f"{number:,} message" if number == 1 else f"{number:,} messages"


def printable(text: str) -> str:
    r"""A text from anywhere, fit for a terminal.

    >>> printable("BTC-USD"), printable("\x1b[31m")
    ('BTC-USD', "'\\x1b[31m'")
    """
    return text if text.isprintable() else repr(text)


def span_text(seconds: float) -> str:
    """A length of time, to about three digits.

    >>> [span_text(seconds) for seconds in (0.04, 90, 150, 7_200, 604_800)]
    ['0.04 s', '90 s', '2.5 min', '2 h', '7 d']
    """
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
