"""Loading pretrained denoisers from diffusers folders: safetensors only, never a pickle."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from calib.adapters import AdaptedDenoiser, PretrainedModel, check_conditions, content_hash
from calib.errors import ModelError
from calib.kinds import TEXT_TOKENS, call, call_text_time, read_kind
from calib.schedules import NoiseSchedule, Schedule, edm, flow, ve

__all__ = ["DEMO_MODEL", "PICKLE_SUFFIXES", "PretrainedModel", "load_model"]

DEMO_MODEL = Path(__file__).parent / "demo" / "model"
WEIGHTS = {None: "diffusion_pytorch_model.safetensors", "fp16": "diffusion_pytorch_model.fp16.safetensors"}
PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
PICKLE_MEND = "a pickle can run any code: convert it to safetensors where you trust it"
EDM_SIGMAS = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
"""What diffusers' EDM schedulers are set to where their configuration says nothing."""
NETWORKS = ("unet", "transformer")
"""The folders of a pipeline that may hold its denoiser."""


def load_model(path: Path | None = None, conditions: Mapping[str, torch.Tensor] | None = None) -> PretrainedModel:
    """Load a diffusers folder.

    Args:
        path: a pipeline's folder (``model_index.json`` with ``unet/`` or ``transformer/``), or that of a UNet2DModel,
            UNet2DConditionModel or DiTTransformer2DModel; None = the demo model.
        conditions: real examples of what the network is conditioned on, by name, ``[K, ...]``; made up where missing.

    Raises:
        ModelError: missing, pickled, damaged, or a kind of model that the kit does not know.
    """
    folder = DEMO_MODEL if path is None else path
    network_folder, scheduler_file = _find_parts(folder)
    config = read_json(network_folder / "config.json")
    kind = read_kind(config, str(network_folder / "config.json"), _text_tokens(network_folder.parent))
    examples = check_conditions(kind.conditions, conditions)
    variant, weights = find_weights(network_folder)
    notes = kind.notes if conditions is None else ()
    scheduler: dict[str, Any] = {}
    if scheduler_file is None:
        notes = (*notes, "no scheduler_config.json: the linear schedule of DDPM is assumed")
    else:
        scheduler = read_json(scheduler_file)
    schedule = _read_schedule(scheduler, str(scheduler_file))
    network = load_network(kind.class_name, network_folder, variant, weights)
    how = call_text_time if "text_embeds" in examples else call
    denoiser = AdaptedDenoiser(network, kind.sample_shape, tuple(examples), how, kind.attribute)
    name = "demo" if path is None else folder.resolve().name
    digest = _content_hash(config, scheduler, weights)
    if examples:
        digest = content_hash(nn.Module(), [digest], examples)
    return PretrainedModel(
        denoiser.eval().requires_grad_(requires_grad=False),
        schedule,
        kind.sample_shape,
        name,
        digest,
        notes,
        examples,
        kind.unconditional,
        _demo_references() if path is None else None,
    )


def _demo_references() -> torch.Tensor:
    """Pictures like those that the demo model was trained on."""
    from calib.demo.textures import reference_images  # noqa: PLC0415 - no other model needs scikit-image

    return torch.from_numpy(reference_images())


def _read_schedule(config: dict[str, Any], where: str) -> Schedule:
    """The process that a scheduler's configuration describes."""
    name = str(config.get("_class_name", ""))
    if name == "ScoreSdeVeScheduler":
        return ve(float(config.get("sigma_min", 0.01)), float(config.get("sigma_max", 1348.0)), time="sigma")
    if name.startswith("EDM") and config.get("prediction_type", "epsilon") == "epsilon":
        sigmas = (float(config.get(key, usual)) for key, usual in EDM_SIGMAS.items())
        return edm(*sigmas)
    if name != "FlowMatchEulerDiscreteScheduler":
        if name and not {"beta_start", "trained_betas", "beta_schedule"} & config.keys():
            mend = "load the network with diffusers and adapt it with calib.adapt, which takes any noising process"
            raise ModelError(f"the scheduler {name} is not supported", where=where, mend=mend)
        return NoiseSchedule.from_diffusers(config, where=where)
    for key in ("use_dynamic_shifting", "invert_sigmas", "shift_terminal", "stochastic_sampling"):
        if config.get(key):
            raise ModelError(f"{key} is not supported", where=where)
    return flow(float(config.get("shift", 1.0)), int(config.get("num_train_timesteps", 1000)))


