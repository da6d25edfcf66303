"""What a module that takes a linear layer's place still says of it: models read ``layer.weight.dtype`` and the like."""

from __future__ import annotations

from torch import nn


class StandIn(nn.Module):
    """Base of modules that take the place of a linear layer.

    Attributes:
        weight, bias: the layer's own, float32: what ``next(model.parameters())`` finds, and no part of the arithmetic.
        described: names of the layer's sizes and settings.
    """

    def stand_in_for(self, layer: nn.Module) -> None:
        """Answer for ``layer``, a plain one or a stand-in itself: its weights, and its sizes and settings."""
        self.weight, self.bias = layer.weight, layer.bias
        self.described: tuple[str, ...] = (
            layer.described if isinstance(layer, StandIn) else tuple(getattr(layer, "__constants__", ()))
        )
        for name in self.described:
            if not hasattr(self, name):
                setattr(self, name, getattr(layer, name))
