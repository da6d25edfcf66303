"""``python -m edge.toolchain build [TARGET]`` and ``python -m edge.toolchain lint``."""

from __future__ import annotations

import argparse
import sys

from boards.errors import KitError
from edge.cache import cache_folder
from edge.toolchain import build_engine
from edge.toolchain.lint import lint


def main(arguments: list[str]) -> int:
    """Runs one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m edge.toolchain", description="Build or lint the C++ engine.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the engine, or take it from the cache")
    build.add_argument("target", nargs="?", default="host", help="host (default), aarch64 or x86_64")
    commands.add_parser("lint", help="check every C++ file with clang, warnings as errors")
    options = parser.parse_args(arguments)
    try:
        if options.command == "lint":
            print(f"{lint(cache_folder())} files checked")
        else:
            print(build_engine(options.target, progress=_show).folder)
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _show(done: int, total: int, what: str) -> None:
    print(f"[{done}/{total}] {what}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
