"""Which blocks of a model can be reused together: found by running it, whatever its architecture.

A *region* is a set of modules whose outputs are kept, and all the layers that then have nothing left to do. Two rules
make one worth having: with the outputs kept, the model's output must still depend on the sample (a held stage of a
plain chain would freeze everything after it), and enough work must fall away. What has nothing left to do is read
from the autograd graph: a layer without a path to the output is idle.

* In a UNet the outputs of its up blocks qualify, each making the deeper half idle: the regions nest.
* In a transformer or mixer the branches of its residual stream qualify, one by one; the middle half, three quarters
  and all of them but the outermost make nested regions.
* Where neither is found there is no reuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from calib.adapters import example_time
from calib.noise import noise_batch
from calib.reuse import attached

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel

LEAST_SAVING = 0.02
"""A module whose reuse saves less of the work is not looked at."""

WORTHWHILE = 0.25
"""A region has to save at least this share of the work."""

APART = 0.1
"""Nested regions differ by at least this share of the work."""


@dataclass(frozen=True)
class Region:
    """Blocks that are reused together.

    Attributes:
        points: names of the modules whose outputs are kept.
        idle: names of the layers that then do nothing.
        saving: share of the model's multiply-accumulates that fall away.
    """

    points: tuple[str, ...]
    idle: frozenset[str]
    saving: float


@dataclass(frozen=True)
class _Idle:
    """What keeping some outputs leaves to do."""

    sample_counts: bool
    layers: frozenset[str]


def find_regions(model: PretrainedModel, work: Mapping[str, float]) -> tuple[Region, ...]:
    """The nested regions of a model, the smallest first; none where it has no such structure.

    Args:
        model: the float model.
        work: of one pass, in any unit, by the name of each linear layer that counts.
    """
    total = sum(work.values())
    candidates = []
    for name in _candidates(model, work):
        region = _region(model, (name,), work, total)
        if region is not None and region.saving >= LEAST_SAVING:
            candidates.append(region)
    chain = _spaced(_longest_chain(candidates))
    if chain and chain[-1].saving >= WORTHWHILE:
        return tuple(region for region in chain if region.saving >= APART)
    return _runs(model, _outermost(candidates), work, total)


def idle_layers(model: PretrainedModel, points: Sequence[str], layers: Sequence[str]) -> frozenset[str]:
    """The layers that have nothing to do while the points' outputs are kept."""
    return _look(model, points, layers).layers


def _region(model: PretrainedModel, points: tuple[str, ...], work: Mapping[str, float], total: float) -> Region | None:
    """The region of some points, or None where the output would no longer depend on the sample."""
    idle = _look(model, points, list(work))
    if not idle.sample_counts:
        return None
    return Region(points, idle.layers, sum(work[name] for name in idle.layers) / total)


def _candidates(model: PretrainedModel, work: Mapping[str, float]) -> list[str]:
    """Modules that hold enough work, run once and return one float tensor, in the order in which they finish."""
    calls: dict[str, list[object]] = {}
    total = sum(work.values())

    def hook_for(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            calls.setdefault(name, []).append(output)

        return hook

    modules = dict(model.denoiser.named_modules())
    inside = {
        name: sum(share for layer, share in work.items() if layer.startswith(f"{name}.")) for name in modules if name
    }
    names = [name for name, share in inside.items() if share >= LEAST_SAVING / 4 * total and name not in work]
    handles = [modules[name].register_forward_hook(hook_for(name)) for name in names]
    try:
        with torch.no_grad():
            run_model(model, torch.zeros(1, *model.sample_shape))
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, outputs in calls.items() if len(outputs) == 1 and _is_float_tensor(outputs[0])]


def _is_float_tensor(output: object) -> bool:
    return isinstance(output, torch.Tensor) and output.dtype == torch.float32


def run_model(model: PretrainedModel, x: torch.Tensor) -> torch.Tensor:
    """The denoiser's output for one sample ``[1, C, H, W]``, at a time and with conditions as they may come."""
    conditions = model.example_conditions(1)
    out: torch.Tensor = model.denoiser(x, example_time(model.schedule), *conditions.values())
    return out


def _look(model: PretrainedModel, points: Sequence[str], layers: Sequence[str]) -> _Idle:
    """Run once with the points' outputs cut from the graph and see which layers still reach the output."""
    x = noise_batch([0], model.sample_shape).requires_grad_()
    cut = {point: lambda compute: compute().detach() for point in points}
    with torch.enable_grad(), _leaves(model.denoiser, layers) as leaves, attached(model.denoiser, cut):
        out = run_model(model, x).sum()
        if not out.requires_grad:
            return _Idle(sample_counts=False, layers=frozenset(leaves))
        by_sample, *gradients = torch.autograd.grad(out, [x, *leaves.values()], allow_unused=True)
    idle = {name for name, gradient in zip(leaves, gradients, strict=True) if gradient is None}
    return _Idle(by_sample is not None, frozenset(idle))


@contextmanager
def _leaves(denoiser: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """A zero added to the output of each layer, filled in while the denoiser runs."""
    modules = dict(denoiser.named_modules())
    leaves: dict[str, torch.Tensor] = {}

    def hook_for(name: str) -> Callable[..., Any]:
        def hook(_: nn.Module, __: object, output: Any) -> Any:  # noqa: ANN401 - whatever the layer returns
            leaf = leaves[name] = torch.zeros((), requires_grad=True)
            return tree_map(lambda part: part + leaf if _is_float_tensor(part) else part, output)

        return hook

    handles = [modules[name].register_forward_hook(hook_for(name)) for name in layers]
    try:
        yield leaves
    finally:
        for handle in handles:
            handle.remove()


def _longest_chain(regions: Sequence[Region]) -> list[Region]:
    """The longest sequence of regions each of which lies within the next."""
    ordered = sorted(regions, key=lambda region: (len(region.idle), region.points))
    best: list[list[Region]] = []
    for i, region in enumerate(ordered):
        inner = [best[j] for j in range(i) if ordered[j].idle < region.idle]
        best.append([*max(inner, key=len, default=[]), region])
    return max(best, key=len, default=[])


def _spaced(chain: Sequence[Region]) -> list[Region]:
    """A chain thinned out from its largest region down."""
    kept: list[Region] = []
    for region in reversed(chain):
        if not kept or kept[0].saving - region.saving >= APART:
            kept.insert(0, region)
    return kept


def _outermost(regions: Sequence[Region]) -> list[Region]:
    """Regions that lie in no other one, in their order."""
    kept: list[Region] = []
    for region in regions:
        within = any(region.idle < other.idle for other in regions)
        again = any(region.idle == other.idle for other in kept)
        if not within and not again:
            kept.append(region)
    return kept


def _runs(
    model: PretrainedModel, branches: list[Region], work: Mapping[str, float], total: float
) -> tuple[Region, ...]:
    """Nested runs of consecutive branches around the middle."""
    count = len(branches)
    found: list[Region] = []
    for edge in (count // 4, count // 8, 1):
        run = branches[edge : count - edge]
        points = tuple(point for branch in run for point in branch.points)
        region = _region(model, points, work, total) if run else None
        if region is None or region.saving < WORTHWHILE:
            continue
        if not found or found[-1].idle < region.idle:
            found.append(region)
    return tuple(found)
