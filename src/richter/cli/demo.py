"""`richter demo`: the whole offline, in under a minute."""

from __future__ import annotations

import click

from richter.cli.command import App, setting, subcommand
from richter.cli.replay import CHECKS

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
        "richter demo --hours 8 --preset predictable --seed 3",
        "richter demo --raw 'data/raw/*.ndjson'",
    ),
)
@click.option("--seed", default=7, show_default=True, help="Another seed, another market.")
@click.option(
    "--hours", type=click.FloatRange(0.01, 72), default=3.0, show_default=True, help="Length of the market."
)
@click.option(
    "--preset", default="realistic", show_default=True, help="calm, realistic, predictable or flat."
)
@click.option("--raw", multiple=True, metavar="GLOB", help="Your recordings instead of a simulated market.")
@setting("--stale-after", "stale_after_s", metavar="SECONDS")
def command(app: App, seed: int, hours: float, preset: str, raw: tuple[str, ...]) -> None:
    """Turn a recording made on the spot into features and alerts, and prove that it replays."""
    from richter.runtime.demo import Demo, run_demo

    demo = run_demo(
        app.settings,
        seed=seed,
        hours=hours,
        preset=preset,
        raw=list(raw),
        say=lambda line: click.echo(f"… {line}", err=True),
    )

    def human() -> None:
        _show(demo)

    def _show(demo: Demo) -> None:
        from richter.cli.plot import plot
        from richter.cli.report import show_account, show_alerts, show_comparison
        from richter.cli.text import table

        if demo.simulated:
            click.echo("SIMULATED market: no price here was ever paid.\n")
        show_account(demo.replayed)
        rate = demo.replayed.account.rows / demo.seconds
        click.echo(f"  {rate:,.0f} ticks/s from file to feature log, {len(demo.latest) - 1} features each\n")
        click.echo("60 s volatility (bars) and its threshold tau (dots):")
        for line in plot(demo.sigma, demo.tau):
            click.echo(f"  |{line}|")
        click.echo()
        click.echo(
            table(("at the last tick", "value"), [(name, f"{demo.latest[name]:.6g}") for name in _SHOWN])
        )
        show_alerts(demo.alerts)
        click.echo()
        if demo.replayed.comparison is not None:
            show_comparison(demo.replayed.comparison, CHECKS)
        click.echo(
            f"\nFeatures: {demo.replayed.out.parent / 'features.parquet'}   alerts: {demo.alerts.path}\n"
            f"Next: richter replay --raw {demo.recordings[0]} --out f.parquet --workers 2 --alerts"
        )

    app.emit({"demo": demo}, human)
    if demo.replayed.comparison is None or not demo.replayed.comparison.same:
        raise SystemExit(1)
