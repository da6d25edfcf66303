"""Reuse points: the output of a block kept over several sampler steps, so that the block need not run.

A point keeps the last two outputs its module computed. At a step that does not refresh it gives out the last one
(hold) or continues the line through both (extrapolate): deep features change slowly and smoothly along a sampler's
trajectory. Source: DeepCache (Ma et al., CVPR 2024) holds; extrapolating is TaylorSeer's (Liu et al., 2025) order 1.

This is the reference; the device's operator ``modiff::reuse`` gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from calib.errors import PlanError
from calib.plan import PointPlan, Reuse

Around = Callable[[Callable[[], Any]], torch.Tensor]
"""Called in a module's place with what computes its output; gives out what the rest of the model sees."""


class ReusePoint(nn.Module):
    """A reuse point's plan and the state of the running job.

    With ``i`` the present step, ``i1`` the last refresh and ``i0`` the one before, ``y1`` and ``y0`` their outputs::

        refresh:      y0 := y1; y1 := y; i0 := i1; i1 := i;                     gives y
        hold:                                                                   gives y1
        extrapolate:  f = fl(float(i - i1) / float(i1 - i0));                   gives fl(y1 + fl(f * fl(y1 - y0)))

    The first step of a job refreshes; extrapolating before the second refresh holds.

    Args:
        plan: of this point.
    """

    def __init__(self, plan: PointPlan) -> None:
        super().__init__()
        self.plan = plan
        self.step = 0
        self.reset()

    def reset(self) -> None:
        """Forget the job: the next call is the first step of another."""
        self.held: torch.Tensor | None = None
        self.history: torch.Tensor | None = None
        self.refreshes = self.last_step = self.previous_step = 0

    @property
    def refreshing(self) -> bool:
        """Whether the present step computes the output."""
        return self.held is None or self.plan.rows[self.step] is Reuse.REFRESH

    def forward(self, compute: Callable[[], Any]) -> torch.Tensor:
        """The output at the present step; ``compute`` runs the module, and is not called where it is reused.

        Raises:
            PlanError: the module's output is not one float32 tensor.
        """
        if self.held is None or self.plan.rows[self.step] is Reuse.REFRESH:
            y = one_tensor(compute())
            self.history, self.held = self.held if self.plan.extrapolates else None, y.clone()
            self.previous_step, self.last_step = self.last_step, self.step
            self.refreshes += 1
            return y
        if self.plan.rows[self.step] is Reuse.HOLD or self.history is None:
            return self.held.clone()
        share = torch.tensor(float(self.step - self.last_step)) / float(self.last_step - self.previous_step)
        return self.held + share * (self.held - self.history)


def one_tensor(output: object) -> torch.Tensor:
    """A module's output, where it can carry a reuse point.

    Raises:
        PlanError: it is not one float32 tensor.
    """
    if not isinstance(output, torch.Tensor) or output.dtype != torch.float32:
        kind = f"a {output.dtype} tensor" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise PlanError(f"the module's output is {kind}", mend="a reuse point needs one float32 tensor")
    return output


@contextmanager
def attached(denoiser: nn.Module, points: Mapping[str, Around]) -> Iterator[None]:
    """Put each point around the named module's ``forward`` while the context lives.

    The module tree, its names and its hooks stay as they are, so that code that looks inside a block still can.

    Raises:
        PlanError: the denoiser has no such module.
    """
    modules = dict(denoiser.named_modules())
    changed: list[nn.Module] = []
    try:
        for name, point in points.items():
            if name not in modules:
                raise PlanError("the model has no such module", where=f"point {name}", mend="calibrate this model anew")
            modules[name].forward = _around(modules[name].forward, point)
            changed.append(modules[name])
        yield
    finally:
        for module in changed:
            del module.forward


def _around(forward: Callable[..., Any], point: Around) -> Callable[..., torch.Tensor]:
    def run(*args: object, **keywords: object) -> torch.Tensor:
        return point(lambda: forward(*args, **keywords))

    return run
