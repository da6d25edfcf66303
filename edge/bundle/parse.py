"""Reads ``manifest.json`` strictly: a key that is missing, unknown or of another type is refused, so that nothing that
the reader does not understand is ever obeyed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from edge.bundle.manifest import FORMAT, Manifest
from edge.errors import BundleError

MANIFEST = "manifest.json"
RELEASE = "release"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILES = 64
MAX_FILE_BYTES = 4 << 30
MAX_FLOAT = 1e9

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")
_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


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
    check_manifest(manifest, where)
    return manifest


def check_manifest(manifest: Manifest, where: str) -> None:
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


def _build(kind: type[_T], value: object, where: str) -> _T:
    """A dataclass from a JSON object that has exactly its keys."""
    if not isinstance(value, dict):
        raise BundleError("not a JSON object", where=where, mend="build the bundle anew")
    hints = _hints(kind)
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
