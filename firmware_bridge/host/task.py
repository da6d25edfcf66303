"""A task: something the host wants of the device, written as a generator that says what it waits for.

An operation yields `Post` to send a message, `Answer` to get the next reply to its request, `Release` when another
operation of its lane may begin. The endpoint resumes it when it may go on, throws into it what went wrong, and begins
it anew in a new session where the old one was lost; so an operation keeps what must outlive a session outside of
itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from firmware_bridge import limits
from firmware_bridge.wire import messages

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Post:
    """Send this as soon as there is room.

    Args:
        message: what.
        timeout: seconds without any progress of the link before it is given up.
    """

    message: messages.HostMessage
    timeout: float = limits.REPLY_TIMEOUT


@dataclass(frozen=True, slots=True)
class Answer:
    """Wait for the next reply; a refusal is raised as the error it is.

    Args:
        timeout: seconds without any progress of the link before it is given up.
    """

    timeout: float = limits.REPLY_TIMEOUT


@dataclass(frozen=True, slots=True)
class Release:
    """The next operation of this lane may begin: what must not be mixed has been sent."""


Want = Post | Answer | Release
Operation = Generator[Want, Any, T]


class Ask:
    """A request under way: its number, and the answers to it that have come.

    Args:
        number: in the messages.
        notes: where the operation leaves what its caller should see meanwhile.
    """

    def __init__(self, number: int, notes: deque[tuple[Any, ...]]) -> None:
        self.number = number
        self.answers: deque[messages.Reply] = deque()
        self._notes = notes

    @property
    def is_answered(self) -> bool:
        """Whether an answer is there: a refusal, it may be, before all was sent."""
        return bool(self.answers)

    def note(self, *note: Any) -> None:  # noqa: ANN401  each operation's own kind of progress
        """Leave a note for the caller."""
        self._notes.append(note)


@dataclass(eq=False)
class Task(Generic[T]):
    """An operation handed to the endpoint, and what becomes of it.

    Args:
        make: begins the operation under a request.
        lane: operations of one lane go one after the other; "" is no lane.
    """

    make: Callable[[Ask], Operation[T]]
    lane: str = ""
    is_done: bool = False
    result: T | None = None
    error: BaseException | None = None
    notes: deque[tuple[Any, ...]] = field(default_factory=deque)
    restarts: int = 0
    ask: Ask | None = None
    operation: Operation[T] | None = None
    want: Want | None = None
    holds_lane: bool = False
    since: float = 0.0

    def outcome(self) -> T:
        """What came of it; raises what went wrong."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # it is done, and has one

    def forget_session(self) -> None:
        """Back to the beginning, for another session."""
        if self.operation is not None:
            self.operation.close()
        self.operation = self.ask = self.want = None
        self.holds_lane = False

    def end(self, result: T | None, error: BaseException | None) -> None:
        """It is over."""
        self.forget_session()
        self.result, self.error, self.is_done = result, error, True
