"""Typed settings and where each value came from."""

from richter.config.resolve import Resolved, description, expectation, is_secret, resolve
from richter.config.settings import DEFAULT_PRICE_DECIMALS, Settings
from richter.config.sources import VARIABLES, Given, from_text

__all__ = [
    "DEFAULT_PRICE_DECIMALS",
    "VARIABLES",
    "Given",
    "Resolved",
    "Settings",
    "description",
    "expectation",
    "from_text",
    "is_secret",
    "resolve",
]
