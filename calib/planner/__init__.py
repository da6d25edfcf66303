"""From a calibrated model to the best plan for it: what runs when, how exactly, and what is reused."""

from calib.planner.candidate import Candidate, planned
from calib.planner.config import PlannerConfig
from calib.planner.search import Planning, plan

__all__ = ["Candidate", "PlannerConfig", "Planning", "plan", "planned"]
