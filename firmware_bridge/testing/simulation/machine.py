"""What a simulated device is: something that boots from a disk into a `DeviceHandler`, and can be audited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from firmware_bridge.handler import DeviceHandler
from firmware_bridge.testing.disk import MemoryDisk


class Machine(Protocol):
    """The kind of device to simulate. It keeps nothing itself: all that outlives a boot is on the disk."""

    def boot(self, disk: MemoryDisk, boot_id: str, clock: Callable[[], float]) -> DeviceHandler:
        """Start the supervisor; may be cut short by PowerCut.

        Args:
            disk: the device's disk, its file system made.
            boot_id: new for each boot.
            clock: the virtual clock, in seconds.
        """

    def audit(self, disk: MemoryDisk) -> list[str]:
        """What is wrong on the disk of a device that is off: damaged blobs, half a bundle active. Empty: nothing."""

    def finished(self, disk: MemoryDisk) -> Mapping[str, int]:
        """How often each job was finished, by the journal; a job that was ever accepted and not finished has 0."""

    def expected(self, payload: bytes) -> bytes:
        """The result of a job with this payload."""
