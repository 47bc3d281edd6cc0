"""Watches crypto markets and predicts spikes of their volatility a minute ahead."""

__version__ = "0.1.0"
