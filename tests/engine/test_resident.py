"""The weights of the residual plane are in memory while a pass reads them, and in the file between."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from calib import CalibrationConfig, adapt, build_sampler, calibrate, modulate
from edge.device.engine_process import EngineCommand, EngineProcess
from edge.lower.export import lower
from edge.toolchain import build_engine

WIDTH = 256


class Wide(nn.Module):
    """Most of its weights are in one layer: 9 * 256^2 bytes a plane."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide = nn.Conv2d(1, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.last = nn.Conv2d(WIDTH, 1, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        del t
        out: torch.Tensor = self.last(torch.relu(self.wide(torch.relu(self.first(x)))))
        return out


def test_residual_weights_are_given_back_to_the_file(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = adapt(Wide(), sample_shape=(1, 4, 4))
    sampler = build_sampler("ddim", 5, model.schedule)
    calibration = calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2, residual_every=3))
    program = lower(modulate(model, calibration), sampler, model.sample_shape)
    path = tmp_path / "program.pte"
    path.write_bytes(program.data)
    plane = 9 * WIDTH * WIDTH
    assert program.program_bytes > 2 * plane
    command = EngineCommand(build_engine("host").engine, path, program.sha256, 1, program.state_bytes)
    with EngineProcess(command) as engine:
        engine.begin(0, 1, 0, None)
        for step in range(5):
            assert (engine.step(0).residual_passes > 0) == (step in {0, 3})
            held = resident_bytes(engine.pid, path)
            assert plane < held < program.program_bytes - 0.8 * plane, (step, held)


def resident_bytes(pid: int, file: Path) -> int:
    """Bytes of a file's mappings that are in a process's memory."""
    inside, total = False, 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):
            inside = line.endswith(str(file))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total
