"""What a simulated device is: something that boots from a disk into a `DeviceHandler`, and can be audited."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from firmware_bridge.handler import DeviceHandler
from firmware_bridge.jobs import JobRequest, Result
from firmware_bridge.testing.disk import MemoryDisk


class Nature(enum.Enum):
    """What a bundle is worth."""

    GOOD = "it runs"
    REFUSED = "it fails its self-test"
    UNTRUSTED = "it runs, but nobody whom the device trusts has released it for it"
    FATAL = "it passes its self-test, and takes the device down in every job"


@dataclass(frozen=True)
class Bundle:
    """What the host deploys.

    Args:
        bundle_id: SHA-256, hex.
        blobs: what must be uploaded before it is activated.
        nature: what it is worth.
    """

    bundle_id: str
    blobs: tuple[bytes, ...]
    nature: Nature


class SimulatedDevice(DeviceHandler, Protocol):
    """A device that is up."""

    def kill_engine(self) -> None:
        """The engine's process, if one runs, dies now."""


class Machine(Protocol):
    """The kind of device to simulate. It keeps nothing itself: all that outlives a boot is on the disk."""

    def bundle(self, chance: random.Random, nature: Nature) -> Bundle:
        """Draw a bundle; all bundles of a run take the same jobs."""

    def release(self, bundle: Bundle, version: int) -> bytes:
        """The signed statement that goes with a bundle; of one that is UNTRUSTED, one that must not do.

        Args:
            bundle: that is to run.
            version: its place in the order of releases, 1 or more.
        """

    def job(self, chance: random.Random, job_id: str) -> JobRequest:
        """Draw a job that every bundle takes."""

    def boot(self, disk: MemoryDisk, clock: Callable[[], float], chance: random.Random) -> SimulatedDevice:
        """Start the supervisor; may be cut short by PowerCut.

        Args:
            disk: the device's disk, its file system made.
            clock: the virtual clock, in seconds; it goes on while the device is down.
            chance: where whatever the device draws comes from.
        """

    def audit(self, disk: MemoryDisk) -> list[str]:
        """What is wrong on the disk of a device that is off: damaged blobs, half a bundle active. Empty: nothing."""

    def finished(self, disk: MemoryDisk) -> Mapping[str, int]:
        """How often each job was finished, by the journal; a job that was ever accepted and not finished has 0."""

    def bundle_of(self, result: Result) -> str:
        """The id of the bundle that a result was made with."""

    def expected(self, bundle: Bundle, job: JobRequest) -> bytes:
        """The right result of a job in a bundle."""
