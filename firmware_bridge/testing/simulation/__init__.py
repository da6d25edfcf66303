"""Deterministic simulation: a host, its devices, their lines and disks under one virtual clock, replayed by a seed.

The host's code is the real one (`HostEndpoint`), and so is the device's (`DeviceEndpoint`, and the supervisor that
`edge.device.simulation` boots as a `Machine`); lines, disks, power and time are not, and the engine is a model.
`python -m firmware_bridge.testing simulate --seed N` replays a run.
"""

from firmware_bridge.testing.simulation.cuts import cut
from firmware_bridge.testing.simulation.machine import Bundle, Machine, Nature, SimulatedDevice
from firmware_bridge.testing.simulation.scenario import Scenario
from firmware_bridge.testing.simulation.world import Outcome, simulate

__all__ = ["Bundle", "Machine", "Nature", "Outcome", "Scenario", "SimulatedDevice", "cut", "simulate"]
