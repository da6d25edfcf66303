"""From a pretrained diffusion model to a modulated INT8 one: load, observe, quantize, plan, evaluate.

The public API is what this module names; ``calib/README.md`` shows it at work.
"""

from calib.adapters import PretrainedModel, adapt, guided
from calib.calibration import Calibration, CalibrationConfig, calibrate, calibration_key
from calib.latents import load_decoder
from calib.models import load_model
from calib.modulated import ModulatedModel, modulate
from calib.noise import noise, noise_batch
from calib.samplers import Sampler, build_sampler
from calib.sampling import sample, start_generation, start_inspection
from calib.schedules import ContinuousSchedule, NoiseSchedule, edm, flow, ve, vp
from calib.sources import read_model
from calib.storage import load_calibration, save_calibration
from calib.support import Support, check_supported

__all__ = [
    "Calibration",
    "CalibrationConfig",
    "ContinuousSchedule",
    "ModulatedModel",
    "NoiseSchedule",
    "PretrainedModel",
    "Sampler",
    "Support",
    "adapt",
    "build_sampler",
    "calibrate",
    "calibration_key",
    "check_supported",
    "edm",
    "flow",
    "guided",
    "load_calibration",
    "load_decoder",
    "load_model",
    "modulate",
    "noise",
    "noise_batch",
    "read_model",
    "sample",
    "save_calibration",
    "start_generation",
    "start_inspection",
    "ve",
    "vp",
]
