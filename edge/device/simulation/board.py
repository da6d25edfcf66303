"""The simulated board: boots the real supervisor, makes bundles and jobs for it, and audits its disk."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import boards
from boards.errors import KitError
from edge.bundle import (
    FORMAT,
    KIT_VERSION,
    BundleFile,
    Golden,
    Manifest,
    MemoryNeeds,
    ModelFacts,
    RuntimeVersions,
    SamplerFacts,
    parse_manifest,
)
from edge.device import records, selftest
from edge.device.identity import Identity
from edge.device.requests import read_job
from edge.device.simulation.engine import GOLDEN_SEED, STATE_BYTES, STEP_SECONDS, ModelEngine, program
from edge.device.standing import Trust
from edge.device.store import bundle_folder
from edge.device.supervisor import Supervisor
from edge.device.surroundings import Clock, Surroundings
from firmware_bridge.jobs import JobRequest, Result
from firmware_bridge.keys import PublicKey, TrustedKeys
from firmware_bridge.release import Release, sign
from firmware_bridge.testing.disk import MemoryDisk
from firmware_bridge.testing.simulation import Bundle, Nature

SHAPE: Final = (1, 16, 20)
STEPS: Final = 12
SLOTS: Final = 2
SNAPSHOT_SECONDS: Final = 0.2
_BORN: Final = 1_700_000_000.0
"""Unix time at the beginning of a run."""
_NOWHERE: Final = Path("/nonexistent/keys")
_SIGNER: Final = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"the site's key").digest())
_STRANGER: Final = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"another key").digest())
_SIZES: Final = (500, 4_000, 16_000)
_FILE_NAMES: Final = {"program": "program.pte", "engine": "modiff-engine", "golden": "golden.f32"}


class ProvisionedKeys(TrustedKeys):
    """The site's key, which every device was given before the run."""

    is_provisioned = True

    def __init__(self) -> None:
        super().__init__(_NOWHERE)
        self._keys = [PublicKey(_SIGNER.public_key().public_bytes_raw(), "site")]

    def listed(self) -> list[PublicKey]:
        """That key."""
        return self._keys


class SimulatedSupervisor(Supervisor):
    """The supervisor with its scheduler's thread unrolled: a turn whenever a step's time has passed.

    Args:
        disk: the device's.
        clock: the virtual one.
        chance: draws ids.
    """

    def __init__(self, disk: MemoryDisk, clock: Callable[[], float], chance: random.Random) -> None:
        self._engine: ModelEngine | None = None
        self._due = clock()

        def new_id() -> uuid.UUID:
            return uuid.UUID(int=chance.getrandbits(128), version=4)

        def start_engine(bundle_id: str, manifest: Manifest) -> ModelEngine:
            file = disk.read(f"{bundle_folder(bundle_id)}/{_FILE_NAMES['program']}")
            self._engine = ModelEngine(file, manifest.slots)
            return self._engine

        clocks = Clock(clock, lambda: _BORN + clock())
        on = Surroundings(disk, Identity(disk, new_id), ProvisionedKeys(), start_engine, clocks)
        super().__init__(board(), on, snapshot_seconds=SNAPSHOT_SECONDS)

    def advance(self, now: float) -> float | None:
        """A turn of the scheduler if it is due, then what the supervisor does by itself."""
        if self.has_work and now >= self._due:
            self.turn()
            self._due = now + STEP_SECONDS
        super().advance(now)
        return self._due if self.has_work else None

    def kill_engine(self) -> None:
        """The engine's process dies, if one runs."""
        if self._engine is not None:
            self._engine.kill()


