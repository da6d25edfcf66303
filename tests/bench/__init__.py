"""Measurements of the engine and its rivals, side by side: ``python -m tests.bench --help``."""
