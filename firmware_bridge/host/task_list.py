"""The tasks under way with one device: which may begin, what each waits for, and which reply is whose.

Sans-IO, as the endpoint that owns it: tasks run while the endpoint says that there is a session for them. Tasks of one
lane go one after the other; whatever a task waits for, it waits no longer than its timeout after the link last moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, assert_never

from firmware_bridge import limits
from firmware_bridge.errors import BridgeError, LinkError, SessionLost
from firmware_bridge.host.answers import refusal_error
from firmware_bridge.host.task import Answer, Ask, Post, Release, Task
from firmware_bridge.wire import messages
from firmware_bridge.wire.connection import Connection

ANSWER_MEND: Final = "check that the device's supervisor runs, and that both ends use the same port and baud rate"
_NOTES: Final = 8
"""Notes that a caller has not read, at which its task waits for it."""


class TaskList:
    """Tasks in the order in which they were asked for.

    Args:
        where: what the user calls the port, for errors.
        connection: what messages go through.
    """

    def __init__(self, where: str, connection: Connection) -> None:
        self._where = where
        self._connection = connection
        self._numbers = count(1)
        self._tasks: list[Task[Any]] = []
        self._asks: dict[int, Ask] = {}
        self.progressed_at = 0.0
        """When the link last moved: no timeout begins before."""

    @property
    def is_empty(self) -> bool:
        """Nobody wants anything."""
        return not self._tasks

    @property
    def is_sent(self) -> bool:
        """Nothing that was asked for waits to be sent."""
        return not any(isinstance(task.want, Post) or task.operation is None for task in self._tasks)

    def add(self, task: Task[Any]) -> None:
        """Take a task; it begins when it may."""
        self._tasks.append(task)

    def put_first(self, tasks: Sequence[Task[Any]]) -> None:
        """Take tasks that go before all others."""
        self._tasks[:0] = tasks

    def discard(self, task: Task[Any]) -> None:
        """Forget a task without a word."""
        self._tasks = [each for each in self._tasks if each is not task]

    def end(self, task: Task[Any], error: BaseException) -> None:
        """End a task in an error, if it has not ended."""
        if task in self._tasks:
            self._end(task, None, error)

    def end_all(self, error: BaseException) -> None:
        """End every task in this error."""
        for task in list(self._tasks):
            self._end(task, None, error)

    def forget_requests(self) -> None:
        """The session is over: no answers to them will come."""
        self._asks.clear()

    def begin_anew(self, why: str, *, was_ready: bool) -> None:
        """Those that had begun begin again, in the next session; SessionLost for those that have too often.

        Args:
            why: the session was lost.
            was_ready: whether it was one that tasks had run in.
        """
        for task in list(self._tasks):
            if task.operation is not None:
                task.forget_session()
                task.restarts += was_ready
                if task.restarts > limits.RECONNECTIONS:
                    self._end(task, None, SessionLost(why, where=self._where, mend=ANSWER_MEND))

    def receive(self, reply: messages.Reply) -> None:
        """A reply has come; one that nobody waits for is dropped."""
        if isinstance(reply, messages.Refused) and reply.request == 0:
            for ask in self._asks.values():  # it could not read one of our messages: all that wait may be meant
                ask.answers.append(reply)
        elif reply.request in self._asks:
            self._asks[reply.request].answers.append(reply)

    def deadlines(self) -> list[float]:
        """The times at which tasks have waited long enough."""
        return [due for task in self._tasks if (due := self._due(task)) is not None]

    def run(self, now: float, only: Task[Any] | None = None) -> bool:
        """Go on with every task, or only with this one, as far as it goes. Whether anything happened."""
        happened = False
        lanes = {task.lane for task in self._tasks if task.holds_lane and task.lane}
        for task in list(self._tasks) if only is None else [only]:
            if task.operation is None:
                if task.lane in lanes:
                    continue
                self._begin(task, now)
                happened = True
            happened = self._advance(task, now) or happened
            if task.lane and task.holds_lane and not task.is_done:
                lanes.add(task.lane)
        return happened

    # ------------------------------------------------------------------ one task

    def _begin(self, task: Task[Any], now: float) -> None:
        task.ask = Ask(next(self._numbers), task.notes)
        self._asks[task.ask.number] = task.ask
        task.operation = task.make(task.ask)
        task.holds_lane = bool(task.lane)
        task.since = now
        self._resume(task, None)

    def _advance(self, task: Task[Any], now: float) -> bool:
        """Go on with a task as far as it goes."""
        happened = False
        while not task.is_done and self._step(task):
            task.since = now
            happened = True
        due = self._due(task)
        if not task.is_done and due is not None and now >= due:
            what = "to take more" if isinstance(task.want, Post) else "to answer"
            timeout = due - max(task.since, self.progressed_at)
            self._throw(
                task, LinkError(f"waited {timeout:g} s for the device {what}", where=self._where, mend=ANSWER_MEND)
            )
            happened = True
        return happened

    def _step(self, task: Task[Any]) -> bool:
        """One step of a task; False: it has to wait."""
        if len(task.notes) >= _NOTES or task.ask is None:
            return False
        match task.want:
            case Post(message):
                return self._post(task, message)
            case Answer():
                return self._answer(task, task.ask)
            case Release():
                task.holds_lane = False
                self._resume(task, None)
                return True
            case None:
                return False
            case _:
                assert_never(task.want)

    def _post(self, task: Task[Any], message: messages.HostMessage) -> bool:
        if self._connection.room == 0 or self._connection.session.sending.waiting >= limits.BACKLOG:
            return False
        try:
            self._connection.send(message)
        except BridgeError as error:
            self._throw(task, error)
        else:
            self._resume(task, None)
        return True

    def _answer(self, task: Task[Any], ask: Ask) -> bool:
        if not ask.answers:
            return False
        reply = ask.answers.popleft()
        if isinstance(reply, messages.Refused):
            self._throw(task, refusal_error(reply, self._where))
        else:
            self._resume(task, reply)
        return True

    def _due(self, task: Task[Any]) -> float | None:
        if isinstance(task.want, Post | Answer):
            return max(task.since, self.progressed_at) + task.want.timeout
        return None

    def _resume(self, task: Task[Any], value: object) -> None:
        assert task.operation is not None
        self._go_on(task, partial(task.operation.send, value))

    def _throw(self, task: Task[Any], error: BaseException) -> None:
        assert task.operation is not None
        self._go_on(task, partial(task.operation.throw, error))

    def _go_on(self, task: Task[Any], go: Callable[[], Any]) -> None:
        try:
            task.want = go()
        except StopIteration as stop:
            self._end(task, stop.value, None)
        except Exception as error:  # noqa: BLE001  whatever it is, it is the caller's to see, not the loop's
            self._end(task, None, error)

    def _end(self, task: Task[Any], result: object, error: BaseException | None) -> None:
        if task.ask is not None:
            self._asks.pop(task.ask.number, None)
        task.end(result, error)
        self.discard(task)
