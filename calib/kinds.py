"""The diffusers network classes that ``load_model`` knows: their sample shapes and what conditions they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from calib.errors import ModelError
from calib.noise import noise

EXAMPLES = 4
"""How many different conditions calibration sees."""
EXAMPLE_SEED = 2_000_000
TEXT_TOKENS = 77
"""Of CLIP's text encoders; a pipeline with another length has its own in its text encoder's configuration."""


@dataclass(frozen=True)
class Kind:
    """How one network is called.

    Attributes:
        class_name: in diffusers.
        attribute: name of the network within the denoiser.
        sample_shape: (channels, height, width).
        conditions: examples by name, ``[K, ...]``.
        unconditional: what stands for "no condition" in guidance, by name, ``[1, ...]``.
        notes: what was assumed.
    """

    class_name: str
    attribute: str
    sample_shape: tuple[int, int, int]
    conditions: Mapping[str, torch.Tensor] = field(default_factory=dict)
    unconditional: Mapping[str, torch.Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def call(module: nn.Module, x: torch.Tensor, t: torch.Tensor, **conditions: torch.Tensor) -> torch.Tensor:
    """A diffusers network's output, without the dataclass around it."""
    out: torch.Tensor = module(x, timestep=t, **conditions, return_dict=False)[0]
    return out


def call_text_time(  # noqa: PLR0917 - what SDXL takes
    module: nn.Module,
    x: torch.Tensor,
    t: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    text_embeds: torch.Tensor,
    time_ids: torch.Tensor,
) -> torch.Tensor:
    """The same for the pooled text and picture sizes of SDXL (Podell et al., 2023)."""
    added = {"text_embeds": text_embeds, "time_ids": time_ids}
    out: torch.Tensor = module(x, t, encoder_hidden_states, added_cond_kwargs=added, return_dict=False)[0]
    return out


def read_kind(config: Mapping[str, Any], where: str, tokens: int = TEXT_TOKENS) -> Kind:
    """What a network's ``config.json`` says.

    Args:
        config: of the network.
        where: its file.
        tokens: length of the texts.

    Raises:
        ModelError: a class or a setting that the kit does not know.
    """
    name = config.get("_class_name")
    readers: dict[str, Callable[[Mapping[str, Any], str, int], Kind]] = {
        "UNet2DModel": _unet,
        "UNet2DConditionModel": _text_unet,
        "DiTTransformer2DModel": _dit,
        "Transformer2DModel": _dit,
    }
    if name not in readers:
        mend = f"{', '.join(readers)} are; adapt another network with calib.adapt"
        raise ModelError(f"model class {name!r} is not supported", where=where, mend=mend)
    return readers[name](config, where, tokens)


def _unet(config: Mapping[str, Any], where: str, _: int) -> Kind:
    shape = _sample_shape(config, where)
    if config.get("num_class_embeds") is None and config.get("class_embed_type") is None:
        return Kind("UNet2DModel", "unet", shape)
    if config.get("class_embed_type") is not None:
        raise ModelError(f"class_embed_type {config['class_embed_type']!r} is not supported", where=where)
    labels = _labels(int(config["num_class_embeds"]))
    return Kind("UNet2DModel", "unet", shape, {"class_labels": labels}, {"class_labels": torch.zeros_like(labels[:1])})


def _text_unet(config: Mapping[str, Any], where: str, tokens: int) -> Kind:
    shape = _sample_shape(config, where)
    for key in ("class_embed_type", "encoder_hid_dim_type", "num_class_embeds", "time_cond_proj_dim"):
        if config.get(key) is not None:
            raise ModelError(f"{key} = {config[key]!r} is not supported", where=where)
    width = config.get("cross_attention_dim")
    if not isinstance(width, int):
        raise ModelError(f"cross_attention_dim {width!r} is not one number", where=where)
    conditions = {"encoder_hidden_states": _normal(0, (tokens, width))}
    added = config.get("addition_embed_type")
    if added == "text_time":
        time_width = int(config["addition_time_embed_dim"])
        pooled = int(config["projection_class_embeddings_input_dim"]) - 6 * time_width
        sizes = [8.0 * shape[1], 8.0 * shape[2], 0.0, 0.0, 8.0 * shape[1], 8.0 * shape[2]]
        conditions |= {"text_embeds": _normal(1, (pooled,)), "time_ids": torch.tensor([sizes] * EXAMPLES)}
    elif added is not None:
        raise ModelError(f"addition_embed_type {added!r} is not supported", where=where)
    note = "no texts are known: calibrated on normal embeddings unless you give real ones as `conditions`"
    free = {name: torch.zeros_like(examples[:1]) for name, examples in conditions.items() if name != "time_ids"}
    if "time_ids" in conditions:
        free["time_ids"] = conditions["time_ids"][:1]
    return Kind("UNet2DConditionModel", "unet", shape, conditions, free, (note,))


def _dit(config: Mapping[str, Any], where: str, _: int) -> Kind:
    if config.get("norm_type", "ada_norm_zero") != "ada_norm_zero":
        raise ModelError(f"norm_type {config['norm_type']!r} is not supported", where=where, mend="DiT's is")
    channels, size = config.get("in_channels"), config.get("sample_size")
    if config.get("out_channels") not in {None, channels, 2 * channels if isinstance(channels, int) else None}:
        raise ModelError("out_channels must be in_channels, or twice as many", where=where)
    classes = int(config.get("num_embeds_ada_norm", 1000))
    # The embedding has one more row: no class.
    free = {"class_labels": torch.tensor([classes])}
    shape = _sides(channels, size, where)
    return Kind("DiTTransformer2DModel", "transformer", shape, {"class_labels": _labels(classes)}, free)


def _sample_shape(config: Mapping[str, Any], where: str) -> tuple[int, int, int]:
    channels = config.get("in_channels")
    if channels != config.get("out_channels"):
        raise ModelError("in_channels and out_channels must be the same number", where=where)
    return _sides(channels, config.get("sample_size"), where)


def _sides(channels: object, size: object, where: str) -> tuple[int, int, int]:
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(isinstance(n, int) and n > 0 for n in sides):
        raise ModelError("sample_size must be one or two positive integers", where=where)
    if not isinstance(channels, int) or channels < 1:
        raise ModelError("in_channels must be a positive integer", where=where)
    return channels, sides[0], sides[1]


def _labels(classes: int) -> torch.Tensor:
    """A few classes, spread over all: int64 ``[K]``."""
    return torch.linspace(0, classes - 1, min(EXAMPLES, classes)).round().to(torch.int64)


def _normal(draw: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(noise(EXAMPLE_SEED, (EXAMPLES, *shape), draw))
