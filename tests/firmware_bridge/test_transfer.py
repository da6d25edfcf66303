"""Transfer without a line: what is asked for, what is refused, what a restart leaves, at every message."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Never

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge import limits, transfer
from firmware_bridge.chunks import MAX_CHUNK
from firmware_bridge.errors import DeviceRefused, LocalProtocolError
from firmware_bridge.testing.device import MemoryStore
from firmware_bridge.transfer import Answer, Receiver, Source, clip, numbers_wanted
from firmware_bridge.wire.messages import (
    BeginUpload,
    BlobChunk,
    BlobStored,
    ChunksWanted,
    IndexPart,
    RefusalCode,
    Refused,
    UploadReady,
)

Message = BeginUpload | IndexPart | BlobChunk


def blob(size: int, seed: int = 1) -> Source:
    data = random.Random(seed).randbytes(size)
    return Source(hashlib.sha256(data).hexdigest(), data)


class Host:
    """The host's part, message by message, against a receiver."""

    def __init__(self, receiver: Receiver, source: Source, request: int = 1, packs: bool = True) -> None:
        self.receiver = receiver
        self.source = source
        self.request = request
        self.packs = packs
        self.chunks = 0
        self.list_bytes = 0

    def tell(self, message: Message) -> Answer | None:
        answer = self.receiver.take(message)
        while answer is None and self.receiver.busy:
            answer = self.receiver.work()
        return answer

    def messages(self) -> Iterator[Message]:
        """What it sends, one after the other; `self.answer` is what came back to the last one."""
        self.answer = None
        yield self.source.begin(self.request)
        while isinstance(self.answer, UploadReady):
            for part in self.source.index_parts(self.request, self.answer.offset):
                self.list_bytes += len(part.data)
                yield part
        wanted: list[int] = []
        while isinstance(self.answer, ChunksWanted):
            wanted += numbers_wanted(self.answer)
            if self.answer.is_last:
                break
            self.answer = self.receiver.work()
        for chunk in self.source.wanted(self.request, wanted, packs=self.packs):
            self.chunks += 1
            yield chunk

    def run(self, messages: int | None = None) -> Answer | None:
        """Send all, or so many messages; the last answer."""
        for count, message in enumerate(self.messages()):
            if count == messages:
                break
            self.answer = self.tell(message)
            if isinstance(self.answer, Refused):
                break
        return self.answer


def send(store: MemoryStore, source: Source, messages: int | None = None) -> Host:
    host = Host(Receiver(store), source)
    host.run(messages)
    return host


def data_of(source: Source) -> bytes:
    with source.open() as file:
        return file.read()


def test_a_blob_arrives_whole() -> None:
    store = MemoryStore()
    source = blob(100_000)
    host = send(store, source)
    assert host.answer == BlobStored(1)
    assert store.complete == {source.digest.hex(): data_of(source)}
    assert store.appended == 100_000
    assert host.chunks == len(source.chunks)
    assert not host.receiver.busy
    assert host.receiver.work() is None
    assert send(store, source).chunks == 0  # it is there


def test_a_new_version_is_sent_as_the_difference() -> None:
    store = MemoryStore()
    old = blob(300_000)
    send(store, old)
    data = bytearray(data_of(old))
    data[150_000:150_000] = b"a few bytes more"
    new = Source(hashlib.sha256(data).hexdigest(), bytes(data))
    host = send(store, new)
    assert store.complete[new.digest.hex()] == data
    assert 1 <= host.chunks <= 5


def test_a_blob_that_is_all_here_in_pieces_is_not_sent() -> None:
    store = MemoryStore()
    source = blob(60_000)
    send(store, source)
    digest = source.digest.hex()
    store.indexes["other"] = store.indexes[digest]
    store.complete["other"] = store.complete.pop(digest)
    store.complete["without a list"] = b"x"
    host = send(store, source)
    assert host.answer == BlobStored(1)
    assert host.chunks == 0


def test_a_damaged_blob_gives_no_chunks() -> None:
    store = MemoryStore()
    source = blob(60_000)
    send(store, source)
    digest = source.digest.hex()
    store.indexes["other"] = store.indexes[digest]
    damaged = bytearray(store.complete.pop(digest))
    damaged[30_000] ^= 1
    store.complete["other"] = bytes(damaged)
    assert send(store, source).chunks == 1
    assert store.complete[digest] == data_of(source)


def test_equal_chunks_are_sent_once() -> None:
    store = MemoryStore()
    data = bytes(20 * MAX_CHUNK)
    source = Source(hashlib.sha256(data).hexdigest(), data)
    assert send(store, source).chunks == 1
    assert store.complete == {source.digest.hex(): data}


