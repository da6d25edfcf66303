import hashlib
import random
from dataclasses import replace
from typing import Never

import pytest

from boards.errors import BoardError
from firmware_bridge import limits
from firmware_bridge.device import DeviceEndpoint
from firmware_bridge.errors import LocalProtocolError
from firmware_bridge.jobs import Failure, Progress, Result
from firmware_bridge.testing.device import MemoryDevice, MemoryStore
from firmware_bridge.testing.faulty import Faults
from firmware_bridge.testing.pair import End, Pair
from firmware_bridge.transfer import CAPABILITIES, Source, numbers_wanted
from firmware_bridge.wire import messages as m
from firmware_bridge.wire.connection import Connection, Received
from firmware_bridge.wire.messages import FailureCode, RefusalCode
from firmware_bridge.wire.states import Role

DATA = b"0123456789" * 1000
DIGEST = hashlib.sha256(DATA).digest()
SOURCE = Source(DIGEST.hex(), DATA)


class Desk:
    """A host that says exactly what a test wants, and a device endpoint, under a virtual clock."""

    def __init__(
        self, device: MemoryDevice | None = None, faults: Faults | None = None, seed: int = 0, greet: bool = True
    ) -> None:
        self.device = device or MemoryDevice()
        self.endpoint = DeviceEndpoint(self.device)
        self.host = Connection(Role.HOST)
        self.got = []
        self.reading = True
        self.line = Pair(
            End(self.host, self._read), End(self.endpoint.connection, self._work), faults or Faults(), seed
        )
        self.open(greet)

    def open(self, greet: bool = True) -> None:
        self.host.session.open(self.line.now)
        assert self.line.run(lambda: self.host.is_open, 5.0)
        self.got.clear()
        if greet:
            assert isinstance(self.ask(m.Hello(1, m.PROTOCOL, "test", ())), m.HelloReply)

    def say(self, *messages: m.Message, seconds: float = 1.0) -> list[m.Message]:
        """Send these messages, let time pass; what came back."""
        before = len(self.got)
        for message in messages:
            assert self.line.run(lambda: self.host.room > 0, 60.0)
            self.host.send(message)
        self.line.run(lambda: False, seconds)
        return self.got[before:]

    def ask(self, message: m.Message) -> m.Message:
        answers = self.say(message)
        assert len(answers) == 1, answers
        return answers[0]

    def _read(self) -> None:
        while self.reading and (event := self.host.next_event()) is not None:
            if isinstance(event, Received):
                self.got.append(event.message)

    def _work(self) -> None:
        while self.endpoint.process():
            pass
        self.device.advance(self.line.now)
        self.endpoint.process()


def test_a_session_begins_with_a_hello() -> None:
    desk = Desk(greet=False)
    assert desk.ask(m.QueryBlobs(7, ())) == m.Refused(7, RefusalCode.UNSUPPORTED, "a session begins with a hello")
    assert desk.device.sessions == 1
    other = desk.ask(m.Hello(8, m.PROTOCOL + 1, "test", ()))
    assert (other.request, other.reason) == (8, RefusalCode.UNSUPPORTED)
    assert desk.ask(m.QueryBlobs(9, ())).reason == RefusalCode.UNSUPPORTED
    about = replace(desk.device.describe(), capabilities=CAPABILITIES)
    assert desk.ask(m.Hello(10, m.PROTOCOL, "test", ())) == about.reply(10)
    assert desk.ask(m.QueryBlobs(11, ())) == m.BlobsReply(11, ())


def test_what_is_no_hosts_message_is_refused() -> None:
    desk = Desk()
    assert desk.ask(m.Done(5)).reason == RefusalCode.UNSUPPORTED
    assert desk.ask(m.DeviceLog("hm")) == m.Refused(0, RefusalCode.UNSUPPORTED, "DeviceLog is not a host's message")


def test_what_is_no_message_is_refused_and_the_session_lives() -> None:
    desk = Desk()
    desk.host.session.send(b"\xa1\x61m\x19\x03\xe8")  # type 1000
    desk.host.session.send(b"not CBOR at all")
    first, second = desk.say()
    assert (first.request, first.reason) == (0, RefusalCode.UNSUPPORTED)
    assert "1000" in first.message
    assert "CBOR" in second.message
    assert isinstance(desk.ask(m.QueryBlobs(2, ())), m.BlobsReply)


