"""How far an error anywhere in a sampler's run reaches the final image: one sweep backwards through the whole run.

The image ``x_T`` is a function of everything computed on the way. For a random probe ``v`` the product ``v . x_T`` is
differentiated through sampler and denoiser, last step first; only one step's graph is alive at a time (adjoint method
of optimal control; probes as in Hutchinson, 1990). With ``v`` standard normal and ``J`` the Jacobian of ``x_T`` at a
tensor, ``E (J'v)(J'v)' = J'J``. So the gradients give, without a single further run of the model,

* *gains*: the mean square error of the image for independent errors of unit variance at a layer's input or output;
* *projections*: what replacing a block's output at step ``i`` by that of other steps does to the image, signs kept, so
  that the effects of many steps can be added up before they are squared. ``calib.planner.reuse`` searches in them.

Both are first order: an error that is large enough to change the run itself is not seen. Plans are verified by runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from calib.noise import noise_batch
from calib.operators import macs_of
from calib.samplers import History
from calib.sampling import condition_inputs, start_generation, step_noise

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel
    from calib.samplers import Sampler

PROBE_SEED = 3_000_000
SAMPLED_ELEMENTS = 1024
"""Of a layer's input for each seed: enough for mean squares and shares."""


@dataclass
class LayerSweep:
    """One layer over the run.

    Attributes:
        macs, inputs, outputs: multiply-accumulates and elements of one call for one sample.
        input_gain, output_gain: float64 ``[T]``: mean square error of the image for errors of variance 1 there.
        largest_change: float64 ``[T]``: largest ``|x_i - x_(i-1)|``; 0 at step 0.
        samples: float32 ``[T, ...]``: some elements of the layer's input, the same ones at each step.
    """

    macs: int
    inputs: int
    outputs: int
    input_gain: torch.Tensor
    output_gain: torch.Tensor
    largest_change: torch.Tensor
    samples: torch.Tensor

    @cached_property
    def power(self) -> torch.Tensor:
        """float64 ``[T]``: mean square of the layer's input."""
        return self.samples.double().square().mean(1)

    @cached_property
    def distance(self) -> torch.Tensor:
        """float64 ``[T, T]``: mean square difference of the layer's inputs of two steps."""
        x = self.samples.double()
        return (self.power[:, None] + self.power[None, :] - 2 * (x @ x.T) / x.shape[1]).clamp(min=0)


@dataclass
class Sweep:
    """What a run forwards and backwards has shown.

    Attributes:
        images: float32 ``[N, ...]``, what the float model makes of the seeds.
        layers: by name.
        step_gain: float64 ``[T]``: mean square error of the image for errors of variance 1 in the denoiser's output.
        projections: by reuse point, float64 ``[probes, N, T, T]``: ``(J_i'v) . y_j / sqrt(elements of the image)``, the
            effect of output ``y_j`` in the place of step ``i``'s.
        point_elements: of each point's output for one sample.
    """

    images: torch.Tensor
    layers: dict[str, LayerSweep]
    step_gain: torch.Tensor
    projections: dict[str, torch.Tensor]
    point_elements: dict[str, int]


@dataclass
class _Run:
    """The forward half: what each step started from and what was seen on the way."""

    seeds: Sequence[int]
    conditions: tuple[torch.Tensor, ...]
    samples: list[torch.Tensor] = field(default_factory=list)
    histories: list[History] = field(default_factory=list)
    inputs: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    changes: dict[str, list[float]] = field(default_factory=dict)
    outputs: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    images: torch.Tensor = field(default_factory=lambda: torch.zeros(0))


