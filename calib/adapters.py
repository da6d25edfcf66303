"""Any PyTorch denoiser in the kit's own form: ``adapt`` for a module, ``guided`` for classifier-free guidance.

The form is ``(x float32 [N, C, H, W], time scalar, *conditions [N, ...]) -> out``, with the shape of ``x``. Samples of
another rank are reshaped on the way in and out; times are given to the module as it wants them.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from calib.attention import expand_attention
from calib.errors import ModelError
from calib.norms import plain_norms
from calib.schedules import ContinuousSchedule, NoiseSchedule, Prediction, Schedule, edm, flow, read_prediction, ve, vp

Call: TypeAlias = Callable[..., object]
"""``(module, x, t, **conditions)``: how a module is called; ``x`` in the module's own shape, ``t`` ``[N]``."""

TimeName = Literal["discrete", "vp", "ve", "edm", "flow"]
TIMES: Mapping[TimeName, Callable[[], Schedule]] = {
    "discrete": NoiseSchedule.linear,
    "vp": vp,
    "ve": ve,
    "edm": edm,
    "flow": flow,
}


@dataclass(frozen=True)
class PretrainedModel:
    """A denoiser and what is known about it.

    Attributes:
        denoiser: float32, in eval mode, without gradients; ``(x, time, *conditions) -> out``.
        schedule: the noising process it was trained on.
        sample_shape: (channels, height, width) of its images.
        name: of its folder or class.
        content_hash: SHA-256 (hex) over its configuration, schedule and weights.
        notes: what loading had to assume, for a person to read.
        conditions: examples of what the denoiser takes beside sample and time, by name and in its order: float32 or
            int64 ``[K, ...]``, K of them; calibration gives its seeds one after the other.
        unconditional: what stands for "no condition" in guidance, by name, ``[1, ...]``.
        references: float32 ``[K, C, H, W]``: what inspected images should look like; None where nobody said.
    """

    denoiser: nn.Module
    schedule: Schedule
    sample_shape: tuple[int, int, int]
    name: str
    content_hash: str
    notes: tuple[str, ...] = ()
    conditions: Mapping[str, torch.Tensor] = field(default_factory=dict)
    unconditional: Mapping[str, torch.Tensor] = field(default_factory=dict)
    references: torch.Tensor | None = None

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions, in the denoiser's order."""
        return tuple(self.conditions)

    def __call__(self, x: torch.Tensor, t: torch.Tensor, *conditions: torch.Tensor) -> torch.Tensor:
        """The denoiser's output: a model can be sampled from as its denoiser can."""
        out: torch.Tensor = self.denoiser(x, t, *conditions)
        return out

    def example_conditions(self, count: int, first: int = 0) -> dict[str, torch.Tensor]:
        """``count`` of the examples, from number ``first`` on, around and around: ``[count, ...]`` each."""
        return {
            name: examples[[(first + i) % len(examples) for i in range(count)]]
            for name, examples in self.conditions.items()
        }


class AdaptedDenoiser(nn.Module):
    """A module as the kit calls it.

    Args:
        module: in float32.
        shape: of one sample as the module wants it.
        condition_names: in the order that they are given in.
        call: how to call the module; ``module(x, t, **conditions)`` where None.
        attribute: name of the module within this one, the first part of its layers' names.
    """

    def __init__(
        self,
        module: nn.Module,
        shape: Sequence[int],
        condition_names: Sequence[str] = (),
        call: Call | None = None,
        attribute: str = "net",
    ) -> None:
        super().__init__()
        self.add_module(attribute, module)
        self.attribute = attribute
        self.shape = tuple(shape)
        self.condition_names = tuple(condition_names)
        self.call = call

    def forward(self, x: torch.Tensor, t: torch.Tensor, *conditions: torch.Tensor) -> torch.Tensor:
        """float32 ``[N, C, H, W]``, a scalar time and ``[N, ...]`` conditions -> float32 like ``x``."""
        module: nn.Module = getattr(self, self.attribute)
        given = x.reshape(len(x), *self.shape) if x.shape[1:] != self.shape else x
        named = dict(zip(self.condition_names, conditions, strict=True))
        times = t.expand(len(x))
        out = module(given, times, **named) if self.call is None else self.call(module, given, times, **named)
        tensor = _first_tensor(out)
        if tensor.dim() == given.dim() and tensor.shape[1] == 2 * given.shape[1]:
            tensor = tensor[:, : given.shape[1]]  # the second half is a learned variance (Nichol and Dhariwal, 2021)
        return tensor.reshape(x.shape) if tensor.shape != x.shape else tensor


