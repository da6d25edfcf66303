"""Which layer does more than one pass when: second main passes and residual passes, bought where they help most.

Given a schedule, every live layer does one main pass a step. What is left of a budget buys, one after the other, the
pass that takes most error from the image for its work. Errors are predicted to first order from the gains of
``calib.adjoint``:

* a main pass leaves ``(s 2^k)^2 / 12`` at each input element until the layer runs next;
* without residual passes the weights' rounding sees all of the input, with them only what changed since the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calib.lattice import RESIDUAL_LEVELS
from calib.plan import LayerPlan, Mode, PlanRow, anchor_exponents, coarse_exponent

if TYPE_CHECKING:
    from calib.adjoint import LayerSweep
    from calib.weights import LayerWeights

NEGLIGIBLE = 0.02
"""A full step's worth of passes that takes less than this share of the error is not bought."""

FINE = 7
"""A second pass whose exponent is so much smaller still reaches every remainder of the first."""

Vector = npt.NDArray[np.float64]


@dataclass
class LayerPasses:
    """One layer's passes, as they are bought.

    Attributes:
        seen: gains and distances of the layer.
        weights: its integers.
        exponents: of the one main pass, a step; only those of live steps count.
        live: the steps at which it runs, 0 first.
        price: work of one more pass, in full steps.
        exact: whether it does the anchor's two passes whenever it runs, as the smallest layers do.
        residual_plane: whether residual passes may be bought.
        twice: live steps with two main passes.
        residual: live steps with a residual pass.
        mode: delta or direct.
    """

    seen: LayerSweep
    weights: LayerWeights
    exponents: Sequence[int]
    live: Sequence[int]
    price: float
    exact: bool = False
    residual_plane: bool = True
    twice: set[int] = field(default_factory=set)
    residual: set[int] = field(default_factory=set)
    mode: Mode = Mode.DELTA

    def __post_init__(self) -> None:
        steps = len(self.exponents)
        if self.exact:
            self.twice |= set(self.live)
        self._input_gain, self._output_gain = self.seen.input_gain.numpy(), self.seen.output_gain.numpy()
        following = [*self.live[1:], steps]
        held = {j: slice(j, end) for j, end in zip(self.live, following, strict=True)}
        self._gain = {j: float(self._input_gain[part].sum()) for j, part in held.items()}
        # A job may start at any step, and with its anchor.
        self._gain[0] = max(self._gain[0], float(self._input_gain.mean()))
        rounding = self.weights.residual.double() / RESIDUAL_LEVELS
        scale = self.weights.channel_scale.double()
        taps = rounding.square().sum() / len(scale) * scale.square().mean()
        self._distance = float(taps) * self.seen.distance.numpy()
        self._power = float(taps) * self.seen.power.numpy()

    def start_from(self, plan: LayerPlan) -> None:
        """Take over the second and residual passes of another plan, before any are bought.

        Predictions are means over a few seeds. A rare image, whose inputs change more, loses 6 dB or more where a plan
        gave up residual passes for others; one that only adds to a plan that is known to be good does not.
        """
        rows = (plan.anchor, *plan.rows[1:])
        self.twice |= {j for j in self.live if len(rows[j].exponents) > 1}
        if self.residual_plane:
            self.residual |= {j for j in self.live if rows[j].residual_exponents}

    @property
    def bought(self) -> float:
        """Work of the second and residual passes, in full steps."""
        return self.price * (len(self.twice) + len(self.residual))

    @property
    def plane_bytes(self) -> int:
        """State of one plane for one sample: int16 lattice and int32 accumulator."""
        return 2 * self.seen.inputs + 4 * self.seen.outputs

    @property
    def state_bytes(self) -> int:
        """State of the layer for one sample."""
        return 0 if self.mode is Mode.DIRECT else self.plane_bytes * (2 if self.residual else 1)

    @property
    def passes(self) -> int:
        """Passes over a job from step 0, residual ones included."""
        return len(self.live) + len(self.twice) + len(self.residual)

    def error(self) -> float:
        """Predicted mean square error of the image from this layer alone."""
        return sum(self._main_error(j, j in self.twice) for j in self.live) + self._weight_error(self.residual)

    def best_purchase(self) -> tuple[float, str, int]:
        """The pass that takes most error: (error taken, "twice" or "residual", step)."""
        found = [(0.0, "twice", 0)]
        found += [
            (self._main_error(j, twice=False) - self._main_error(j, twice=True), "twice", j)
            for j in self.live
            if j not in self.twice
        ]
        if self.mode is Mode.DELTA and self.residual_plane:
            before = self._weight_error(self.residual)
            # The first residual pass is the anchor's: without one the plane's lattice would start late.
            steps = [j for j in self.live if j not in self.residual] if self.residual else [0]
            found += [(before - self._weight_error(self.residual | {j}), "residual", j) for j in steps]
        return max(found)

    def give_up_plane(self) -> None:
        """Do without the residual plane, or else without state: a direct layer does the same at every step."""
        if self.residual:
            self.residual = set()
        else:
            self.mode, self.twice = Mode.DIRECT, set(self.live) if self.exact else set()

    def plan(self) -> LayerPlan:
        """The layer's rows."""
        bits = self.weights.lattice_bits
        coarse = coarse_exponent(bits)
        live = set(self.live)

        def row(i: int) -> PlanRow:
            main = self._exponents(i, i in self.twice) if i in live else ()
            return PlanRow(main, (coarse,) if i in self.residual else ())

        rows = tuple(row(i) for i in range(len(self.exponents)))
        if self.mode is Mode.DIRECT:
            return LayerPlan(self.mode, rows, rows[0])
        anchor = PlanRow(anchor_exponents(bits) if 0 in self.twice else (coarse,), rows[0].residual_exponents)
        return LayerPlan(self.mode, (anchor, *rows[1:]), anchor)

    def _exponents(self, j: int, twice: bool) -> tuple[int, ...]:
        if self.exact and self.mode is Mode.DELTA:
            return anchor_exponents(self.weights.lattice_bits)
        first = coarse_exponent(self.weights.lattice_bits) if j == 0 or self.mode is Mode.DIRECT else self.exponents[j]
        return (first, max(0, first - FINE)) if twice else (first,)

    def _main_error(self, j: int, twice: bool) -> float:
        exponent = self._exponents(j, twice)[-1]
        return (float(self.weights.step) * 2.0**exponent) ** 2 / 12 * self._gain[j]

    def _weight_error(self, residual: set[int]) -> float:
        if not residual:
            return float(self._output_gain @ self._power)
        steps = np.arange(len(self.exponents))
        last = np.maximum.accumulate(np.where(np.isin(steps, sorted(residual)), steps, 0))
        return float(self._output_gain @ self._distance[steps, last])


