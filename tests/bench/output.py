"""What every subcommand shows: a table for people on stderr, one JSON document on stdout."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def quiet() -> None:
    """Silences what PyTorch and its companions log about optional parts of themselves."""
    warnings.simplefilter("ignore")
    for name in ("torchao", "torch.utils._pytree", "diffusers", "torch.export", "executorch"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def say(text: str) -> None:
    """One line of progress."""
    Console(stderr=True, highlight=False).print(text, soft_wrap=True, markup=False)


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stderr; the first column is text, the others are numbers."""
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    for row in rows:
        table.add_row(*row)
    width = None if sys.stderr.isatty() else 160
    Console(stderr=True, highlight=False, width=width).print(table, markup=False)


def emit(document: object, *, as_json: bool) -> None:
    """Write ``document`` to stdout when asked for; dataclasses become objects."""
    if as_json:
        sys.stdout.write(json.dumps(document, default=_plain, indent=1) + "\n")


def giga(count: float) -> str:
    """A count in units of 10^9."""
    return f"{count / 1e9:.3f} G"


def mega(count: float) -> str:
    """A count in units of 10^6."""
    return f"{count / 1e6:.2f} M"


def mebibytes(count: float) -> str:
    """Bytes in MiB."""
    return f"{count / 2**20:.1f} MiB"


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON has no one type
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
