"""What a conditional model is asked for: ``--condition NAME=VALUE`` or ``NAME=FILE`` as tensors, checked first.

Where nothing is said, a model's own first example stands in.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from edge.errors import JobInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calib.adapters import PretrainedModel

MAX_BYTES = 16 << 20
"""As much as the engine takes of all conditions together."""


def wanted_conditions(texts: Sequence[str], model: PretrainedModel) -> dict[str, torch.Tensor]:
    """The conditions of a deployment's jobs.

    Args:
        texts: ``NAME=VALUE`` with numbers separated by commas, or ``NAME=FILE``, a safetensors file that holds a tensor
            of that name.
        model: says what there is to say.

    Returns:
        By name in the model's order, float32 or int64 ``[1, ...]``.

    Raises:
        JobInputError: an unknown name, or a value of another size or type than the model takes.
    """
    given: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not value:
            raise JobInputError(
                f"{text!r} is not NAME=VALUE", where="--condition", mend="write NAME=VALUE or NAME=FILE"
            )
        if name not in model.conditions:
            takes = ", ".join(model.conditions) or "none"
            raise JobInputError(f"unknown condition {name!r}", where="--condition", mend=f"the model takes {takes}")
        if name in given:
            raise JobInputError(f"condition {name!r} is given twice", where="--condition")
        given[name] = value
    return {
        name: _read(name, given[name], examples[:1]) if name in given else examples[:1]
        for name, examples in model.conditions.items()
    }


def to_bytes(conditions: Mapping[str, torch.Tensor]) -> bytes:
    """As a job carries them: one after the other, little endian."""
    types = {torch.float32: "<f4", torch.int64: "<i8"}
    return b"".join(tensor.numpy().astype(types[tensor.dtype]).tobytes() for tensor in conditions.values())


def _read(name: str, value: str, like: torch.Tensor) -> torch.Tensor:
    """A value as a tensor of the shape and type of ``like``, [1, ...]."""
    where = f"--condition {name}"
    tensor = _from_file(name, Path(value), where) if value.endswith(".safetensors") else _from_text(value, like, where)
    wanted = tuple(like.shape)
    if tuple(tensor.shape) == wanted[1:]:
        tensor = tensor[None]
    if tuple(tensor.shape) != wanted or tensor.is_floating_point() != like.is_floating_point():
        raise JobInputError(
            f"{tensor.dtype} of shape {tuple(tensor.shape)}", where=where, mend=f"the model takes {like.dtype} {wanted}"
        )
    tensor = tensor.to(like.dtype)
    if not torch.isfinite(tensor).all():
        raise JobInputError("a NaN or an infinity", where=where)
    return tensor.contiguous()


def _from_text(value: str, like: torch.Tensor, where: str) -> torch.Tensor:
    try:
        numbers = [float(part) if like.is_floating_point() else int(part) for part in value.split(",")]
    except ValueError as error:
        kind = "numbers" if like.is_floating_point() else "whole numbers"
        raise JobInputError(
            f"{value!r} is no list of {kind}", where=where, mend="separate them by commas, or give a .safetensors file"
        ) from error
    tensor = torch.tensor(numbers, dtype=like.dtype)
    return tensor[0] if like.dim() == 1 and len(numbers) == 1 else tensor


def _from_file(name: str, path: Path, where: str) -> torch.Tensor:
    try:
        if path.stat().st_size > 2 * MAX_BYTES:
            raise JobInputError(f"over {2 * MAX_BYTES} bytes", where=str(path))
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise JobInputError(f"not a readable safetensors file: {error}", where=f"{where}, {path}") from error
    if name not in tensors:
        raise JobInputError(f"no tensor {name!r}, only {', '.join(sorted(tensors)[:5])}", where=f"{where}, {path}")
    tensor: torch.Tensor = tensors[name]
    return tensor
