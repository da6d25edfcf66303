"""Fixtures of the device tests: a toy engine as a real child process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Protocol

import pytest

from edge.device.engine_process import EngineCommand

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
STATE = 1000


class CommandMaker(Protocol):
    """Makes the command of a toy engine."""

    def __call__(
        self, *, slots: int = 2, budget: int = 2 * STATE, memory_limit: int | None = None, **program: object
    ) -> EngineCommand: ...


def toy_program(**changes: object) -> bytes:
    """The program file of a toy engine."""
    return json.dumps({"steps": 5, "shape": [1, 4, 4], "state": STATE, **changes}).encode()


def toy_executable(folder: Path) -> Path:
    """An executable that runs the toy engine."""
    path = folder / "toy-engine"
    path.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({str(FAKE_ENGINE)!r}, run_name='__main__')\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def toy_command(tmp_path: Path) -> CommandMaker:
    """Commands that start a toy engine; keyword arguments go into its program file."""

    def make(
        *, slots: int = 2, budget: int = 2 * STATE, memory_limit: int | None = None, **program: object
    ) -> EngineCommand:
        path = tmp_path / "program.pte"
        path.write_bytes(toy_program(**program))
        executable = toy_executable(tmp_path)
        return EngineCommand(executable, path, "0" * 64, slots, budget, memory_limit=memory_limit)

    return make