def sweep(
    model: PretrainedModel,
    sampler: Sampler,
    seeds: Sequence[int],
    *,
    layers: Sequence[str],
    points: Sequence[str] = (),
    probes: int = 8,
    batch: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Run the float sampler forwards and backwards once.

    Args:
        model: the float model.
        sampler: its tables.
        seeds: of the noise.
        layers: names of linear layers.
        points: names of modules that return one float tensor.
        probes: random directions a seed; the gains' relative error is about ``sqrt(2 / (probes * seeds))``.
        batch: seeds that run together; the memory is theirs.
        progress: called with (steps done, steps in all), both directions counted.
    """
    parts = []
    lots = [range(first, min(first + batch, len(seeds))) for first in range(0, len(seeds), batch)]
    for number, lot in enumerate(lots):
        shifted = None if progress is None else _shifted(progress, 2 * sampler.steps, number, len(lots))
        some = [seeds[k] for k in lot]
        parts.append(
            _sweep_some(model, sampler, some, lot.start, layers=layers, points=points, probes=probes, progress=shifted)
        )
    return _joined(parts)


def _shifted(progress: Callable[[int, int], None], steps: int, before: int, lots: int) -> Callable[[int, int], None]:
    """Progress of one lot as progress of all."""
    return lambda done, _: progress(before * steps + done, lots * steps)


def _joined(parts: Sequence[Sweep]) -> Sweep:
    """The sweeps of several lots of seeds as one of all."""
    counts = [len(part.images) for part in parts]

    def mean(gains: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([count * gain for count, gain in zip(counts, gains, strict=True)]).sum(0) / sum(counts)

    def joined(layers: Sequence[LayerSweep]) -> LayerSweep:
        return LayerSweep(
            layers[0].macs,
            layers[0].inputs,
            layers[0].outputs,
            mean([layer.input_gain for layer in layers]),
            mean([layer.output_gain for layer in layers]),
            torch.stack([layer.largest_change for layer in layers]).amax(0),
            torch.cat([layer.samples for layer in layers], 1),
        )

    first = parts[0]
    return Sweep(
        torch.cat([part.images for part in parts]),
        {name: joined([part.layers[name] for part in parts]) for name in first.layers},
        mean([part.step_gain for part in parts]),
        {name: torch.cat([part.projections[name] for part in parts], 1) for name in first.projections},
        first.point_elements,
    )


def _sweep_some(
    model: PretrainedModel,
    sampler: Sampler,
    seeds: Sequence[int],
    first: int,
    *,
    layers: Sequence[str],
    points: Sequence[str],
    probes: int,
    progress: Callable[[int, int], None] | None,
) -> Sweep:
    """``sweep`` of seeds that run together, after ``first`` others."""
    steps = sampler.steps
    with torch.no_grad():
        run = _forwards(model, sampler, seeds, first, layers=layers, points=points, progress=progress)
    count = run.images[0].numel()
    result = Sweep(
        run.images,
        {name: _layer_sweep(run, name) for name in layers},
        torch.zeros(steps, dtype=torch.float64),
        {name: torch.zeros(probes, len(seeds), steps, steps, dtype=torch.float64) for name in points},
        {name: run.outputs[name][0][0].numel() for name in points},
    )
    traces = {name: torch.stack([y.flatten(1) for y in run.outputs.pop(name)], 1) for name in points}
    directions = range(PROBE_SEED + probes * first, PROBE_SEED + probes * (first + len(seeds)))
    vectors = noise_batch(directions, model.sample_shape).reshape(-1, probes, *model.sample_shape).transpose(0, 1)
    adjoints = [[vector / count**0.5, *(torch.zeros_like(vector),) * 2] for vector in vectors]
    for i in reversed(range(steps)):
        with torch.enable_grad(), _taps(model.denoiser, layers, points) as taps:
            before = [run.samples[i], run.histories[i].clean, run.histories[i].sample]
            before = [tensor.clone().requires_grad_() for tensor in before]
            out = model.denoiser(sampler.denoiser_input(i, before[0]), sampler.timesteps[i], *run.conditions)
            fresh = step_noise(sampler, seeds, before[0], i)
            after, left = sampler.advance(i, before[0], out, History(*before[1:]), first=i == 0, noise=fresh)
            ends = [after, left.clean, left.sample]
        watched = {**taps, ("out", ""): out}
        slopes: dict[str, list[torch.Tensor]] = {name: [] for name in points}
        for k in range(probes):
            gradients = _gradients(ends, adjoints[k], [*before, *watched.values()], retain=k < probes - 1)
            adjoints[k] = gradients[:3]
            _collect(result, i, dict(zip(watched, gradients[3:], strict=True)), slopes)
        for name, trace in traces.items():  # [N, probes, elements] times [N, elements, T]: the traces are read once
            products = torch.stack(slopes.pop(name), 1) @ trace.transpose(1, 2)
            result.projections[name][:, :, i, :] = products.transpose(0, 1).double()
        if progress is not None:
            progress(2 * steps - i, 2 * steps)
    for layer in result.layers.values():
        layer.input_gain /= probes * len(seeds)
        layer.output_gain /= probes * len(seeds)
    result.step_gain /= probes * len(seeds)
    return result


def _forwards(
    model: PretrainedModel,
    sampler: Sampler,
    seeds: Sequence[int],
    first: int,
    *,
    layers: Sequence[str],
    points: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> _Run:
    modules = dict(model.denoiser.named_modules())
    conditions = condition_inputs(model.denoiser, model.example_conditions(len(seeds), first), len(seeds))
    run = _Run(seeds, conditions)
    previous: dict[str, torch.Tensor] = {}

    def see_layer(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], y: torch.Tensor) -> None:
            x = inputs[0]
            run.sizes[name] = (macs_of(module, x, y, len(seeds)), x.numel() // len(seeds), y.numel() // len(seeds))
            run.inputs.setdefault(name, []).append(_some_elements(x))
            change = float((x - previous[name]).abs().max()) if name in previous else 0.0
            run.changes.setdefault(name, []).append(change)
            previous[name] = x.clone()

        return hook

    def see_point(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(_: nn.Module, __: tuple[torch.Tensor, ...], y: torch.Tensor) -> None:
            run.outputs.setdefault(name, []).append(y.clone())

        return hook

    handles = [modules[name].register_forward_hook(see_layer(name)) for name in layers]
    handles += [modules[name].register_forward_hook(see_point(name)) for name in points]
    x = start_generation(sampler, noise_batch(seeds, model.sample_shape))
    before = History.empty(x)
    try:
        for i in range(sampler.steps):
            run.samples.append(x)
            run.histories.append(before)
            out = model.denoiser(sampler.denoiser_input(i, x), sampler.timesteps[i], *conditions)
            x, before = sampler.advance(i, x, out, before, first=i == 0, noise=step_noise(sampler, seeds, x, i))
            if progress is not None:
                progress(i + 1, 2 * sampler.steps)
    finally:
        for handle in handles:
            handle.remove()
    run.images = x
    return run


def _some_elements(x: torch.Tensor) -> torch.Tensor:
    """Float32, flat: at most ``SAMPLED_ELEMENTS`` a seed, spread evenly (by an odd stride, over all channels)."""
    flat = x.flatten(1) if x.dim() > 1 else x[None]
    stride = max(1, flat.shape[1] // SAMPLED_ELEMENTS) | 1
    return flat[:, ::stride].reshape(-1).clone()


def _layer_sweep(run: _Run, name: str) -> LayerSweep:
    """What the forward half has seen of a layer; gains still zero."""
    zero = torch.zeros(len(run.samples), dtype=torch.float64)
    changes = torch.tensor(run.changes[name], dtype=torch.float64)
    return LayerSweep(*run.sizes[name], zero.clone(), zero.clone(), changes, torch.stack(run.inputs[name]))


@contextmanager
def _taps(
    denoiser: nn.Module, layers: Sequence[str], points: Sequence[str]
) -> Iterator[dict[tuple[str, str], torch.Tensor]]:
    """Tensors to differentiate by, filled while the denoiser runs: ("in"|"layer"|"point", name).

    An own copy each, so that what other modules do to the same tensor does not count.
    """
    modules = dict(denoiser.named_modules())
    taps: dict[tuple[str, str], torch.Tensor] = {}

    def tap_input(name: str) -> Callable[..., tuple[torch.Tensor, ...]]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            taps["in", name] = _tapped(inputs[0])
            return taps["in", name], *inputs[1:]

        return hook

    def tap_output(kind: str, name: str) -> Callable[..., torch.Tensor]:
        def hook(_: nn.Module, __: tuple[torch.Tensor, ...], y: torch.Tensor) -> torch.Tensor:
            taps[kind, name] = _tapped(y)
            return taps[kind, name].clone()

        return hook

    handles = [modules[name].register_forward_pre_hook(tap_input(name)) for name in layers]
    handles += [modules[name].register_forward_hook(tap_output("layer", name)) for name in layers]
    handles += [modules[name].register_forward_hook(tap_output("point", name)) for name in points]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


def _tapped(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, in the graph whether or not they depend on the sample."""
    return tensor + torch.zeros((), requires_grad=True)


def _gradients(
    ends: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], by: Sequence[torch.Tensor], *, retain: bool
) -> list[torch.Tensor]:
    """Gradient of ``sum(ends * weights)`` by each tensor; zeros where it does not depend on one."""
    used = [(end, weight) for end, weight in zip(ends, weights, strict=True) if end.requires_grad]
    gradients = torch.autograd.grad(
        [end for end, _ in used], list(by), [weight for _, weight in used], retain_graph=retain, allow_unused=True
    )
    return [
        torch.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(by, gradients, strict=True)
    ]


def _collect(
    result: Sweep,
    i: int,
    gradients: Mapping[tuple[str, str], torch.Tensor],
    slopes: Mapping[str, list[torch.Tensor]],
) -> None:
    """Add one probe's gradients at step ``i``; those by points go to ``slopes``, ``[N, elements]`` each."""
    for (kind, name), gradient in gradients.items():
        match kind:
            case "in":
                result.layers[name].input_gain[i] += gradient.double().square().sum()
            case "layer":
                result.layers[name].output_gain[i] += gradient.double().square().sum()
            case "out":
                result.step_gain[i] += gradient.double().square().sum()
            case _:
                slopes[name].append(gradient.flatten(1))
