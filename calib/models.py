"""Loading pretrained denoisers from diffusers folders: safetensors only, never a pickle."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from calib.errors import ModelError
from calib.samplers import NoiseSchedule

DEMO_MODEL = Path(__file__).parent / "demo" / "model"
WEIGHTS = {None: "diffusion_pytorch_model.safetensors", "fp16": "diffusion_pytorch_model.fp16.safetensors"}
PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
PICKLE_MEND = "a pickle can run any code: convert it to safetensors where you trust it"


class UNetDenoiser(nn.Module):
    """A diffusers ``UNet2DModel`` as ``(x, t) -> out``."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """float32 ``[N, C, H, W]`` and an int64 scalar timestep -> float32 of the same shape."""
        out: torch.Tensor = self.unet(x, t, return_dict=False)[0]
        return out


@dataclass(frozen=True)
class PretrainedModel:
    """A denoiser and what is known about it.

    Attributes:
        denoiser: float32, in eval mode, without gradients.
        schedule: the noise schedule it was trained on.
        sample_shape: (channels, height, width) of its images.
        name: of its folder.
        content_hash: SHA-256 (hex) over its configuration, schedule and weights.
        notes: what loading had to assume, for a person to read.
    """

    denoiser: nn.Module
    schedule: NoiseSchedule
    sample_shape: tuple[int, int, int]
    name: str
    content_hash: str
    notes: tuple[str, ...] = ()


def load_model(path: Path | None = None) -> PretrainedModel:
    """Load a diffusers folder.

    Args:
        path: a folder with ``model_index.json`` and ``unet/``, or a UNet2DModel folder; None = the demo model.

    Raises:
        ModelError: missing, pickled, damaged, or a kind of model that the kit does not know.
    """
    folder = DEMO_MODEL if path is None else path
    unet_folder, scheduler_file = _find_parts(folder)
    config = _read_json(unet_folder / "config.json")
    shape = _check_unet(config, unet_folder / "config.json")
    variant, weights = _find_weights(unet_folder)
    notes: tuple[str, ...] = ()
    if scheduler_file is None:
        scheduler: dict[str, Any] = {}
        notes = ("no scheduler_config.json: the linear schedule of DDPM is assumed",)
    else:
        scheduler = _read_json(scheduler_file)
    schedule = NoiseSchedule.from_diffusers(scheduler, where=str(scheduler_file))
    denoiser = UNetDenoiser(_load_unet(unet_folder, variant, weights))
    name = "demo" if path is None else folder.resolve().name
    return PretrainedModel(denoiser, schedule, shape, name, _content_hash(config, scheduler, weights), notes)


def _find_parts(folder: Path) -> tuple[Path, Path | None]:
    """The UNet's folder and the scheduler's configuration file, which may be missing."""
    where = str(folder)
    if folder.is_file():
        if folder.suffix in PICKLE_SUFFIXES:
            raise ModelError("this is a pickle", where=where, mend=PICKLE_MEND)
        raise ModelError("this is a file", where=where, mend="give the diffusers folder that holds it")
    if not folder.is_dir():
        raise ModelError("no such folder", where=where, mend="give a diffusers folder with safetensors weights")
    if (folder / "model_index.json").is_file():
        index = _read_json(folder / "model_index.json")
        if "unet" not in index:
            raise ModelError("the pipeline has no unet", where=f"{where}/model_index.json")
        unet, scheduler = folder / "unet", folder / "scheduler" / "scheduler_config.json"
    elif (folder / "config.json").is_file():
        unet, scheduler = folder, folder / "scheduler_config.json"
        if not scheduler.is_file():
            scheduler = folder.parent / "scheduler" / "scheduler_config.json"
    else:
        raise ModelError(
            "neither model_index.json nor config.json is here", where=where, mend="give a diffusers folder"
        )
    if not (unet / "config.json").is_file():
        raise ModelError("config.json is missing", where=str(unet))
    return unet, scheduler if scheduler.is_file() else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"not JSON: {error}", where=str(path)) from error
    if not isinstance(document, dict):
        raise ModelError("not a JSON object", where=str(path))
    return document


def _check_unet(config: dict[str, Any], path: Path) -> tuple[int, int, int]:
    """Refuse what is no unconditional UNet2DModel; return its sample shape."""
    where = str(path)
    kind = config.get("_class_name")
    if kind != "UNet2DModel":
        raise ModelError(f"model class {kind!r} is not supported", where=where, mend="UNet2DModel is")
    channels, size = config.get("in_channels"), config.get("sample_size")
    if config.get("num_class_embeds") is not None or config.get("class_embed_type") is not None:
        raise ModelError("class-conditional models are not supported", where=where)
    if not isinstance(channels, int) or channels != config.get("out_channels"):
        raise ModelError("in_channels and out_channels must be the same number", where=where)
    sides = (size, size) if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(isinstance(n, int) and n > 0 for n in sides):
        raise ModelError("sample_size must be one or two positive integers", where=where)
    return channels, sides[0], sides[1]


def _find_weights(folder: Path) -> tuple[str | None, Path]:
    """The safetensors file, full precision before fp16, and its variant's name."""
    for variant, name in WEIGHTS.items():
        if (folder / name).is_file():
            return variant, folder / name
    pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise ModelError(f"the weights are a pickle ({pickles[0]})", where=str(folder), mend=PICKLE_MEND)
    raise ModelError(f"no weights: neither of {sorted(WEIGHTS.values())}", where=str(folder))


def _load_unet(folder: Path, variant: str | None, weights: Path) -> nn.Module:
    """The network in float32, every weight of it found in the file and finite."""
    try:
        with safe_open(weights, framework="pt") as tensors:
            if not tensors.keys():
                raise ModelError("no tensor in it", where=str(weights))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"damaged safetensors: {error}", where=str(weights), mend="fetch the file anew") from error
    try:
        with _quiet_imports():
            from diffusers import UNet2DModel  # noqa: PLC0415 - takes seconds; --help must not wait for it

            unet, info = UNet2DModel.from_pretrained(
                folder,
                variant=variant,
                torch_dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        first_line = str(error).strip().split("\n", maxsplit=1)[0]
        raise ModelError(f"weights and configuration do not fit: {first_line}", where=str(folder)) from error
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[key]:
            raise ModelError(f"{key.replace('_', ' ')}: {list(info[key])[:3]}", where=str(weights))
    module: nn.Module = unet.eval().requires_grad_(requires_grad=False)
    bad = [name for name, tensor in module.named_parameters() if not torch.isfinite(tensor).all()]
    if bad:
        raise ModelError(f"{bad[0]} is not finite", where=str(weights), mend="fetch or train the model anew")
    return module


@contextmanager
def _quiet_imports() -> Iterator[None]:
    """Silence what diffusers and torchao log about optional parts of themselves while they load.

    What matters about the load is checked by the caller.
    """
    from diffusers.utils import logging as diffusers_logging  # noqa: PLC0415 - see _load_unet

    verbosity = diffusers_logging.get_verbosity()
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    diffusers_logging.set_verbosity_error()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _content_hash(config: dict[str, Any], scheduler: dict[str, Any], weights: Path) -> str:
    digest = hashlib.sha256()
    for document in (config, scheduler):
        digest.update(json.dumps(document, sort_keys=True).encode())
    with weights.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
