"""Which bundles the device keeps, newest first, which of them has proved itself, and how far releases have come.

A bundle begins on TRIAL. The first job that it gets is announced on disk (TRYING) and, when it ends well, makes the
bundle GOOD. A device that starts and finds TRYING went down in that job: it goes back to the bundle before. One atomic
file holds all of it, so a switch of bundles and the version that forbids to go back are one.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge.device import durable, records
from edge.device.blobs import DIGEST, disk_errors

if TYPE_CHECKING:
    from edge.device.disk import Disk

log = logging.getLogger(__name__)

_FILE = "active"


class Trust(enum.StrEnum):
    """How far a bundle has proved itself."""

    TRIAL = "trial"
    TRYING = "trying"
    GOOD = "good"


@dataclass(frozen=True)
class Kept:
    """A bundle that is kept."""

    bundle_id: str
    trust: Trust


@dataclass(frozen=True)
class Standing:
    """All of it.

    Attributes:
        bundles: the active one, then the one to fall back to.
        version: the highest release that was activated, or that a permission to go back set; 0: none was signed.
        downgrades: permissions to go back that were used.
    """

    bundles: tuple[Kept, ...] = ()
    version: int = 0
    downgrades: int = 0

    @property
    def ids(self) -> list[str]:
        """The bundles' ids."""
        return [kept.bundle_id for kept in self.bundles]

    @property
    def trust(self) -> Trust | None:
        """The active bundle's."""
        return self.bundles[0].trust if self.bundles else None

    def activated(self, bundle_id: str, version: int, downgrades: int) -> Standing:
        """With this bundle active; behind it stays the newest that is good, else the one that was active."""
        if self.ids[:1] == [bundle_id]:
            return replace(self, version=version, downgrades=downgrades)
        others = [kept for kept in self.bundles if kept.bundle_id != bundle_id]
        good = [kept for kept in others if kept.trust is Trust.GOOD]
        return Standing((Kept(bundle_id, Trust.TRIAL), *(good or others)[:1]), version, downgrades)

    def marked(self, trust: Trust) -> Standing:
        """With the active bundle so far."""
        first, *rest = self.bundles
        return replace(self, bundles=(replace(first, trust=trust), *rest))

    def fallen_back(self, bundle_id: str) -> Standing:
        """With this older bundle active and the newer ones forgotten."""
        return replace(self, bundles=self.bundles[self.ids.index(bundle_id) :])


class StandingFile:
    """The standing on a disk.

    Args:
        disk: the device's.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        durable.remove_unfinished(disk, "")
        self.now = self._load()

    def save(self, standing: Standing) -> None:
        """Change it, atomically; on disk when it returns.

        Raises:
            StorageError: the disk refuses.
        """
        if standing == self.now:
            return
        document = {
            "bundles": [[kept.bundle_id, kept.trust] for kept in standing.bundles],
            "version": standing.version,
            "downgrades": standing.downgrades,
        }
        with disk_errors("active"):
            durable.write_new(self._disk, _FILE, records.encode(document))
        self.now = standing

    def _load(self) -> Standing:
        if self._disk.size(_FILE) is None:
            return Standing()
        document = records.decode(self._disk.read(_FILE))
        if document is None:
            log.critical("the file that names the active bundle is damaged: deploy a bundle")
            return Standing()
        bundles = tuple(Kept(each, Trust(trust)) for each, trust in document["bundles"] if DIGEST.fullmatch(each))
        return Standing(bundles, document["version"], document["downgrades"])