def test_compression_is_the_hosts_choice() -> None:
    data = b"text that is compressed well. " * 5000
    for packs in (True, False):
        store = MemoryStore()
        source = Source(hashlib.sha256(data).hexdigest(), data)
        host = Host(Receiver(store), source, packs=packs)
        sizes = []
        for message in host.messages():
            host.answer = host.tell(message)
            sizes += [len(message.data)] if isinstance(message, BlobChunk) else []
        assert store.complete == {source.digest.hex(): data}
        assert (sum(sizes) < 0.1 * len(data)) == packs


@pytest.mark.parametrize("kept", ["all", "no list", "half a list"])
def test_an_upload_cut_after_each_message_goes_on(kept: str) -> None:
    source = blob(80_000)
    digest = source.digest.hex()
    total = 2 + len(source.chunks)
    for cut in range(1, total):
        store = MemoryStore()
        send(store, source, cut)
        arrived = max(0, cut - 2)
        if kept == "no list":
            store.indexes.clear()
        elif kept == "half a list":
            store.indexes[digest] = source.chunks.data[:50]
        host = send(store, source)
        assert store.complete == {digest: data_of(source)}, cut
        assert host.chunks == len(source.chunks) - arrived
        assert host.list_bytes == len(source.chunks.data) * {"all": cut < 2, "no list": 1, "half a list": 1}[kept] - (
            50 if kept == "half a list" else 0
        )


def test_a_staged_chunk_that_changed_is_asked_for_again() -> None:
    store = MemoryStore()
    source = blob(80_000)
    send(store, source, 6)
    store.staged[source.digest.hex()][10] ^= 1
    assert send(store, source).chunks == len(source.chunks) - 4 + 1


@pytest.mark.parametrize("staged", ["another whole list", "a list that is too long", "half of another list"])
def test_a_staged_list_of_another_cutting_is_thrown_away(staged: str) -> None:
    store = MemoryStore()
    source = blob(80_000)
    other = blob(80_000, seed=2).chunks.data.ljust(len(source.chunks.data), b"x")[: len(source.chunks.data)]
    store.indexes[source.digest.hex()] = {
        "another whole list": other,
        "a list that is too long": other + other,
        "half of another list": other[:100],
    }[staged]
    host = send(store, source)
    assert host.answer == BlobStored(1)
    assert store.complete == {source.digest.hex(): data_of(source)}


def refused(source: Source, change: Callable[[Message], Message]) -> tuple[Refused, MemoryStore]:
    """What a host is told that changes one of its messages."""
    store = MemoryStore()
    host = Host(Receiver(store), source)
    for message in host.messages():
        host.answer = host.tell(change(message))
        if isinstance(host.answer, Refused):
            assert host.tell(message) is None or isinstance(message, BeginUpload)  # it is over
            return host.answer, store
    raise AssertionError("nothing was refused")


def on(kind: type, **changes: object) -> Callable[[Message], Message]:
    return lambda message: replace(message, **changes) if isinstance(message, kind) else message


