"""The live view of a run on a terminal; log lines where there is none."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

from richter.cli.plot import plot
from richter.domain.times import format_time

if TYPE_CHECKING:
    from richter.config import Settings
    from richter.models.alert_log import Alert
    from richter.runtime.running import Shown
    from richter.runtime.watching import ProductWatch

__all__ = ["LiveView"]

PATIENCE_S = 2.0
"""With a terminal that takes nothing, at the end."""


class LiveView:
    """Shows a run's state; does nothing unless it is shown.

    Args:
        shown: whether there is a terminal to show it on.
        settings: products and folders.
    """

    def __init__(self, shown: bool, settings: Settings) -> None:
        self._shown = shown
        self._settings = settings
        self._live: Any = None
        self._latest: Shown | None = None
        self._changed = threading.Event()
        self._over = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the last state on the terminal."""
        if self._thread is not None:
            self._over = True
            self._changed.set()
            self._thread.join(PATIENCE_S)
            self._thread = None

    def start(self) -> None:
        """Begin."""
        if not self._shown:
            return
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False, redirect_stderr=True)
        self._live.start()
        # A terminal that stands still must not hold up anything else.
        self._thread = threading.Thread(target=self._draw, name="view", daemon=True)
        self._thread.start()

    def show(self, shown: Shown) -> None:
        """Let the state be drawn; returns at once."""
        self._latest = shown
        self._changed.set()

    def _draw(self) -> None:
        while not self._over:
            self._changed.wait()
            self._changed.clear()
            if self._latest is not None:
                self._live.update(render(self._latest, self._settings), refresh=True)
        self._live.stop()

    def alert(self, alert: Alert) -> None:
        """Tell of an alert in the log."""
        import structlog

        structlog.get_logger("richter.alerts").warning(
            "alert",
            kind=str(alert.kind),
            product=alert.product_id,
            score=round(alert.score, 3),
            sigma=alert.sigma,
            tau=alert.tau,
            time=format_time(alert.ts_event),
        )


def render(shown: Shown, settings: Settings) -> Any:
    """The state as something rich can print."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    feed = shown.feed
    simulated = feed.conn_id.startswith("sim-")
    head = Text.assemble(
        ("SIMULATED  ", "bold magenta") if simulated else "",
        (feed.state.value, "bold green" if feed.state.value in ("live", "quiet") else "bold yellow"),
        f"  {settings.feed_url}   recorded {feed.recorded:,} ticks, {feed.recorded_bytes / 1e6:,.1f} MB",
        f"   recorder {feed.recorder}" if feed.recorder != "recording" else "",
        f"   {feed.lost_frames:,} frames lost" if feed.lost_frames else "",
        (f"   features paused: {feed.features}", "bold red") if feed.features else "",
    )
    table = Table(expand=True, box=None, pad_edge=False)
    for name in ("product", "mid", "spread bps", "ticks/min", "σ 60 s", "τ", "σ/τ", "gaps", "state"):
        table.add_column(name, justify="left" if name in ("product", "state") else "right")
    products = sorted(list(shown.watch.products.items()))  # noqa: C414 # Copied at once: the worker adds to it.
    for name, product in products:
        table.add_row(name, *_cells(product), _state(product))
    parts: list[Any] = [head, table]
    for name, product in products[:2]:
        points = list(product.points)  # Copied at once: the worker adds to it.
        drawn = plot([p[1] for p in points], [p[2] for p in points], width=70, height=4)
        if drawn:
            parts.append(Text(f"{name}: 60 s volatility (bars) and τ (dots), last {len(points)} s"))
            parts += [Text(f"|{line}|") for line in drawn]
    alerts = sorted(
        (alert for _, product in products for alert in list(product.alerts)),
        key=lambda a: a.ts_event,
    )[-6:]
    parts.append(Text(f"alerts: {shown.watch.alerts}", style="bold"))
    for alert in alerts:
        style = "bold red" if alert.kind == "onset" else "green"
        parts.append(
            Text(
                f"  {format_time(alert.ts_event)[11:19]} {alert.product_id} {alert.kind} σ/τ {alert.score:.2f}",
                style,
            )
        )
    parts += [Text(f"  {message}", style="dim") for message in list(feed.messages)[-4:]]
    return Panel(Group(*parts), title="richter", subtitle="Ctrl+C ends in order")


def _cells(product: ProductWatch) -> list[str]:
    ratio = product.sigma / product.tau if product.tau > 0 else math.nan
    return [
        _number(product.mid, ",.8g"),
        _number(product.spread_bps, ".2f"),
        _number(product.rate, ",.0f"),
        _number(product.sigma, ".2e"),
        _number(product.tau, ".2e"),
        _number(ratio, ".2f"),
        f"{product.gaps:,}",
    ]


def _state(product: ProductWatch) -> str:
    if product.alerting:
        return "ALERT"
    waits = product.waits()
    if waits:
        return ", ".join(f"{what} from {format_time(until)[11:19]}" for what, until in waits)
    return product.reasons or "watching"


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