def test_an_upload_by_hand() -> None:
    desk = Desk()
    begin, part = SOURCE.begin(2), next(SOURCE.index_parts(2, 0))
    assert desk.ask(begin) == m.UploadReady(2, 0)
    wanted = desk.ask(part)
    assert wanted == m.ChunksWanted(2, 0, b"\x01", is_last=True)  # all its chunks are the same
    (chunk,) = SOURCE.wanted(2, numbers_wanted(wanted), packs=True)
    assert chunk.is_deflated
    assert desk.ask(chunk) == m.BlobStored(2)
    assert desk.say(chunk) == []  # the upload is over
    assert desk.ask(replace(begin, request=3)) == m.BlobStored(3)
    assert desk.ask(m.QueryBlobs(4, (DIGEST, bytes(32)))) == m.BlobsReply(4, (DIGEST,))


def test_an_upload_is_over_with_its_session() -> None:
    desk = Desk()
    desk.ask(SOURCE.begin(2))
    desk.open()
    assert desk.say(*SOURCE.index_parts(2, 0)) == []
    assert not desk.endpoint._receiver.busy


def test_a_confirmed_bundle() -> None:
    desk = Desk()
    desk.device.active = DIGEST.hex()
    assert desk.ask(m.Confirm(2, bytes(32))).reason == RefusalCode.UNKNOWN_BUNDLE
    assert desk.ask(m.Confirm(3, DIGEST)) == m.Done(3)
    assert desk.device.confirmed == DIGEST.hex()


class BrokenStore(MemoryStore):
    def write(self, digest: str, offset: int, data: bytes) -> Never:  # noqa: ARG002  the store's signature
        raise OSError(5, "Input/output error")


def test_a_broken_disk_is_told_and_does_not_end_the_device() -> None:
    desk = Desk(MemoryDevice(BrokenStore()))
    desk.ask(SOURCE.begin(2))
    wanted = desk.ask(next(SOURCE.index_parts(2, 0)))
    (chunk,) = SOURCE.wanted(2, numbers_wanted(wanted), packs=False)
    answer = desk.ask(chunk)
    assert (answer.request, answer.reason) == (2, RefusalCode.STORAGE)
    assert "Input/output error" in answer.message
    assert desk.say(chunk) == []
    assert isinstance(desk.ask(m.QueryBlobs(3, ())), m.BlobsReply)


class PuzzledDevice(MemoryDevice):
    def cancel(self, job_id: str) -> Never:
        raise BoardError("no code for this", where=job_id)


def test_a_refusal_without_a_code_does_not_end_the_device() -> None:
    desk = Desk(PuzzledDevice())
    assert desk.ask(m.Cancel(2, "j")) == m.Refused(2, RefusalCode.INTERNAL, "j: no code for this")
    assert isinstance(desk.ask(m.QueryBlobs(3, ())), m.BlobsReply)


def test_a_job_by_hand() -> None:
    desk = Desk()
    answers = desk.say(m.Submit(2, "j", "echo", {"steps": 2}, 4), m.JobPayload(2, 0, b"ab"), m.JobPayload(2, 2, b"cd"))
    assert answers == [
        m.Done(2),
        m.JobProgress("j", 1, 2, 0, 1, 0, 0, 0),
        m.JobProgress("j", 2, 2, 0, 1, 0, 0, 0),
        m.JobResult("j", {"steps": 2, "score": 0.5}, 4),
        m.ResultPayload("j", 0, b"dcba"),
    ]
    # the same job again: not run again, its end said again, until it is taken
    assert desk.say(m.Submit(3, "j", "echo", {"steps": 2}, 4), m.JobPayload(3, 0, b"abcd"))[-1] == answers[-1]
    assert desk.device.started == ["j"]
    assert desk.say(m.Taken("j")) == []
    assert desk.device.forgotten == ["j"]


@pytest.mark.parametrize("chunk", [m.JobPayload(2, 1, b"a"), m.JobPayload(2, 0, b"abcde")])
def test_a_payload_in_the_wrong_place_ends_the_submission(chunk: m.Message) -> None:
    desk = Desk()
    answers = desk.say(m.Submit(2, "j", "echo", {}, 4), chunk, m.JobPayload(2, 0, b"abcd"))
    assert [(answer.request, answer.reason) for answer in answers] == [(2, RefusalCode.OFFSET)]
    assert desk.device.started == []


def test_a_host_that_asks_for_a_result_over_and_over_costs_no_memory() -> None:
    desk = Desk()
    desk.say(m.Submit(2, "j", "echo", {}, 0))
    desk.reading = False
    for number in range(300):
        if desk.host.room == 0:
            desk.line.run(lambda: False, 0.5)
        if desk.host.room:
            desk.host.send(m.Submit(number, "j", "echo", {}, 0))
        assert len(desk.endpoint._streams) <= 1
    assert desk.device.started == ["j"]
    desk.reading = True
    desk.line.run(lambda: False, 10.0)
    assert isinstance(desk.ask(m.QueryBlobs(5, ())), m.BlobsReply)