class Board:
    """A ``firmware_bridge.testing.simulation.Machine``.

    Args:
        supervisor: makes the device's software at each boot; tests that break it pass their own.
    """

    def __init__(
        self,
        supervisor: Callable[[MemoryDisk, Callable[[], float], random.Random], SimulatedSupervisor] = (
            SimulatedSupervisor
        ),
    ) -> None:
        self._supervisor = supervisor
        self._shared = {size: random.Random(size).randbytes(size) for size in _SIZES}  # noqa: S311  what versions share

    def bundle(self, chance: random.Random, nature: Nature) -> Bundle:
        """A bundle of its own program; its engine and most of its padding are like another's."""
        changed = chance.randbytes(chance.choice((10, 3_000)))
        padding = changed + self._shared[chance.choice(_SIZES)][len(changed) :]
        table = {"steps": STEPS, "shape": SHAPE, "is_fatal": nature is Nature.FATAL, "holds": chance.choice((1, 2, 2))}
        made = program(padding=padding, **table)
        test = Golden(GOLDEN_SEED, STEPS - 3, "zeros", exact=True, min_psnr_db=60.0)
        golden = selftest.output(ModelEngine(made, SLOTS), test)
        if nature is Nature.REFUSED:
            golden = bytes([golden[0] ^ 1]) + golden[1:]
        parts = {"program": made, "engine": b"an engine", "golden": golden}
        text = _manifest(nature, parts, test).to_bytes()
        return Bundle(hashlib.sha256(text).hexdigest(), (*parts.values(), text), nature)

    def release(self, bundle: Bundle, version: int) -> bytes:
        """Signed with the site's key; of a bundle that is untrusted, in one of five wrong ways, by its id."""
        good = Release(bundle.bundle_id, board().name, version)
        if bundle.nature is not Nature.UNTRUSTED:
            return sign(good, _SIGNER)
        match int(bundle.bundle_id, 16) % 5:
            case 0:
                return b""
            case 1:
                return sign(good, _STRANGER)
            case 2:
                return sign(replace(good, board="another"), _SIGNER)
            case 3:
                return sign(replace(good, bundle_id="0" * 64), _SIGNER)
            case _:
                return sign(replace(good, version=1), _SIGNER)  # every device has had a first release

    def job(self, chance: random.Random, job_id: str) -> JobRequest:
        """A job of 12, 9 or 2 steps."""
        params: dict[str, object] = {"seed": chance.getrandbits(32)}
        if chance.random() < 1 / 3:
            return JobRequest(job_id, "generate", params)
        dtype, size = chance.choice((("uint8", 1), ("float32", 4)))
        params |= {"start": chance.choice((3, 10)), "dtype": dtype}
        return JobRequest(job_id, "inspect", params, chance.randbytes(size * prod(SHAPE)))

    def boot(self, disk: MemoryDisk, clock: Callable[[], float], chance: random.Random) -> SimulatedSupervisor:
        """Start the supervisor on what the disk holds."""
        return self._supervisor(disk, clock, chance)

    def audit(self, disk: MemoryDisk) -> list[str]:
        """Blobs hash to their names; the active bundle is whole and tested; one that is fatal has not proved itself."""
        blobs = disk.names("blobs") if "blobs" in disk.names("") else []
        wrong = [
            f"blob {name[:12]} is damaged"
            for name in blobs
            if len(name) == 64 and hashlib.sha256(disk.read(f"blobs/{name}")).hexdigest() != name
        ]
        if disk.size("active") is None:
            return wrong
        document = records.decode(disk.read("active"))
        if document is None:
            return [*wrong, "the file that names the active bundle is damaged"]
        for bundle_id, trust in document["bundles"]:
            wrong += [f"bundle {bundle_id[:12]}, {trust}: {what}" for what in _faults(disk, bundle_id, Trust(trust))]
        return wrong

    def finished(self, disk: MemoryDisk) -> Mapping[str, int]:
        """By the journal's records."""
        known: dict[str, int] = {}
        data = b"" if disk.size("journal") is None else disk.read("journal")
        for line in data.splitlines(keepends=True):
            record = records.decode(line)
            if record is not None:
                known[record["job"]] = known.get(record["job"], 0) + (record["event"] == "finished")
        return known

    def bundle_of(self, result: Result) -> str:
        """By what the device says of the result."""
        return str(result.meta["bundle"])

    def expected(self, bundle: Bundle, job: JobRequest) -> bytes:
        """What an engine gives that nobody disturbs."""
        manifest = parse_manifest(bundle.blobs[-1])
        engine, ready = ModelEngine(bundle.blobs[0], SLOTS), read_job(job, manifest.model, manifest.sampler.steps)
        engine.begin(0, ready.seed, ready.start, ready.image, ready.image_type, ready.conditions)
        while engine.step(0).left:
            pass
        result = engine.result(0)
        return result.image + result.anomaly


@cache
def board() -> boards.Board:
    """What every simulated device is."""
    return replace(boards.load_board("host"), name="simulated", slots=SLOTS)


def _manifest(nature: Nature, parts: Mapping[str, bytes], test: Golden) -> Manifest:
    files = tuple(
        BundleFile(_FILE_NAMES[role], role, hashlib.sha256(data).hexdigest(), len(data), role == "engine")  # type: ignore[arg-type]
        for role, data in parts.items()
    )
    needs = MemoryNeeds.estimate(
        state_bytes=STATE_BYTES, activation_bytes=1, program_bytes=len(parts["program"]), slots=SLOTS
    )
    model = ModelFacts("model", *SHAPE, content_hash="0" * 64)
    versions = RuntimeVersions("none", 1)
    sampler = SamplerFacts("ddim", STEPS)
    plan: Mapping[str, object] = {}
    name = nature.name.lower()
    return Manifest(FORMAT, name, board().name, KIT_VERSION, versions, model, sampler, plan, needs, SLOTS, files, test)


def _faults(disk: MemoryDisk, bundle_id: str, trust: Trust) -> list[str]:
    """What is wrong with a bundle that the device keeps."""
    name = f"{bundle_folder(bundle_id)}/manifest.json"
    if disk.size(name) is None:
        return ["it is not there"]
    try:
        manifest = parse_manifest(disk.read(name))
    except KitError as error:
        return [str(error)]
    found = [
        f"{file.name} is missing or damaged"
        for file in manifest.files
        if disk.size(f"{bundle_folder(bundle_id)}/{file.name}") != file.bytes
    ]
    never = {each.name.lower(): each for each in (Nature.REFUSED, Nature.UNTRUSTED)}
    if manifest.name in never:
        found.append(f"kept, though {never[manifest.name].value}")
    if manifest.name == Nature.FATAL.name.lower() and trust is Trust.GOOD:
        found.append(f"proved, though {Nature.FATAL.value}")
    return found
