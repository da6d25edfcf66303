"""Batch norm, which in a trained network is one product and one sum a channel, as just that."""

from __future__ import annotations

import torch
from torch import nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class ChannelAffine(nn.Module):
    """``x * scale + shift`` for each channel of ``[N, C, ...]``.

    Args:
        norm: in eval mode, with running statistics.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var.double() + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.detach().double()
        shift = -norm.running_mean.double() * scale
        if norm.bias is not None:
            shift = shift + norm.bias.detach().double()
        self.register_buffer("scale", scale.float())
        self.register_buffer("shift", shift.float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 ``[N, C, ...]`` -> the same shape."""
        channels = (1, -1, *(1,) * (x.dim() - 2))
        return x * self.scale.view(channels) + self.shift.view(channels)


def plain_norms(module: nn.Module) -> nn.Module:
    """Replace every batch norm that has running statistics, in place; gives ``module`` or what replaces it."""
    if type(module) in BATCH_NORMS and getattr(module, "running_mean", None) is not None:
        return ChannelAffine(module)  # type: ignore[arg-type]
    for name, child in module.named_children():
        replaced = plain_norms(child)
        if replaced is not child:
            setattr(module, name, replaced)
    return module
