"""The engine process with a real program: the reference's bits, slots, snapshots, refusals, bad streams."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import engine_programs as programs
import numpy as np
import numpy.typing as npt
import pytest
import torch
from engine_programs import Program
from engine_selftest import needs_emulator

from calib.inspection import anomaly_map
from calib.noise import noise
from calib.sampling import sample
from edge.device.engine import EngineResult, ImageType
from edge.device.engine_process import EngineCommand, EngineProcess
from edge.device.errors import EngineDied, EngineRefused
from edge.toolchain import build_engine

MakeCommand = Callable[..., EngineCommand]
Floats = npt.NDArray[np.float32]

SNAPSHOT_X = 88  # bytes before x in a snapshot


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    torch.set_num_threads(1)
    return programs.build_program(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="session")
def native() -> Path:
    return build_engine("host").engine


@pytest.fixture
def command(program: Program, native: Path) -> MakeCommand:
    def make(**changes: object) -> EngineCommand:
        options = {
            "executable": native,
            "program": program.path,
            "program_id": program.program_id,
            "slots": 3,
            "state_budget": 3 * program.state_bytes,
        }
        return EngineCommand(**{**options, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def engine(command: MakeCommand) -> Iterator[EngineProcess]:
    with EngineProcess(command()) as process:
        yield process


def reference(program: Program, seed: int, image: Floats | None = None, start: int = 0) -> list[Floats]:
    """The sample after each step, from ``calib``."""
    x = torch.from_numpy(noise(seed, (1, *programs.SHAPE)))
    if image is None:
        x = x * np.float32(program.sampler.initial_sigma)
    else:
        alpha, sigma = program.sampler.start_coefficients[start]
        x = alpha * torch.from_numpy(image)[None] + sigma * x
    seen = []
    sample(program.modulated, program.sampler, x, start, lambda _, y: seen.append(y.numpy().ravel().copy()))
    return seen


def run_steps(engine: EngineProcess, slot: int, count: int) -> list[Floats]:
    """The sample after each of the next steps."""
    seen = []
    for _ in range(count):
        engine.step(slot)
        blob = engine.snapshot(slot)
        seen.append(np.frombuffer(blob, "<f4", int(np.prod(programs.SHAPE)), SNAPSHOT_X).copy())
    return seen


def finish(engine: EngineProcess, slot: int) -> EngineResult:
    while engine.step(slot).left:
        pass
    return engine.result(slot)


def an_image() -> Floats:
    return np.random.default_rng(2).uniform(-1, 1, programs.SHAPE).astype(np.float32)


def test_info_describes_the_program(engine: EngineProcess, program: Program) -> None:
    info = engine.info
    assert info.shape == programs.SHAPE
    assert (info.steps, info.slots) == (programs.STEPS, 3)
    assert info.state_bytes_per_slot == program.state_bytes
    assert info.program_bytes == program.path.stat().st_size


@pytest.mark.parametrize("isa", ["portable", "auto"])
def test_every_step_has_the_references_bits(command: MakeCommand, program: Program, isa: str) -> None:
    with EngineProcess(command(isa=isa)) as engine:
        engine.begin(0, 3, 0, None)
        np.testing.assert_array_equal(run_steps(engine, 0, programs.STEPS), reference(program, 3))


@needs_emulator
@pytest.mark.parametrize(("cpu", "isa"), [("cortex-a76", "dotprod"), ("cortex-a72", "neon")])
def test_emulated_boards_have_the_references_bits(command: MakeCommand, program: Program, cpu: str, isa: str) -> None:
    prefix = ("qemu-aarch64", "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu")
    with EngineProcess(command(executable=build_engine("aarch64").engine, prefix=prefix)) as engine:
        assert engine.info.isa == isa
        engine.begin(0, 3, 0, None)
        np.testing.assert_array_equal(run_steps(engine, 0, programs.STEPS), reference(program, 3))


def test_an_inspection_starts_where_it_is_told(engine: EngineProcess, program: Program) -> None:
    image, start = an_image(), 2
    engine.begin(1, 5, start, image.tobytes())
    seen = run_steps(engine, 1, programs.STEPS - start)
    expected = reference(program, 5, image, start)
    np.testing.assert_array_equal(seen, expected)
    result = engine.result(1)
    anomalies = anomaly_map(image, expected[-1].reshape(programs.SHAPE))
    np.testing.assert_allclose(np.frombuffer(result.anomaly, "<f4").reshape(anomalies.shape), anomalies, rtol=1e-6)
    assert result.score == pytest.approx(anomalies.max(), rel=1e-6)


def test_eight_bit_pixels_mean_the_same_image(engine: EngineProcess) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, programs.SHAPE, dtype=np.uint8)
    image = pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)
    engine.begin(0, 1, 3, pixels.tobytes(), ImageType.UINT8)
    engine.begin(1, 1, 3, image.tobytes())
    assert finish(engine, 0) == finish(engine, 1)


def test_a_look_shows_the_sample_between_steps(engine: EngineProcess) -> None:
    with pytest.raises(EngineRefused):
        engine.look(0)
    engine.begin(0, 7, 0, None)
    for _ in range(2):
        (x,) = run_steps(engine, 0, 1)
        assert engine.look(0) == x.tobytes()


def test_a_step_reports_what_it_did(engine: EngineProcess, program: Program) -> None:
    engine.begin(0, 3, 0, None)
    report = engine.step(0)
    layers = program.modulated.layers.values()
    assert (report.step, report.left) == (0, programs.STEPS - 1)
    assert report.passes == sum(
        len(layer.plan.anchor.exponents) for layer in layers if layer.plan.mode == "delta"
    ) + sum(len(layer.plan.rows[0].exponents) for layer in layers if layer.plan.mode == "direct")
    assert report.nanoseconds > 0
    assert report.macs > 0


def test_interleaved_jobs_have_the_bits_each_has_alone(engine: EngineProcess, program: Program) -> None:
    image = an_image()
    engine.begin(0, 3, 0, None)
    engine.begin(2, 9, 1, image.tobytes())
    first, second = [], []
    for turn in range(programs.STEPS):
        first += run_steps(engine, 0, 1)
        if turn < programs.STEPS - 1:
            second += run_steps(engine, 2, 1)
    np.testing.assert_array_equal(first, reference(program, 3))
    np.testing.assert_array_equal(second, reference(program, 9, image, 1))


def test_a_used_slot_starts_afresh(engine: EngineProcess, program: Program) -> None:
    engine.begin(0, 8, 0, None)
    run_steps(engine, 0, 4)
    engine.begin(0, 3, 0, None)
    np.testing.assert_array_equal(run_steps(engine, 0, programs.STEPS), reference(program, 3))


def test_a_snapshot_continues_in_another_process(command: MakeCommand, program: Program) -> None:
    image = an_image()
    with EngineProcess(command()) as engine:
        engine.begin(0, 3, 0, None)
        engine.begin(1, 4, 2, image.tobytes())
        run_steps(engine, 0, 3)
        run_steps(engine, 1, 2)
        blobs = engine.snapshot(0), engine.snapshot(1)
    with EngineProcess(command()) as engine:
        engine.restore(1, blobs[0])
        engine.restore(0, blobs[1])
        assert (engine.snapshot(1), engine.snapshot(0)) == blobs
        np.testing.assert_array_equal(run_steps(engine, 1, programs.STEPS - 3), reference(program, 3)[3:])
        np.testing.assert_array_equal(run_steps(engine, 0, programs.STEPS - 4), reference(program, 4, image, 2)[2:])
        assert engine.result(0).score is not None


def refused(call: Callable[[], object], code: int) -> None:
    with pytest.raises(EngineRefused) as caught:
        call()
    assert caught.value.code == code


def test_a_damaged_snapshot_is_refused_and_nothing_changes(engine: EngineProcess, program: Program) -> None:
    engine.begin(0, 3, 0, None)
    run_steps(engine, 0, 2)
    blob = engine.snapshot(0)
    for place in (0, 5, 9, 41, 70, SNAPSHOT_X + 3, len(blob) // 2, len(blob) - 1):
        damaged = bytearray(blob)
        damaged[place] ^= 0x40
        refused(lambda damaged=damaged: engine.restore(0, bytes(damaged)), 8)
    for cut in (0, 10, 84, len(blob) - 1):
        refused(lambda cut=cut: engine.restore(0, blob[:cut]), 8)
    np.testing.assert_array_equal(run_steps(engine, 0, programs.STEPS - 2), reference(program, 3)[2:])


def test_a_snapshot_of_another_program_is_refused(engine: EngineProcess, command: MakeCommand) -> None:
    engine.begin(0, 3, 0, None)
    blob = engine.snapshot(0)
    with EngineProcess(command(program_id="ab" * 32)) as other:
        refused(lambda: other.restore(0, blob), 9)


def test_bad_jobs_are_refused_and_the_next_one_runs(engine: EngineProcess, program: Program) -> None:
    image = an_image()
    spoiled = [image.copy() for _ in range(2)]
    spoiled[0].flat[7], spoiled[1].flat[0] = np.nan, np.inf
    refused(lambda: engine.begin(0, 1, 0, image.tobytes()[:-4]), 5)
    refused(lambda: engine.begin(0, 1, 0, image.tobytes(), ImageType.UINT8), 5)
    refused(lambda: engine.begin(0, 1, 0, spoiled[0].tobytes()), 6)
    refused(lambda: engine.begin(0, 1, 0, spoiled[1].tobytes()), 6)
    refused(lambda: engine.begin(0, 1, programs.STEPS, image.tobytes()), 7)
    refused(lambda: engine.begin(0, 1, 1, None), 7)
    refused(lambda: engine.begin(3, 1, 0, None), 2)
    refused(lambda: engine.step(0), 3)
    refused(lambda: engine.result(0), 3)
    refused(lambda: engine.snapshot(0), 3)
    engine.begin(0, 3, 0, None)
    refused(lambda: engine.result(0), 3)
    np.testing.assert_array_equal(run_steps(engine, 0, programs.STEPS), reference(program, 3))
    refused(lambda: engine.step(0), 3)


def test_the_state_budget_refuses_the_slot_too_many(command: MakeCommand, program: Program) -> None:
    with EngineProcess(command(state_budget=2 * program.state_bytes + 1)) as engine:
        engine.begin(0, 3, 0, None)
        engine.begin(1, 4, 0, None)
        assert engine.memory()[1] == 2 * program.state_bytes
        refused(lambda: engine.begin(2, 5, 0, None), 4)
        run_steps(engine, 0, 2)
        engine.release(1)
        assert engine.memory()[1] == program.state_bytes
        engine.begin(2, 9, 0, None)
        np.testing.assert_array_equal(run_steps(engine, 2, 1), reference(program, 9)[:1])
        np.testing.assert_array_equal(run_steps(engine, 0, programs.STEPS - 2), reference(program, 3)[2:])


def test_an_image_that_overflows_ends_its_job_only(engine: EngineProcess, program: Program) -> None:
    engine.begin(0, 3, 0, None)
    run_steps(engine, 0, 1)
    engine.begin(1, 1, 0, np.full(programs.SHAPE, 3e38, np.float32).tobytes())
    with pytest.raises(EngineRefused) as caught:
        finish(engine, 1)
    assert caught.value.code == 11
    refused(lambda: engine.step(1), 3)
    np.testing.assert_array_equal(run_steps(engine, 0, programs.STEPS - 1), reference(program, 3)[1:])


def talk(command: EngineCommand, stdin: bytes) -> tuple[int, bytes]:
    """Writes raw bytes, closes the pipe; returns (exit status, stdout)."""
    done = subprocess.run(command.words(), input=stdin, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("stdin", "status", "code"),
    [
        (b"", 0, None),
        (b"\xff" * 64, 1, 1),
        (struct.pack("<IBBH", 2**26 + 1, 2, 0, 0), 1, 1),
        (struct.pack("<IBBH", 0, 1, 0, 7), 1, 1),
        (struct.pack("<IBBH", 100, 2, 0, 0) + b"short", 1, None),
        (b"\x01\x00", 1, None),
        (struct.pack("<IBBH", 0, 0x60, 0, 0), 0, 1),
        (struct.pack("<IBBH", 3, 3, 0, 0) + b"abc", 0, 1),
        (struct.pack("<IBBH", 3, 2, 0, 0) + b"abc", 0, 1),
        (struct.pack("<IBBH", 16, 2, 0, 0) + struct.pack("<QIBBH", 1, 0, 2, 0, 0), 0, 1),
    ],
)
def test_garbage_is_answered_and_never_kills(command: MakeCommand, stdin: bytes, status: int, code: int | None) -> None:
    ended, out = talk(command(), stdin)
    assert ended == status
    if code is None:
        assert out == b""
    else:
        assert out[4] == 0xFF
        assert struct.unpack_from("<I", out, 8)[0] == code


def test_random_bytes_never_kill(command: MakeCommand) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        frames = [
            struct.pack("<IBBH", size, rng.integers(0, 12), rng.integers(0, 4), 0) + rng.bytes(size)
            for size in rng.integers(0, 2000, 8).tolist()
        ]
        assert talk(command(), b"".join(frames))[0] == 0
        assert talk(command(), rng.bytes(300))[0] in {0, 1}


def test_programs_that_cannot_run_end_the_start(command: MakeCommand, program: Program, tmp_path: Path) -> None:
    data = program.path.read_bytes()
    broken = {
        "missing": None,
        "empty": b"",
        "noise": os.urandom(5000),
        "cut": data[: len(data) // 3],
        "flipped": data[:4] + b"XXXX" + data[8:],
        "renamed": data.replace(b"modiff::conv2d", b"modiff::conv9d"),
    }
    for name, content in broken.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(EngineDied) as caught, EngineProcess(command(program=path)):
            pass
        assert caught.value.returncode == (4 if name == "renamed" else 3), name


def test_wrong_options_end_the_start(command: MakeCommand) -> None:
    for changes in ({"isa": "sse9"}, {"slots": 0}, {"slots": 1000}, {"program_id": "xyz"}, {"state_budget": 0}):
        assert talk(command(**changes), b"")[0] == 2


def test_a_memory_limit_refuses_and_leaves_the_rest_running(command: MakeCommand, program: Program) -> None:
    """Beyond the limit the kernel refuses the state's arena; the engine says so and lives."""
    slots = 64
    with EngineProcess(command(slots=slots, state_budget=2**40)) as engine:
        engine.begin(0, 3, 0, None)
        run_steps(engine, 0, 2)
        held = int(_status(engine.pid, "VmData")) * 1024
        limit = held + 2**20
        resource.prlimit(engine.pid, resource.RLIMIT_DATA, (limit, limit))
        codes = [_begin_code(engine, slot) for slot in range(1, slots)]
        assert codes[0] is None
        assert set(codes) == {None, 4}
        for slot in range(1, slots):
            engine.release(slot)
        np.testing.assert_array_equal(run_steps(engine, 0, programs.STEPS - 2), reference(program, 3)[2:])


