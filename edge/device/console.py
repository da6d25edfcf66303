"""The device's log as an operator reads it at three in the morning: one line an event, UTC, the part that speaks."""

from __future__ import annotations

import logging
import sys
import time


class _Line(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-8s %(part)-14s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line; a traceback, which only a fault of ours has, follows on its own."""
        record.part = record.name.rpartition(".")[2]
        record.msg = " ".join(record.getMessage().split())
        record.args = None
        return super().format(record)


def set_up(level: str) -> None:
    """Write the log to stderr from ``level`` ("debug", "info", "warning", "error") on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
