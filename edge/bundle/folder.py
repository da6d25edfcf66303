"""A bundle as a folder: written, read back, hashed, held against a board's budgets."""

from __future__ import annotations

import hashlib
import shutil
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

from edge.bundle.manifest import BundleFile, Manifest, ModelFacts, Role
from edge.bundle.parse import MANIFEST, MAX_MANIFEST_BYTES, check_manifest, parse_manifest
from edge.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    from boards import Board

PROGRAM = "program.pte"
GOLDEN = "golden.f32"
_PIECE = 1 << 20


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
        manifest = replace(contents.manifest, files=_write_files(staging, contents))
        check_manifest(manifest, str(folder))
        _check_golden(manifest.model, contents.golden_output, str(folder))
        (staging / MANIFEST).write_bytes(manifest.to_bytes())
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle(folder, manifest, manifest.bundle_id)


def _write_files(staging: Path, contents: Contents) -> tuple[BundleFile, ...]:
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
    files = [
        BundleFile(name, role, _hash_file(staging / name), (staging / name).stat().st_size, role == "engine")
        for name, role in roles
    ]
    return tuple(sorted(files, key=lambda file: file.name))


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
