"""Requests and their answers over a channel: who asked gets the answer, and a refusal is an error."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Final, Self, TypeVar

from firmware_bridge import limits
from firmware_bridge.channel import Channel
from firmware_bridge.errors import BridgeError, DeviceRefused, JobFailed, JobInputError, RemoteProtocolError
from firmware_bridge.jobs import Failure
from firmware_bridge.link.base import Link
from firmware_bridge.wire import messages
from firmware_bridge.wire.connection import Received, Unreadable
from firmware_bridge.wire.messages import FailureCode, RefusalCode

M = TypeVar("M", bound=messages.Reply)
Build = Callable[[int], messages.HostMessage]
"""Makes a request, given its number."""

_MENDS: Final[dict[int, str]] = {
    RefusalCode.UNSUPPORTED: "install the same version of the kit on both",
    RefusalCode.BUSY: "wait for its jobs to end, then try again",
    RefusalCode.STORAGE: "check the device's disk",
    RefusalCode.NO_SPACE: "remove old bundles from the device, or use a smaller model",
    RefusalCode.HASH_MISMATCH: "send it again; if it happens again, check the file and the device's disk",
    RefusalCode.UNKNOWN_BUNDLE: "upload the bundle's files first",
    RefusalCode.BUNDLE_INVALID: "build the bundle anew for this board",
    RefusalCode.SELF_TEST: "build the bundle anew for this board; the former bundle stays active",
    RefusalCode.NO_ACTIVE_BUNDLE: "deploy a bundle first",
}


class Exchange:
    """The requests of one host over one link.

    Args:
        link: an open link; the channel closes it.
        receive: called with each message that answers no request, in the channel's thread, `channel.changed` held.
    """

    def __init__(self, link: Link, receive: Callable[[messages.Event], None]) -> None:
        self.where = link.name
        self._receive_event = receive
        self._numbers = count(1)
        self._open: dict[int, deque[messages.Reply]] = {}
        self._log: deque[str] = deque(maxlen=limits.LOG_KEPT)
        self.channel = Channel(link, self._receive)

    def request(self, generation: int) -> Request:
        """A new request in the session of this generation; use it as a context manager."""
        return Request(self, generation, next(self._numbers))

    def ask(self, generation: int, build: Build) -> messages.Reply:
        """Send a request and wait for its one answer."""
        with self.request(generation) as request:
            request.post(build(request.number))
            return request.wait(limits.REPLY_TIMEOUT)

    def tell(self, generation: int, build: Build) -> None:
        """Send a request and do not wait for the answer."""
        self.channel.post(build(next(self._numbers)), generation, limits.FAREWELL)

    def take_console(self) -> str:
        """Text that came on the line outside frames, and the device's log, since last asked."""
        with self.channel.changed:
            lines = [f"{line}\n" for line in self._log]
            self._log.clear()
            return self.channel.take_console() + "".join(lines)

    def enter(self, number: int, queue: deque[messages.Reply]) -> None:
        """From now on, answers to this number go to this queue."""
        with self.channel.changed:
            self._open[number] = queue

    def leave(self, number: int) -> None:
        """Nobody waits for this number any more."""
        with self.channel.changed:
            del self._open[number]

    def _receive(self, event: Received | Unreadable) -> None:
        if isinstance(event, Unreadable):
            self._log.append(f"the device sent what this version cannot read: {event.error}")
            return
        message = event.message
        if isinstance(message, messages.DeviceLog):
            self._log.append(message.text)
        elif isinstance(message, messages.Event):
            self._receive_event(message)
        elif isinstance(message, messages.Refused) and message.request == 0:
            for queue in self._open.values():  # it could not read one of our messages: all that wait may be meant
                queue.append(message)
        elif isinstance(message, messages.Reply) and message.request in self._open:
            self._open[message.request].append(message)


class Request:
    """One request, while somebody waits for its answers.

    Args:
        exchange: where it was made.
        generation: the session that it belongs to.
        number: its number in the messages.
    """

    def __init__(self, exchange: Exchange, generation: int, number: int) -> None:
        self.number = number
        self._exchange = exchange
        self._generation = generation
        self._queue: deque[messages.Reply] = deque()

    def __enter__(self) -> Self:
        """The request itself; answers are kept from here on."""
        self._exchange.enter(self.number, self._queue)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Answers are dropped from here on."""
        self._exchange.leave(self.number)

    def post(self, message: messages.HostMessage, timeout: float = limits.REPLY_TIMEOUT) -> None:
        """Send a message of this request; waits for room. Errors: channel.Channel.post."""
        self._exchange.channel.post(message, self._generation, timeout)

    def ready(self) -> bool:
        """Whether an answer is there."""
        return bool(self._queue)

    def wait(self, timeout: float) -> messages.Reply:
        """The next answer.

        Raises:
            DeviceRefused, JobInputError: it is a refusal.
            SessionLost, LinkError: see channel.Channel.wait_for.
        """
        self._exchange.channel.wait_for(self.ready, self._generation, timeout, "the device's answer")
        answer = self._queue.popleft()
        if isinstance(answer, messages.Refused):
            raise refusal_error(answer, self._exchange.where)
        return answer


def expect(reply: messages.Reply, kind: type[M]) -> M:
    """The reply, which must be of this kind. RemoteProtocolError: it is not."""
    if not isinstance(reply, kind):
        raise RemoteProtocolError(f"the device answers {type(reply).__name__} where {kind.__name__} belongs")
    return reply


def refusal_error(refused: messages.Refused, where: str) -> BridgeError:
    """The error that a refusal is for the caller."""
    if refused.reason == RefusalCode.BAD_INPUT:
        return JobInputError(refused.reason, refused.message, where=where)
    mend = _MENDS.get(refused.reason, "")
    return DeviceRefused(refused.reason, f"the device refuses: {refused.message}", where=where, mend=mend)


def job_error(failure: Failure) -> JobFailed:
    """The error that a job's failure is for a caller who waited for its result."""
    kind = JobInputError if failure.code == FailureCode.BAD_INPUT else JobFailed
    return kind(failure.code, failure.message, where=f"job {failure.job_id}")
