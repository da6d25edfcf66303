"""First and second moments of what a layer's weights are multiplied with, observed on the float model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import nn

from calib.inputs import look_at_inputs
from calib.lattice import Kind, Operator
from calib.operators import operator_of

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel
    from calib.samplers import Sampler


def columns(operator: Operator, x: torch.Tensor, kernel: tuple[int, int]) -> torch.Tensor:
    """What each output element sums its products over.

    Args:
        operator: geometry.
        x: float32 ``[N, C, H, W]``, or ``[..., C]`` for linear.
        kernel: (KH, KW); unused for linear.

    Returns:
        float32 ``[groups, K, P]``: row k meets column k of ``operator.per_channel(weight)``; P output places.
    """
    match operator.kind:
        case Kind.LINEAR:
            return x.reshape(1, -1, x.shape[-1]).transpose(1, 2)
        case Kind.CONV:
            patches = F.unfold(x, kernel, operator.dilation, operator.padding, operator.stride)
        case Kind.TRANSPOSED:
            patches = _transposed_patches(operator, x, kernel)
    batch, height, places = patches.shape
    grouped = patches.reshape(batch, operator.groups, height // operator.groups, places)
    return grouped.permute(1, 2, 0, 3).reshape(operator.groups, height // operator.groups, batch * places)


def _transposed_patches(operator: Operator, x: torch.Tensor, kernel: tuple[int, int]) -> torch.Tensor:
    """Patches of a transposed convolution: an ordinary one over the input spread out by the stride, kernel turned."""
    batch, channels, height, width = x.shape
    (down, right), (dilate_y, dilate_x) = operator.stride, operator.dilation
    spread = x.new_zeros(batch, channels, (height - 1) * down + 1, (width - 1) * right + 1)
    spread[..., ::down, ::right] = x
    reach = (dilate_y * (kernel[0] - 1), dilate_x * (kernel[1] - 1))
    before = [r - p for r, p in zip(reach, operator.padding, strict=True)]
    after = [b + extra for b, extra in zip(before, operator.output_padding, strict=True)]
    padded = F.pad(spread, (before[1], after[1], before[0], after[0]))
    patches = F.unfold(padded, kernel, operator.dilation)
    turned = patches.reshape(batch, channels, kernel[0], kernel[1], -1).flip(2, 3)
    return turned.reshape(batch, channels * kernel[0] * kernel[1], -1)


@dataclass
class InputMoments:
    """Moments of one layer's columns.

    Attributes:
        mean: float64 ``[groups, K]``.
        second: float64 ``[groups, K, K]``, ``E[x x^T]``; None where only the mean is asked for.
        places: columns seen.
    """

    mean: torch.Tensor
    second: torch.Tensor | None
    places: int = 0

    def see(self, x: torch.Tensor) -> None:
        """Take in columns ``[groups, K, P]``."""
        share = x.shape[2] / (self.places + x.shape[2])
        self.places += x.shape[2]
        self.mean += (x.mean(2) - self.mean) * share
        if self.second is not None:
            self.second += (x @ x.transpose(1, 2) / x.shape[2] - self.second) * share

    def covariance(self) -> torch.Tensor:
        """float64 ``[groups, K, K]``; needs ``second``."""
        assert self.second is not None
        return self.second - self.mean[:, :, None] * self.mean[:, None, :]


def observe_moments(
    model: PretrainedModel,
    sampler: Sampler,
    seeds: Sequence[int],
    *,
    names: Iterable[str],
    every: int,
    second: bool,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, InputMoments]:
    """Run the float sampler and gather the named layers' moments.

    Args:
        model: the float model.
        sampler: what the device will run.
        seeds: of the starting noise; they run together.
        names: of the layers, each one that ``calib.operators.operator_of`` reads.
        every: steps from one look to the next.
        second: whether second moments are needed too.
        progress: called with (steps done, steps in all).
    """
    found: dict[str, InputMoments] = {}
    modules = dict(model.denoiser.named_modules())
    names = list(names)
    geometry = {name: operator_of(modules[name]) for name in names}

    def look(name: str, module: nn.Module, x: torch.Tensor) -> None:
        operator, shape = geometry[name]
        kernel = (1, 1) if operator.kind is Kind.LINEAR else (int(shape[2]), int(shape[3]))
        one_dimensional = isinstance(module, nn.Conv1d | nn.ConvTranspose1d)
        seen = columns(operator, x.unsqueeze(-2) if one_dimensional else x, kernel)
        if name not in found:
            groups, height, _ = seen.shape
            square = torch.zeros(groups, height, height, dtype=torch.float64) if second else None
            found[name] = InputMoments(torch.zeros(groups, height, dtype=torch.float64), square)
        found[name].see(seen)

    look_at_inputs(model, sampler, seeds, look, names=names, every=every, progress=progress)
    return found
