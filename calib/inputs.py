"""Looking at the inputs of a float model's layers while a sampler runs, a few steps of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import nn

from calib.noise import noise_batch
from calib.sampling import sample, start_generation

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel
    from calib.samplers import Sampler

Look = Callable[[str, nn.Module, torch.Tensor], None]
"""``(layer name, layer, input float32 [N, ...])``."""


def look_at_inputs(
    model: PretrainedModel,
    sampler: Sampler,
    seeds: Sequence[int],
    look: Look,
    *,
    names: Iterable[str],
    every: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Run the float sampler once over all seeds and show the named layers' inputs at every ``every``-th step.

    Args:
        model: the float model; its examples of conditions are given to the seeds one after the other.
        sampler: what the device will run.
        seeds: of the noise; they run together, one batch entry each.
        look: called with each input; it must not keep the tensor.
        names: of the layers.
        every: steps from one look to the next, from step 0 on.
        progress: called with (steps done, steps in all).
    """
    looking = True

    def hook_for(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if looking:
                look(name, module, inputs[0].detach())

        return hook

    def step_done(i: int, _: torch.Tensor) -> None:
        nonlocal looking
        looking = (i + 1) % every == 0
        if progress is not None:
            progress(i + 1, sampler.steps)

    modules = dict(model.denoiser.named_modules())
    start = start_generation(sampler, noise_batch(seeds, model.sample_shape))
    conditions = model.example_conditions(len(seeds), 0)
    with ExitStack() as hooks:
        for name in names:
            hooks.callback(modules[name].register_forward_pre_hook(hook_for(name)).remove)
        sample(model.denoiser, sampler, start, on_step=step_done, seeds=seeds, conditions=conditions)
