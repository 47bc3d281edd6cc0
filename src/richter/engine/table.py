"""FEATURES: the one ordered table of what the engine computes.

It drives the kernel's output order, the columns of feature logs, `schema_id`, the docs page and the validation of
prediction requests. The rules that formulas share (grid, windows, unknown seconds) stand in ``docs/engine.md``.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

__all__ = [
    "EWMA_BOXES_S",
    "EWMA_WEIGHTS",
    "FEATURES",
    "FEATURE_NAMES",
    "LOOK_BACK_S",
    "Feature",
    "required",
    "table_fingerprint",
]

LOOK_BACK_S: Final = 3_600 + 60 + 60 + 10
"""No value depends on a tick older than this: the longest span and tau, the sigma in it, the stalest mid, a margin."""

EWMA_BOXES_S: Final = (2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)

EWMA_WEIGHTS: Final[dict[int, tuple[int, ...]]] = {
    5: (702, 1798, 3125, 2812, 1252, 305, 6, 0, 0, 0, 0, 0),
    15: (96, 330, 944, 1725, 2530, 3164, 1146, 65, 0, 0, 0, 0),
    60: (6, 25, 88, 212, 527, 1642, 3542, 3342, 587, 28, 1, 0),
    240: (0, 2, 6, 16, 45, 184, 765, 2341, 2824, 2386, 1321, 110),
    900: (0, 0, 0, 1, 3, 15, 76, 330, 676, 1399, 3125, 4375),
}
"""Half-life in s -> weight of each box in 1/10,000, fitted once (non-negative least squares, sum fixed) to
``(1 - q) q**k``, ``q = 2**(-1/half_life)``, k = 0..3599."""


class Feature(msgspec.Struct, frozen=True):
    """One column of the feature log.

    Attributes:
        name: column name; the course's where it has one.
        unit: of the value.
        span_s: seconds of the past it looks at; 0 for the tick alone.
        formula: what is computed; m is the mid, r the one-second log return, t the tick's time.
        known_when: else NaN.
        source: where the idea or the name comes from.
    """

    name: str
    unit: str
    span_s: int
    formula: str
    known_when: str
    source: str


_COURSE = "course"
_GRID_KNOWN = {True: "all {w} returns are known", False: "{k} of {w} returns are known"}
_TICK_KNOWN = {True: "no gap in the window", False: "{k} of {w} seconds have no gap"}


def required(span_s: int) -> int:
    """Known seconds that make a window of ``span_s`` seconds valid."""
    return span_s if span_s <= 60 else min(span_s, 300) * 9 // 10


def _grid_known(span_s: int) -> str:
    return _GRID_KNOWN[span_s <= 60].format(w=span_s, k=required(span_s))


def _tick_known(span_s: int) -> str:
    return _TICK_KNOWN[span_s <= 60].format(w=span_s, k=required(span_s))


def _volatility(name: str, span_s: int, source: str) -> Feature:
    return Feature(
        name, "1/sqrt(s)", span_s, f"std (ddof 1) of the last {span_s} r", _grid_known(span_s), source
    )


def _price_features() -> list[Feature]:
    andersen = "Andersen & Bollerslev 1998, doi:10.2307/2527343"
    half_lives = [
        Feature(
            f"ewma_volatility_{half_life}s",
            "1/sqrt(s)",
            max(box for box, weight in zip(EWMA_BOXES_S, weights, strict=True) if weight),
            f"sqrt of the bounded EWMA of r^2, half-life {half_life} s: "
            + " + ".join(
                f"{weight / 10_000:g} ms({box})"
                for box, weight in zip(EWMA_BOXES_S, weights, strict=True)
                if weight
            ),
            "every box ms(w) = mean of the last w r^2 is valid by its own rule",
            "RiskMetrics 1996, as boxcars",
        )
        for half_life, weights in EWMA_WEIGHTS.items()
    ]
    return [
        Feature(
            "price_return_1min", "fraction", 60, "m(t) / m(t - 60 s) - 1", "both mids are known", _COURSE
        ),
        Feature(
            "price_return_5min", "fraction", 300, "m(t) / m(t - 300 s) - 1", "both mids are known", _COURSE
        ),
        _volatility("price_volatility_5min", 300, _COURSE),
        *(_volatility(f"realized_volatility_{w}s", w, andersen) for w in (10, 30, 60, 900, 1800, 3600)),
        *half_lives,
        *(
            Feature(
                f"max_abs_return_{w}s",
                "log return",
                w,
                f"largest |r| of the last {w}",
                _grid_known(w),
                "richter",
            )
            for w in (10, 60, 300, 900)
        ),
        *(
            Feature(
                f"mid_range_{w}s",
                "log return",
                w,
                f"ln(max m / min m) over the last {w} s, both ends included",
                _grid_known(w),
                "Parkinson 1980, doi:10.1086/296071",
            )
            for w in (10, 60, 300)
        ),
        Feature(
            "bipower_volatility_300s",
            "1/sqrt(s)",
            300,
            "sqrt(pi/2 * mean of |r(s)| |r(s-1)|) over the known pairs",
            _grid_known(300),
            "Barndorff-Nielsen & Shephard 2004, doi:10.1093/jjfinec/nbh001",
        ),
        *(
            Feature(
                f"semivolatility_{side}_300s",
                "1/sqrt(s)",
                300,
                f"sqrt(sum of r^2 over r {sign} 0, divided by the known r)",
                _grid_known(300),
                "Barndorff-Nielsen, Kinnebrock & Shephard 2010",
            )
            for side, sign in (("up", ">"), ("down", "<"))
        ),
        Feature(
            "tau_rolling",
            "1/sqrt(s)",
            3600,
            "ceil(0.9 n)-th smallest of the n known 60 s volatilities that ended in the last 3600 s",
            "n >= 900",
            "course: 90th percentile of historical volatility",
        ),
    ]


def _quote_features() -> list[Feature]:
    quote = "the quote is good"
    sizes = "the quote is good, both sizes known and not both 0"
    return [
        Feature("bid_ask_spread", "quote currency", 0, "best_ask - best_bid", quote, _COURSE),
        Feature("bid_ask_spread_bps", "bps of mid", 0, "10,000 (best_ask - best_bid) / m", quote, _COURSE),
        *(
            Feature(
                f"{column}_mean_{w}s",
                unit,
                w,
                f"mean of {column} over the ticks in (t - {w} s, t]",
                f"{_tick_known(w)}, a good quote in it",
                "richter",
            )
            for column, unit in (("bid_ask_spread", "quote currency"), ("bid_ask_spread_bps", "bps of mid"))
            for w in (30, 60, 300)
        ),
        *(
            Feature(
                f"{column}_change_{w}s",
                unit,
                w,
                f"{column} minus its value as of t - {w} s",
                "both quotes are good, the older one fresh",
                "richter",
            )
            for column, unit in (("bid_ask_spread", "quote currency"), ("bid_ask_spread_bps", "bps of mid"))
            for w in (30, 60, 300)
        ),
        Feature(
            "book_imbalance", "-1..1", 0, "(bid size - ask size) / (bid size + ask size)", sizes, "richter"
        ),
        *(
            Feature(
                f"book_imbalance_mean_{w}s",
                "-1..1",
                w,
                f"mean of book_imbalance over the ticks in (t - {w} s, t]",
                f"{_tick_known(w)}, a known imbalance in it",
                "richter",
            )
            for w in (30, 60, 300)
        ),
    ]


def _activity_features() -> list[Feature]:
    counted = (
        "ticks in (t - {w} s, t], snapshots left out, scaled to {w} known seconds; "
        "Coinbase's ticker is conflated: not trades"
    )
    volume = "sum of last_size, else of the increases of volume_24h, in (t - {w} s, t], scaled to {w} known seconds"
    spans = (30, 60, 300)
    return [
        Feature("trade_intensity", "ticks", 60, counted.format(w=60), _tick_known(60), _COURSE),
        *(
            Feature(f"tick_intensity_{w}s", "ticks", w, counted.format(w=w), _tick_known(w), "richter")
            for w in (30, 300)
        ),
        Feature(
            "seconds_since_price_change",
            "s",
            3600,
            "t minus the time of the last change of price, at most 3600",
            "a change was seen since the last gap or stale spell, or that is 3600 s ago",
            "richter",
        ),
        Feature(
            "volume_24h_pct_change",
            "%",
            300,
            "100 (V(t) / V(t - 300 s) - 1), V the 24 h volume",
            "both volumes are known, the older one fresh and not 0",
            _COURSE,
        ),
        *(
            Feature(
                f"volume_{w}s",
                "base currency",
                w,
                volume.format(w=w),
                _tick_known(w),
                "course: volume-weighted",
            )
            for w in spans
        ),
        *(
            Feature(
                f"vwap_{w}s",
                "quote currency",
                w,
                f"sum of price * volume / sum of volume over the ticks in (t - {w} s, t]",
                f"{_tick_known(w)}, volume in it",
                "course: volume-weighted",
            )
            for w in spans
        ),
        *(
            Feature(
                f"vwap_deviation_{w}s",
                "fraction",
                w,
                f"m(t) / vwap_{w}s - 1",
                f"{_tick_known(w)}, volume in it, the mid known",
                "course: volume-weighted",
            )
            for w in spans
        ),
        Feature(
            "volume_reported_share_300s",
            "0..1",
            300,
            "part of the volume in (t - 300 s, t] that came from last_size; the rest is volume_24h's increases",
            f"{_tick_known(300)}, volume in it",
            "richter",
        ),
    ]


def _level_and_clock_features() -> list[Feature]:
    return [
        Feature("distance_low_24h", "fraction", 0, "m / low_24h - 1", "both are known", "richter"),
        Feature("distance_high_24h", "fraction", 0, "m / high_24h - 1", "both are known", "richter"),
        Feature("minute_of_hour_phase", "0..1", 0, "(t mod 3600 s) / 3600 s", "always", "richter"),
        Feature("hour_of_day_phase", "0..1", 0, "(t mod 86400 s) / 86400 s, UTC", "always", "richter"),
    ]


FEATURES: Final[tuple[Feature, ...]] = (
    *_price_features(),
    *_quote_features(),
    *_activity_features(),
    *_level_and_clock_features(),
)
"""Every feature, in the order of the kernel's output and of the log's columns."""

FEATURE_NAMES: Final[tuple[str, ...]] = tuple(feature.name for feature in FEATURES)


def table_fingerprint() -> str:
    """sha256 of the table's text, hex, 16 digits."""
    return hashlib.sha256(msgspec.json.encode(FEATURES)).hexdigest()[:16]
