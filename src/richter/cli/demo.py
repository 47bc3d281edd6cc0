"""`richter demo`: the whole, offline."""

from __future__ import annotations

import math
import shlex
import sys
import time
from typing import TYPE_CHECKING

import click

from richter.cli.command import App, setting, subcommand
from richter.cli.replay import CHECKS

if TYPE_CHECKING:
    from richter.models.alert_log import Alert
    from richter.runtime.demo import Demo
    from richter.runtime.running import Shown

_SHOWN = (
    "mid",
    "realized_volatility_60s",
    "price_volatility_5min",
    "ewma_volatility_60s",
    "tau_rolling",
    "bid_ask_spread_bps",
    "trade_intensity",
    "vwap_deviation_60s",
    "book_imbalance",
)


@subcommand(
    "demo",
    examples=(
        "richter demo",
        "richter demo --hours 24 --preset predictable --seed 3 --minutes 5",
        "richter demo --raw 'data/raw/*.ndjson'",
    ),
)
@click.option("--seed", default=7, show_default=True, help="Another seed, another market.")
@click.option(
    "--hours",
    type=click.FloatRange(0.01, 72),
    default=8.0,
    show_default=True,
    help="History that the market begins with.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=0.25,
    show_default=True,
    help="Real time after it; Ctrl+C ends it sooner.",
)
@click.option(
    "--preset", default="realistic", show_default=True, help="calm, realistic, predictable or flat."
)
@click.option("--raw", multiple=True, metavar="GLOB", help="Your recordings instead of a simulated market.")
@setting("--stale-after", "stale_after_s", metavar="SECONDS")
def command(app: App, seed: int, hours: float, minutes: float, preset: str, raw: tuple[str, ...]) -> None:
    """Watch a simulated market live, offline, and prove that its recording replays to the same bits."""
    from richter.cli.view import LiveView
    from richter.runtime.demo import run_demo
    from richter.runtime.running import Progress

    on_terminal = sys.stderr.isatty() and not app.as_json
    told: set[tuple[str, str]] = set()

    def waiting(shown: Shown) -> None:
        """Say once what is not known yet; the view on a terminal shows it all the time."""
        for name, product in [] if on_terminal else list(shown.watch.products.items()):
            for what, until in product.waits():
                if (name, what) not in told:
                    told.add((name, what))
                    click.echo(f"… {name}: {what} from {_clock(until, 8)} on", err=True)

    with LiveView(on_terminal, app.settings) as view:

        def show(shown: Shown) -> None:
            view.show(shown)
            waiting(shown)

        demo = run_demo(
            app.settings,
            seed=seed,
            hours=hours,
            preset=preset,
            minutes=minutes,
            raw=list(raw),
            say=lambda line: click.echo(f"… {line}", err=True),
            progress=Progress(
                on_caught_up=lambda done: view.start(),
                on_show=show,
                on_alert=lambda alert: None if on_terminal else _tell(alert),
                on_end=view.stop,
            ),
        )

    def human() -> None:
        _show(demo, "recorded" if raw else f"{hours:g} h of history, preset {preset}, seed {seed}")

    app.emit({"demo": demo}, human)
    if demo.replayed.comparison is None or not demo.replayed.comparison.same:
        raise SystemExit(1)


def _show(demo: Demo, market: str) -> None:
    from richter.cli.feed_options import show_ran
    from richter.cli.plot import plot
    from richter.cli.report import show_account, show_alerts, show_comparison
    from richter.cli.text import table
    from richter.domain.times import format_time

    if demo.simulated:
        click.echo(f"SIMULATED market ({market}): nothing here was ever quoted or paid.\n")
    if demo.ran is not None:
        show_ran(demo.ran)
    show_account(demo.replayed)
    rows, length = demo.replayed.account.rows, demo.last - demo.first
    pace = f", {rows * 60e9 / length:,.0f} a minute" if length else ""
    click.echo(
        f"  {rows / demo.seconds:,.0f} ticks/s from file to feature log, {len(demo.latest) - 1} features each"
    )
    click.echo(f"  {format_time(demo.first)[:19]} to {format_time(demo.last)[:19]} UTC{pace}\n")
    drawn = plot(demo.sigma, demo.tau)
    if drawn:
        peak = max(value for value in demo.sigma + demo.tau if not math.isnan(value))
        click.echo(f"{demo.product}: 60 s volatility (bars, peak {peak:.2g}) and its threshold tau (dots)")
        for line in drawn:
            click.echo(f"  |{line}|")
        click.echo(f"   {_clock(demo.first)}{_clock(demo.last):>{len(drawn[0]) - 5}}\n")
    values = [(name, _value(demo.latest[name])) for name in _SHOWN]
    click.echo(table((f"{demo.product} at the last tick", "value"), values))
    show_alerts(demo.alerts)
    click.echo()
    if demo.replayed.comparison is not None:
        show_comparison(demo.replayed.comparison, CHECKS)
    recording = shlex.join(demo.recordings)
    raw = " ".join(f"--raw {shlex.quote(each)}" for each in demo.recordings)
    live, again = demo.live, demo.replayed.out
    click.echo(f"\nRecording {recording}\nFeatures  {live}\nAlerts    {demo.alerts.path}\n\nNext:")
    for command_line in (
        f"richter inspect {recording}",
        f"richter replay {raw} --out {shlex.quote(str(again))} --compare {shlex.quote(str(live))} --workers 2",
        "richter demo --preset predictable --seed 3",
    ):
        click.echo(f"  {command_line}")


def _tell(alert: Alert) -> None:
    """An alert of this moment; those of the history are in the summary."""
    if time.time_ns() - alert.ts_event < 60 * 10**9:
        click.echo(
            f"… {_clock(alert.ts_event, 8)} {alert.product_id} {alert.kind}, {alert.score:.2f} of its threshold",
            err=True,
        )


def _clock(ns: int, length: int = 5) -> str:
    from richter.domain.times import format_time

    return format_time(ns)[11 : 11 + length]


def _value(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.6g}"
