"""`richter run`: the market, live."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from richter.cli.command import App, setting, subcommand
from richter.cli.feed_options import feed_options, refuse_nothing, show_ran
from richter.cli.progress import progress

if TYPE_CHECKING:
    from richter.runtime.catching_up import CaughtUp
    from richter.runtime.feed_run import Ran


@subcommand(
    "run",
    examples=(
        "richter run --pair BTC-USD",
        "richter run --pair BTC-USD --pair ETH-USD --minutes 60",
        "richter run --url ws://127.0.0.1:8765      # an exchange of `richter simulate`",
    ),
)
@feed_options
@setting("--stale-after", "stale_after_s", metavar="SECONDS")
@click.option("--plain", is_flag=True, help="Log lines in the place of the live view on a terminal.")
def command(app: App, minutes: float | None, plain: bool) -> None:
    """Watch the market live: record it, compute features, raise alerts."""
    from richter.cli import logs
    from richter.cli.view import LiveView
    from richter.runtime.running import Progress, run

    logs.write_on_a_thread()
    shown = sys.stderr.isatty() and not plain and not app.as_json
    with (
        progress("reading the recording", shown=not app.as_json) as bar,
        LiveView(shown, app.settings) as view,
    ):

        def caught_up(done: CaughtUp) -> None:
            bar.close()
            if (done.added or done.looked_back) and not app.as_json:
                click.echo(
                    f"going on after {done.looked_back + done.added:,} recorded ticks "
                    f"({done.added:,} of them were not in the feature log yet)",
                    err=True,
                )
            view.start()

        ran = run(
            app.settings,
            minutes=minutes,
            progress=Progress(bar.total, caught_up, view.show, view.alert, view.stop),
        )
    app.emit({"ran": ran}, lambda: _show(ran, app.settings.data_dir))
    refuse_nothing(ran, minutes)


def _show(ran: Ran, data: Path) -> None:
    features, alerts = data / "processed" / "features.parquet", data / "alerts" / "alerts.ndjson"
    show_ran(ran)
    click.echo(f"  {ran.rows:>9,}  feature rows in {features}")
    click.echo(f"  {ran.alerts:>9,}  alerts in {alerts}")
    if ran.recorded:
        click.echo(
            f"The proof: richter replay --raw '{ran.raw}/*.ndjson' --out again.parquet --compare {features}"
        )
