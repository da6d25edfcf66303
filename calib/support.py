"""What of a model can be modulated, found out before calibration: every other layer by name, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from calib.adapters import check_runs, example_time
from calib.errors import ModelError
from calib.operators import LINEAR_LAYERS, why_not

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel

PARAMETER_SHARE = 0.01
"""Weights outside linear layers that are a larger part of the model than this are worth a line in the report."""

NO_KERNEL = (nn.Conv3d, nn.ConvTranspose3d)
"""ExecuTorch exports these, and refuses them when it runs."""

NAMED = 3
"""Layers that an error names for each reason."""


@dataclass(frozen=True)
class Support:
    """What calibration will do with a model.

    Attributes:
        modulated: names of the layers that can be modulated, in the model's order.
        float_layers: linear layers that stay in floating point, by name, with the reason.
        notes: what else a person should know.
    """

    modulated: tuple[str, ...]
    float_layers: Mapping[str, str]
    notes: tuple[str, ...] = ()


def survey(model: PretrainedModel) -> Support:
    """Run the model once and see which layers it calls, how often, and with what.

    A modulated layer owns the state of one input; a layer that is called twice a step, or read without being called,
    stays as it is.

    Raises:
        ModelError: the model does not run, or has no layer to modulate.
    """
    layers = {name: part for name, part in model.denoiser.named_modules() if isinstance(part, LINEAR_LAYERS)}
    calls: dict[str, list[object]] = {name: [] for name in layers}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[object, ...], keywords: dict[str, object]) -> None:
            calls[name].append(inputs[0] if len(inputs) == 1 and not keywords else None)

        return hook

    reasons = {name: why_not(part) for name, part in layers.items()}
    handles = [part.register_forward_pre_hook(hook_for(name), with_kwargs=True) for name, part in layers.items()]
    try:
        check_runs(model, 1)
    finally:
        for handle in handles:
            handle.remove()
    for name, seen in calls.items():
        reasons[name] = reasons[name] or _why_not_called_so(seen)
    for name, part in model.denoiser.named_modules():
        if isinstance(part, NO_KERNEL):
            reasons[name] = no_kernel(part)
    modulated = tuple(name for name, reason in reasons.items() if reason is None)
    unable = {name: reason for name, reason in reasons.items() if reason is not None}
    if not modulated:
        raise ModelError(nothing_to_modulate(unable), where=model.name)
    return Support(modulated, unable, tuple(_notes(model, layers)))


def check_supported(model: PretrainedModel) -> Support:
    """``survey``, and whether the model can become a program at all.

    Raises:
        ModelError: it cannot; says in which module, and why.
    """
    for name, part in model.denoiser.named_modules():
        if isinstance(part, NO_KERNEL):
            raise ModelError(no_kernel(part), where=name, mend="write it as convolutions over two of its dimensions")
    support = survey(model)
    inside: list[str] = []
    with _following(model.denoiser, inside), torch.no_grad():
        x, conditions = torch.zeros(1, *model.sample_shape), model.example_conditions(1)
        try:
            torch.export.export(model.denoiser, (x, example_time(model.schedule), *conditions.values()))
        # torch.export raises whatever the model's own code or any of its stages does.
        except Exception as error:
            lines = str(error).strip().splitlines()
            raise ModelError(
                f"the model cannot be exported: {lines[0] if lines else type(error).__name__}",
                where=inside[-1] if inside else model.name,
                mend="it must be free of control flow that depends on data, and of calls outside PyTorch",
            ) from error
    return support


def no_kernel(part: nn.Module) -> str:
    """Why a module of ``NO_KERNEL`` cannot be on a device."""
    return f"the device's runtime has no kernel for {type(part).__name__}"


def nothing_to_modulate(reasons: Mapping[str, str]) -> str:
    """What to say of a model all of whose linear layers stay in floating point, by name with the reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    listed = "; ".join(
        f"{', '.join(names[:NAMED])}{' and others' if len(names) > NAMED else ''}: {reason}"
        for reason, names in by_reason.items()
    )
    return f"the model has no layer to modulate{': ' if listed else ''}{listed}"


def _why_not_called_so(calls: list[object]) -> str | None:
    if not calls:
        return "never called: its weight is read without it, or not at all"
    if len(calls) > 1:
        return f"called {len(calls)} times a step, the state of a modulated layer is for one input"
    if not isinstance(calls[0], torch.Tensor):
        return "not called with one tensor alone"
    if calls[0].dtype != torch.float32:
        return f"called with {calls[0].dtype}, not float32"
    return None


def _notes(model: PretrainedModel, layers: Mapping[str, nn.Module]) -> Iterator[str]:
    """Large weights that no linear layer holds."""
    total = sum(weight.numel() for weight in model.denoiser.parameters())
    owned = {id(weight) for layer in layers.values() for weight in layer.parameters()}
    for name, part in model.denoiser.named_modules():
        if "Norm" in type(part).__name__:
            continue
        for leaf, weight in part.named_parameters(recurse=False):
            if id(weight) not in owned and weight.numel() > PARAMETER_SHARE * total:
                full = f"{name}.{leaf}" if name else leaf
                yield f"{full} ({weight.numel() / total:.0%} of the weights, in {type(part).__name__}) stays in float"


@contextmanager
def _following(denoiser: nn.Module, inside: list[str]) -> Iterator[None]:
    """Keep the names of the modules that are running in ``inside``, innermost last."""

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            inside.append(name)

        return hook

    def leave(*_: object) -> None:
        inside.pop()

    handles = []
    for name, part in denoiser.named_modules():
        handles += [part.register_forward_pre_hook(enter(name or "model")), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
