"""The release that goes with a bundle to a device: the one signed beforehand, or one signed now with the user's key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edge.bundle import RELEASE
from firmware_bridge.keys import DEFAULT_NAME, OwnKeys, PublicKey
from firmware_bridge.release import Release, sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.bundle import Bundle
    from firmware_bridge.info import DeviceInfo


def own_key(say: Callable[[str], None], keys: OwnKeys | None = None) -> PublicKey:
    """The user's key, made if there is none, which is said.

    Raises:
        KeyFault: the folder of keys cannot be read or written.
    """
    keys = keys or OwnKeys()
    if DEFAULT_NAME in keys.names():
        return keys.public()
    public = keys.create()
    say(f"made your signing key {public.key_id} in {keys.folder}: bundles that you deploy are signed with it")
    return public


def release_for(bundle: Bundle, info: DeviceInfo, keys: OwnKeys | None = None) -> bytes:
    """The release to activate ``bundle`` with on the device that says ``info``.

    A file ``release`` in the bundle's folder is taken as it is (``python -m firmware_bridge keys sign`` writes one);
    else the user's key signs the next version: the time in seconds, or one more than the device has had.

    Raises:
        KeyFault: there is no key, or it cannot be read.
    """
    signed_before = bundle.folder / RELEASE
    if signed_before.is_file():
        return signed_before.read_bytes()
    had = info.versions.get("release", 0)
    version = max(int(time.time()), (had if isinstance(had, int) else 0) + 1)
    return sign(Release(bundle.bundle_id, bundle.manifest.board, version), (keys or OwnKeys()).load())
