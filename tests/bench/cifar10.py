"""The CIFAR-10 UNet for commands that take ``--model``: ``tests.bench.cifar10:build``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.models import model_named

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel


def build() -> PretrainedModel:
    """The network of ``python -m tests.bench compare cifar10``, with random seeded weights."""
    return model_named("cifar10")
