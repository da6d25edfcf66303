"""Reuse points of a plan in a step program: ``modiff::reuse`` on the outputs of the blocks that it names.

The block stays in the graph: which of its operators run at which step is liveness (``edge.lower.fuse.liveness``), and
inside a reused block that is none at the steps at which the point does not refresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import edge.operators  # noqa: F401  (defines torch.ops.modiff)
from edge.errors import LoweringError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calib.plan import PointPlan
    from edge.lower.layers import StepHolder
    from edge.lower.program import StepProgram


class OperatorPoint(nn.Module):
    """``modiff::reuse`` with its states.

    Args:
        plan: of this point.
        shape: of the block's output.
        holder: where the step index is found.
    """

    held: Tensor
    history: Tensor
    counters: Tensor
    table: Tensor

    def __init__(self, plan: PointPlan, shape: tuple[int, ...], holder: StepHolder) -> None:
        super().__init__()
        self.holder = holder
        self.register_buffer("held", torch.zeros(shape))
        self.register_buffer("history", torch.zeros(shape if plan.extrapolates else (1,)))
        self.register_buffer("counters", torch.zeros(4, dtype=torch.int32))
        self.register_buffer("table", torch.from_numpy(plan.table()))

    def forward(self, y: Tensor) -> Tensor:
        """float32 of the block -> what the rest of the model sees; states change in place."""
        reused: Tensor = torch.ops.modiff.reuse(
            y.contiguous(), self.holder.step, self.held, self.history, self.counters, self.table
        )
        return reused


def add_points(program: StepProgram, points: Mapping[str, PointPlan]) -> None:
    """Puts reuse points on the outputs of a program's modules, in place.

    Args:
        program: its denoiser is its own copy.
        points: by the dotted name of the module in the denoiser.

    Raises:
        LoweringError: a module that is not there, is not called exactly once a step, or does not return one float32
            tensor.
    """
    if not points:
        return
    modules = dict(program.denoiser.named_modules())
    for name in points:
        if name not in modules:
            raise LoweringError("the model has no such module", where=f"point {name}", mend="calibrate this model anew")
    shapes = _output_shapes(program, {name: modules[name] for name in points})
    placed = nn.ModuleList()
    for name, plan in points.items():
        point = OperatorPoint(plan, shapes[name], program.holder)
        modules[name].forward = _then(modules[name].forward, point)
        placed.append(point)
    program.reuse_points = placed


def _then(forward: Callable[..., Any], point: OperatorPoint) -> Callable[..., Tensor]:
    def run(*args: object, **keywords: object) -> Tensor:
        reused: Tensor = point(forward(*args, **keywords))
        return reused

    return run


def _output_shapes(program: StepProgram, modules: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Shapes of the modules' outputs, without computing them."""
    seen: dict[str, list[object]] = {name: [] for name in modules}

    def record(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda _module, _inputs, output: seen[name].append(output)

    hooks = [module.register_forward_hook(record(name)) for name, module in modules.items()]
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            program(*program.example_inputs())
    finally:
        for hook in hooks:
            hook.remove()
    shapes = {}
    for name, outputs in seen.items():
        if len(outputs) != 1:
            what = f"the module is called {len(outputs)} times in a step"
            raise LoweringError(what, where=f"point {name}", mend="choose a module that is called once")
        (output,) = outputs
        if not isinstance(output, Tensor) or output.dtype != torch.float32:
            what = "the module's output is not one float32 tensor"
            raise LoweringError(what, where=f"point {name}", mend="choose another module")
        shapes[name] = tuple(output.shape)
    return shapes
