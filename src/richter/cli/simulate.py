"""`richter simulate`: an exchange on loopback, to try a feed on."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from richter.cli.command import App, setting, subcommand

if TYPE_CHECKING:
    from richter.runtime.simulating import Recording
    from richter.simulate.faults import Fault
    from richter.simulate.server import SimulatedExchange
    from richter.simulate.tickers import Source

# What is heavy is imported by the functions: `--help` does without.

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")


def _span(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A length of time, in seconds."""
    if value is None:
        return None
    match = _SPAN.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is no length of time; write 8h, 90m or 30s")
    return float(match[1]) * _UNITS[match[2]]


def _speed(_: click.Context, __: click.Parameter, value: str | None) -> float | str | None:
    """How fast: a number, or max."""
    if value is None or value == "max":
        return value
    try:
        speed = float(value)
    except ValueError:
        speed = 0.0
    if not 0 < speed < math.inf:
        raise click.BadParameter(f"{value!r} is no speed; write a number above 0 such as 10, or max")
    return speed


@subcommand(
    "simulate",
    examples=(
        "richter simulate --product BTC-USD --product ETH-USD --seed 7",
        "richter simulate --history 8h --preset predictable",
        "richter simulate --replay 'data/raw/*.ndjson' --speed 10",
        "richter simulate --replay data/raw --speed max --end close",
        "richter simulate --fault drop@30 --fault 'close@5s,code=1013,connection=2' --fault too_many,connection=3",
    ),
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8765,
    show_default=True,
    metavar="N",
    help="Listen here, on 127.0.0.1 only; 0 takes a free one.",
)
@setting(
    "--product", "products", multiple=True, metavar="PRODUCT", help="Serve this; may be given several times."
)
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Another seed, another market.  [default: 7]"
)
@click.option(
    "--preset",
    metavar="NAME",
    help="The market's law: calm, realistic, predictable or flat.  [default: realistic]",
)
@click.option(
    "--history",
    callback=_span,
    metavar="SPAN",
    help="The market begins so long ago (8h, 90m, 30s): that is served as fast as it is read, then real time.",
)
@click.option(
    "--replay",
    multiple=True,
    metavar="GLOB",
    help="Serve recordings (a file, a folder, a quoted glob; several in order) in place of a market.",
)
@click.option(
    "--speed",
    callback=_speed,
    metavar="N|max",
    help="Replay N times as fast, or as fast as it is read.  [default: 1]",
)
@click.option(
    "--end",
    type=click.Choice(("stay", "close")),
    help="At a recording's end: stay with heartbeats only, or close with code 1000.  [default: stay]",
)
@click.option(
    "--faults",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What goes wrong and when: a YAML list, such as `- {kind: drop, after: 30}`.",
)
@click.option(
    "--fault",
    multiple=True,
    metavar="KIND[@WHEN][,FIELD=VALUE…]",
    help="One fault in short, WHEN being a frame (30) or seconds (5s) of a connection; may be given several times. "
    "Kinds: drop, stall, half_open, close, mute, refuse, too_many, ack_without, reorder, duplicate, sequence_gap, "
    "garbage, truncated, huge, clock, ahead. Fields: connection=N (the first it strikes), times=N, and of some kinds "
    "seconds (stall, mute, refuse, clock, ahead), code and reason (close), retry_after (too_many), product "
    "(ack_without), frames (sequence_gap), bytes (huge).",
)
@click.option("--no-limits", is_flag=True, help="No limit on connections and messages a second.")
def command(
    app: App,
    port: int,
    seed: int | None,
    preset: str | None,
    history: float | None,
    replay: tuple[str, ...],
    speed: float | str | None,
    end: str | None,
    faults: Path | None,
    fault: tuple[str, ...],
    no_limits: bool,
) -> None:
    """Serve a simulated market or a recording as Coinbase would, with faults on request."""
    market_only = {"--seed": seed, "--preset": preset, "--history": history}
    replay_only = {"--speed": speed, "--end": end}
    _refuse_mixture(replay_only if not replay else market_only, bool(replay))
    planned = _faults(faults, fault)

    from richter.runtime.simulating import open_recording, run_exchange
    from richter.simulate.server import Limits, SimulatedExchange
    from richter.simulate.sources import MarketSource

    recording: Recording | None = None
    if replay:
        named = app.resolved.sources["products"].startswith("flag")
        recording = open_recording(
            replay,
            app.settings,
            speed=None if speed == "max" else float(speed or 1),
            products=app.settings.products if named else None,
        )
    source: Source = (
        recording.source
        if recording
        else MarketSource(
            app.settings.products,
            seed=7 if seed is None else seed,
            preset=preset or "realistic",
            history_s=history or 0,
        )
    )
    exchange = SimulatedExchange(
        source,
        port=port,
        faults=planned,
        limits=Limits(None, None) if no_limits else Limits(),
        close_at_end=end == "close",
    )
    served = run_exchange(exchange, lambda listening: _announce(app, listening, recording, planned, history))
    told = (
        f"served {_many(served.frames, 'frame')} on {_many(served.connections, 'connection')}"
        f"{f', refused {served.refused} (429)' if served.refused else ''}"
        f"{f', faults: {_counts(served.faults)}' if served.faults else ''}"
    )
    if app.as_json:
        import structlog

        structlog.get_logger("richter.simulate").info(
            "stopped",
            connections=served.connections,
            refused=served.refused,
            frames=served.frames,
            ticks=served.ticks,
            faults=served.faults,
        )
    else:
        click.echo(f"Stopped: {told}.")


