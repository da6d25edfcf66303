"""Weights as integers: the methods, the layer they make, and the room that int32 leaves it."""

from calib.weights.layer import MAX_LATTICE_BITS, MIN_LATTICE_BITS, LayerWeights, lattice_bits
from calib.weights.methods import (
    CorrectBias,
    Gptq,
    KeepBias,
    MaxRange,
    MseRange,
    RoundToNearest,
    WeightMethod,
)
from calib.weights.quantize import corrected_bias, quantize_weight

__all__ = [
    "MAX_LATTICE_BITS",
    "MIN_LATTICE_BITS",
    "CorrectBias",
    "Gptq",
    "KeepBias",
    "LayerWeights",
    "MaxRange",
    "MseRange",
    "RoundToNearest",
    "WeightMethod",
    "corrected_bias",
    "lattice_bits",
    "quantize_weight",
]