class GuidedDenoiser(nn.Module):
    """Classifier-free guidance (Ho and Salimans, 2022) as a batch of two: unconditional first, then conditional.

    Args:
        denoiser: takes conditions.
        scale: 1 is the conditional model alone.
        unconditional: the conditions of the unconditional half, by name, ``[1, ...]``.
    """

    def __init__(self, denoiser: nn.Module, scale: float, unconditional: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.scale = scale
        self.condition_names: tuple[str, ...] = getattr(denoiser, "condition_names", ())
        for name in self.condition_names:
            self.register_buffer(f"unconditional_{name}", unconditional[name].clone())

    def forward(self, x: torch.Tensor, t: torch.Tensor, *conditions: torch.Tensor) -> torch.Tensor:
        """float32 ``[N, C, H, W]``, a scalar time and ``[N, ...]`` conditions -> float32 like ``x``."""
        both = [
            torch.cat([getattr(self, f"unconditional_{name}").expand_as(given), given])
            for name, given in zip(self.condition_names, conditions, strict=True)
        ]
        out = self.denoiser(torch.cat([x, x]), t, *both)
        free, bound = out[: len(x)], out[len(x) :]
        guided: torch.Tensor = free + self.scale * (bound - free)
        return guided


def adapt(
    module: nn.Module,
    *,
    sample_shape: Sequence[int],
    prediction: str | Prediction | None = None,
    time: TimeName | Schedule = "discrete",
    conditions: Mapping[str, torch.Tensor] | None = None,
    unconditional: Mapping[str, torch.Tensor] | None = None,
    call: Call | None = None,
    name: str | None = None,
) -> PretrainedModel:
    """Make any denoiser a ``PretrainedModel``; the module itself is not changed.

    Args:
        module: called as ``module(x, t, **conditions)``, ``t`` of shape ``[N]``; gives a tensor like ``x``, or a tuple
            or an object whose first value is one. Twice as many channels as ``x`` has are a learned variance, of which
            the second half is ignored.
        sample_shape: of one sample as the module wants it, without the batch: (C, H, W), (C, L), (D,) ...
        prediction: what the output means (``calib.schedules.PredictionName``), or a function of ``(alpha, sigma)`` that
            gives ``(a, b)`` with ``clean = a * x + b * out``; what ``time`` says where None.
        time: the noising process: ``discrete`` (DDPM's thousand timesteps), ``vp``, ``ve``, ``edm`` or ``flow`` with
            their usual constants, or a schedule of ``calib.schedules`` with yours.
        conditions: example tensors of what else the module takes, by keyword: ``[K, ...]``, K examples each. Several
            of them, all different, show calibration how far the conditions reach.
        unconditional: what stands for "no condition" in guidance, by name, ``[1, ...]``.
        call: where the module is called otherwise: ``(module, x, t, **conditions)``.
        name: for reports; the module's class where None.

    Raises:
        ModelError: the module does not run on these inputs, or gives something else than a sample.
    """
    shape = tuple(int(size) for size in sample_shape)
    if not shape or min(shape) < 1:
        raise ModelError(f"sample_shape {shape}", where="adapt", mend="give the sizes of one sample")
    schedule = TIMES[time]() if isinstance(time, str) else time
    if prediction is not None:
        schedule = dataclasses.replace(schedule, prediction=read_prediction(prediction))
    examples = {key: _example(key, tensor) for key, tensor in (conditions or {}).items()}
    plain = plain_module(module)
    denoiser = AdaptedDenoiser(plain, shape, tuple(examples), call).eval().requires_grad_(requires_grad=False)
    title = name if name is not None else type(module).__name__
    free = {key: _free(key, tensor, examples) for key, tensor in (unconditional or {}).items()}
    digest = content_hash(plain, [str(shape), _describe(schedule), code_hash(module, call)], examples)
    model = PretrainedModel(denoiser, schedule, image_shape(shape), title, digest, (), examples, free)
    check_runs(model)
    return model


def guided(
    model: PretrainedModel, scale: float, unconditional: Mapping[str, torch.Tensor] | None = None
) -> PretrainedModel:
    """The model with classifier-free guidance, as a batch of two.

    Args:
        model: takes at least one condition.
        scale: of the guidance; 1 is the conditional model alone.
        unconditional: what stands for "no condition", by name, ``[1, ...]``; what the model says where it is missing,
            zeros where it says nothing.

    Raises:
        ModelError: a model without conditions, an unconditional tensor that does not fit, or none for whole numbers:
            0 is a class like any other.
    """
    if not model.conditions:
        raise ModelError("guidance needs a model with conditions", where=model.name)
    known = {**model.unconditional, **(unconditional or {})}
    free = {name: _free(name, tensor, model.conditions) for name, tensor in known.items()}
    for name, examples in model.conditions.items():
        if name not in free and not examples.is_floating_point():
            mend = "give its value as `unconditional`, to calib.guided or to calib.adapt"
            raise ModelError('nothing stands for "no condition"', where=f"condition {name}", mend=mend)
        free.setdefault(name, torch.zeros_like(examples[:1]))
    denoiser = GuidedDenoiser(model.denoiser, scale, free).eval().requires_grad_(requires_grad=False)
    digest = content_hash(nn.Module(), [model.content_hash, repr(scale)], free)
    guided_model = dataclasses.replace(model, denoiser=denoiser, content_hash=digest)
    check_runs(guided_model)
    return guided_model


def check_conditions(
    expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    """The examples given for conditions that a network is known to take; those expected where none are.

    Raises:
        ModelError: a condition that the network does not take, or of another size or type.
    """
    unknown = sorted(set(given or {}) - set(expected))
    if unknown:
        raise ModelError(
            f"the network takes no {', '.join(unknown)}", where="conditions", mend=f"it takes {', '.join(expected)}"
        )
    examples = dict(expected)
    for name, tensor in (given or {}).items():
        examples[name] = _example(name, tensor)
        if examples[name].shape[1:] != expected[name].shape[1:] or examples[name].dtype != expected[name].dtype:
            wanted = f"{expected[name].dtype} [K, {', '.join(map(str, expected[name].shape[1:]))}]"
            raise ModelError(
                f"{tensor.dtype} {tuple(tensor.shape)}", where=f"condition {name}", mend=f"it takes {wanted}"
            )
    return examples


def plain_module(module: nn.Module) -> nn.Module:
    """A float32 copy in eval mode, its parametrized weights computed, its packed attention as separate layers."""
    # deepcopy refuses tensors that were computed with gradients: the old weight norm leaves them after each call.
    computed = (value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor))
    plain = copy.deepcopy(module, {id(value): value.detach().clone() for value in computed})
    plain = plain.to(torch.float32).eval().requires_grad_(requires_grad=False)
    for part in list(plain.modules()):
        if parametrize.is_parametrized(part):
            _compute_weights(part)
        _drop_normalizing_hooks(part)
    return expand_attention(plain_norms(plain)).requires_grad_(requires_grad=False)


def _compute_weights(part: nn.Module) -> None:
    """Make a parametrized layer a plain one with the weights it computes.

    PyTorch's own ``remove_parametrizations`` changes the class, which the copy shares with the module it was made of.
    """
    parametrizations = part.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    weights = {name: getattr(part, name).detach().clone() for name in parametrizations}
    del part.parametrizations
    part.__class__ = type(part).__bases__[0]
    for name, weight in weights.items():
        part.register_parameter(name, nn.Parameter(weight, requires_grad=False))


def _drop_normalizing_hooks(part: nn.Module) -> None:
    """Make a layer with PyTorch's old weight or spectral norm, a hook before each call, a plain one."""
    for hook in list(part._forward_pre_hooks.values()):  # noqa: SLF001 - as PyTorch's own functions find them
        if isinstance(hook, WeightNorm):
            remove_weight_norm(part, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(part, hook.name)


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """A sample of any rank as (C, H, W): (D,) and (C, L) have a height of 1, more dimensions make a tall image."""
    if len(shape) == 1:
        return 1, 1, shape[0]
    return shape[0], math.prod(shape[1:-1]), shape[-1]


def check_runs(model: PretrainedModel, samples: int = 2) -> None:
    """Call the denoiser once, on zeros.

    Args:
        model: to call.
        samples: how many at once.

    Raises:
        ModelError: it fails, or its output is not finite or no sample.
    """
    x = torch.zeros(samples, *model.sample_shape)
    conditions = model.example_conditions(samples)
    try:
        with torch.no_grad():
            out = model.denoiser(x, example_time(model.schedule), *conditions.values())
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError) as error:
        raise ModelError(
            f"the network does not run on {tuple(x.shape)}: {error}",
            where=model.name,
            mend="check the sample's shape and the conditions, or say how it is called with `call`",
        ) from error
    if not torch.isfinite(out).all():
        raise ModelError("the output is not finite", where=model.name, mend="fetch or train the model anew")


def example_time(schedule: Schedule) -> torch.Tensor:
    """A scalar time in the middle of the process, as the denoiser wants it."""
    if isinstance(schedule, NoiseSchedule):
        return torch.tensor(len(schedule.alphas_cumprod) // 2)
    middle = torch.tensor([(schedule.earliest + schedule.latest) / 2], dtype=torch.float64).numpy()
    return torch.tensor(float(schedule.denoiser_time(middle)[0]), dtype=torch.float32)


def content_hash(module: nn.Module, words: Sequence[str], tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) over a module's structure and weights, and what else decides a calibration."""
    digest = hashlib.sha256("\n".join([repr(module), *words]).encode())
    for name, tensor in {**module.state_dict(), **tensors}.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def code_hash(*parts: object) -> str:
    """SHA-256 (hex) over the files in which functions, and the classes of a module and of what it holds, are written.

    Two networks with the same layers and weights may compute different things. PyTorch's own files do not count, and
    what was typed into an interpreter cannot be seen.
    """
    owners: list[object] = []
    for part in parts:
        within = part.modules() if isinstance(part, nn.Module) else ()
        owners += [part, *(kind for module in within for kind in type(module).__mro__)]
    names = {str(getattr(owner, "__module__", None)) for owner in owners}
    modules = [sys.modules.get(name) for name in names if name.partition(".")[0] != "torch"]
    files = {Path(getattr(module, "__file__", None) or "") for module in modules}
    contents = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file())
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def _describe(schedule: Schedule) -> str:
    """What a schedule's numbers are; the sampler's tables hold the rest."""
    if isinstance(schedule, ContinuousSchedule):
        return f"continuous {schedule.earliest!r}..{schedule.latest!r}"
    return hashlib.sha256(schedule.alphas_cumprod.tobytes()).hexdigest()


def _first_tensor(out: object) -> torch.Tensor:
    """The tensor, or the first value of a tuple, a list, a mapping or a dataclass."""
    if isinstance(out, torch.Tensor):
        return out
    if isinstance(out, Mapping):
        out = tuple(out.values())
    if dataclasses.is_dataclass(out) and not isinstance(out, type):
        out = tuple(getattr(out, each.name) for each in dataclasses.fields(out))
    if isinstance(out, tuple | list) and out and isinstance(out[0], torch.Tensor):
        return out[0]
    raise ModelError(f"the module gives a {type(out).__name__} instead of a tensor", where="adapt")


def _free(name: str, tensor: torch.Tensor, examples: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What stands for "no condition", as the examples are: ``[1, ...]``."""
    if name not in examples:
        takes = ", ".join(examples) or "none"
        raise ModelError("the model has no such condition", where=f"condition {name}", mend=f"it takes {takes}")
    wanted = examples[name][:1]
    if tensor.shape != wanted.shape:
        raise ModelError(f"{tuple(tensor.shape)} instead of {tuple(wanted.shape)}", where=f"condition {name}")
    return tensor.detach().to(wanted.dtype)


def _example(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A condition's examples as float32 or int64 ``[K, ...]``."""
    if not isinstance(tensor, torch.Tensor) or tensor.dim() == 0 or len(tensor) == 0:
        raise ModelError("a condition needs a tensor of examples [K, ...]", where=f"condition {name}")
    if tensor.is_floating_point():
        return tensor.detach().to(torch.float32)
    if tensor.dtype in {torch.bool, torch.complex64, torch.complex128}:
        raise ModelError(
            f"{tensor.dtype} is no condition", where=f"condition {name}", mend="give float32 or int64; use `call`"
        )
    return tensor.detach().to(torch.int64)
