"""`python docs/picture.py`: draw docs/demo.svg from the demo's feature log and alert log."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from richter import features
from richter.models.alert_log import decode_alert

WIDTH, TOP, BOTTOM = 900, 130, 150
LEFT = 10


def line(values: np.ndarray, x: np.ndarray, low: float, high: float, y: float, height: float) -> str:
    """An SVG path through the known values."""
    path, pen = [], "M"
    for at, value in zip(x, values, strict=True):
        if np.isnan(value):
            pen = "M"
            continue
        path.append(f"{pen}{at:.1f} {y + height * (1 - (value - low) / (high - low)):.1f}")
        pen = "L"
    return "".join(path)


def main() -> int:
    """Draw the picture."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data/demo")
    log = features.read(folder / "processed" / "features.parquet")
    last = np.flatnonzero(np.diff(log["ts_event"].to_numpy() // 10**10, append=0))
    ts, mid = log["ts_event"].to_numpy()[last], log["mid"].to_numpy()[last]
    sigma, tau = log["realized_volatility_60s"].to_numpy()[last], log["tau_rolling"].to_numpy()[last]
    x = LEFT + (WIDTH - 2 * LEFT) * (ts - ts[0]) / (ts[-1] - ts[0])
    top = float(np.nanmax(sigma)) * 1.05
    alerts = [decode_alert(text) for text in (folder / "alerts" / "alerts.ndjson").read_bytes().splitlines()]
    onsets = [
        LEFT + (WIDTH - 2 * LEFT) * (a.ts_event - ts[0]) / (ts[-1] - ts[0])
        for a in alerts
        if a.kind == "onset"
    ]
    y = TOP + 40
    marks = "".join(
        f'<path d="M{at:.1f} {y}v{BOTTOM}" stroke="#d9480f" stroke-opacity=".45"/>' for at in onsets
    )
    svg = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + BOTTOM + 24}" font-family="sans-serif"
 font-size="12" role="img" aria-label="Mid, 60 s volatility, tau and alert onsets of the simulated demo">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{LEFT}" y="16" fill="#333">SIMULATED BTC-USD, mid {np.nanmin(mid):,.0f} to {np.nanmax(mid):,.0f}</text>
<path d="{line(mid, x, np.nanmin(mid), np.nanmax(mid), 24, TOP - 24)}" fill="none" stroke="#1c7ed6"/>
<text x="{LEFT}" y="{y - 8}" fill="#333">60 s volatility (black), its threshold tau (green), alerts (orange)</text>
{marks}<path d="{line(sigma, x, 0, top, y, BOTTOM)}" fill="none" stroke="#212529" stroke-width=".9"/>
<path d="{line(tau, x, 0, top, y, BOTTOM)}" fill="none" stroke="#2b8a3e" stroke-width="1.6"/>
<text x="{LEFT}" y="{y + BOTTOM + 16}" fill="#666">{(ts[-1] - ts[0]) / 3.6e12:.1f} hours, one point each 10 s</text>
</svg>
"""
    (Path(__file__).parent / "demo.svg").write_text(svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
