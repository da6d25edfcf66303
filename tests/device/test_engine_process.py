"""The engine's client against a real child process: answers, refusals, and every way an engine can die."""

from __future__ import annotations

import dataclasses
import os
import signal
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge.device.engine import ImageType
from edge.device.engine_process import EngineProcess, Timeouts
from edge.device.errors import EngineDied, EngineRefused

if TYPE_CHECKING:
    from .conftest import CommandMaker

SHORT = Timeouts(start=20, step=1, other=20, stop=1)


def run_job(engine: EngineProcess, slot: int, seed: int, image: bytes | None = None, start: int = 0) -> bytes:
    engine.begin(slot, seed, start, image)
    while engine.step(slot).left:
        pass
    return engine.result(slot).image


def test_a_job_from_begin_to_result(toy_command: CommandMaker) -> None:
    with EngineProcess(toy_command(steps=3, shape=[1, 2, 4])) as engine:
        assert engine.info.shape == (1, 2, 4)
        assert engine.info.slots == 2
        engine.begin(1, 7, 0, None)
        reports = [engine.step(1) for _ in range(3)]
        assert [(r.step, r.left) for r in reports] == [(0, 2), (1, 1), (2, 0)]
        assert reports[0].macs == 12345
        result = engine.result(1)
        assert len(result.image) == 4 * 8
        assert (result.anomaly, result.score) == (b"", None)
        assert engine.memory() == (5_000_000, 1000)
        engine.release(1)
        assert engine.memory() == (5_000_000, 0)


def test_an_inspection_has_a_map_and_a_score(toy_command: CommandMaker) -> None:
    with EngineProcess(toy_command()) as engine:
        engine.begin(0, 7, 3, bytes(16), ImageType.UINT8)
        assert engine.step(0).left == 1
        engine.step(0)
        result = engine.result(0)
        assert result.score == 0.25
        assert result.anomaly == struct.pack("<16f", *[0.25] * 16)


@pytest.mark.parametrize(
    ("image", "kind", "start", "code"),
    [
        (bytes(15), ImageType.UINT8, 0, 5),
        (bytes(60), ImageType.FLOAT32, 0, 5),
        (struct.pack("<16f", *[float("nan")] * 16), ImageType.FLOAT32, 0, 6),
        (bytes(16), ImageType.UINT8, 5, 7),
    ],
)
def test_refusals_leave_the_engine_well(
    toy_command: CommandMaker, image: bytes, kind: ImageType, start: int, code: int
) -> None:
    with EngineProcess(toy_command()) as engine:
        with pytest.raises(EngineRefused) as caught:
            engine.begin(0, 1, start, image, kind)
        assert caught.value.code == code
        assert len(run_job(engine, 0, 1)) == 64


def test_more_slots_than_state_budget(toy_command: CommandMaker) -> None:
    with EngineProcess(toy_command(budget=1500)) as engine:
        engine.begin(0, 1, 0, None)
        with pytest.raises(EngineRefused, match="state budget") as caught:
            engine.begin(1, 1, 0, None)
        assert caught.value.code == EngineRefused.OUT_OF_MEMORY


def test_killed_in_mid_step_names_the_signal_and_its_last_words(toy_command: CommandMaker) -> None:
    with EngineProcess(toy_command(misbehave={"at": "step 2", "how": "die"})) as engine:
        with pytest.raises(EngineDied, match="SIGKILL, perhaps out of memory") as caught:
            run_job(engine, 0, 1)
        assert caught.value.returncode == -signal.SIGKILL
        assert caught.value.log == ("toy engine up", "about to die")
        assert "about to die" in str(caught.value)
        assert caught.value.exit_code == 11
        assert not engine.alive


def test_killed_while_idle_is_found_at_the_next_request(toy_command: CommandMaker) -> None:
    with EngineProcess(toy_command()) as engine:
        os.kill(engine.pid, signal.SIGKILL)
        while engine.alive:
            time.sleep(0.01)
        with pytest.raises(EngineDied, match="SIGKILL"):
            engine.begin(0, 1, 0, bytes(64))


def test_an_engine_that_hangs_is_killed(toy_command: CommandMaker) -> None:
    with EngineProcess(toy_command(misbehave={"at": "step 1", "how": "hang"}), SHORT) as engine:
        with pytest.raises(EngineDied, match="did not answer STEP in time, and was killed"):
            run_job(engine, 0, 1)
        assert not engine.alive


@pytest.mark.parametrize(
    ("status", "words"), [(3, "cannot be read"), (4, "an operator is missing"), (5, "out of memory"), (9, "status 9")]
)
def test_an_engine_that_does_not_start_says_why(toy_command: CommandMaker, status: int, words: str) -> None:
    command = toy_command(misbehave={"at": "start", "how": "exit", "status": status})
    with pytest.raises(EngineDied, match=words) as caught:
        EngineProcess(command)
    assert caught.value.returncode == status
    assert "toy engine up" in caught.value.log


def test_garbage_on_the_pipe_ends_the_engine(toy_command: CommandMaker) -> None:
    with EngineProcess(toy_command(misbehave={"at": "step 0", "how": "garbage"}), SHORT) as engine:
        with pytest.raises(EngineDied, match="it sent a frame of"):
            run_job(engine, 0, 1)
        assert not engine.alive


def test_a_missing_executable(toy_command: CommandMaker, tmp_path: Path) -> None:
    command = dataclasses.replace(toy_command(), executable=tmp_path / "nowhere")
    with pytest.raises(EngineDied, match="cannot be started: No such file"):
        EngineProcess(command)


def test_a_prefix_comes_before_the_command(toy_command: CommandMaker) -> None:
    command = dataclasses.replace(toy_command(), prefix=("env", "A=B"))
    assert command.words()[:3] == ["env", "A=B", str(command.executable)]
    with EngineProcess(command) as engine:
        assert len(run_job(engine, 0, 1)) == 64


def test_memory_above_the_limit_is_refused_to_the_engine(toy_command: CommandMaker) -> None:
    hoard = {"at": "begin", "how": "hoard", "bytes": 200 * 2**20}
    with EngineProcess(toy_command(misbehave=hoard)) as engine:
        engine.begin(0, 1, 0, None)
    with EngineProcess(toy_command(misbehave=hoard, memory_limit=100 * 2**20)) as engine:
        with pytest.raises(EngineDied) as caught:
            engine.begin(0, 1, 0, None)
        assert "MemoryError" in caught.value.log


def test_close_leaves_no_process(toy_command: CommandMaker) -> None:
    engine = EngineProcess(toy_command())
    pid = engine.pid
    engine.close()
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