def test_too_little_memory_ends_the_start(command: MakeCommand) -> None:
    """From where not even the libraries load (127) to where there is enough (0), what is missing is memory (5)."""
    statuses = []
    for kilobytes in range(400, 4000, 200):
        limited = ("sh", "-c", f'ulimit -d {kilobytes}; exec "$@"', "sh")
        statuses.append(talk(command(prefix=limited), b"")[0])
    assert set(statuses) == {127, 5, 0}


def _begin_code(engine: EngineProcess, slot: int) -> int | None:
    """Why a job could not begin; None when it did."""
    try:
        engine.begin(slot, slot, 0, None)
    except EngineRefused as refusal:
        return refusal.code
    return None


def _status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(key + ":"))


def test_a_missing_library_ends_the_start(command: MakeCommand, native: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "modiff-engine"
    shutil.copy(native, lonely)
    with pytest.raises(EngineDied), EngineProcess(command(executable=lonely)):
        pass


def test_the_engine_ends_when_its_reader_goes(command: MakeCommand) -> None:
    process = subprocess.Popen(command().words(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(struct.pack("<IBBH", 0, 1, 0, 0) * 3)
        process.stdin.close()
    assert process.wait(60) == 0
    process.stderr.close()


def test_sanitizers_find_nothing(command: MakeCommand, program: Program) -> None:
    """A whole life under the address and undefined-behaviour sanitizers; a finding or a leak ends with status 1."""
    executable = build_engine("host", sanitize=True).engine
    options = command(executable=executable, state_budget=2 * program.state_bytes)
    with EngineProcess(options) as engine:
        engine.begin(0, 3, 0, None)
        engine.begin(1, 4, 2, an_image().tobytes())
        np.testing.assert_array_equal(run_steps(engine, 0, programs.STEPS), reference(program, 3))
        finish(engine, 1)
        blob = engine.snapshot(1)
        refused(lambda: engine.begin(2, 5, 0, None), 4)
        refused(lambda: engine.restore(0, blob[:-9]), 8)
        engine.release(1)
        engine.restore(2, blob)
        assert engine.result(2).score is not None
    rng = np.random.default_rng(7)
    frames = [
        struct.pack("<IBBH", size, kind, 0, 0) + rng.bytes(size)
        for kind, size in zip(rng.integers(0, 9, 40).tolist(), rng.integers(0, 300, 40).tolist(), strict=True)
    ]
    assert talk(options, b"".join(frames))[0] == 0
