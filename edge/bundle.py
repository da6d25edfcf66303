"""The bundle: a folder with everything that a board needs to run one model, and the manifest that proves it whole.

    manifest.json    what is in it, for which board, how much memory it takes; its SHA-256 is the bundle's id
    program.pte      the program
    modiff-engine    the engine, and the libraries it loads
    golden.f32       output of the self-test, float32 little endian [C, H, W]
    release          signed statement that it may run, if it was signed beforehand (edge.release); no part of the id

Runs on the device too: standard library and ``boards`` only. A manifest is read strictly: a key that is missing,
unknown or of another type is refused, so that nothing that the reader does not understand is ever obeyed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from math import isfinite, prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from edge.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    from boards import Board

FORMAT = 2
KIT_VERSION = "0.1.0"
"""The distribution's version, of which the device need not have the metadata."""
MANIFEST = "manifest.json"
RELEASE = "release"
PROGRAM = "program.pte"
GOLDEN = "golden.f32"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILES = 64
MAX_FILE_BYTES = 4 << 30
MAX_FLOAT = 1e9
ENGINE_BYTES = 32 << 20
"""Allowance for what does not depend on the model's size: code, libraries, the pipe's buffers, kernel scratch."""
GOLDEN_STEPS = 3
"""The self-test runs the last few steps only: enough to pass through every layer, an anchor and a delta."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")
_PIECE = 1 << 20

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
    """The self-test: denoise an all-zero image from ``start``, all conditions zero; the PSNR (peak 2.0) against
    golden.f32 must suffice.
    """

    seed: int
    start: int
    image: Literal["zeros"]
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


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    folder: Path
    manifest: Manifest
    bundle_id: str


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle.

    Attributes:
        manifest: complete but for ``files``.
        program: the ``.pte``.
        engine_files: paths of the engine (first) and of its libraries.
        golden_output: float32 little endian [C, H, W].
    """

    manifest: Manifest
    program: bytes
    engine_files: Sequence[Path]
    golden_output: bytes


