"""The journal against a reference model: wherever the power goes, nothing that it said is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from edge.device import journal as module
from edge.device.journal import Journal, Outcome
from firmware_bridge.testing.disk import Loss, MemoryDisk, PowerCut

IDS = [f"job-{n}" for n in range(6)]
CUTS = st.one_of(st.none(), st.integers(1, 12))


@dataclass
class Known:
    """What the journal has said about a job; `maybe` are the states that a cut call may have left."""

    request: bytes
    starts: int = 0
    outcome: Outcome | None = None
    is_taken: bool = False


class JournalModel(RuleBasedStateMachine):
    """Each rule may lose its power in the n-th operation; then the device starts again and must know all it said."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.disk = MemoryDisk()
        self.journal = Journal(self.disk)
        self.known: dict[str, Known] = {}
        self.tried: dict[str, Known | None] = {}
        self.chance = random.Random(0)

    def call(self, job_id: str, after: Known, cut: int | None, action: Callable[[], object]) -> None:
        """Ask the journal; if it answers, the model moves on, else it may have."""
        self.disk.cut_at = None if cut is None else self.disk.operations + cut
        try:
            action()
        except PowerCut:
            self.restart(after, job_id)
        else:
            self.disk.cut_at = None
            self.known[job_id] = after

    def restart(self, after: Known | None = None, job_id: str = "", loss: Loss = Loss.ANYTHING) -> None:
        self.disk.cut_power()
        self.disk.restart(loss, self.chance)
        self.journal = Journal(self.disk)
        if after is not None:
            before = self.known.get(job_id)
            found = self.found(job_id, after)
            assert found in (before, after), f"{found} is neither {before} nor {after}"
            if found is None:
                self.known.pop(job_id, None)
            else:
                self.known[job_id] = found

    def found(self, job_id: str, like: Known) -> Known | None:
        """What the journal says about a job, in the model's words."""
        if not self.journal.knows(job_id):
            return None
        open_jobs = {job.job_id: job for job in self.journal.unfinished()}
        if job_id in open_jobs:
            return Known(open_jobs[job_id].request or b"lost", open_jobs[job_id].starts)
        assert self.journal.same(job_id, like.request)
        return Known(like.request, like.starts, self.journal.outcome(job_id), like.is_taken)

    @rule(target=jobs, job_id=st.sampled_from(IDS), seed=st.integers(0, 3), cut=CUTS)
    def accept(self, job_id: str, seed: int, cut: int | None) -> object:
        if self.journal.knows(job_id):
            assert self.journal.same(job_id, self.known[job_id].request)
            return multiple()
        request = b"request %d" % seed * (1 + seed)
        self.call(job_id, Known(request), cut, lambda: self.journal.accept(job_id, request, {"priority": seed}))
        return job_id

    @rule(job_id=jobs, cut=CUTS)
    def start(self, job_id: str, cut: int | None) -> None:
        job = self.known.get(job_id)
        if job is None or job.outcome is not None:
            return
        after = Known(job.request, job.starts + 1)
        self.call(job_id, after, cut, lambda: self.journal.start(job_id))

    @rule(job_id=jobs, size=st.sampled_from([0, 10, 400]), failure=st.integers(0, 4), cut=CUTS)
    def finish(self, job_id: str, size: int, failure: int, cut: int | None) -> None:
        job = self.known.get(job_id)
        if job is None:
            return
        outcome = Outcome(failure, "words", {"score": 0.5}, bytes([failure]) * size)
        after = Known(job.request, job.starts, job.outcome or outcome, job.is_taken)
        self.call(job_id, after, cut, lambda: self.journal.finish(job_id, outcome))

    @rule(job_id=consumes(jobs))
    def take(self, job_id: str) -> None:
        job = self.known.get(job_id)
        if job is not None and job.outcome is not None:
            job.is_taken = True
            self.journal.taken(job_id)

    @rule(loss=st.sampled_from(Loss))
    def go_down(self, loss: Loss) -> None:
        self.restart(loss=loss)

    @invariant()
    def knows_all_that_it_said(self) -> None:
        open_jobs = {job.job_id: job for job in self.journal.unfinished()}
        for job_id, job in self.known.items():
            assert self.journal.knows(job_id)
            assert self.journal.same(job_id, job.request)
            if job.outcome is None:
                assert open_jobs[job_id].request == job.request
                assert open_jobs[job_id].starts == job.starts
                assert self.journal.outcome(job_id) is None
            else:
                assert job_id not in open_jobs
                said = self.journal.outcome(job_id)
                assert said == job.outcome or (job.is_taken and said is None)
        assert set(open_jobs) == {job_id for job_id, job in self.known.items() if job.outcome is None}


class CompactingJournalModel(JournalModel):
    """The same with a journal that rewrites its file all the time."""

    def __init__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "_COMPACT_ABOVE", 4)
        super().__init__()

    def teardown(self) -> None:
        self.patch.undo()


EXAMPLES = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestJournal = JournalModel.TestCase
TestJournal.settings = EXAMPLES
TestCompactingJournal = CompactingJournalModel.TestCase
TestCompactingJournal.settings = EXAMPLES
