import pytest

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError
from firmware_bridge.jobs import Failure, JobRequest, Progress, Result
from firmware_bridge.tracker import JobTracker
from firmware_bridge.wire import messages as m


def progress(job_id: str, step: int) -> m.JobProgress:
    return m.JobProgress(job_id, step, 10, 0, 0, 0, 0, 0)


def tracked(*job_ids: str) -> JobTracker:
    tracker = JobTracker()
    for job_id in job_ids:
        tracker.add(JobRequest(job_id, "echo"))
        tracker.accept(job_id)
    return tracker


def test_results_are_put_together() -> None:
    tracker = tracked("a", "b")
    tracker.receive(m.JobResult("a", {"x": 1}, 4))
    tracker.receive(progress("b", 1))
    tracker.receive(m.ResultPayload("a", 0, b"ab"))
    tracker.receive(m.ResultPayload("a", 1, b"zz"))  # not what comes next
    tracker.receive(m.JobResult("b", {}, 0))
    tracker.receive(m.ResultPayload("a", 2, b"cd"))
    assert tracker.take({"a"}) == Result("a", {"x": 1}, b"abcd")
    assert tracker.take({"a"}) is None
    assert tracker.take(None) == Progress("b", 1, 10)
    assert tracker.take(None) == Result("b", {}, b"")
    assert not tracker.expects(None)


def test_a_result_goes_on_where_the_last_session_stopped() -> None:
    tracker = tracked("a")
    assert tracker.received("a") == 0
    tracker.receive(m.JobResult("a", {}, 4))
    tracker.receive(m.ResultPayload("a", 0, b"ab"))
    assert tracker.received("a") == 2
    tracker.receive(m.JobResult("a", {}, 4))
    tracker.receive(m.ResultPayload("a", 2, b"cd"))
    assert tracker.take(None) == Result("a", {}, b"abcd")
    assert tracker.received("a") == 0


def test_another_result_of_the_job_cannot_be_joined_with_the_first() -> None:
    tracker = tracked("a")
    tracker.receive(m.JobResult("a", {"try": 1}, 4))
    tracker.receive(m.ResultPayload("a", 0, b"ab"))
    tracker.receive(m.JobResult("a", {"try": 2}, 4))
    tracker.receive(m.ResultPayload("a", 2, b"cd"))
    lost = tracker.take(None)
    assert isinstance(lost, Failure)
    assert lost.code == m.FailureCode.LOST


def test_a_result_that_is_said_again_begins_anew() -> None:
    tracker = tracked("a")
    tracker.receive(m.JobResult("a", {}, 4))
    tracker.receive(m.ResultPayload("a", 0, b"ab"))
    tracker.receive(m.JobResult("a", {}, 4))
    tracker.receive(m.ResultPayload("a", 0, b"abcd"))
    assert tracker.take(None) == Result("a", {}, b"abcd")


def test_events_of_jobs_not_in_flight_are_dropped() -> None:
    tracker = tracked("a")
    tracker.receive(m.JobFailure("a", 4, "cancelled"))
    tracker.receive(m.JobFailure("a", 4, "cancelled"))
    tracker.receive(progress("a", 1))
    tracker.receive(progress("b", 1))
    tracker.receive(m.DeviceLog("hello"))
    assert tracker.take(None) == Failure("a", 4, "cancelled")
    assert tracker.take(None) is None


def test_only_accepted_jobs_are_submitted_again() -> None:
    tracker = tracked("a")
    tracker.add(JobRequest("b", "echo"))
    assert [job.job_id for job in tracker.accepted()] == ["a"]
    assert tracker.in_flight() == ["a", "b"]
    tracker.drop("b")
    tracker.drop("b")
    assert tracker.in_flight() == ["a"]
    assert tracker.expects({"a"})
    assert not tracker.expects({"b"})


def test_an_id_is_in_flight_once_and_jobs_are_bounded() -> None:
    tracker = tracked("a")
    with pytest.raises(LocalProtocolError, match="in flight"):
        tracker.add(JobRequest("a", "echo"))
    for number in range(limits.MAX_JOBS - 1):
        tracker.add(JobRequest(str(number), "echo"))
    with pytest.raises(LocalProtocolError, match="64 jobs"):
        tracker.add(JobRequest("one more", "echo"))


def test_progress_that_nobody_takes_is_bounded_and_results_are_kept() -> None:
    tracker = tracked("a", "b")
    tracker.receive(m.JobResult("a", {}, 0))
    for step in range(limits.PROGRESS_KEPT + 100):
        tracker.receive(progress("b", step))
    tracker.receive(m.JobResult("b", {}, 0))
    events = list(iter(lambda: tracker.take(None), None))
    assert len(events) == limits.PROGRESS_KEPT + 1
    assert isinstance(events[0], Result)
    assert events[1].step == 101
    assert events[-1] == Result("b", {}, b"")