def parse_manifest(data: bytes, where: str = MANIFEST) -> Manifest:
    """Reads a manifest's file.

    Raises:
        BundleError: not a manifest of this format, or one that contradicts itself.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{len(data)} bytes are too many for a manifest", where=where)
    try:
        document = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"not a manifest: {error}", where=where, mend="build the bundle anew") from error
    if isinstance(document, dict) and document.get("format") != FORMAT:
        mend = f"this kit reads format {FORMAT}: use the kit that made it, or build it anew"
        raise BundleError(f"bundle format {document.get('format')!r} is unknown", where=where, mend=mend)
    manifest: Manifest = _build(Manifest, document, where)
    _check(manifest, where)
    return manifest


def read_bundle(folder: Path) -> Bundle:
    """Reads a bundle's manifest and checks that every file is there in its size; ``verify_bundle`` hashes them.

    Raises:
        BundleError: no bundle, or one with a file missing, truncated or too long.
    """
    try:
        with (folder / MANIFEST).open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"no bundle: {error.strerror}", where=str(folder / MANIFEST), mend="name a bundle's folder"
        ) from error
    manifest = parse_manifest(data, str(folder / MANIFEST))
    for listed in manifest.files:
        path = folder / listed.name
        size = path.stat().st_size if path.is_file() else None
        if size != listed.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise BundleError(
                f"the file {found}, the manifest says {listed.bytes}", where=str(path), mend="build the bundle anew"
            )
    return Bundle(folder, manifest, hashlib.sha256(data).hexdigest())


def verify_bundle(bundle: Bundle) -> None:
    """Hashes every file of a bundle.

    Raises:
        BundleError: names the file that differs from the manifest.
    """
    for listed in bundle.manifest.files:
        path = bundle.folder / listed.name
        try:
            found = _hash_file(path)
        except OSError as error:
            raise BundleError(f"unreadable: {error.strerror}", where=str(path), mend="build the bundle anew") from error
        if found != listed.sha256:
            raise BundleError(
                f"SHA-256 {found[:12]}.. is not the manifest's {listed.sha256[:12]}..",
                where=str(path),
                mend="the file was changed or damaged: build the bundle anew",
            )


def check_fits(manifest: Manifest, board: Board) -> None:
    """Refuses a bundle that ``board`` is not meant for or has not the room for.

    Raises:
        BundleError: says which need exceeds which budget, and by how much.
    """
    if manifest.board != board.name:
        raise BundleError(
            f"made for board {manifest.board!r}, this is {board.name!r}",
            where=f"bundle {manifest.name}",
            mend=f"build it for {board.name}",
        )
    needs = manifest.memory
    stored = sum(file.bytes for file in manifest.files)
    checks = (
        ("peak memory", needs.peak_bytes, "memory.budget_bytes", board.memory.budget_bytes),
        (
            f"the states of {manifest.slots} slots",
            manifest.slots * needs.state_bytes,
            "memory.state_budget_bytes",
            board.memory.state_budget_bytes,
        ),
        ("the bundle on disk", stored, "storage.budget_bytes", board.storage.budget_bytes),
    )
    for what, needed, key, budget in checks:
        if needed > budget:
            raise BundleError(
                f"{what}: {needed} bytes, {needed - budget} more than {key} = {budget}",
                where=f"bundle {manifest.name}, board {board.name}",
                mend="use fewer slots or a smaller model, or raise the budget in the board's file",
            )


def pack_bundle(folder: Path, contents: Contents) -> Bundle:
    """Writes a bundle; an older bundle in its place is replaced, anything else there is left alone.

    Args:
        folder: where the bundle will be; its parent exists.
        contents: what goes in.

    Raises:
        BundleError: contents that contradict each other, or a folder that holds something else.
    """
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise BundleError("there is something else than a bundle", where=str(folder), mend="name another folder")
    if not contents.engine_files:
        raise BundleError("a bundle needs an engine", where=str(folder))
    staging = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        manifest = _with_files(contents.manifest, _write_files(staging, contents))
        _check(manifest, str(folder))
        _check_golden(manifest.model, contents.golden_output, str(folder))
        (staging / MANIFEST).write_bytes(manifest.to_bytes())
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle(folder, manifest, manifest.bundle_id)


def _write_files(staging: Path, contents: Contents) -> list[BundleFile]:
    (staging / PROGRAM).write_bytes(contents.program)
    (staging / GOLDEN).write_bytes(contents.golden_output)
    roles: list[tuple[str, Role]] = [(PROGRAM, "program"), (GOLDEN, "golden")]
    for index, source in enumerate(contents.engine_files):
        target = staging / source.name
        if target.exists():
            raise BundleError(f"two files are named {source.name!r}", where=str(staging))
        shutil.copyfile(source, target)
        target.chmod(0o755 if index == 0 else 0o644)
        roles.append((source.name, "library" if index else "engine"))
    return [
        BundleFile(name, role, _hash_file(staging / name), (staging / name).stat().st_size, role == "engine")
        for name, role in roles
    ]


def _with_files(manifest: Manifest, files: Sequence[BundleFile]) -> Manifest:
    values = {field.name: getattr(manifest, field.name) for field in fields(manifest)}
    return Manifest(**values | {"files": tuple(sorted(files, key=lambda file: file.name))})


def _check(manifest: Manifest, where: str) -> None:
    """What the types alone do not say."""

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise BundleError(what, where=where, mend="build the bundle anew")

    model, needs, golden = manifest.model, manifest.memory, manifest.golden
    require(manifest.format == FORMAT, f"bundle format {manifest.format} is unknown")
    require(1 <= manifest.slots <= 64, f"slots = {manifest.slots} is not in 1..64")
    require(1 <= manifest.sampler.steps <= 1_000_000, f"sampler.steps = {manifest.sampler.steps} is not possible")
    sides = (model.channels, model.height, model.width)
    require(all(1 <= side <= 1 << 16 for side in sides), f"model sizes {sides} are not possible")
    for condition in model.conditions:
        sized = len(condition.sizes) <= 8 and all(1 <= size <= 1 << 24 for size in condition.sizes)
        require(sized, f"condition {condition.name}: sizes {condition.sizes} are not possible")
    require(model.condition_bytes <= 1 << 24, f"conditions of {model.condition_bytes} bytes are too long")
    require(0 <= golden.start < manifest.sampler.steps, f"golden.start = {golden.start} is not a step")
    require(0 <= golden.seed < 1 << 64, "golden.seed is not a 64-bit number")
    sizes = (needs.state_bytes, needs.activation_bytes, needs.program_bytes, needs.peak_bytes)
    require(all(0 <= size < 1 << 48 for size in sizes), f"memory sizes {sizes} are not possible")
    require(len(manifest.files) <= MAX_FILES, f"{len(manifest.files)} files are too many")
    names = [file.name for file in manifest.files]
    require(len(set(names)) == len(names), "a file is listed twice")
    for file in manifest.files:
        safe = _NAME.fullmatch(file.name) is not None and file.name not in {MANIFEST, RELEASE}
        require(safe, f"{file.name!r} is no name for a file in a bundle")
        require(_DIGEST.fullmatch(file.sha256) is not None, f"{file.name}: the SHA-256 is not 64 lower-case hex digits")
        require(0 <= file.bytes <= MAX_FILE_BYTES, f"{file.name}: {file.bytes} bytes are not possible")
    for role in ("program", "engine", "golden"):
        count = sum(file.role == role for file in manifest.files)
        require(count == 1, f"the bundle has {count} files of role {role!r} instead of one")
    pixels = model.channels * model.height * model.width
    require(manifest.file("golden").bytes == 4 * pixels, "the golden output has not the size of the model's images")
    require(manifest.file("program").bytes == needs.program_bytes, "memory.program_bytes is not the program's size")


def _check_golden(model: ModelFacts, output: bytes, where: str) -> None:
    values = array("f", output)
    if len(values) != model.channels * model.height * model.width or not all(map(isfinite, values)):
        raise BundleError("the golden output is not a finite image", where=where, mend="check the calibration")


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _plain(value: object) -> object:
    """Dataclasses, tuples and mappings as what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _build(kind: type[_T], value: object, where: str) -> _T:
    """A dataclass from a JSON object that has exactly its keys."""
    if not isinstance(value, dict):
        raise BundleError("not a JSON object", where=where, mend="build the bundle anew")
    hints = get_type_hints(kind)
    for what, keys in (("missing", hints.keys() - value.keys()), ("unknown", value.keys() - hints.keys())):
        if keys:
            raise BundleError(f"{what}: {', '.join(sorted(keys))}", where=where, mend="build the bundle anew")
    return kind(**{key: _read(hint, value[key], f"{where}: {key}") for key, hint in hints.items()})


def _read(hint: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - checks types that it gets as values
    """One value of the type that a field's annotation names."""
    if is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return MappingProxyType(value)
    if origin is Literal and value in arguments:
        return value
    if hint is float and type(value) in {int, float} and -MAX_FLOAT <= value <= MAX_FLOAT:
        return float(value)
    if hint in {int, str, bool} and type(value) is hint:
        return value
    raise BundleError(f"{value!r:.80} is not allowed here", where=where, mend="build the bundle anew")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key is given twice")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
