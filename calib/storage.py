"""A calibration on disk: ``tensors.safetensors``, ``plan.json`` and a versioned ``manifest.json`` with their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from calib.calibration import Calibration, CalibrationConfig
from calib.documents import from_document, to_document
from calib.errors import CalibrationError
from calib.novelty import NoveltyTable
from calib.plan import Plan
from calib.weights import MAX_LATTICE_BITS, MIN_LATTICE_BITS, LayerWeights

FORMAT_VERSION = 2
"""2: the configuration names weight and range methods, and the plan may have reuse points."""
MANIFEST, PLAN, TENSORS = "manifest.json", "plan.json", "tensors.safetensors"
NOVELTY = "novelty"
"""No layer's name comes before a dot here: its tensors have a slash."""
AGAIN = "delete the folder and calibrate anew"
TENSOR_TYPES = {
    "main": torch.int8,
    "residual": torch.int8,
    "channel_scale": torch.float32,
    "bias": torch.float32,
    "step": torch.float32,
}


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write a calibration; a reader sees all of it or, by the hashes, that it is not whole.

    Args:
        calibration: to write.
        folder: made where it is missing; files of an older calibration in it are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}/{key}": getattr(layer, key).contiguous()
        for name, layer in calibration.layers.items()
        for key in TENSOR_TYPES
    }
    if calibration.novelty is not None:
        tensors |= {f"{NOVELTY}.{key}": getattr(calibration.novelty, key) for key in ("mean", "whitening")}
    files = {TENSORS: save(tensors), PLAN: calibration.plan.to_json().encode()}
    manifest = {
        "format": FORMAT_VERSION,
        "config": to_document(calibration.config),
        "model_hash": calibration.model_hash,
        "sampler": calibration.sampler,
        "content_hash": calibration.content_hash,
        "float_layers": dict(calibration.float_layers),
        "layers": {
            name: {"lattice_bits": layer.lattice_bits, "range": list(calibration.ranges[name])}
            for name, layer in calibration.layers.items()
        },
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    files[MANIFEST] = json.dumps(manifest, indent=1, sort_keys=True).encode()
    for name, data in files.items():
        _write(folder / name, data)


def load_calibration(folder: Path) -> Calibration:
    """Read what ``save_calibration`` wrote.

    Raises:
        CalibrationError: missing or damaged files, another format version, a hash that does not match.
        PlanError: a plan that breaks the plan format.
    """
    manifest = _read_manifest(folder / MANIFEST)
    data = {name: _read_verified(folder / name, manifest) for name in (TENSORS, PLAN)}
    where = str(folder / MANIFEST)
    try:
        tensors = load(data[TENSORS])
    except SafetensorError as error:
        raise CalibrationError(f"damaged: {error}", where=str(folder / TENSORS), mend=AGAIN) from error
    plan = Plan.from_json(data[PLAN].decode(), where=str(folder / PLAN))
    try:
        config = from_document(CalibrationConfig, manifest["config"], where=where)
        entries: dict[str, dict[str, Any]] = manifest["layers"]
        layers = {name: _layer(name, entry["lattice_bits"], tensors, folder) for name, entry in entries.items()}
        ranges = {name: (float(entry["range"][0]), float(entry["range"][1])) for name, entry in entries.items()}
        float_layers = {str(name): str(reason) for name, reason in manifest["float_layers"].items()}
        texts = [str(manifest[key]) for key in ("model_hash", "sampler", "content_hash")]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CalibrationError(f"the manifest lacks or garbles {error}", where=where, mend=AGAIN) from error
    if set(plan.layers) != set(layers):
        raise CalibrationError("plan and manifest name different layers", where=where, mend=AGAIN)
    # The plan has them as they are called; the manifest is sorted.
    layers = {name: layers[name] for name in plan.layers}
    ranges = {name: ranges[name] for name in plan.layers}
    return Calibration(config, texts[0], texts[1], plan, layers, ranges, float_layers, texts[2], _novelty(tensors))


def _novelty(tensors: dict[str, torch.Tensor]) -> NoveltyTable | None:
    mean, whitening = (tensors.get(f"{NOVELTY}.{key}") for key in ("mean", "whitening"))
    return None if mean is None or whitening is None else NoveltyTable(mean, whitening)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CalibrationError("no calibration is stored here", where=str(path), mend="calibrate first") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CalibrationError(f"not JSON: {error}", where=str(path), mend=AGAIN) from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise CalibrationError(
            f"calibration format {version!r} is unknown", where=str(path), mend=f"this kit reads {FORMAT_VERSION}"
        )
    if not isinstance(manifest.get("files"), dict):
        raise CalibrationError("the manifest lists no files", where=str(path), mend=AGAIN)
    typed: dict[str, Any] = manifest
    return typed


def _read_verified(path: Path, manifest: dict[str, Any]) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CalibrationError("the file is missing", where=str(path), mend=AGAIN) from error
    if hashlib.sha256(data).hexdigest() != manifest["files"].get(path.name):
        raise CalibrationError("the file is not the one that was stored (hash)", where=str(path), mend=AGAIN)
    return data


def _layer(name: str, bits: int, tensors: dict[str, torch.Tensor], folder: Path) -> LayerWeights:
    """One layer's tensors, checked for presence, type and shape."""
    parts = {}
    for key, dtype in TENSOR_TYPES.items():
        tensor = tensors.get(f"{name}/{key}")
        if tensor is None:
            raise CalibrationError(f"tensor {name}/{key} is missing", where=str(folder / TENSORS), mend=AGAIN)
        if tensor.dtype != dtype:
            raise CalibrationError(f"{name}/{key} is {tensor.dtype}", where=str(folder / TENSORS), mend=AGAIN)
        parts[key] = tensor
    if parts["main"].shape != parts["residual"].shape or parts["channel_scale"].shape != parts["bias"].shape:
        raise CalibrationError("its planes or scales differ in shape", where=name, mend=AGAIN)
    if type(bits) is not int or not MIN_LATTICE_BITS <= bits <= MAX_LATTICE_BITS:
        raise CalibrationError(f"lattice_bits = {bits!r}", where=name, mend=AGAIN)
    return LayerWeights(**parts, lattice_bits=bits)


def _write(path: Path, data: bytes) -> None:
    """Replace a file so that a crash leaves the old one or the new one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as part:
        part.write(data)
        part.flush()
        os.fsync(part.fileno())
    Path(part.name).replace(path)