def _text_tokens(pipeline: Path) -> int:
    """How long a pipeline's texts are."""
    config = pipeline / "text_encoder" / "config.json"
    if not config.is_file():
        return TEXT_TOKENS
    return int(read_json(config).get("max_position_embeddings", TEXT_TOKENS))


def _find_parts(folder: Path) -> tuple[Path, Path | None]:
    """The network's folder and the scheduler's configuration file, which may be missing."""
    where = str(folder)
    if folder.is_file():
        if folder.suffix in PICKLE_SUFFIXES:
            raise ModelError("this is a pickle", where=where, mend=PICKLE_MEND)
        raise ModelError("this is a file", where=where, mend="give the diffusers folder that holds it")
    if not folder.is_dir():
        raise ModelError("no such folder", where=where, mend="give a diffusers folder with safetensors weights")
    if (folder / "model_index.json").is_file():
        index = read_json(folder / "model_index.json")
        found = [name for name in NETWORKS if name in index]
        if not found:
            raise ModelError("the pipeline has no unet and no transformer", where=f"{where}/model_index.json")
        unet, scheduler = folder / found[0], folder / "scheduler" / "scheduler_config.json"
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ModelError for anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"not JSON: {error}", where=str(path)) from error
    if not isinstance(document, dict):
        raise ModelError("not a JSON object", where=str(path))
    return document


def find_weights(folder: Path) -> tuple[str | None, list[Path]]:
    """A network folder's safetensors files, full precision before fp16, and their variant's name.

    Raises:
        ModelError: there are none, or pickles in their place.
    """
    for variant, name in WEIGHTS.items():
        if (folder / name).is_file():
            return variant, [folder / name]
        if (folder / f"{name}.index.json").is_file():
            parts = read_json(folder / f"{name}.index.json").get("weight_map")
            names = sorted({str(part) for part in parts.values()}) if isinstance(parts, dict) else []
            missing = [part for part in names if not (folder / part).is_file()]
            if not names or missing:
                raise ModelError(f"parts of the weights are missing: {missing[:3]}", where=str(folder))
            return variant, [folder / part for part in names]
    pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise ModelError(f"the weights are a pickle ({pickles[0]})", where=str(folder), mend=PICKLE_MEND)
    raise ModelError(f"no weights: neither of {sorted(WEIGHTS.values())}", where=str(folder))


def load_network(class_name: str, folder: Path, variant: str | None, weights: list[Path]) -> nn.Module:
    """A diffusers network in float32, every weight of it found in the files and finite.

    Raises:
        ModelError: damaged files, or weights that do not fit the configuration.
    """
    for part in weights:
        try:
            with safe_open(part, framework="pt") as tensors:
                if not tensors.keys():
                    raise ModelError("no tensor in it", where=str(part))
        except (SafetensorError, OSError) as error:
            raise ModelError(f"damaged safetensors: {error}", where=str(part), mend="fetch the file anew") from error
    try:
        with _quiet_imports():
            import diffusers  # noqa: PLC0415 - takes seconds; --help must not wait for it

            network, info = getattr(diffusers, class_name).from_pretrained(
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
            raise ModelError(f"{key.replace('_', ' ')}: {list(info[key])[:3]}", where=str(weights[0]))
    module: nn.Module = network.eval().requires_grad_(requires_grad=False)
    bad = [name for name, tensor in module.named_parameters() if not torch.isfinite(tensor).all()]
    if bad:
        raise ModelError(f"{bad[0]} is not finite", where=str(weights[0]), mend="fetch or train the model anew")
    return module


@contextmanager
def _quiet_imports() -> Iterator[None]:
    """Silence what diffusers and torchao log about optional parts of themselves while they load.

    What matters about the load is checked by the caller.
    """
    from diffusers.utils import logging as diffusers_logging  # noqa: PLC0415 - see load_network

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


def _content_hash(config: dict[str, Any], scheduler: dict[str, Any], weights: list[Path]) -> str:
    digest = hashlib.sha256()
    for document in (config, scheduler):
        digest.update(json.dumps(document, sort_keys=True).encode())
    for part in weights:
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
