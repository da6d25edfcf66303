"""`python -m firmware_bridge`: ports and devices, jobs and their queue, keys, and what is wrong, from a shell."""

from __future__ import annotations

import sys

import typer

from boards.errors import KitError
from firmware_bridge.commands import certificates, console, devices, doctor, jobs, keys, send, watch

EPILOG = """
Examples:

  python -m firmware_bridge devices                              who is plugged in

  python -m firmware_bridge send generate --seed 0 --seed 1      run two jobs, results in out/

  python -m firmware_bridge send inspect parts/*.png --param start=42 --seed 7

  python -m firmware_bridge watch --json                         serve the queue all day

Exit codes: 0 done, 1 doctor found a problem, 2 usage, 8 port, 9 link, 10 device refused, 11 job failed, 12 job input,
13 queue, 130 interrupted.
"""

app = typer.Typer(
    help=__doc__, epilog=EPILOG, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)  # fmt: skip
for command in (devices.ports, devices.devices, devices.hello, send.send, watch.watch, console.console, doctor.doctor):
    app.command()(command)
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(certificates.app, name="certificates")


def main() -> None:
    """Run a command; an error of the kit ends in its message and its exit code."""
    try:
        app(prog_name="python -m firmware_bridge")  # ends by itself: 0, 2 for wrong usage, 130 for Ctrl-C
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
