"""Who may put bundles on this device: releases are checked against the trusted keys and what ran here before.

A device without keys takes every bundle, and says so in its log. From the first key on, a bundle needs a release signed
with a trusted one, for this board, of a higher version than any before, or with a permission to go back. A device
started to trust on first use takes the key of the first release that passes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edge.device.errors import Downgrade, Untrusted

if TYPE_CHECKING:
    from edge.device.standing import Standing
    from firmware_bridge.keys import TrustedKeys
    from firmware_bridge.release import Release, Signed

log = logging.getLogger(__name__)

_MEND = "sign it with a trusted key (python -m firmware_bridge keys list --root ... shows them on the device)"


class Gate:
    """Decides over releases.

    Args:
        keys: the trusted ones.
        board: name of this board.
        takes_first: whether a device without keys wants a signature, and takes the first key that comes.
    """

    def __init__(self, keys: TrustedKeys, board: str, *, takes_first: bool = False) -> None:
        self._keys = keys
        self._board = board
        self._takes_first = takes_first

    @property
    def is_open(self) -> bool:
        """Whether anybody's bundle is taken."""
        return not self._takes_first and not self._keys.is_provisioned

    def admit(self, bundle_id: str, release: bytes, standing: Standing) -> Standing:
        """Check a release before its bundle is activated.

        Returns:
            The standing with the release's version; the bundles in it are as they were.

        Raises:
            Untrusted: not signed, with another key, for another bundle or board, or not a release at all.
            Downgrade: of a version that this device does not take any more.
        """
        if self.is_open:
            log.warning("no key is trusted here, so any host may activate bundles; see 'keys trust'")
            return standing
        stated = self._signed(bundle_id, release).release
        version, downgrades = _place(stated, standing)
        return type(standing)(standing.bundles, version, downgrades)

    def remember(self, release: bytes) -> None:
        """A release's bundle was activated: the first key of a device that has none is trusted from here on."""
        if self._takes_first and not self._keys.is_provisioned:
            from firmware_bridge.keys import PublicKey  # noqa: PLC0415  with cryptography, when it is needed
            from firmware_bridge.release import open_signed  # noqa: PLC0415

            key = PublicKey(open_signed(release).key, "first use")
            self._keys.trust(key)
            log.warning("key %s is trusted from now on: it was the first to be used", key.key_id)

    def check_kept(self, bundle_id: str, release: bytes) -> None:
        """Check the release of a bundle that was activated earlier, for a boot. Untrusted: it may not run any more."""
        if not self.is_open and self._keys.is_provisioned:
            self._signed(bundle_id, release)

    def _signed(self, bundle_id: str, release: bytes) -> Signed:
        where = f"bundle {bundle_id[:12]}"
        if not release:
            raise Untrusted("it is not signed", where=where, mend=_MEND)
        from firmware_bridge.keys import key_id  # noqa: PLC0415
        from firmware_bridge.release import open_signed  # noqa: PLC0415  cryptography takes a moment to import

        try:
            signed = open_signed(release)
        except ValueError as error:
            raise Untrusted(f"its release is not valid: {error}", where=where, mend=_MEND) from None
        if self._keys.is_provisioned and not self._keys.trusts(signed.key):
            known = ", ".join(key.key_id for key in self._keys.listed()) or "none"
            raise Untrusted(
                f"signed with key {key_id(signed.key)}, which is not trusted here (trusted: {known})",
                where=where,
                mend=_MEND,
            )
        if signed.release.bundle_id != bundle_id:
            what = f"its release is of bundle {signed.release.bundle_id[:12]}"
            raise Untrusted(what, where=where, mend="sign the bundle that is activated")
        if signed.release.board != self._board:
            what = f"its release is for board {signed.release.board!r}, this is {self._board!r}"
            raise Untrusted(what, where=where, mend="sign the bundle for this board")
        return signed


def _place(release: Release, standing: Standing) -> tuple[int, int]:
    """(version, permissions used) of a device that takes this release."""
    is_again = standing.ids[:1] == [release.bundle_id] and release.version == standing.version
    if release.version > standing.version or is_again:
        return release.version, standing.downgrades
    if release.back == (standing.version, standing.downgrades):
        log.warning("going back from release %d to %d, as permitted", standing.version, release.version)
        return release.version, standing.downgrades + 1
    raise Downgrade(
        f"release {release.version}, this device has had {standing.version}",
        where=f"bundle {release.bundle_id[:12]}",
        mend=f"release it anew as {standing.version + 1} or higher, or sign a permission to go back from "
        f"{standing.version} (used so far: {standing.downgrades})",
    )
