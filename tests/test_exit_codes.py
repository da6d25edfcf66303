"""One list of exit codes: the enumeration, every error's, and the README's."""

from __future__ import annotations

import re
from pathlib import Path

import calib.errors
import edge.errors
import firmware_bridge.commands.errors
import firmware_bridge.queue.errors
from boards.errors import ExitCode, KitError

README = (Path(__file__).parents[1] / "README.md").read_text()


def kinds(root: type[KitError]) -> set[type[KitError]]:
    return {root}.union(*(kinds(each) for each in root.__subclasses__()))


def test_every_error_ends_with_a_code_of_the_list() -> None:
    found = kinds(KitError)
    assert {edge.errors.BundleError, calib.errors.PlanError, firmware_bridge.commands.errors.CommandError} <= found
    assert all(isinstance(kind.exit_code, ExitCode) for kind in found)
    assert {kind.exit_code for kind in found} == set(ExitCode) - {ExitCode.DONE, ExitCode.INTERRUPTED}


def test_the_readme_lists_them() -> None:
    section = README.partition("## Exit codes")[2].partition("\n## ")[0]
    assert {int(number) for number in re.findall(r"(?:^|, )(\d+) ", section.replace("\n", " ").strip())} == set(
        ExitCode
    )
