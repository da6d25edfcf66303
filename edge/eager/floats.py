"""The float operators and the prologue and epilogue of the modulated ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import torch
from torch import Tensor
from torch.nn import functional

from edge.calls import Activation, Norm

if TYPE_CHECKING:
    from edge.calls import Activate, Attention, Binary, Modulated, Normalize, Prologue


def normalize(call: Normalize) -> Tensor:
    """``modiff::normalize``."""
    if not _is_active(call):
        return undefined(call.output())
    return prologue(call.prologue, call.x, call.skip, call.upsample)


def attention(call: Attention) -> Tensor:
    """``modiff::attention``."""
    if not _is_active(call):
        return undefined(call.output())
    q, k, v = (t.double().reshape(*t.shape[:2], call.heads, -1).transpose(1, 2) for t in (call.q, call.k, call.v))
    weights = torch.softmax(call.scale * (q @ k.transpose(-2, -1)), -1)
    mixed: Tensor = (weights @ v).transpose(1, 2).flatten(2).float()
    return mixed.contiguous()


def add(call: Binary) -> Tensor:
    """``modiff::add``."""
    return call.a + per_image(call.b, call.a) if _is_active(call) else undefined(call.output())


def multiply(call: Binary) -> Tensor:
    """``modiff::multiply``."""
    return call.a * per_image(call.b, call.a) if _is_active(call) else undefined(call.output())


def activate(call: Activate) -> Tensor:
    """``modiff::activate``."""
    return activation(call.activation, call.x).clone() if _is_active(call) else undefined(call.output())


def prologue(wanted: Prologue, x: Tensor, skip: Tensor | None, upsample: int) -> Tensor:
    """``u`` of ``wanted``: float32 [N, upsample*H, upsample*W, C], or [..., C]."""
    joined = torch.cat([x, skip], -1) if skip is not None else x
    values = activation(wanted.activation, _normalized(wanted, joined.double())).float()
    for dimension in (1, 2) if upsample != 1 else ():
        values = values.repeat_interleave(upsample, dimension)
    return values.contiguous()


def epilogue(call: Modulated, y: Tensor) -> Tensor:
    """Float32 y of the accumulators, channels last -> the operator's output."""
    if call.shift is not None:
        y = y + per_image(call.shift, y)
    y = activation(call.out_activation, y)
    if call.gate is not None:
        y = y * per_image(call.gate, y)
    return y + call.add if call.add is not None else y


def activation(kind: int, x: Tensor) -> Tensor:
    """An ``Activation`` of ``x``, computed in float64, in the type of ``x``."""
    wide = x.double()
    match Activation(kind):
        case Activation.NONE:
            return x
        case Activation.SILU:
            return functional.silu(wide).to(x.dtype)
        case Activation.GELU:
            return functional.gelu(wide).to(x.dtype)
        case Activation.GELU_TANH:
            return functional.gelu(wide, approximate="tanh").to(x.dtype)
        case Activation.RELU:
            return torch.relu(x)
        case never:
            assert_never(never)


def per_image(vector: Tensor, like: Tensor) -> Tensor:
    """[C] or [N or 1, C] so that it broadcasts over ``like`` [N, ..., C]; any other shape as it is."""
    if vector.dim() == 1 or vector.shape == like.shape:
        return vector
    return vector.reshape(vector.shape[0], *[1] * (like.dim() - 2), vector.shape[1])


def undefined(output: Tensor) -> Tensor:
    """What an operator returns that was told to do nothing."""
    return output.fill_(torch.nan)


def _normalized(wanted: Prologue, x: Tensor) -> Tensor:
    norm = Norm(wanted.norm)
    match norm:
        case Norm.NONE:
            return x
        case Norm.GROUP:
            grouped = x.reshape(x.shape[0], -1, wanted.groups, x.shape[-1] // wanted.groups)
            variance, mean = torch.var_mean(grouped, (1, 3), correction=0, keepdim=True)
            x = ((grouped - mean) / torch.sqrt(variance + wanted.eps)).reshape(x.shape)
        case Norm.LAYER:
            variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
            x = (x - mean) / torch.sqrt(variance + wanted.eps)
        case Norm.RMS:
            x = x / torch.sqrt(x.square().mean(-1, keepdim=True) + wanted.eps)
        case never:
            assert_never(never)
    if wanted.weight is not None:
        x = x * per_image(wanted.weight, x)
    return x + per_image(wanted.bias, x) if wanted.bias is not None else x


def _is_active(call: Normalize | Attention | Binary | Activate) -> bool:
    return bool(call.active[int(call.step)])
