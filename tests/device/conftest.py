"""Fixtures of the device tests: a toy engine as a real child process."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from boards import Board, load_board
from edge.device.engine_process import EngineCommand, EngineProcess
from firmware_bridge.handler import BlobStore
from firmware_bridge.transfer import Answer, Receiver, Source, numbers_wanted
from firmware_bridge.wire.messages import BeginUpload, BlobChunk, BlobStored, ChunksWanted, IndexPart, UploadReady

if TYPE_CHECKING:
    from .supervised import Device, Starter

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


@dataclass(frozen=True)
class ToyBundle:
    """A bundle around the toy engine: its id and every blob, the manifest among them."""

    bundle_id: str
    blobs: dict[str, bytes]
    golden: bytes


def sha(data: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()


def toy_golden(folder: Path, program: bytes, start: int) -> bytes:
    """What the toy engine makes of the self-test's input."""
    path = folder / "golden-program.pte"
    path.write_bytes(json.dumps({**json.loads(program), "misbehave": {}}).encode())
    with EngineProcess(EngineCommand(toy_executable(folder), path, "0" * 64, 1, 10**9)) as engine:
        channels, height, width = engine.info.shape
        engine.begin(0, 5, start, bytes(4 * channels * height * width))
        while engine.step(0).left:
            pass
        return engine.result(0).image


def toy_bundle(
    folder: Path,
    name: str = "toy",
    *,
    board: str = "host",
    slots: int = 2,
    golden: bytes | None = None,
    exact: bool = False,
    memory: Mapping[str, int] | None = None,
    promise: Mapping[str, int] | None = None,
    **program: object,
) -> ToyBundle:
    """A bundle of the toy engine with a true (or the given) golden output; ``promise`` changes the manifest's model."""
    data = toy_program(**program)
    table = json.loads(data)
    start = table["steps"] - 3
    if golden is None:
        golden = toy_golden(folder, data, start)
    channels, height, width = table["shape"]
    parts = {
        "program.pte": ("program", data),
        "modiff-engine": ("engine", toy_executable(folder).read_bytes()),
        "golden.f32": ("golden", golden),
    }
    sizes = {"state_bytes": STATE, "activation_bytes": 1000, "program_bytes": len(data), "peak_bytes": 100_000}
    manifest = {
        "format": 3,
        "name": name,
        "board": board,
        "kit": "0.1.0",
        "runtime": {"executorch": "1.5.1", "operators": 1},
        "model": {
            "name": "toy",
            "content_hash": "0" * 64,
            "conditions": [],
            "channels": channels,
            "height": height,
            "width": width,
            **(promise or {}),
        },
        "sampler": {"name": "ddim", "steps": table["steps"]},
        "plan": {},
        "memory": {**sizes, **(memory or {})},
        "slots": slots,
        "files": [
            {"name": part, "role": role, "sha256": sha(body), "bytes": len(body), "executable": role == "engine"}
            for part, (role, body) in parts.items()
        ],
        "golden": {"seed": 5, "start": start, "image": "zeros", "exact": exact, "min_psnr_db": 60},
    }
    text = json.dumps(manifest, sort_keys=True).encode()
    return ToyBundle(sha(text), {sha(body): body for body in (text, *(body for _, body in parts.values()))}, golden)


def bring(store: BlobStore, data: bytes) -> None:
    """Upload a blob as a host does, without a line between."""
    source = Source(sha(data), data)
    receiver = Receiver(store)

    def tell(message: BeginUpload | IndexPart | BlobChunk) -> Answer | None:
        answer = receiver.take(message)
        while answer is None and receiver.busy:
            answer = receiver.work()
        return answer

    answer = tell(source.begin(1))
    while isinstance(answer, UploadReady):
        for part in source.index_parts(1, answer.offset):
            answer = tell(part)
    if isinstance(answer, ChunksWanted):
        for chunk in source.wanted(1, numbers_wanted(answer), packs=True):
            answer = tell(chunk)
    assert answer == BlobStored(1), answer


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


@pytest.fixture
def host_board() -> Board:
    """This machine as a board."""
    return load_board("host")


@pytest.fixture
def start(tmp_path: Path, host_board: Board) -> Iterator[Starter]:
    """Starts devices, one after the other, on the same folder."""
    from .supervised import Device

    started: list[Device] = []

    def starter(*, is_closed: bool = False, **options: float) -> Device:
        if started and not is_closed:
            started[-1].supervisor.close()
        started.append(Device(tmp_path / "root", host_board, **options))
        return started[-1]

    yield starter
    if started:
        started[-1].supervisor.close()
