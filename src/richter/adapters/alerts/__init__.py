"""Alerts on disk."""
