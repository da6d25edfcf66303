"""PyTorch's packed attention, unpacked: its projections become layers that calibration can see.

``nn.MultiheadAttention`` multiplies with slices of one packed weight and calls no layer at all, so that nothing of it
could be modulated. The same numbers come from three input projections, attention, and an output projection.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class SeparateAttention(nn.Module):
    """The computation of an ``nn.MultiheadAttention`` with its projections as ``nn.Linear``.

    Args:
        packed: in eval mode, without ``add_bias_kv`` and ``add_zero_attn``.
    """

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = packed.num_heads
        self.batch_first = packed.batch_first
        self.in_proj_bias = None  # tells nn.TransformerEncoderLayer not to reach past this module
        width = packed.embed_dim
        weights: tuple[torch.Tensor, ...] = (packed.q_proj_weight, packed.k_proj_weight, packed.v_proj_weight)
        if packed.in_proj_weight is not None:
            weights = torch.split(packed.in_proj_weight, width)
        biases: tuple[torch.Tensor | None, ...] = (None, None, None)
        if packed.in_proj_bias is not None:
            biases = torch.split(packed.in_proj_bias, width)
        self.to_q, self.to_k, self.to_v = (_linear(w, b) for w, b in zip(weights, biases, strict=True))
        self.to_out = _linear(packed.out_proj.weight, packed.out_proj.bias)

    def forward(  # noqa: PLR0917 - the arguments of nn.MultiheadAttention
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, None]:
        """float32 ``[N, L, C]`` (``[L, N, C]`` where not ``batch_first``) -> the attended values, and no weights."""
        del need_weights, average_attn_weights, is_causal  # a causal call brings its mask too
        q, k, v = self.to_q(query), self.to_k(key), self.to_v(value)
        if not self.batch_first:
            q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
        q, k, v = (x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2) for x in (q, k, v))
        mask = self._mask(attn_mask, key_padding_mask, len(q))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        flat = mixed.transpose(1, 2).flatten(2)
        return self.to_out(flat if self.batch_first else flat.transpose(0, 1)), None

    def _mask(self, attention: torch.Tensor | None, padding: torch.Tensor | None, batch: int) -> torch.Tensor | None:
        """One additive mask, broadcastable to ``[N, heads, L, S]``."""
        total: torch.Tensor | None = None
        if attention is not None:
            added = _additive(attention)
            total = added.reshape(batch, self.num_heads, *added.shape[1:]) if added.dim() == 3 else added
        if padding is not None:
            added = _additive(padding)[:, None, None, :]
            total = added if total is None else total + added
        return total


def expand_attention(module: nn.Module) -> nn.Module:
    """Replace every ``nn.MultiheadAttention`` within ``module``, in place; gives ``module`` or what replaces it."""
    if _is_plain(module):
        return SeparateAttention(module)  # type: ignore[arg-type]
    for name, child in module.named_children():
        replaced = expand_attention(child)
        if replaced is not child:
            setattr(module, name, replaced)
    return module


def _is_plain(module: nn.Module) -> bool:
    return type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn


def _additive(mask: torch.Tensor) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape).masked_fill(mask, float("-inf"))


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
