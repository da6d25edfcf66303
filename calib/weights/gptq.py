"""GPTQ (Frantar et al., ICLR 2023, arXiv 2210.17323, algorithm 1) on rows of weights in units of their scale."""

from __future__ import annotations

import torch

from calib.lattice import CODE_LIMIT

BLOCK = 128
"""Columns whose errors are carried on together: the algorithm's lazy batch updates."""


def gptq_codes(exact: torch.Tensor, second: torch.Tensor, damping: float) -> torch.Tensor:
    """Codes that together, not each for itself, come nearest to the float weights on the observed inputs.

    Args:
        exact: float64 ``[OC, K]``, weights over their channel scale.
        second: float64 ``[groups, K, K]``, second moments of the inputs; OC divides evenly over the groups.
        damping: share of the mean second moment added to the diagonal.

    Returns:
        float64 integers in [-127, 127], ``[OC, K]``.
    """
    groups = second.shape[0]
    parts = exact.reshape(groups, -1, exact.shape[1])
    return torch.cat([_one_group(part, square, damping) for part, square in zip(parts, second, strict=True)])


def _one_group(exact: torch.Tensor, second: torch.Tensor, damping: float) -> torch.Tensor:
    diagonal = second.diagonal()
    floor = damping * float(diagonal.mean())
    if floor <= 0:  # the layer's input never moved off zero
        return exact.round().clamp(-CODE_LIMIT, CODE_LIMIT)
    order = torch.argsort(diagonal, descending=True, stable=True)
    damped = second[order][:, order] + floor * torch.eye(len(order), dtype=second.dtype)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    rest, codes = exact[:, order].clone(), torch.empty_like(exact)
    for first in range(0, len(order), BLOCK):
        last = min(first + BLOCK, len(order))
        block, local = rest[:, first:last], factor[first:last, first:last]
        errors = torch.empty_like(block)
        for k in range(last - first):
            codes[:, first + k] = block[:, k].round().clamp(-CODE_LIMIT, CODE_LIMIT)
            errors[:, k] = (block[:, k] - codes[:, first + k]) / local[k, k]
            block[:, k:] -= errors[:, k, None] * local[k, k:]
        rest[:, last:] -= errors @ factor[first:last, last:]
    return codes[:, torch.argsort(order)]
