"""What a supervisor stands on: disk, identity, keys, engines and clocks. A simulation replaces them as a whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge.device.disk import FolderDisk
from edge.device.engine_process import EngineCommand, EngineProcess
from edge.device.identity import FolderLock, Identity, folder_errors
from edge.device.store import bundle_folder
from firmware_bridge.keys import TrustedKeys

if TYPE_CHECKING:
    from pathlib import Path

    from boards import Board
    from edge.bundle import Manifest
    from edge.device.disk import Disk
    from edge.device.engine import Engine
    from edge.device.engine_process import Timeouts

# Private memory that an emulator takes for itself (translated code, its own heap), beside the engine's.
_EMULATOR_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Clock:
    """Two clocks, in seconds: one that never jumps, and Unix time, which outlives a restart."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time


EngineStarter = Callable[[str, "Manifest"], "Engine"]
"""Starts the engine of an installed bundle, given its id and manifest; raises EngineDied where it does not come up."""


@dataclass(frozen=True)
class Surroundings:
    """All that a supervisor has not in its own memory.

    Args:
        disk: where everything lies that outlives it.
        identity: who the device is.
        keys: whose bundles it takes.
        start_engine: starts engines.
        clock: tells the time.
        release: gives the place free for another supervisor.
    """

    disk: Disk
    identity: Identity
    keys: TrustedKeys
    start_engine: EngineStarter
    clock: Clock = field(default_factory=Clock)
    release: Callable[[], None] = lambda: None


def this_machine(
    root: Path, board: Board, prefix: tuple[str, ...] = (), timeouts: Timeouts | None = None
) -> Surroundings:
    """A folder of this machine, locked, and engines as child processes.

    Args:
        root: the device's folder; created if its parent is there. One supervisor at a time.
        board: what this device is.
        prefix: words before the engine's command, an emulator's on a virtual board.
        timeouts: of the engine.

    Raises:
        StorageError: the folder cannot be used, or another supervisor uses it.
    """
    lock = FolderLock(root)
    disk = FolderDisk(root)
    with folder_errors(root):
        identity = Identity(disk)

    def start_engine(bundle_id: str, manifest: Manifest) -> EngineProcess:
        return EngineProcess(engine_command(root, board, prefix, bundle_id, manifest), timeouts)

    return Surroundings(disk, identity, TrustedKeys(root / "keys"), start_engine, release=lock.release)


def engine_command(
    root: Path, board: Board, prefix: tuple[str, ...], bundle_id: str, manifest: Manifest
) -> EngineCommand:
    """How the engine of an installed bundle is started."""
    bundle, memory = root / bundle_folder(bundle_id), board.memory
    program = manifest.file("program")
    return EngineCommand(
        executable=bundle / manifest.file("engine").name,
        program=bundle / program.name,
        program_id=program.sha256,
        slots=manifest.slots,
        state_budget=memory.state_budget_bytes,
        prefix=prefix,
        threads=min(board.cpu.cores, len(os.sched_getaffinity(0))),
        memory_limit=memory.budget_bytes + (_EMULATOR_BYTES if prefix else 0),
    )
