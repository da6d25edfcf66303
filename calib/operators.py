"""Reading a PyTorch layer as a linear operator: which layers can be modulated, and their geometry."""

from __future__ import annotations

import torch
from torch import nn

from calib.errors import CalibrationError
from calib.lattice import Kind, Operator

LINEAR_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def why_not(module: nn.Module) -> str | None:
    """Why a linear layer has to stay in floating point, or None where it can be modulated.

    A subclass counts as what it inherits from where it computes the same; what else it may compute is not read.
    """
    if plain_type(module) is None:
        return f"{type(module).__name__} is not a plain convolution or linear layer"
    if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001 - there is no other way to see them
        return "it has forward hooks, which may change what it computes"
    if isinstance(module, nn.Linear):
        return None
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d)
    if module.padding_mode != "zeros":
        return f"padding mode {module.padding_mode!r} is not a zero change"
    if module.padding == "same" and any(
        d * (k - 1) % 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)
    ):
        return "padding 'same' is uneven here"
    return None


def plain_type(module: nn.Module) -> type[nn.Module] | None:
    """The linear layer that a module computes: its class, or the one it inherits ``forward`` from; None for others.

    diffusers' LoRA-compatible layers are plain while no LoRA is loaded.
    """
    for kind in LINEAR_LAYERS:
        if isinstance(module, kind):
            own = type(module)
            inherits = own.forward is kind.forward and all(
                getattr(own, name, None) is getattr(kind, name, None) for name in ("_conv_forward", "_output_padding")
            )
            no_lora = own.__name__.startswith("LoRACompatible") and getattr(module, "lora_layer", own) is None
            return kind if inherits or no_lora else None
    return None


def operator_of(module: nn.Module) -> tuple[Operator, torch.Size]:
    """The layer's operator and its weight's shape, both as two-dimensional.

    Raises:
        CalibrationError: a layer that ``why_not`` names.
    """
    reason = why_not(module)
    if reason is not None:
        raise CalibrationError(reason)
    weight = weight_of(module)
    if isinstance(module, nn.Linear):
        return Operator(Kind.LINEAR), weight.shape
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d)
    transposed = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d)
    operator = Operator(
        Kind.TRANSPOSED if transposed else Kind.CONV,
        _pair(module.stride, 1),
        _pair(_padding(module), 0),
        _pair(module.dilation, 1),
        module.groups,
        _pair(module.output_padding, 0),
    )
    return operator, weight.shape


def weight_of(module: nn.Module) -> torch.Tensor:
    """float32 weight, one-dimensional convolutions with a height of 1: ``[OC, C, 1, K]``."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    weight = weight.detach().to(torch.float32)
    return weight.unsqueeze(-2) if weight.dim() == 3 else weight


def bias_of(module: nn.Module) -> torch.Tensor:
    """float32 ``[OC]``, zeros where the layer has none."""
    bias = module.bias
    if isinstance(bias, torch.Tensor):
        return bias.detach().to(torch.float32).clone()
    if isinstance(module, nn.Linear):
        return torch.zeros(module.out_features)
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d)
    return torch.zeros(module.out_channels)


def macs_of(module: nn.Module, x: torch.Tensor, output: torch.Tensor, samples: int) -> int:
    """Multiply-accumulates of a layer for one sample, those with padding counted.

    Args:
        module: a convolution or linear layer.
        x: its input, whose first dimension need not be that of the samples.
        output: what it made of it.
        samples: that the model ran on.
    """
    weight = weight_of(module)
    moved = x if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d) else output
    return moved.numel() * weight[0].numel() // samples


def _padding(module: nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d) -> tuple[int, ...]:
    """Padding as numbers; 'same' is even here (``why_not``)."""
    if module.padding == "same":
        return tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))
    if isinstance(module.padding, str):
        return (0,) * len(module.kernel_size)
    return module.padding


def _pair(values: tuple[int, ...], fill: int) -> tuple[int, int]:
    """(height, width) of a one- or two-dimensional setting."""
    height, width = values if len(values) == 2 else (fill, *values)
    return height, width
