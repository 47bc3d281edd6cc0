"""Log lines: for people on a terminal, JSON elsewhere, always on standard error."""

import atexit
import logging
import queue
import sys
import threading
from contextlib import suppress
from typing import Final, Literal, TextIO

_WAITING: Final = 10_000
_PATIENCE_S: Final = 2.0


def configure(form: Literal["auto", "human", "json"], level: str) -> None:
    """Send structlog's and the standard library's log records to standard error in one form.

    Args:
        form: `auto` is human when standard error is a terminal.
        level: The least severe level that is shown, as in the settings.
    """
    import structlog  # Loads rich: 0.2 s, which `--help` does not need.

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    human = form == "human" or (form == "auto" and sys.stderr.isatty())
    rendering: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def write_on_a_thread() -> None:
    """Let a thread of its own write the log from here on: a reader that stands still must not hold up who logs.

    Lines that find no room are dropped. At the end of the process what waits is written, for two seconds at most.
    """
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, [_Queue()]
    waiting: queue.Queue[logging.LogRecord | None] = root.handlers[0].waiting  # type: ignore[attr-defined]

    def work() -> None:
        while (record := waiting.get()) is not None:
            for handler in handlers:
                handler.handle(record)

    def end() -> None:
        try:
            waiting.put_nowait(None)
        except queue.Full:
            return
        thread.join(_PATIENCE_S)

    thread = threading.Thread(target=work, name="log", daemon=True)
    thread.start()
    atexit.register(end)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the moment: a live view puts itself in between."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Queue(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(_WAITING)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.waiting.put_nowait(record)
