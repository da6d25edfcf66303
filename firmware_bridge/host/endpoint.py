"""One host's end of one line: keeps a session with the device, runs tasks in it, follows jobs over every reconnection.

Sans-IO: the owner feeds the connection, calls `process`, and writes what the connection has. A session that is lost is
opened anew as long as somebody wants something; uploads go on where the device says they stand, jobs are submitted
again under the same ids, which the device runs only once. States: `Stage`; table in PROTOCOL.md.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, TypeVar, assert_never

from firmware_bridge import limits
from firmware_bridge.errors import BridgeError, LinkError, PeerError, RemoteProtocolError, SessionLost
from firmware_bridge.host import operations
from firmware_bridge.host.task import Ask, Operation, Task
from firmware_bridge.host.task_list import ANSWER_MEND, TaskList
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import JobEvent, JobRequest
from firmware_bridge.tracker import JobTracker
from firmware_bridge.wire import messages
from firmware_bridge.wire.connection import Connection, Received, Unreadable
from firmware_bridge.wire.messages import FailureCode
from firmware_bridge.wire.secure import Security
from firmware_bridge.wire.session import Lost, Opened, random_epoch
from firmware_bridge.wire.states import Ending, Role

T = TypeVar("T")


class Stage(enum.Enum):
    """How far the host is with its device."""

    DOWN = "no session, and nobody wants one"
    OPENING = "waiting for the device's ACCEPT"
    GREETING = "waiting for the answer to the hello"
    READY = "tasks run"
    FAILED = "the link is gone for good, or the device is another one"


class HostEndpoint:
    """One host's end.

    Args:
        where: what the user calls the port, for errors.
        connect_timeout: seconds for the device to answer an opening.
        epoch: draws session epochs; tests pass their own.
        bytes_per_second: line rate where it is known.
        security: makes this end's TLS; None: none is wanted.
    """

    def __init__(
        self,
        where: str,
        *,
        connect_timeout: float = 20.0,
        epoch: Callable[[], int] = random_epoch,
        bytes_per_second: float | None = None,
        security: Security | None = None,
    ) -> None:
        self.where = where
        self.stage = Stage.DOWN
        self.connection = Connection(Role.HOST, epoch=epoch, bytes_per_second=bytes_per_second, security=security)
        self.tracker = JobTracker()
        self.info: DeviceInfo | None = None
        """What the device said in the last hello."""
        self.sessions = 0
        """Sessions greeted so far."""
        self.outage: BridgeError | None = None
        """Why no session could be had the last time that it was given up."""
        self.outages = 0
        self._connect_timeout = connect_timeout
        self._tasks = TaskList(where, self.connection)
        self._greeting: Task[DeviceInfo] | None = None
        self._log: deque[str] = deque(maxlen=limits.LOG_KEPT)
        self._failure: BridgeError | None = None
        self._link_error: LinkError | None = None
        self._unconnected_since: float | None = None
        self._acknowledged = -1

    # ------------------------------------------------------------------ what callers ask for

    def start(self, make: Callable[[Ask], Operation[T]], lane: str = "") -> Task[T]:
        """Begin an operation as soon as there is a session; its task says how it ends."""
        task = Task(make, lane)
        self._tasks.add(task)
        return task

    def drop(self, task: Task[Any]) -> None:
        """Nobody wants this any more."""
        self._tasks.end(task, LinkError("given up by the caller", where=self.where))

    def submit(self, job: JobRequest) -> Task[None]:
        """Hand a job over. LocalProtocolError: its id is in flight, or too many are."""
        self.tracker.add(job)
        return self._start_submission(job)

    def take_event(self, job_ids: Collection[str] | None = None) -> JobEvent | None:
        """The oldest event of these jobs (None: of any) that nobody has taken."""
        return self.tracker.take(job_ids)

    def taken(self, job_id: str) -> None:
        """The caller has the job's end, safely: the device need not keep it."""
        self.start(operations.tell(lambda _number: messages.Taken(job_id)))

    def take_console(self) -> str:
        """Text that came on the line outside frames, and the device's log, since last asked."""
        lines = [f"{line}\n" for line in self._log]
        self._log.clear()
        return self.connection.take_console() + "".join(lines)

    @property
    def is_idle(self) -> bool:
        """No task waits, and no job is in flight."""
        return self._tasks.is_empty and not self.tracker.in_flight()

    @property
    def is_flushed(self) -> bool:
        """Nothing that was asked for waits to be sent."""
        return self.connection.session.sending.idle and self._tasks.is_sent

    @property
    def failure(self) -> BridgeError | None:
        """Why nothing will come of anything here any more."""
        return self._failure

    # ------------------------------------------------------------------ what the loop calls

    def process(self, now: float) -> bool:
        """Deal with what has arrived and go on with what can go on. Whether anything happened."""
        happened = self._take_events(now)
        if self.stage is Stage.DOWN and not self.is_idle:
            self._open(now)
            happened = True
        if self._acknowledged != (acknowledged := self.connection.session.sending.acknowledged):
            self._acknowledged, self._tasks.progressed_at = acknowledged, now
            happened = True
        return self._run_tasks(now) or happened

    def deadline(self) -> float | None:
        """The time at which to call `process` even if nothing arrives before; None: never."""
        times = self._tasks.deadlines()
        if self._unconnected_since is not None:
            times.append(self._unconnected_since + self._connect_timeout)
        due = self.connection.deadline()
        return min([*times, *([] if due is None else [due])], default=None)

    def link_lost(self, why: LinkError) -> None:
        """The line is gone, and may come back; the session is over."""
        self._link_error = why
        self.connection.link_lost()

    def link_back(self, bytes_per_second: float | None) -> None:
        """The line is there again."""
        self._link_error = None
        self.connection.session.set_rate(bytes_per_second)

    def fail(self, error: BridgeError) -> None:
        """The line is gone for good: every task ends in this error."""
        self._failure = error
        self.stage = Stage.FAILED
        self.outage = error
        self.outages += 1
        self.connection.session.close()
        self._tasks.end_all(error)

    # ------------------------------------------------------------------ sessions

    def _open(self, now: float) -> None:
        if self._unconnected_since is None:
            self._unconnected_since = now
        self.stage = Stage.OPENING
        self._acknowledged = -1
        self.connection.session.open(now)

    def _take_events(self, now: float) -> bool:
        happened = False
        while (event := self.connection.next_event()) is not None:
            happened = True
            match event:
                case Opened():
                    self.stage = Stage.GREETING
                    self._tasks.progressed_at = now
                    self._greeting = Task(operations.greet)
                    self._tasks.put_first([self._greeting])
                case Lost():
                    self._lost(now, event)
                case Received(message):
                    self._receive(message, now)
                case Unreadable(error):
                    self._log.append(f"the device sent what this version cannot read: {error}")
                case _:
                    assert_never(event)
        since = self._unconnected_since
        if since is not None and now >= since + self._connect_timeout:
            self._give_up(self._no_session())
            happened = True
        return happened

    def _no_session(self) -> LinkError:
        """Why none could be had."""
        within = f"within {self._connect_timeout:g} s"
        if self._link_error is None:
            return LinkError(f"nobody answers {within}", where=self.where, mend=ANSWER_MEND)
        what = f"{self._link_error.what}, and it did not come back {within}"
        return LinkError(what, where=self.where, mend=self._link_error.mend)

    def _lost(self, now: float, lost: Lost) -> None:
        """The session is over: its requests are begun anew in the next."""
        self._tasks.forget_requests()
        if self._greeting is not None:
            self._tasks.discard(self._greeting)
            self._greeting = None
        if self.stage is Stage.FAILED:
            return
        was_ready = self.stage is Stage.READY
        self.stage = Stage.DOWN
        if lost.why is Ending.VERSION:
            mend = "install the same version of the kit on both"
            self._give_up(RemoteProtocolError(f"{lost.why.value}: {lost.detail}", where=self.where, mend=mend))
            return
        if lost.why is Ending.UNTRUSTED:
            self._give_up(PeerError(lost.detail, where=self.where))
            return
        self._tasks.begin_anew(lost.why.value, was_ready=was_ready)
        self._unconnected_since = None if self.is_idle else self._unconnected_since or now

    def _give_up(self, error: BridgeError) -> None:
        """No session can be had now: tasks end. Jobs stay in flight, and sessions are tried for them on and on."""
        if self.connection.is_open:
            self.connection.session.close()
        self.connection.session.abandon()
        self.stage = Stage.DOWN
        self._unconnected_since = None
        self.outage = error
        self.outages += 1
        self._tasks.end_all(error)

    def _run_tasks(self, now: float) -> bool:
        """Go on with what the stage allows. Whether anything happened."""
        happened = False
        if self.stage is Stage.GREETING:
            assert self._greeting is not None
            happened = self._tasks.run(now, only=self._greeting)
            if self._greeting.is_done:
                self._greeted(self._greeting, now)
        if self.stage is Stage.READY:
            happened = self._tasks.run(now) or happened
        return happened

    def _greeted(self, task: Task[DeviceInfo], now: float) -> None:
        self._greeting = None
        if task.error is not None:
            error = task.error
            self._give_up(error if isinstance(error, BridgeError) else LinkError(str(error), where=self.where))
            return
        info = task.outcome()
        if self.info is not None and info.device_id != self.info.device_id:
            what = f"another device answers: {info.device_id} ({info.board}), it was {self.info.device_id}"
            self.fail(LinkError(what, where=self.where, mend="connect to it anew, or plug the former one in"))
            return
        self.info = info
        self.stage = Stage.READY
        self.sessions += 1
        self._unconnected_since = None
        self._tasks.progressed_at = now
        self._tasks.put_first([self._resubmission(job) for job in self.tracker.accepted()])

    # ------------------------------------------------------------------ jobs

    def _start_submission(self, job: JobRequest) -> Task[None]:
        received = partial(self.tracker.received, job.job_id)
        return self.start(operations.submit(job, received, partial(self.tracker.accept, job.job_id)), "submit")

    def _resubmission(self, job: JobRequest) -> Task[None]:
        """A job that the device had taken, in a new session."""
        received = partial(self.tracker.received, job.job_id)
        submission = operations.submit(job, received, lambda: None)

        def operation(ask: Ask) -> Operation[None]:
            try:
                yield from submission(ask)
            except SessionLost:
                raise
            except BridgeError as error:
                self.tracker.fail(job.job_id, FailureCode.LOST, f"refused after the session was lost: {error.what}")

        task = Task(operation, "submit")
        task.restarts = -(1 << 30)  # a job under way is never given up for reconnections
        return task

    # ------------------------------------------------------------------ messages

    def _receive(self, message: messages.Message, now: float) -> None:
        self._tasks.progressed_at = now
        if isinstance(message, messages.DeviceLog):
            self._log.append(message.text)
        elif isinstance(message, messages.Event):
            self.tracker.receive(message)
        elif isinstance(message, messages.Reply):
            self._tasks.receive(message)
