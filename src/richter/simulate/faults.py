"""What can go wrong on purpose, when, and on which connection.

A fault strikes on connection `connection` (those let in, from 1) and on later ones, until it has struck `times` times:
at a connection's n-th frame (`after: 30`), or so many seconds after it was opened (`after: 5s`); a change of a frame
again after as many more. What ends or silences a connection does so after its n-th frame, and once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

import msgspec

from richter.domain.ticks import Ns
from richter.domain.times import SECOND
from richter.errors import ArgumentsError

__all__ = ["KINDS", "Fault", "FaultKind", "FaultPlan", "Faults", "parse_fault", "parse_faults"]


class FaultKind(msgspec.Struct, frozen=True):
    """A kind of fault.

    Attributes:
        what: it does.
        fields: beside the trigger, with their defaults.
        changes: whether it changes a frame; others end or silence a connection, or come before it.
        again: whether it can strike the same connection again.
    """

    what: str
    fields: Mapping[str, Any] = {}
    changes: bool = False
    again: bool = False


KINDS: Final[Mapping[str, FaultKind]] = {
    "drop": FaultKind("TCP is closed without a close frame"),
    "stall": FaultKind("open but mute: only pings are answered", {"seconds": None}),
    "half_open": FaultKind("nothing is read or written any more, TCP stays"),
    "close": FaultKind("a close frame", {"code": 1001, "reason": ""}),
    "mute": FaultKind("heartbeats, but no data", {"seconds": None}),
    "refuse": FaultKind("the connection is dropped and new ones are refused", {"seconds": 5.0}),
    "too_many": FaultKind("HTTP 429 in place of the connection", {"retry_after": 1}),
    "ack_without": FaultKind("a product is neither acknowledged nor served", {"product": None}, again=True),
    "reorder": FaultKind("a frame comes after the next one", changes=True, again=True),
    "duplicate": FaultKind("a frame comes twice", changes=True, again=True),
    "sequence_gap": FaultKind(
        "frames are lost, their numbers with them", {"frames": 1}, changes=True, again=True
    ),
    "garbage": FaultKind("a frame that is no JSON comes in between", changes=True, again=True),
    "truncated": FaultKind("a frame breaks off in the middle", changes=True, again=True),
    "huge": FaultKind("a frame of 20 MB comes in between", {"bytes": 20_000_000}, changes=True, again=True),
    "clock": FaultKind("from here on all stamps are slow", {"seconds": 90.0}, changes=True),
    "ahead": FaultKind("one tick is stamped ahead of its time", {"seconds": 30.0}, changes=True, again=True),
}

_TRIGGER: Final = {"after": 0, "connection": 1, "times": 1}
_SECONDS: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*s")
_SHORT: Final = re.compile(r"([a-z_]+)(?:@([^,]+))?((?:,[^,]*)*)")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of a plan.

    Attributes:
        kind: a name of `KINDS`.
        frames_after: strikes at this frame of a connection, from 1; 0 as it opens. None where seconds say it.
        seconds_after: strikes so long after a connection opened.
        connection: on this one first.
        times: so often in all.
        options: the kind's own fields.
    """

    kind: str
    frames_after: int | None = 0
    seconds_after: float | None = None
    connection: int = 1
    times: int = 1
    options: Mapping[str, Any] = {}


def parse_faults(content: object, place: str) -> list[Fault]:
    """Understand the content of a file of faults: a list of mappings, or of short forms.

    Args:
        content: as read from YAML.
        place: what it is called in errors.

    Raises:
        ArgumentsError: it is no list, or a fault, a field or a value is unknown.
    """
    if content is None:
        return []
    if not isinstance(content, list):
        raise ArgumentsError(f"{place} is no list of faults", fix="each begins with `- kind: drop`")
    faults = []
    for number, each in enumerate(content, 1):
        where = f"{place}, fault {number}"
        if isinstance(each, str):
            faults.append(parse_fault(each, where))
        elif isinstance(each, dict):
            faults.append(_fault({str(name): value for name, value in each.items()}, where))
        else:
            raise ArgumentsError(f"{where} is no fault", each, "write `kind: drop` and its fields")
    return faults


