"""The live view of a run on a terminal; log lines where there is none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from richter.cli.plot import plot
from richter.domain.times import format_time

if TYPE_CHECKING:
    from richter.config import Settings
    from richter.models.alert_log import Alert
    from richter.runtime.running import Shown
    from richter.runtime.watching import ProductWatch

__all__ = ["LiveView"]


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

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the last state on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def start(self) -> None:
        """Begin."""
        if not self._shown:
            return
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False, redirect_stderr=True)
        self._live.start()

    def show(self, shown: Shown) -> None:
        """Draw the state."""
        if self._live is not None:
            self._live.update(render(shown, self._settings), refresh=True)

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
    )
    table = Table(expand=True, box=None, pad_edge=False)
    for name in ("product", "mid", "spread bps", "ticks/min", "σ 60 s", "τ", "σ/τ", "gaps", "state"):
        table.add_column(name, justify="left" if name in ("product", "state") else "right")
    for name, product in sorted(shown.watch.products.items()):
        table.add_row(name, *_cells(product), _state(product))
    parts: list[Any] = [head, table]
    for name, product in sorted(shown.watch.products.items())[:2]:
        drawn = plot([p[1] for p in product.points], [p[2] for p in product.points], width=70, height=4)
        if drawn:
            parts.append(Text(f"{name}: 60 s volatility (bars) and τ (dots), last {len(product.points)} s"))
            parts += [Text(f"|{line}|") for line in drawn]
    alerts = sorted(
        (alert for product in shown.watch.products.values() for alert in product.alerts),
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
