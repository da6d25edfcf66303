"""Ways to make INT8 weights, one configuration type each; ``WeightMethod`` combines a range, a rounding and a bias.

The residual-weight plane is not one of them: it is always made, from whatever the chosen way left over, and the plan
says whether it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from calib.errors import CalibrationError


@dataclass(frozen=True)
class MaxRange:
    """The channel scale puts the channel's largest weight at 127."""


@dataclass(frozen=True)
class MseRange:
    """The channel scale with the least mean square rounding error, searched below the largest weight's.

    Attributes:
        smallest: least share of ``MaxRange``'s scale to try, in (0, 1].
        candidates: how many scales to try, evenly spaced, at least 2.
    """

    smallest: float = 0.6
    candidates: int = 41

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1 or self.candidates < 2:
            raise CalibrationError(
                f"smallest {self.smallest}, candidates {self.candidates}",
                where="MseRange",
                mend="use a share in (0, 1] and 2 candidates or more",
            )


@dataclass(frozen=True)
class RoundToNearest:
    """Each weight to its nearest code."""


@dataclass(frozen=True)
class Gptq:
    """Codes one column at a time, the rest of the row moved to make up for the error (Frantar et al., ICLR 2023).

    Minimizes ``||(W - w_c W_q) X||`` over observed inputs ``X`` by their second moments. Columns go by falling
    moment (the paper's ``act_order``).

    Attributes:
        damping: share of the mean second moment added to each, > 0.
        seeds: calibration seeds whose inputs are looked at.
        every: sampler steps from one look to the next.
    """

    damping: float = 0.01
    seeds: int = 4
    every: int = 5

    def __post_init__(self) -> None:
        if self.damping <= 0 or self.seeds < 1 or self.every < 1:
            raise CalibrationError(
                f"damping {self.damping}, seeds {self.seeds}, every {self.every}",
                where="Gptq",
                mend="use positive numbers",
            )


@dataclass(frozen=True)
class KeepBias:
    """The float layer's bias as it is."""


@dataclass(frozen=True)
class CorrectBias:
    """The bias takes up the mean error of the quantized weights (Nagel et al., ICCV 2019, section 4.2).

    ``b + (W - w_c W_q) E[x]``, with the mean input over places, seeds and steps. A plan with residual passes must
    not use it: there the residual plane corrects the same error.

    Attributes:
        seeds: calibration seeds whose inputs are looked at.
        every: sampler steps from one look to the next.
    """

    seeds: int = 4
    every: int = 5

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.every < 1:
            raise CalibrationError(
                f"seeds {self.seeds}, every {self.every}", where="CorrectBias", mend="use positive numbers"
            )


@dataclass(frozen=True)
class WeightMethod:
    """How a layer's weights become integers.

    Attributes:
        range: of each output channel.
        rounding: to codes.
        bias: what becomes of the mean error.
    """

    range: MaxRange | MseRange = field(default_factory=MaxRange)
    rounding: RoundToNearest | Gptq = field(default_factory=RoundToNearest)
    bias: KeepBias | CorrectBias = field(default_factory=KeepBias)

    @property
    def looks_at_second_moments(self) -> bool:
        """Whether the method needs the second moments too."""
        return isinstance(self.rounding, Gptq)

    @property
    def looks_at_inputs(self) -> bool:
        """Whether the method needs ``calib.weights.moments``."""
        return bool(self._lookers)

    @property
    def input_seeds(self) -> int:
        """How many seeds' inputs serve every part of the method."""
        return max((part.seeds for part in self._lookers), default=0)

    @property
    def input_every(self) -> int:
        """Sampler steps from one look at the inputs to the next that serve every part of the method."""
        return min((part.every for part in self._lookers), default=1)

    @property
    def _lookers(self) -> list[Gptq | CorrectBias]:
        return [part for part in (self.rounding, self.bias) if isinstance(part, Gptq | CorrectBias)]