def test_a_host_that_does_not_read_stops_the_jobs_not_the_device() -> None:
    desk = Desk()
    desk.reading = False
    desk.say(m.Submit(2, "endless", "echo", {"steps": 10_000}, 0), seconds=60.0)
    running = desk.device._running["endless"]
    assert running.step <= limits.WINDOW // 60 + limits.OUTBOX
    assert desk.endpoint.room() == 0
    assert not desk.endpoint.progress(Progress("endless", 1, 2))
    desk.reading = True
    assert desk.line.run(lambda: running.step == 10_000, 600.0)
    assert desk.line.run(lambda: isinstance(desk.got[-1], m.JobResult), 10.0)
    steps = [message.step for message in desk.got if isinstance(message, m.JobProgress)]
    assert steps == list(range(1, 10_001))  # none dropped: the device waited


def test_a_long_result_and_quick_steps_do_not_hold_each_other_up() -> None:
    desk = Desk()
    payload = bytes(limits.CHUNK)
    desk.host.send(m.Submit(3, "other", "echo", {"steps": 10**6}, 0))
    desk.host.send(m.Submit(2, "long", "echo", {"steps": 1}, 100 * len(payload)))
    for at in range(100):
        assert desk.line.run(lambda: desk.host.room > 0, 5.0)
        desk.host.send(m.JobPayload(2, at * len(payload), payload))
    last = m.ResultPayload("long", 99 * len(payload), payload)
    assert desk.line.run(lambda: last in desk.got[-50:], 20.0)
    first = desk.got.index(m.ResultPayload("long", 0, payload))
    between = [type(message) for message in desk.got[first : desk.got.index(last) + 1]]
    assert between.count(m.ResultPayload) == 100
    assert between.count(m.JobProgress) > 20


def test_nothing_of_one_session_gets_into_the_next() -> None:
    desk = Desk()
    payload = bytes(limits.CHUNK)
    chunks = [m.JobPayload(2, at * len(payload), payload) for at in range(100)]
    desk.say(m.Submit(2, "long", "echo", {"steps": 1}, 100 * len(payload)), *chunks[:-1])
    desk.host.send(chunks[-1])
    assert desk.line.run(lambda: any(isinstance(message, m.ResultPayload) for message in desk.got), 5.0)
    desk.open(greet=False)
    assert desk.say() == []
    assert desk.device.sessions == 2
    assert not desk.endpoint.connected()
    desk.endpoint.result(Result("long", {}, b"x"))  # without a greeted host: dropped
    desk.endpoint.log("dropped too")
    assert desk.endpoint.room() == 0
    assert isinstance(desk.ask(m.Hello(1, m.PROTOCOL, "test", ())), m.HelloReply)


def test_a_handlers_mistake_is_found_where_it_is_made() -> None:
    desk = Desk()
    with pytest.raises(LocalProtocolError):
        desk.endpoint.result(Result("j", {"a": object()}, b""))
    with pytest.raises(LocalProtocolError):
        desk.endpoint.result(Result("j", {}, bytes(limits.MAX_PAYLOAD + 1)))
    with pytest.raises(LocalProtocolError):
        desk.endpoint.failure(Failure("no job id", 1, ""))
    desk.endpoint.failure(Failure("j", FailureCode.ENGINE_DIED, "x" * 9000 + "\udc80"))
    (failure,) = desk.say()
    assert len(failure.message) == limits.MAX_TEXT


@pytest.mark.parametrize("seed", range(30))
def test_a_whole_conversation_over_a_bad_line(seed: int) -> None:
    faults = Faults(loss=0.1, duplication=0.05, reordering=0.1, bit_errors=2e-6, boot_log=0.02)
    desk = Desk(MemoryDevice(slots=8), faults, seed, greet=False)
    many = random.Random(seed).randbytes(100_000)
    source = Source(hashlib.sha256(many).hexdigest(), many)
    begin = (source.begin(2), *source.index_parts(2, 0))
    desk.say(m.Hello(1, m.PROTOCOL, "test", ()), *begin, seconds=20.0)
    wanted = next(message for message in desk.got if isinstance(message, m.ChunksWanted))
    chunks: list[m.Message] = list(source.wanted(2, numbers_wanted(wanted), packs=True))
    jobs = [m.Submit(10 + number, f"j{number}", "echo", {"steps": 5}, 100) for number in range(4)]
    for job in jobs:
        chunks += [job, m.JobPayload(job.request, 0, bytes([job.request]) * 100)]
    desk.say(*chunks, seconds=60.0)
    assert m.BlobStored(2) in desk.got
    for job in jobs:
        assert m.Done(job.request) in desk.got
        assert desk.got.count(m.ResultPayload(job.job_id, 0, bytes([job.request]) * 100)) == 1
    assert sorted(desk.device.started) == ["j0", "j1", "j2", "j3"]
