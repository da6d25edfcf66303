"""Blobs from the client to the device: what is sent, what is not, what is refused."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from firmware_bridge.chunks import MAX_CHUNK
from firmware_bridge.client import UploadReport
from firmware_bridge.errors import (
    DeviceRefused,
    LocalProtocolError,
)
from firmware_bridge.testing.bench import Bench
from firmware_bridge.testing.device import MemoryDevice, MemoryStore
from firmware_bridge.wire.messages import RefusalCode

from .client_bench import blob, start


def test_a_blob_goes_over_once(bench: Bench, tmp_path: Path) -> None:
    device = start(bench)
    digest, data = blob(100_000)
    path = tmp_path / "blob"
    path.write_bytes(data)
    seen = []
    with bench.client() as client:
        assert client.has([digest, "00" * 32]) == set()
        report = client.upload(digest, path, lambda *at: seen.append(at))
        assert (report.size, report.chunks) == (100_000, 100_000)
        assert 100_000 < report.sent < 101_000  # the list of chunks is the rest
        assert client.has([digest, "00" * 32]) == {digest}
        assert client.upload(digest, data) == UploadReport(100_000, 0, 0)
    assert device.store.complete == {digest: data}
    assert device.store.appended == 100_000
    assert seen == sorted(seen)
    assert seen[-1] == (100_000, 100_000)
    assert len(seen) >= 100_000 // MAX_CHUNK


def test_text_is_compressed(bench: Bench) -> None:
    device = start(bench)
    data = b"what compresses well, " * 10_000
    digest = hashlib.sha256(data).hexdigest()
    with bench.client() as client:
        report = client.upload(digest, data)
    assert report.chunks <= len(data)  # it repeats itself
    assert report.sent < 0.1 * len(data)
    assert device.store.complete == {digest: data}


def test_many_digests_are_asked_about_in_parts(bench: Bench) -> None:
    device = start(bench)
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(600)]
    device.store.complete = dict.fromkeys(digests[::3], b"")
    with bench.client() as client:
        assert client.has(digests) == set(digests[::3])


def test_an_upload_goes_on_where_an_earlier_one_ended(bench: Bench) -> None:
    device = start(bench)
    digest, data = blob(50_000)
    device.store.staged[digest] = bytearray(data[:30_001])
    with bench.client() as client:
        report = client.upload(digest, data)
        assert 19_999 <= report.chunks <= 19_999 + MAX_CHUNK
        device.store.staged[digest] = bytearray(device.store.complete.pop(digest))
        assert client.upload(digest, data) == UploadReport(50_000, 0, 0)  # its list was kept as well
    assert device.store.complete == {digest: data}


def test_a_wrong_hash_is_refused_and_nothing_of_it_kept(bench: Bench) -> None:
    device = start(bench)
    digest, data = blob(20_000)
    with bench.client() as client:
        with pytest.raises(DeviceRefused, match="SHA-256") as caught:
            client.upload("11" * 32, data)
        assert caught.value.exit_code == 10
        assert caught.value.code == RefusalCode.HASH_MISMATCH
        assert device.store.staged == {}
        client.upload(digest, data)
    assert device.store.complete == {digest: data}


def test_a_full_device_refuses(bench: Bench) -> None:
    start(bench, MemoryDevice(MemoryStore(capacity=10_000)))
    digest, data = blob(20_000)
    with (
        bench.client() as client,
        pytest.raises(DeviceRefused, match="20068 bytes do not fit, 10000 are free") as caught,
    ):
        client.upload(digest, data)
    assert caught.value.code == RefusalCode.NO_SPACE
    assert "remove old bundles" in str(caught.value)


@pytest.mark.parametrize(("digest", "data"), [("zz", b"x"), ("AB" * 32, b"x"), ("ab" * 31, b"x"), ("ab" * 32, b"")])
def test_what_is_no_blob_is_not_sent(bench: Bench, digest: str, data: bytes) -> None:
    start(bench)
    with bench.client() as client, pytest.raises(LocalProtocolError):
        client.upload(digest, data)


def test_a_file_that_is_not_there_or_shrinks(bench: Bench, tmp_path: Path) -> None:
    start(bench)
    digest, data = blob(1_000_000)
    path = tmp_path / "blob"
    with bench.client() as client:
        with pytest.raises(LocalProtocolError, match="cannot be read"):
            client.upload(digest, path)
        path.write_bytes(data)
        with pytest.raises(LocalProtocolError, match="has changed"):
            client.upload(digest, path, lambda *_: os.truncate(path, 10_000))
        path.write_bytes(data)
        assert client.upload(digest, path).chunks < len(data)


def test_twelve_megabytes_pass_in_well_under_thirty_seconds(bench: Bench) -> None:
    start(bench)
    digest, data = blob(12_000_000)
    with bench.client() as client:
        begun = time.monotonic()
        client.upload(digest, data)
        seconds = time.monotonic() - begun
    assert seconds < 15.0  # 0.7 s on the two cores it was written on
