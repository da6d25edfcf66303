"""Train the demo model: an unconditional DDPM of inspection surfaces, seeded and resumable.

Run ``python -m calib.demo.train --out DIR``. A run that was stopped goes on from ``DIR/train.pt``.
Every ``--sample-every`` steps the EMA weights are sampled into ``DIR/samples.png`` and the loss
curve is drawn to ``DIR/loss.png``. At the end ``DIR/model`` is a diffusers folder with fp16
safetensors (UNet2DModel and DDPM scheduler).

Objective: epsilon prediction with the min-SNR-5 weight (Hang et al., 2023), on the linear beta
schedule of DDPM (Ho et al., 2020).
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file

from calib.demo.textures import SIDE, load_surfaces, random_crops

CHANNELS = (16, 32, 64, 128)
TRAIN_TIMESTEPS = 1000
MIN_SNR = 5.0
WARMUP_STEPS = 200
FINAL_RATE_SHARE = 0.02


@dataclass(frozen=True)
class TrainSettings:
    """What decides the weights beside the length; a checkpoint made with other settings is refused."""

    batch: int = 32
    learning_rate: float = 1e-3
    ema_decay: float = 0.999
    seed: int = 0


def build_model() -> UNet2DModel:
    """The demo architecture: four levels, attention at 16x16 and 8x8, 2.5 M parameters."""
    return UNet2DModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=32,
    )


def learning_rate_share(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to ``FINAL_RATE_SHARE`` of the peak rate."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Trainer:
    """Owns model, EMA copy, optimizer and step count; everything a checkpoint holds."""

    def __init__(self, settings: TrainSettings, steps: int) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.lengths = [(0, steps)]
        self.model = build_model().to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), settings.learning_rate, weight_decay=1e-4)
        self.schedule = DDPMScheduler(num_train_timesteps=TRAIN_TIMESTEPS)
        self.surfaces = load_surfaces()
        self.losses: list[float] = []

    @property
    def step(self) -> int:
        """Optimizer steps done so far."""
        return len(self.losses)

    def train_step(self) -> None:
        """One optimizer step; its batch, timesteps and noise depend on seed and step number only."""
        settings = self.settings
        rng = np.random.default_rng((settings.seed, self.step))
        clean = torch.from_numpy(random_crops(self.surfaces.train, settings.batch, rng))
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        timesteps = torch.from_numpy(rng.integers(0, TRAIN_TIMESTEPS, settings.batch))
        noisy = self.schedule.add_noise(clean, noise, timesteps)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_share(self.step, self.lengths[-1][1])
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.model(noisy.to(memory_format=torch.channels_last), timesteps).sample
        alphas = self.schedule.alphas_cumprod[timesteps]
        snr = alphas / (1 - alphas)
        weight = snr.clamp(max=MIN_SNR) / snr
        loss = (weight * (predicted.float() - noise).square().mean((1, 2, 3))).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        decay = min(settings.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, value in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                average.lerp_(value, 1 - decay)
        self.losses.append(float(loss))

    def save(self, path: Path) -> None:
        """Write the checkpoint so that a crash leaves the old one or the new one."""
        part = path.with_suffix(".part")
        state = {
            "settings": vars(self.settings),
            "lengths": self.lengths,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": torch.tensor(self.losses),
        }
        torch.save(state, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings.

        The length may differ: from there on the learning rate follows the schedule of the new length. ``lengths``
        keeps (first step, length) of every part, since they decide the weights.
        """
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["settings"] != vars(self.settings):
            raise typer.BadParameter(f"{path} was made with {state['settings']}; use these or another --out")
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses = state["losses"].tolist()
        steps = self.lengths[-1][1]
        self.lengths = [*state["lengths"], *([(self.step, steps)] if steps != state["lengths"][-1][1] else [])]


@torch.no_grad()
def sample_grid(model: UNet2DModel, path: Path, *, rows: int = 3, columns: int = 8, steps: int = 50) -> None:
    """Draw seeds 0.. with DDIM and write them as one grey picture."""
    scheduler = DDIMScheduler(num_train_timesteps=TRAIN_TIMESTEPS, clip_sample=True)
    scheduler.set_timesteps(steps)
    images = torch.cat(
        [torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(s)) for s in range(rows * columns)]
    )
    for timestep in scheduler.timesteps:
        images = scheduler.step(model(images, timestep).sample, timestep, images).prev_sample
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    grid = pixels.reshape(rows, columns, SIDE, SIDE).transpose(0, 2, 1, 3).reshape(rows * SIDE, columns * SIDE)
    Image.fromarray(grid).save(path)


def draw_losses(losses: list[float], path: Path, *, window: int = 100) -> None:
    """Plot the running mean of the loss over ``window`` steps."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    smooth = np.convolve(losses, np.ones(window) / window, "valid") if len(losses) >= window else np.array(losses)
    axes.plot(np.arange(len(smooth)) + window, smooth, linewidth=1)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(f"weighted loss (mean of {window})")
    axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=120)


def export_model(trainer: Trainer, folder: Path) -> None:
    """Write the EMA weights as a diffusers folder with fp16 safetensors."""
    unet = folder / "unet"
    unet.mkdir(parents=True, exist_ok=True)
    trainer.ema.save_config(unet)
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in trainer.ema.state_dict().items()}
    save_file(half, unet / "diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
    trainer.schedule.save_config(folder / "scheduler")
    index = '{\n  "_class_name": "DDPMPipeline",\n  "scheduler": ["diffusers", "DDPMScheduler"],\n'
    (folder / "model_index.json").write_text(index + '  "unet": ["diffusers", "UNet2DModel"]\n}\n')


def main(
    out: Annotated[Path, typer.Option(help="folder for checkpoint, pictures and the trained model")],
    steps: Annotated[int, typer.Option(help="optimizer steps in all")] = 8000,
    sample_every: Annotated[int, typer.Option(help="steps between sample grids")] = 500,
    checkpoint_every: Annotated[int, typer.Option(help="steps between checkpoints")] = 100,
    seed: Annotated[int, typer.Option(help="seed of weights, batches and noise")] = 0,
) -> None:
    """Train the demo model on CPU; about two hours on two cores for the default steps."""
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(TrainSettings(seed=seed), steps)
    checkpoint = out / "train.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    started, first = time.monotonic(), trainer.step
    while trainer.step < steps:
        trainer.train_step()
        if trainer.step % 50 == 0:
            rate = (trainer.step - first) / (time.monotonic() - started)
            recent = sum(trainer.losses[-50:]) / 50
            typer.echo(f"step {trainer.step}/{steps}  loss {recent:.4f}  {rate:.2f} steps/s", err=True)
        if trainer.step % checkpoint_every == 0 or trainer.step == steps:
            trainer.save(checkpoint)
        if trainer.step % sample_every == 0 or trainer.step == steps:
            sample_grid(trainer.ema, out / "samples.png")
            draw_losses(trainer.losses, out / "loss.png")
            export_model(trainer, out / "model")


if __name__ == "__main__":
    typer.run(main)
