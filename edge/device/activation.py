"""Bundles come to life here: checked against disk, board and golden output before anything is switched.

verify hashes -> fits this board? -> start its engine -> golden self-test -> switch. Whatever fails on the way leaves
the bundle that was active as it was.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from boards.errors import KitError
from edge.bundle import check_fits, parse_manifest
from edge.device import selftest
from edge.device.engine_process import EngineCommand, EngineProcess, Timeouts
from edge.device.errors import BundleRejected, NoActiveBundle, UnknownBundle

if TYPE_CHECKING:
    from collections.abc import Callable

    from boards import Board
    from edge.bundle import Manifest
    from edge.device.store import Store

log = logging.getLogger(__name__)

# Private memory that an emulator takes for itself (translated code, its own heap), beside the engine's.
_EMULATOR_BYTES = 512 * 2**20


class Bundles:
    """The device's bundles, and which of them is active.

    Args:
        store: where they lie.
        board: what they must fit.
        prefix: words before the engine's command, an emulator's on a virtual board.
        timeouts: of the engine.
    """

    def __init__(
        self, store: Store, board: Board, prefix: tuple[str, ...] = (), timeouts: Timeouts | None = None
    ) -> None:
        self._store = store
        self._board = board
        self._prefix = prefix
        self._timeouts = timeouts
        self.current: tuple[Manifest | None, str | None] = (None, None)  # one value: two threads look at it

    @property
    def active(self) -> Manifest | None:
        """The active bundle's manifest."""
        return self.current[0]

    @property
    def active_id(self) -> str | None:
        """The active bundle's id."""
        return self.current[1]

    def boot(self) -> None:
        """Choose the active bundle: the newest that is whole. What is damaged is logged and passed over."""
        for bundle_id in self._store.active():
            try:
                manifest = self.manifest(bundle_id)
                self._store.verify(bundle_id, manifest)
                self._store.install(bundle_id, manifest)
            except KitError as error:
                log.error("bundle %s cannot be used: %s", bundle_id[:12], error)  # noqa: TRY400  an operator's log
                continue
            if bundle_id != self._store.active()[0]:
                self._store.fall_back(bundle_id)
            self.current = manifest, bundle_id
            log.info("bundle %s (%s) is active, all hashes good", bundle_id[:12], manifest.name)
            return
        log.warning("no bundle is active")

    def manifest(self, bundle_id: str) -> Manifest:
        """The manifest of a bundle whose blobs are here.

        Raises:
            UnknownBundle: it was not uploaded.
            BundleError: it is not a manifest.
        """
        path = self._store.blob(bundle_id)
        if not path.is_file():
            raise UnknownBundle(
                "its manifest is not here", where=f"bundle {bundle_id[:12]}", mend="upload it, then activate"
            )
        return parse_manifest(path.read_bytes(), f"bundle {bundle_id[:12]}")

    def start_engine(self) -> EngineProcess:
        """Start the active bundle's engine, its files hashed again first.

        Raises:
            NoActiveBundle: there is none.
            HashMismatch: the disk changed under it.
            EngineDied: it does not start.
        """
        manifest, bundle_id = self.current
        if manifest is None or bundle_id is None:
            raise NoActiveBundle("no bundle is active", mend="deploy one")
        self._store.verify(bundle_id, manifest)
        return self._start(bundle_id, manifest)

    def activate(self, bundle_id: str, progress: Callable[[str, int, int], None]) -> EngineProcess:
        """All the way from uploaded blobs to the active bundle.

        Args:
            bundle_id: the manifest's SHA-256.
            progress: called with (stage, done, of).

        Returns:
            The new bundle's engine, ready for jobs.

        Raises:
            BundleError: incomplete, for another board, or too large for this one.
            HashMismatch, SelfTestFailed, EngineError, StorageError: as they say; the active bundle stays.
        """
        manifest = self.manifest(bundle_id)
        log.info("bundle %s (%s): verifying", bundle_id[:12], manifest.name)
        self._store.verify(bundle_id, manifest, lambda done, of: progress("verify", done, of))
        check_fits(manifest, self._board)
        self._store.install(bundle_id, manifest)
        progress("start", 0, 1)
        engine = self._start(bundle_id, manifest)
        try:
            progress("start", 1, 1)
            self._check_engine(engine, manifest)
            self._self_test(engine, bundle_id, manifest, progress)
            self._store.set_active(bundle_id)
        except BaseException:
            engine.close()
            raise
        self.current = manifest, bundle_id
        self._prune()
        return engine

    def _check_engine(self, engine: EngineProcess, manifest: Manifest) -> None:
        """What the engine found in the program must be what the manifest promised."""
        info, model = engine.info, manifest.model
        found = (*info.shape, info.steps, info.condition_bytes)
        promised = (model.channels, model.height, model.width, manifest.sampler.steps, model.condition_bytes)
        if found != promised:
            raise BundleRejected(
                f"the program has (C, H, W, steps, condition bytes) {found}, the manifest says {promised}",
                mend="build the bundle anew",
            )
        if info.state_bytes_per_slot > self._board.memory.state_budget_bytes:
            raise BundleRejected(
                f"the engine wants {info.state_bytes_per_slot} bytes a slot, the board's budget is "
                f"{self._board.memory.state_budget_bytes}",
                mend="use a smaller model",
            )
        log.info("engine %d: isa %s, %d steps, %d slots", engine.pid, info.isa, info.steps, info.slots)

    def _self_test(
        self, engine: EngineProcess, bundle_id: str, manifest: Manifest, progress: Callable[[str, int, int], None]
    ) -> None:
        golden = manifest.golden
        measured = selftest.run(
            engine,
            seed=golden.seed,
            start=golden.start,
            golden=(self._store.folder(bundle_id) / manifest.file("golden").name).read_bytes(),
            least=golden.min_psnr_db,
            on_step=lambda done, of: progress("self-test", done, of),
        )
        log.info("bundle %s: golden self-test %.1f dB, %.1f needed", bundle_id[:12], measured, golden.min_psnr_db)

    def _start(self, bundle_id: str, manifest: Manifest) -> EngineProcess:
        folder, memory = self._store.folder(bundle_id), self._board.memory
        program = manifest.file("program")
        command = EngineCommand(
            executable=folder / manifest.file("engine").name,
            program=folder / program.name,
            program_id=program.sha256,
            slots=manifest.slots,
            state_budget=memory.state_budget_bytes,
            prefix=self._prefix,
            memory_limit=memory.budget_bytes + (_EMULATOR_BYTES if self._prefix else 0),
        )
        return EngineProcess(command, self._timeouts)

    def _prune(self) -> None:
        """Throw out older bundles. A kept one whose manifest is damaged loses its blobs: it could not be used."""
        kept = []
        for bundle_id in self._store.active():
            try:
                kept.append(self.manifest(bundle_id))
            except KitError as error:
                log.warning("bundle %s cannot be kept whole: %s", bundle_id[:12], error)
        self._store.prune(kept)