WRONG = {
    "a list too long": (on(BeginUpload, index_size=10**6), RefusalCode.BAD_INPUT, "too long"),
    "another list": (on(BeginUpload, index=bytes(32)), RefusalCode.HASH_MISMATCH, "not the one announced"),
    "a gap in the list": (on(IndexPart, offset=5), RefusalCode.OFFSET, "where 0 are here"),
    "too much list": (on(IndexPart, data=bytes(5000)), RefusalCode.OFFSET, "5000 bytes of the list"),
    "another size": (on(BeginUpload, size=79_999), RefusalCode.BAD_INPUT, "79999 were announced"),
    "another digest": (on(BeginUpload, digest=bytes(32)), RefusalCode.HASH_MISMATCH, "0000 was announced"),
    "a chunk not asked for": (on(BlobChunk, number=10**6), RefusalCode.OFFSET, "chunk 1000000 was not asked for"),
    "a flipped chunk": (on(BlobChunk, data=bytes(100)), RefusalCode.HASH_MISMATCH, "chunk 0 has not the SHA-256"),
    "no stream": (on(BlobChunk, is_deflated=True), RefusalCode.HASH_MISMATCH, "chunk 0: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_ends_the_upload_and_the_next_one_passes(name: str) -> None:
    change, code, words = WRONG[name]
    source = blob(80_000)
    answer, store = refused(source, change)
    assert answer.reason == code
    assert words in answer.message
    assert store.complete == {}
    assert send(store, source).answer == BlobStored(1)


def test_a_list_that_makes_no_sense() -> None:
    source = blob(80_000)
    source.chunks.data = bytes(34)
    answer, store = refused(source, lambda message: message)
    assert (answer.reason, answer.message) == (RefusalCode.BAD_INPUT, "the list of chunks: a chunk of 0 bytes")
    assert store.indexes == {}


def test_a_new_upload_puts_the_last_one_aside() -> None:
    store = MemoryStore()
    first, second = blob(80_000), blob(5_000, seed=2)
    receiver = Receiver(store)
    host = Host(receiver, first)
    assert host.run(5) is None
    assert Host(receiver, second, request=2).run() == BlobStored(2)
    late = next(first.wanted(1, [4], packs=False))
    assert receiver.take(late) is None
    assert receiver.take(IndexPart(1, 0, b"x")) is None
    assert Host(receiver, first, request=3).run() == BlobStored(3)
    assert store.appended == 85_000


def test_chunks_before_they_are_asked_for_are_dropped() -> None:
    store = MemoryStore()
    source = blob(80_000)
    receiver = Receiver(store)
    receiver.take(source.begin(1))
    assert receiver.take(next(source.wanted(1, [0], packs=False))) is None
    assert store.appended == 0


def test_an_upload_that_nobody_waits_for_stops() -> None:
    receiver = Receiver(MemoryStore())
    source = blob(80_000)
    receiver.take(source.begin(1))
    receiver.take(next(source.index_parts(1, 0)))
    assert receiver.busy
    receiver._upload = None
    assert receiver.work() is None
    receiver.stop()
    assert not receiver.busy


class Breaking(MemoryStore):
    """A store whose disk breaks in one of its methods."""

    def __init__(self, method: str, error: Exception) -> None:
        super().__init__()
        self.error = error
        setattr(self, method, self._break)

    def _break(self, *_: object) -> Never:
        raise self.error


@pytest.mark.parametrize("method", ["reserve", "append_index", "write"])
def test_a_disk_that_breaks_under_a_message_ends_the_upload(method: str) -> None:
    store = Breaking(method, OSError(5, "Input/output error"))
    host = Host(Receiver(store), blob(80_000))
    with pytest.raises(OSError, match="Input/output"):
        host.run()
    assert host.tell(next(host.source.wanted(1, [0], packs=False))) is None


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), DeviceRefused(RefusalCode.STORAGE, "no disk")])
@pytest.mark.parametrize("method", ["read", "commit", "blobs"])
def test_a_disk_that_breaks_in_between_is_an_answer(method: str, error: Exception) -> None:
    host = Host(Receiver(Breaking(method, error)), blob(80_000))
    answer = host.run()
    assert isinstance(answer, Refused)
    assert answer.reason == RefusalCode.STORAGE
    assert ("no disk" if isinstance(error, DeviceRefused) else "Input/output error") in answer.message
    assert not host.receiver.busy


def test_long_work_is_cut_in_slices_and_bitmaps_in_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "SLICE", 50_000)
    monkeypatch.setattr(limits, "CHUNK", 1)
    store = MemoryStore()
    source = blob(500_000)
    send(store, source, 10**9)
    assert store.complete == {source.digest.hex(): data_of(source)}
    receiver = Receiver(store)
    store.complete["other"] = store.complete.pop(source.digest.hex())
    store.indexes["other"] = store.indexes[source.digest.hex()]
    receiver.take(source.begin(1))
    slices = 0
    while receiver.busy:
        slices += 1
        receiver.work()
    assert slices >= 3 * 9
    assert store.has(source.digest.hex())


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="64 lower-case hex digits"):
        Source("AB" * 32, b"x")
    with pytest.raises(LocalProtocolError, match="64 lower-case hex digits"):
        Source("zz", b"x")
    with pytest.raises(LocalProtocolError, match=r"outside 1\.\."):
        Source("ab" * 32, b"")
    with pytest.raises(LocalProtocolError, match="cannot be read: No such file"):
        Source("ab" * 32, tmp_path / "none")


def test_a_file_that_changes_while_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(range(256)) * 100)
    source = Source("ab" * 32, path)
    path.write_bytes(bytes(range(256)) * 99)
    with pytest.raises(LocalProtocolError, match="has changed while it was sent"):
        list(source.wanted(1, range(len(source.chunks)), packs=False))


def test_a_file_that_is_emptied_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x")
    real = Source.open
    monkeypatch.setattr(Source, "open", lambda self: (path.write_bytes(b""), real(self))[1])
    with pytest.raises(LocalProtocolError, match="cannot be read: 0 bytes"):
        Source("ab" * 32, path)


def test_words_are_cut_to_what_a_message_holds() -> None:
    assert clip("x" * 5000) == "x" * (limits.MAX_TEXT - 1) + "…"
    assert clip("a\udc80b") == "a?b"


@given(st.sets(st.integers(0, 199)), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_a_bitmap_says_which_chunks(numbers: set[int], first: int) -> None:
    bitmap = bytearray(25)
    for number in numbers:
        bitmap[number // 8] |= 1 << number % 8
    wanted = numbers_wanted(ChunksWanted(1, first, bytes(bitmap), True))
    assert wanted == sorted(first + number for number in numbers)
