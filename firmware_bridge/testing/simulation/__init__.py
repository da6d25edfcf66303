"""Deterministic simulation: a host, its devices, their lines and disks under one virtual clock, replayed by a seed.

The host's and the device's code is the real one (`HostEndpoint`, `DeviceEndpoint`, and whatever `Machine` stands
behind it); lines, disks, power and time are not. `python -m firmware_bridge.testing simulate --seed N` replays a run.
"""

from firmware_bridge.testing.simulation.machine import Machine
from firmware_bridge.testing.simulation.scenario import Scenario
from firmware_bridge.testing.simulation.world import Outcome, simulate

__all__ = ["Machine", "Outcome", "Scenario", "simulate"]
