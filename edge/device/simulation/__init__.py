"""The device of ``firmware_bridge.testing.simulation``: the real supervisor, a disk in memory, a model of an engine.

Replay a seed: ``python -m firmware_bridge.testing simulate --seed N``.
"""

from edge.device.simulation.board import Board, SimulatedSupervisor
from edge.device.simulation.engine import ModelEngine

__all__ = ["Board", "ModelEngine", "SimulatedSupervisor"]
