"""What every command line of the product shares: errors to exit codes, progress for people on stderr."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from boards.errors import ExitCode, KitError

Command = TypeVar("Command", bound=Callable[..., Any])
Report = Callable[[int, int], None]
"""Called with (done, total) as a stage advances."""


def reports_errors(command: Command) -> Command:
    """Wrap a typer command: a KitError is told on stderr and ends with its exit code, Ctrl-C with 130."""

    @functools.wraps(command)
    def wrapped(*args: object, **kwargs: object) -> object:
        try:
            return command(*args, **kwargs)
        except KitError as error:
            tell_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            sys.stderr.write("interrupted; nothing half-done was kept\n")
            raise typer.Exit(ExitCode.INTERRUPTED) from interrupt

    return wrapped  # type: ignore[return-value]


def tell_error(error: KitError) -> None:
    """Print what is wrong, where and how to mend it."""
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]error[/]: {escape(error.what)}", soft_wrap=True)
    if error.where:
        console.print(f"  where: {error.where}", soft_wrap=True, markup=False)
    if error.mend:
        console.print(f"  mend:  {error.mend}", soft_wrap=True, markup=False)


class Stages:
    """Progress bars on stderr, one line a stage; plain lines where stderr is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One line for people."""
        self._console.print(text, soft_wrap=True)

    @contextmanager
    def stage(self, title: str) -> Iterator[Report]:
        """Show one stage with a bar; yields the function that moves it. Its seconds are kept by title."""
        started = time.monotonic()
        columns = (TextColumn("{task.description:<34}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as progress:
            task = progress.add_task(title, total=None)

            def report(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            yield report
        self.seconds[title] = time.monotonic() - started
        self.say(f"[green]done[/]  {title:<34} {self.seconds[title]:7.1f} s")
