"""Bundles come to life here: checked against disk, board and golden output before anything is switched.

released for this device? -> verify hashes -> fits this board? -> start its engine -> golden self-test -> switch.
Whatever fails on the way leaves the bundle that was active as it was.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from boards.errors import KitError
from edge.bundle import check_fits, parse_manifest
from edge.device import selftest
from edge.device.errors import BundleRejected, NoActiveBundle, UnknownBundle
from edge.device.standing import Trust
from edge.device.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from boards import Board
    from edge.bundle import Manifest
    from edge.device.engine import Engine
    from edge.device.standing import Standing, StandingFile
    from edge.device.store import Store
    from edge.device.surroundings import EngineStarter
    from edge.device.trust import Gate

log = logging.getLogger(__name__)


class Bundles:
    """The device's bundles, and which of them is active.

    Args:
        store: where they lie.
        standing: which of them is active.
        gate: who may change that.
        board: what they must fit.
        start: starts their engines.
    """

    def __init__(
        self,
        store: Store,
        standing: StandingFile,
        gate: Gate,
        *,
        board: Board,
        start: EngineStarter,
    ) -> None:
        self._store = store
        self._standing = standing
        self._gate = gate
        self._board = board
        self._start = start
        self._trial = Trial(standing)
        self.current: tuple[Manifest | None, str | None] = (None, None)  # one value: two threads look at it

    @property
    def active(self) -> Manifest | None:
        """The active bundle's manifest."""
        return self.current[0]

    @property
    def active_id(self) -> str | None:
        """The active bundle's id."""
        return self.current[1]

    @property
    def standing(self) -> Standing:
        """Which bundles are kept, how far they have proved themselves, and how far releases have come."""
        return self._standing.now

    def boot(self) -> None:
        """Choose the active bundle: the newest that is whole, released and did not take the device down in its trial.

        What is passed over is logged, and forgotten where an older one takes its place.
        """
        standing = self._standing.now
        for bundle_id in standing.ids:
            is_last = bundle_id == standing.ids[-1]
            if bundle_id == standing.ids[0] and standing.trust is Trust.TRYING and not is_last:
                log.error("bundle %s went down in its first job: going back to the one before", bundle_id[:12])
                continue
            try:
                manifest = self.manifest(bundle_id)
                release = self._store.release(bundle_id)
                self._gate.check_kept(bundle_id, release)
                self._store.verify(bundle_id, manifest)
                self._store.install(bundle_id, manifest, release)
            except KitError as error:
                log.error("bundle %s cannot be used: %s", bundle_id[:12], error)  # noqa: TRY400  an operator's log
                continue
            if bundle_id != standing.ids[0]:
                self._standing.save(standing.fallen_back(bundle_id))
                log.warning("fell back to bundle %s", bundle_id[:12])
            self.current = manifest, bundle_id
            log.info("bundle %s (%s) is active, all hashes good", bundle_id[:12], manifest.name)
            return
        log.warning("no bundle is active")

    def admit(self, bundle_id: str, release: bytes) -> Standing:
        """Check that a bundle was uploaded and may be activated, before any long work.

        Returns:
            The standing to go on from: for ``activate``.

        Raises:
            UnknownBundle: it was not uploaded.
            BundleError: it is not a manifest.
            Untrusted, Downgrade: its release does not allow it.
        """
        self.manifest(bundle_id)
        return self._gate.admit(bundle_id, release, self._standing.now)

    def confirm(self, bundle_id: str) -> None:
        """The host has seen that the active bundle works. UnknownBundle: another one is active."""
        if bundle_id != self.active_id:
            active = (self.active_id or "none")[:12]
            raise UnknownBundle(f"it is not active, {active} is", where=f"bundle {bundle_id[:12]}", mend="activate it")
        self._trial.passed()

    def job_begins(self, job_id: str) -> None:
        """A job is about to start on the active bundle."""
        self._trial.begins(job_id)

    def job_ended(self, job_id: str, *, well: bool, crashed: bool = False) -> None:
        """It has ended: well, or otherwise, or because the engine died."""
        self._trial.ended(job_id, well=well, crashed=crashed)

    def closing(self) -> None:
        """The device stops in order: what is under way is no sign of a bad bundle."""
        self._trial.interrupted()

    def manifest(self, bundle_id: str) -> Manifest:
        """The manifest of a bundle whose blobs are here.

        Raises:
            UnknownBundle: it was not uploaded.
            BundleError: it is not a manifest.
        """
        data = self._store.manifest(bundle_id)
        if data is None:
            raise UnknownBundle(
                "its manifest is not here", where=f"bundle {bundle_id[:12]}", mend="upload it, then activate"
            )
        return parse_manifest(data, f"bundle {bundle_id[:12]}")

    def start_engine(self) -> Engine:
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

    def activate(
        self, bundle_id: str, release: bytes, admitted: Standing, progress: Callable[[str, int, int], None]
    ) -> Engine:
        """All the way from uploaded blobs to the active bundle.

        Args:
            bundle_id: the manifest's SHA-256.
            release: as it was admitted.
            admitted: what ``admit`` returned.
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
        self._store.install(bundle_id, manifest, release)
        progress("start", 0, 1)
        engine = self._start(bundle_id, manifest)
        try:
            progress("start", 1, 1)
            self._check_engine(engine, manifest)
            self._self_test(engine, bundle_id, manifest, progress)
            self._gate.remember(release)
            self._standing.save(admitted.activated(bundle_id, admitted.version, admitted.downgrades))
        except BaseException:
            engine.close()
            raise
        self.current = manifest, bundle_id
        log.info("bundle %s is active", bundle_id[:12])
        self._throw_out_the_rest()
        return engine

    def _check_engine(self, engine: Engine, manifest: Manifest) -> None:
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
        self, engine: Engine, bundle_id: str, manifest: Manifest, progress: Callable[[str, int, int], None]
    ) -> None:
        measured = selftest.run(
            engine,
            manifest.golden,
            self._store.file(bundle_id, manifest.file("golden").name),
            lambda done, of: progress("self-test", done, of),
        )
        needed = "every bit" if manifest.golden.exact else f"{manifest.golden.min_psnr_db:.1f} dB"
        log.info("bundle %s: golden self-test %.1f dB, %s needed", bundle_id[:12], measured, needed)

    def _throw_out_the_rest(self) -> None:
        """Keep the active bundle and the one behind it, and nothing that neither of them needs."""
        kept: dict[str, Manifest | None] = {}
        for bundle_id in self._standing.now.ids:
            try:
                kept[bundle_id] = self.manifest(bundle_id)
            except KitError as error:
                log.warning("bundle %s cannot be kept whole: %s", bundle_id[:12], error)
                kept[bundle_id] = None
        self._store.keep(kept)
