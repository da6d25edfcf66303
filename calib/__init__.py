"""From a pretrained diffusion model to a modulated INT8 one: load, observe, quantize, plan, evaluate."""

from calib.calibration import Calibration, CalibrationConfig, calibrate, calibration_key

__all__ = ["Calibration", "CalibrationConfig", "calibrate", "calibration_key"]
