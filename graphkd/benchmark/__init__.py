"""Measurements side by side in one process: ratios, not absolute times."""
