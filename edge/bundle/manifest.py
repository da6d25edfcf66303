"""What a bundle says about itself: its manifest, as dataclasses, and the bytes of ``manifest.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from math import prod
from typing import Any, Literal

FORMAT = 3
KIT_VERSION = "0.1.0"
"""The distribution's version, of which the device need not have the metadata."""
ENGINE_BYTES = 32 << 20
"""Allowance for what does not depend on the model's size: code, libraries, the pipe's buffers, kernel scratch."""
GOLDEN_STEPS = 3
"""The self-test runs the last few steps only: enough to pass through every layer, an anchor and a delta."""

Role = Literal["program", "engine", "library", "golden"]


@dataclass(frozen=True)
class BundleFile:
    """One file beside the manifest: ``sha256`` in lower-case hex, ``bytes`` its size."""

    name: str
    role: Role
    sha256: str
    bytes: int
    executable: bool


@dataclass(frozen=True)
class RuntimeVersions:
    """ExecuTorch's version and the version of our operator set."""

    executorch: str
    operators: int


@dataclass(frozen=True)
class ConditionFacts:
    """An input beside image and time that a job brings: name, element type, and sizes with the batch of 1."""

    name: str
    type: Literal["float32", "int64"]
    sizes: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Of the whole tensor."""
        return prod(self.sizes) * {"float32": 4, "int64": 8}[self.type]


@dataclass(frozen=True)
class ModelFacts:
    """The model: its images are [channels, height, width]; ``content_hash`` is of the pretrained weights.

    Jobs bring ``conditions`` in this order, little endian.
    """

    name: str
    channels: int
    height: int
    width: int
    content_hash: str
    conditions: tuple[ConditionFacts, ...] = ()

    @property
    def condition_bytes(self) -> int:
        """Of all conditions."""
        return sum(condition.bytes for condition in self.conditions)


@dataclass(frozen=True)
class SamplerFacts:
    """The sampler and its number of steps T."""

    name: str
    steps: int


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes: one slot's state, the arena all slots share, the program, and all of it with every slot in use."""

    state_bytes: int
    activation_bytes: int
    program_bytes: int
    peak_bytes: int

    @classmethod
    def estimate(cls, *, state_bytes: int, activation_bytes: int, program_bytes: int, slots: int) -> MemoryNeeds:
        """The needs of a program with ``slots`` jobs in flight."""
        peak = ENGINE_BYTES + program_bytes + activation_bytes + slots * state_bytes
        return cls(state_bytes, activation_bytes, program_bytes, peak)


@dataclass(frozen=True)
class Golden:
    """The self-test: denoise an all-zero image from ``start``, all conditions zero, and compare with golden.f32.

    Attributes:
        seed: of the noise.
        start: the first step.
        image: what is denoised.
        exact: every bit must be the same: the program gives the same bits on every machine, and golden.f32 is what the
            maker's own engine gave.
        min_psnr_db: where not exact, the PSNR (peak 2.0) that a device needs; where exact, what the maker asked of its
            engine against the oracle.
    """

    seed: int
    start: int
    image: Literal["zeros"]
    exact: bool
    min_psnr_db: float


@dataclass(frozen=True)
class Manifest:
    """Everything the device must know before it runs a bundle. ``plan`` is a summary for people."""

    format: int
    name: str
    board: str
    kit: str
    runtime: RuntimeVersions
    model: ModelFacts
    sampler: SamplerFacts
    plan: Mapping[str, Any]
    memory: MemoryNeeds
    slots: int
    files: tuple[BundleFile, ...]
    golden: Golden

    def to_bytes(self) -> bytes:
        """The manifest's file: UTF-8 JSON with sorted keys; the same manifest gives the same bytes."""
        document = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    @property
    def bundle_id(self) -> str:
        """SHA-256 of the manifest's file, hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def file(self, role: Role) -> BundleFile:
        """The first file of a role."""
        return next(file for file in self.files if file.role == role)


def _plain(value: object) -> object:
    """Dataclasses, tuples and mappings as what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
