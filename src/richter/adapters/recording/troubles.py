"""What keeps the recording from being as it should be, while it lasts."""

from __future__ import annotations

from collections.abc import Callable

from richter.adapters.recording.events import EventKind, RecordingEvent

__all__ = ["Troubles"]


class Troubles:
    """The present troubles, by name; each is told when it comes and when it has gone.

    Args:
        on_event: told of both.
    """

    def __init__(self, on_event: Callable[[RecordingEvent], None]) -> None:
        self._on_event = on_event
        self._reasons: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def __contains__(self, name: str) -> bool:
        return name in self._reasons

    @property
    def reason(self) -> str:
        """All of them in words; empty when there is none."""
        return "; ".join(self._reasons.values())

    def add(self, name: str, reason: str, product_id: str | None = None) -> None:
        """Note a trouble, or the latest reason of one that lasts."""
        is_new = name not in self._reasons
        self._reasons[name] = reason
        if is_new:  # Not at every try: a disk that stays full for an hour makes one message.
            self._on_event(RecordingEvent(EventKind.DEGRADED, reason, product_id))

    def clear(self, name: str, detail: str = "", product_id: str | None = None) -> None:
        """Note that a trouble has gone, if it was there; without a detail its reason is told once more."""
        reason = self._reasons.pop(name, None)
        if reason is not None:
            self._on_event(RecordingEvent(EventKind.RESUMED, detail or f"no longer: {reason}", product_id))
