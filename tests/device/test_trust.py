"""Who gets a bundle onto a device: wrong keys, swapped parts, replays and downgrades are refused, each by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.device.errors import Downgrade, Untrusted
from edge.device.standing import Standing
from edge.device.supervisor import Supervisor
from edge.device.trust import Gate
from firmware_bridge.keys import PublicKey, TrustedKeys
from firmware_bridge.release import Release, sign
from firmware_bridge.wire.messages import RefusalCode

from .conftest import ToyBundle, toy_bundle
from .supervised import Device

A, B = "a" * 64, "b" * 64
OURS = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
THEIRS = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def public(key: Ed25519PrivateKey) -> PublicKey:
    return PublicKey(key.public_key().public_bytes_raw(), "test")


@pytest.fixture
def trusted(tmp_path: Path) -> TrustedKeys:
    keys = TrustedKeys(tmp_path / "keys")
    keys.trust(public(OURS))
    return keys


def standing(version: int, downgrades: int = 0, active: str = A) -> Standing:
    return Standing().activated(active, version, downgrades)


def test_a_higher_release_passes_and_the_same_one_again(trusted: TrustedKeys) -> None:
    gate = Gate(trusted, "rpi5")
    assert not gate.is_open
    first = gate.admit(A, sign(Release(A, "rpi5", 5), OURS), Standing())
    assert (first.version, first.downgrades) == (5, 0)
    assert gate.admit(B, sign(Release(B, "rpi5", 6), OURS), standing(5)).version == 6
    assert gate.admit(A, sign(Release(A, "rpi5", 5), OURS), standing(5)).version == 5


@pytest.mark.parametrize(
    ("release", "words"),
    [
        (b"", "it is not signed"),
        (b"garbage", "its release is not valid: "),
        (sign(Release(A, "rpi5", 5), OURS)[:-1], "its release is not valid: "),
        (sign(Release(A, "rpi5", 5), THEIRS), f"signed with key {public(THEIRS).key_id}, which is not trusted here"),
        (sign(Release(B, "rpi5", 5), OURS), "its release is of bundle bbbbbbbbbbbb"),
        (sign(Release(A, "rpi4", 5), OURS), "its release is for board 'rpi4', this is 'rpi5'"),
    ],
)
def test_what_is_not_released_here_is_untrusted(trusted: TrustedKeys, release: bytes, words: str) -> None:
    gate = Gate(trusted, "rpi5")
    with pytest.raises(Untrusted, match=r"keys list|sign the bundle") as caught:
        gate.admit(A, release, Standing())
    assert words in str(caught.value)
    with pytest.raises(Untrusted):
        gate.check_kept(A, release)


def test_a_revoked_key_is_not_trusted(trusted: TrustedKeys) -> None:
    trusted.revoke(public(OURS).key_id)
    with pytest.raises(Untrusted, match=r"trusted: none"):
        Gate(trusted, "rpi5").admit(A, sign(Release(A, "rpi5", 5), OURS), Standing())


@pytest.mark.parametrize(
    ("release", "now"),
    [
        (Release(B, "rpi5", 4), standing(5)),
        (Release(B, "rpi5", 5), standing(5)),
        (Release(A, "rpi5", 4), standing(5)),
        (Release(B, "rpi5", 4, back=(6, 0)), standing(5)),
        (Release(B, "rpi5", 4, back=(5, 0)), standing(5, downgrades=1)),
    ],
    ids=["older", "another of the same version", "replayed", "permission for another", "permission used"],
)
def test_there_is_no_way_back(trusted: TrustedKeys, release: Release, now: Standing) -> None:
    with pytest.raises(Downgrade, match=r"this device has had 5.*as 6 or higher"):
        Gate(trusted, "rpi5").admit(release.bundle_id, sign(release, OURS), now)


def test_a_permission_to_go_back_works_once(trusted: TrustedKeys) -> None:
    gate = Gate(trusted, "rpi5")
    back = sign(Release(B, "rpi5", 4, back=(5, 0)), OURS)
    admitted = gate.admit(B, back, standing(5))
    assert (admitted.version, admitted.downgrades) == (4, 1)
    with pytest.raises(Downgrade):
        gate.admit(B, back, standing(5, downgrades=1, active=A))


def test_a_device_without_keys_is_open_and_one_that_takes_the_first_is_not(tmp_path: Path) -> None:
    keys = TrustedKeys(tmp_path / "keys")
    gate = Gate(keys, "rpi5")
    assert gate.is_open
    assert gate.admit(A, b"", standing(5)) == standing(5)
    gate.check_kept(A, b"")
    gate.remember(b"")
    assert not keys.is_provisioned
    first = Gate(keys, "rpi5", takes_first=True)
    with pytest.raises(Untrusted, match="not signed"):
        first.admit(A, b"", Standing())
    first.check_kept(A, b"")
    release = sign(Release(A, "rpi5", 5), OURS)
    first.admit(A, release, Standing())
    assert not keys.is_provisioned  # it has not passed its self-test yet
    first.remember(release)
    assert keys.trusts(public(OURS).raw)
    first.remember(sign(Release(A, "rpi5", 6), THEIRS))
    assert not keys.trusts(public(THEIRS).raw)


# On a whole device


@pytest.fixture
def start(tmp_path: Path, host_board: object) -> Callable[..., Device]:
    started: list[Device] = []

    def starter(**options: object) -> Device:
        if started:
            started[-1].supervisor.close()
        started.append(Device(tmp_path / "root", host_board, **options))
        return started[-1]

    yield starter
    for device in started[-1:]:
        device.supervisor.close()


Starter = Callable[..., Device]


def released(bundle: ToyBundle, version: int, key: Ed25519PrivateKey = OURS, **more: object) -> bytes:
    return sign(Release(bundle.bundle_id, "host", version, **more), key)  # type: ignore[arg-type]


def refusal(device: Device, bundle: ToyBundle, release: bytes) -> tuple[int, str]:
    from firmware_bridge.errors import DeviceRefused

    with pytest.raises(DeviceRefused) as caught:
        device.activate(bundle.bundle_id, release)
    return caught.value.code, caught.value.what


def test_from_the_first_key_to_a_permitted_way_back(start: Starter, tmp_path: Path) -> None:
    device = start(trust_on_first_use=True)
    old, new = toy_bundle(tmp_path, "old", steps=4), toy_bundle(tmp_path, "new", steps=6)
    for bundle in (old, new):
        device.upload(bundle)
    assert device.supervisor.describe().versions["needs_release"] is True
    assert refusal(device, old, b"")[0] == RefusalCode.UNTRUSTED
    assert device.activate(old.bundle_id, released(old, 3)) == old.bundle_id
    assert refusal(device, new, released(new, 4, THEIRS))[0] == RefusalCode.UNTRUSTED
    device = start()  # the key outlives the option
    assert device.supervisor.describe().active_bundle == old.bundle_id
    device.upload(new)
    assert refusal(device, new, b"")[0] == RefusalCode.UNTRUSTED
    assert device.activate(new.bundle_id, released(new, 4)) == new.bundle_id
    code, words = refusal(device, old, released(old, 3))  # replayed
    assert code == RefusalCode.DOWNGRADE
    assert "release 3, this device has had 4" in words
    about = device.supervisor.describe().versions
    assert (about["release"], about["downgrades"], about["bundle_state"]) == (4, 0, "trial")
    back = released(old, 3, back=(4, 0))
    assert device.activate(old.bundle_id, back) == old.bundle_id
    assert refusal(device, new, released(new, 3, back=(4, 0)))[0] == RefusalCode.DOWNGRADE
    assert device.activate(new.bundle_id, released(new, 4)) == new.bundle_id
    assert refusal(device, old, back)[0] == RefusalCode.DOWNGRADE  # once only
    device = start()
    about = device.supervisor.describe()
    assert (about.active_bundle, about.versions["release"], about.versions["downgrades"]) == (new.bundle_id, 4, 1)


def test_a_bundle_of_a_revoked_key_does_not_run_after_the_next_start(start: Starter, tmp_path: Path) -> None:
    device = start()
    keys = TrustedKeys(tmp_path / "root" / "keys")
    keys.trust(public(OURS))
    keys.trust(public(THEIRS))
    old, new = toy_bundle(tmp_path, "old", steps=4), toy_bundle(tmp_path, "new", steps=6)
    for bundle, key, version in ((old, OURS, 1), (new, THEIRS, 2)):
        device.upload(bundle)
        assert device.activate(bundle.bundle_id, released(bundle, version, key)) == bundle.bundle_id
    keys.revoke(public(THEIRS).key_id)
    device = start()
    assert device.supervisor.describe().active_bundle == old.bundle_id


def test_an_unsigned_bundle_does_not_run_once_a_key_is_there(start: Starter, tmp_path: Path) -> None:
    device = start()
    bundle = toy_bundle(tmp_path)
    device.deploy(bundle)
    TrustedKeys(tmp_path / "root" / "keys").trust(public(OURS))
    device = start()
    assert device.supervisor.describe().active_bundle is None
    device.upload(bundle)
    assert device.activate(bundle.bundle_id, released(bundle, 1)) == bundle.bundle_id


def test_files_swapped_behind_a_release_are_found(start: Starter, tmp_path: Path) -> None:
    device = start()
    TrustedKeys(tmp_path / "root" / "keys").trust(public(OURS))
    good, evil = toy_bundle(tmp_path, "good"), toy_bundle(tmp_path, "evil", steps=7)
    device.upload(good)
    device.upload(evil)
    release = released(good, 1)
    code, words = refusal(device, evil, release)
    assert code == RefusalCode.UNTRUSTED
    assert f"its release is of bundle {good.bundle_id[:12]}" in words
    folder = tmp_path / "root" / "blobs"
    programs = [next(each for each, data in of.blobs.items() if data[:8] == b'{"steps"') for of in (evil, good)]
    (folder / programs[0]).replace(folder / programs[1])
    outcome = device.activate(good.bundle_id, release)
    assert isinstance(outcome, tuple)
    assert outcome[0] in {RefusalCode.HASH_MISMATCH, RefusalCode.BUNDLE_INVALID}
    assert device.supervisor.describe().active_bundle is None
    assert isinstance(device.supervisor, Supervisor)