def _announce(
    app: App,
    exchange: SimulatedExchange,
    recording: Recording | None,
    faults: list[Fault],
    history: float | None,
) -> None:
    def human() -> None:
        from richter.domain.times import format_time

        click.echo(f"SIMULATED exchange ({exchange.source.description}): nothing here is quoted or paid.\n")
        click.echo(f"Advanced Trade  {exchange.url}")
        click.echo(f"Exchange feed   {exchange.exchange_url}")
        products = exchange.source.products
        more = f" and {len(products) - 8} more" if len(products) > 8 else ""
        click.echo(f"Products        {', '.join(products[:8])}{more}")
        if recording:
            first, last = (format_time(ns)[:19].replace("T", " ") for ns in (recording.first, recording.last))
            click.echo(f"Recording       {_many(recording.ticks, 'tick')}, {first} to {last} UTC")
        elif history:
            click.echo(f"History         {_shown(history)}, served as fast as it is read, then real time")
        if faults:
            click.echo(f"Faults          {', '.join(fault.kind for fault in faults)}")
        click.echo(f"\nConnect with    richter run --url {exchange.url}")
        click.echo(f"or with         COINBASE_WS_URL={exchange.url}\nStop with       Ctrl-C")

    app.emit(
        {
            "simulated": True,
            "url": exchange.url,
            "exchange_url": exchange.exchange_url,
            "port": exchange.port,
            "source": exchange.source.description,
            "products": exchange.source.products,
            "ticks": recording.ticks if recording else None,
            "faults": [fault.kind for fault in faults],
        },
        human,
    )


def _refuse_mixture(given: dict[str, Any], replays: bool) -> None:
    from richter.errors import ArgumentsError

    for flag, value in given.items():
        if value is not None:
            what = "a recording has its own market" if replays else "only recordings have a speed and an end"
            fix = "leave it out" if replays else "give --replay GLOB too, or leave it out"
            raise ArgumentsError(
                f"{flag} does not go with {'--replay' if replays else 'a market'}: {what}", fix=fix
            )


def _faults(file: Path | None, short: tuple[str, ...]) -> list[Fault]:
    from richter.errors import InputFileError
    from richter.simulate.faults import parse_fault, parse_faults

    faults = []
    if file is not None:
        import yaml

        try:
            faults = parse_faults(yaml.safe_load(file.read_bytes()), str(file))
        except OSError as error:
            raise InputFileError(
                "the file of faults cannot be read", str(file), error.strerror or ""
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            fix = f"see line {mark.line + 1}" if mark else ""
            raise InputFileError("the file of faults is not YAML", str(file), fix) from error
    return faults + [parse_fault(each) for each in short]


def _shown(seconds: float) -> str:
    unit, size = next(
        (unit, size) for unit, size in (("h", 3600), ("min", 60), ("s", 1)) if seconds >= size or size == 1
    )
    return f"{seconds / size:g} {unit}"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {number}" for kind, number in counts.items())