def parse_fault(text: str, place: str = "--fault") -> Fault:
    """Understand a short form: the kind, when after `@`, further fields after commas.

    >>> fault = parse_fault("close@5s,code=1013,connection=2")
    >>> fault.kind, fault.seconds_after, fault.connection, fault.options["code"]
    ('close', 5.0, 2, 1013)

    Raises:
        ArgumentsError: it cannot be understood.
    """
    match = _SHORT.fullmatch(text.strip())
    if match is None:
        raise ArgumentsError(f"{place} is no fault", text, "write one such as drop@30 or close@5s,code=1013")
    kind, after, rest = match.groups()
    fields: dict[str, object] = {"kind": kind}
    if after is not None:
        fields["after"] = _value(after)
    for pair in filter(None, rest.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ArgumentsError(f"{place} has a field without a value", pair, f"write {name}=VALUE")
        fields[name.strip()] = _value(value)
    return _fault(fields, place)


class FaultPlan:
    """The faults of an exchange, and how often each may still strike."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.struck: dict[str, int] = {}
        self._faults = faults
        self._left = [fault.times for fault in faults]

    def on_attempt(self, connection: int) -> Fault | None:
        """Return the fault that keeps out what would become this connection, None where it is let in."""
        for index, fault in enumerate(self._faults):
            if fault.kind == "too_many" and fault.connection <= connection and self.strike(index):
                return fault
        return None

    def on_connection(self, connection: int) -> Faults:
        """Return what awaits a connection."""
        return Faults(
            self,
            [
                (index, fault)
                for index, fault in enumerate(self._faults)
                if fault.kind != "too_many" and fault.connection <= connection
            ],
        )

    def is_left(self, index: int) -> bool:
        """Whether a fault may still strike."""
        return self._left[index] > 0

    def strike(self, index: int) -> bool:
        """Let a fault strike, if it still may."""
        if not self._left[index]:
            return False
        self._left[index] -= 1
        kind = self._faults[index].kind
        self.struck[kind] = self.struck.get(kind, 0) + 1
        return True


class Faults:
    """What awaits one connection."""

    def __init__(self, plan: FaultPlan, faults: list[tuple[int, Fault]]) -> None:
        self._plan = plan
        self._faults = faults
        # A frame's number or nanoseconds since the opening; None when it is over here.
        self._next: list[int | None] = [_step(fault) for _, fault in faults]

    def __bool__(self) -> bool:
        return bool(self._faults)

    def due(self, kinds: Collection[str], frame: int, elapsed: Ns) -> list[Fault]:
        """Return the faults of some kinds that strike now.

        Args:
            kinds: which are asked for.
            frame: number of the connection's frame, from 1; 0 before the first.
            elapsed: since it was opened.
        """
        struck = []
        for place, (index, fault) in enumerate(self._faults):
            at = self._next[place]
            if fault.kind not in kinds or at is None:
                continue
            if (frame if fault.seconds_after is None else elapsed) >= at and self._plan.strike(index):
                self._next[place] = at + max(1, _step(fault)) if KINDS[fault.kind].again else None
                struck.append(fault)
        return struck

    def next_alarm(self, kinds: Collection[str]) -> Ns | None:
        """Return when the next of some kinds strikes by itself, since the opening; None for never."""
        times = [
            at
            for at, (index, fault) in zip(self._next, self._faults, strict=True)
            if at is not None
            and fault.kind in kinds
            and fault.seconds_after is not None
            and self._plan.is_left(index)
        ]
        return min(times, default=None)


def _step(fault: Fault) -> int:
    if fault.seconds_after is None:
        return fault.frames_after or 0
    return round(fault.seconds_after * SECOND)


def _fault(fields: dict[str, object], place: str) -> Fault:
    kind = fields.pop("kind", None)
    if kind is None:
        raise ArgumentsError(f"{place} has no kind", fix=f"give one of {', '.join(KINDS)}")
    known = KINDS.get(str(kind))
    if known is None:
        raise ArgumentsError(f"{place} has an unknown kind", kind, _nearest(str(kind), KINDS))
    allowed = {**_TRIGGER, **known.fields}
    if kind == "too_many":
        del allowed["after"]  # There is no connection yet.
    for name in fields:
        if name not in allowed:
            fix = f"{kind} takes {', '.join(allowed)}; {_nearest(name, allowed)}"
            raise ArgumentsError(f"{place} ({kind}) has an unknown field", name, fix)
    values = allowed | fields
    frames, seconds = _after(values.get("after", 0), f"{place} ({kind})")
    return Fault(
        kind=str(kind),
        frames_after=frames,
        seconds_after=seconds,
        connection=_whole(values, "connection", f"{place} ({kind})"),
        times=_whole(values, "times", f"{place} ({kind})"),
        options={name: _option(name, values[name], f"{place} ({kind})") for name in known.fields},
    )


def _after(value: object, place: str) -> tuple[int | None, float | None]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, None
    match = _SECONDS.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ArgumentsError(
            f"{place}: after is wrong", value, "write a number of frames such as 30, or a time such as 5s"
        )
    return None, float(match[1])


def _whole(values: Mapping[str, object], name: str, place: str, least: int = 1) -> int:
    value = values[name]
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise ArgumentsError(f"{place}: {name} is wrong", value, f"expected a whole number of {least} or more")


def _option(name: str, value: object, place: str) -> object:
    if name in ("reason", "product"):
        if value is None or isinstance(value, str):
            return value
        raise ArgumentsError(f"{place}: {name} is wrong", value, "expected a text")
    if name == "seconds":
        if value is None or (isinstance(value, int | float) and value > 0):
            return value
        raise ArgumentsError(f"{place}: seconds is wrong", value, "expected a number above 0")
    number = _whole({name: value}, name, place)
    if name == "code" and not (1000 <= number <= 1003 or 1007 <= number <= 1014 or 3000 <= number <= 4999):
        raise ArgumentsError(f"{place}: code is wrong", value, "expected a close code such as 1001 or 4000")
    return number


def _value(text: str) -> object:
    text = text.strip()
    if re.fullmatch("[0-9]+", text):
        return int(text)
    return float(text) if re.fullmatch(r"[0-9]*\.[0-9]+", text) else text


def _nearest(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
