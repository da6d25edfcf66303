"""Watching a float model over a sampler's run: how far each layer's input reaches and how much it changes a step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from calib.noise import noise_batch
from calib.operators import macs_of
from calib.samplers import Sampler
from calib.sampling import sample, start_generation

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel

_MANTISSA_BITS = 3
_BIN_SHIFT = 23 - _MANTISSA_BITS
BINS = 2 ** (31 - _BIN_SHIFT)
"""One bin for each exponent and leading three mantissa bits of a float32: eight an octave, zero to infinity."""

SEED_TOLERANCE = 1e-5
"""Inputs of two seeds that differ by less, relative to their range, are the same but for rounding."""


@dataclass
class LayerObservation:
    """What one layer's input did.

    Attributes:
        lowest, highest: extreme values over the run and all seeds.
        depends_on_sample: False where every seed saw the same input.
        macs: multiply-accumulates of one pass for one sample, padding counted.
        changes: int64 ``[T, BINS]``: histogram of ``|x_i - x_(i-1)|``; row 0 is empty.
    """

    changes: torch.Tensor
    lowest: float = 0.0
    highest: float = 0.0
    depends_on_sample: bool = False
    macs: int = 0
    _previous: torch.Tensor | None = field(default=None, repr=False)

    @classmethod
    def empty(cls, steps: int) -> LayerObservation:
        """Nothing seen yet."""
        return cls(torch.zeros(steps, BINS, dtype=torch.int64))

    @property
    def depends_on_time_only(self) -> bool:
        """The same for every seed, but not for every step; what is the same for both is a condition, or constant."""
        return not self.depends_on_sample and bool(self.changes[:, 1:].any())

    @property
    def largest(self) -> float:
        """Largest magnitude over the run."""
        return max(-self.lowest, self.highest)

    def see(self, step: int, x: torch.Tensor) -> None:
        """Record the input of one step: float32 ``[N, ...]``, one entry a seed."""
        lowest, highest = torch.aminmax(x)
        self.lowest, self.highest = min(self.lowest, float(lowest)), max(self.highest, float(highest))
        if not self.depends_on_sample:
            self.depends_on_sample = bool((x - x[:1]).abs().max() > SEED_TOLERANCE * self.largest)
        if self._previous is not None:
            bins = bins_of((x - self._previous).abs_())
            self.changes[step] += torch.bincount(bins, minlength=BINS)
        self._previous = x.clone()

    def forget_previous(self) -> None:
        """The next input starts another run."""
        self._previous = None


def bins_of(magnitudes: torch.Tensor) -> torch.Tensor:
    """int32, flat: the bin of each magnitude (float32, not negative)."""
    return magnitudes.flatten().view(torch.int32) >> _BIN_SHIFT


def bin_sizes() -> torch.Tensor:
    """float64 ``[BINS]``: the change that stands for each bin (its middle; not finite at the top end)."""
    lowest = torch.arange(BINS, dtype=torch.int32) << _BIN_SHIFT
    return (lowest + (1 << (_BIN_SHIFT - 1))).view(torch.float32).double()


def observe(
    model: PretrainedModel,
    sampler: Sampler,
    names: Sequence[str],
    seeds: Sequence[int],
    *,
    batch: int = 4,
    progress: Callable[[int, int], None] | None = None,
    denoiser: nn.Module | None = None,
    live: Mapping[str, Collection[int]] | None = None,
    on_images: Callable[[torch.Tensor], None] | None = None,
) -> dict[str, LayerObservation]:
    """Run the float sampler once for each seed and watch layers.

    Args:
        model: the float model; its examples of conditions are given to the seeds one after the other.
        sampler: what the device will run.
        names: of the layers, each called once a step (``calib.support`` finds them).
        seeds: of the starting noise.
        batch: seeds that run together.
        progress: called with (steps done, steps in all).
        denoiser: what to run in the place of the model's, such as one that reuses blocks; it calls the same layers.
        live: by layer name, the steps to look at; changes are then from one of these to the next. None = all.
        on_images: called with the images of each batch, float32 ``[N, C, H, W]``.

    Returns:
        By layer name.
    """
    observations: dict[str, LayerObservation] = {}
    done, total = 0, sampler.steps * -(-len(seeds) // batch)
    for first in range(0, len(seeds), batch):
        some = seeds[first : first + batch]
        x = start_generation(sampler, noise_batch(some, model.sample_shape))
        conditions = model.example_conditions(len(some), first)
        with _watch(model.denoiser, names, observations, steps=sampler.steps, samples=len(some), live=live) as advance:

            def step_done(i: int, _: torch.Tensor, *, before: int = done) -> None:
                advance(i + 1)
                if progress is not None:
                    progress(before + i + 1, total)

            run = denoiser if denoiser is not None else model.denoiser
            images = sample(run, sampler, x, on_step=step_done, seeds=some, conditions=conditions)
        if on_images is not None:
            on_images(images)
        done += sampler.steps
        for observation in observations.values():
            observation.forget_previous()
    return observations


@contextmanager
def _watch(
    denoiser: nn.Module,
    names: Sequence[str],
    observations: dict[str, LayerObservation],
    *,
    steps: int,
    samples: int,
    live: Mapping[str, Collection[int]] | None,
) -> Iterator[Callable[[int], None]]:
    """Hooks on the named layers while the context lives; gives the function that sets the step to record."""
    current = 0

    def set_current(step: int) -> None:
        nonlocal current
        current = step

    def hook_for(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if live is not None and current not in live[name]:
                return
            observation = observations.setdefault(name, LayerObservation.empty(steps))
            observation.macs = macs_of(module, inputs[0], output, samples)
            observation.see(current, inputs[0].detach())

        return hook

    modules = dict(denoiser.named_modules())
    handles = [modules[name].register_forward_hook(hook_for(name)) for name in names]
    try:
        yield set_current
    finally:
        for handle in handles:
            handle.remove()