def buy_passes(layers: Mapping[str, LayerPasses], budget: float, floor: float) -> float:
    """Buy passes until the budget is spent or they no longer help, in place.

    Args:
        layers: by name.
        budget: work in full steps beyond one pass a live layer.
        floor: mean square error that the image has anyway.

    Returns:
        The work bought.
    """
    error = floor + sum(layer.error() for layer in layers.values())
    offers = {name: layer.best_purchase() for name, layer in layers.items()}
    spent = 0.0
    while True:
        affordable = {
            name: offer[0] / layers[name].price
            for name, offer in offers.items()
            if offer[0] > 0 and spent + layers[name].price <= budget
        }
        name = max(affordable, key=lambda each: (affordable[each], each), default=None)
        if name is None or affordable[name] < NEGLIGIBLE * error:
            return spent
        taken, kind, step = offers[name]
        (layers[name].twice if kind == "twice" else layers[name].residual).add(step)
        error -= taken
        spent += layers[name].price
        offers[name] = layers[name].best_purchase()


def fit_state(layers: Mapping[str, LayerPasses], budget: int) -> bool:
    """Give up residual planes and state, where it costs the image least a byte, until the layers fit, in place.

    Args:
        layers: by name.
        budget: bytes for their states.

    Returns:
        Whether they fit now.
    """
    total = sum(layer.state_bytes for layer in layers.values())
    while total > budget:
        prices = {}
        for name, layer in layers.items():
            if layer.mode is Mode.DIRECT:
                continue
            before, now = layer.error(), (layer.mode, layer.residual, layer.twice)
            layer.give_up_plane()
            prices[name] = (layer.error() - before) / layer.plane_bytes
            layer.mode, layer.residual, layer.twice = now
        if not prices:
            return False
        name = min(prices, key=lambda each: (prices[each], each))
        layers[name].give_up_plane()
        total -= layers[name].plane_bytes
    return True
