"""How near quantized models come to their float original, beside what else the same cost would buy."""

from calib.evaluate.metrics import psnr
from calib.evaluate.result import Evaluation, Row
from calib.evaluate.run import evaluate
from calib.evaluate.suite import EvaluationConfig

__all__ = ["Evaluation", "EvaluationConfig", "Row", "evaluate", "psnr"]
