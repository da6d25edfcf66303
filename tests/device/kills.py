"""Kills: host, supervisor and engine die at random points of uploads, activations and jobs, and nothing is lost.

    python -m tests.device.kills --kills 500 --seed 1

Everything is real: a pty, the supervisor as a process, the C++ engine, `firmware_bridge watch` with its queue. After
each round it is checked that every job has ended once and with the right bytes, that the active bundle is whole, and
that an upload sent again no more than a window and a chunk for each kill.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge.bundle import parse_manifest
from edge.device import records
from firmware_bridge import limits
from firmware_bridge.chunks import ENTRY, MAX_CHUNK, MIN_CHUNK
from firmware_bridge.client import Client
from firmware_bridge.jobs import JobRequest
from firmware_bridge.link.pty import PtyPair
from firmware_bridge.queue.queue import JobQueue, queue_id
from firmware_bridge.queue.records import NewJob, State
from firmware_bridge.wire.frame import FrameDecoder
from firmware_bridge.wire.frame import Packet as Frame
from firmware_bridge.wire.messages import FailureCode
from firmware_bridge.wire.packet import Kind, Packet, decode

REPOSITORY = Path(__file__).parents[2]
SEEDS = 8
BATCH = 24
BLOB = 600_000
LINE_RATE = 500_000
"""Bytes a second."""
PATIENCE = 120.0
ALLOWED = {FailureCode.ENGINE_DIED, FailureCode.BUNDLE_CHANGED}
"""How a job may end other than well: its engine was killed, or its device fell back from a bundle on trial."""


@dataclass
class Tally:
    """What was done and seen."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    resent: list[float] = field(default_factory=list)
    """Bytes that an upload sent more than one that was not disturbed, for each kill of host or supervisor in it."""


class Ground:
    """A line with a device on one end that is started again whenever it is killed."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.log = folder / "console.log"
        self._frames = FrameDecoder()
        self._sessions: dict[int, int] = {}  # bytes of each session's stream
        self.line = PtyPair(to_device=self._pass_on)
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def bytes(self) -> int:
        """What hosts have said so far, in bytes of the sessions' streams.

        What the line's own layer sent again, while it waited for a device that was being started, is not counted twice.
        """
        return sum(self._sessions.values())

    def _pass_on(self, data: bytes) -> bytes:
        """Count, and go at the rate of a line, so that there is a middle of an upload to be killed in."""
        for found in self._frames.feed(data):
            if isinstance(found, Frame):
                packet = decode(found.data)
                if isinstance(packet, Packet) and packet.kind is Kind.DATA:
                    end = packet.offset + len(packet.body)
                    self._sessions[packet.session] = max(end, self._sessions.get(packet.session, 0))
        time.sleep(len(data) / LINE_RATE)
        return data

    def start(self) -> None:
        words = [sys.executable, "-m", "edge.device", "--root", str(self.root), "--port", self.line.device_path]
        with self.log.open("ab") as log:
            self.supervisor = subprocess.Popen([*words, "--board", "host"], stdout=log, stderr=log, cwd=REPOSITORY)

    def kill_supervisor(self) -> None:
        assert self.supervisor is not None
        self.supervisor.kill()
        self.supervisor.wait()
        self.start()

    def engine(self) -> int | None:
        """The engine's process id, if one runs."""
        assert self.supervisor is not None
        try:
            tasks = list(Path(f"/proc/{self.supervisor.pid}/task").iterdir())
            return next((int(pid) for task in tasks for pid in (task / "children").read_text().split()), None)
        except OSError:
            return None

    def close(self) -> None:
        assert self.supervisor is not None
        self.supervisor.kill()
        self.supervisor.wait()
        self.line.close()

    def check_bundle(self) -> None:
        """The active bundle's files are there and whole."""
        standing = records.decode((self.root / "active").read_bytes())
        assert standing is not None, "the file that names the active bundle is damaged"
        bundle_id = standing["bundles"][0][0]
        folder = self.root / "bundles" / bundle_id
        manifest = (folder / "manifest.json").read_bytes()
        assert hashlib.sha256(manifest).hexdigest() == bundle_id
        for file in parse_manifest(manifest).files:
            data = (folder / file.name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == file.sha256, f"{file.name} of the active bundle is damaged"

    def good_ends(self) -> Counter[str]:
        """How often each of the queue's jobs ended well, by the device's journal."""
        found = map(records.decode, (self.root / "journal").read_bytes().splitlines(keepends=True))
        ended = [record for record in found if record is not None and record["event"] == "finished"]
        assert max(Counter(record["job"] for record in ended).values(), default=0) <= 1, "a job ended twice"
        return Counter(queue_id(record["job"]) for record in ended if not record["failure"])


class Referee:
    """Runs rounds of work on a ground, kills, and checks."""

    def __init__(self, ground: Ground, bundles: list[Path], folder: Path, seed: int) -> None:
        self.ground = ground
        self.chance = random.Random(seed)
        self.tally = Tally()
        self._bundles = itertools.cycle(bundles)
        self._folder = folder
        self._queue = JobQueue(folder / "queue.db")
        self._host: subprocess.Popen[bytes] | None = None
        with Client.open(ground.line.host_path) as client:
            deploy(client, next(self._bundles))
            self._expected = [
                client.run(JobRequest(f"first-{n}", "generate", {"seed": n})).payload for n in range(SEEDS)
            ]
            before = self.ground.bytes
            upload(client, self._blob())
            self._clean_upload = self.ground.bytes - before

    def round(self, kills: int) -> None:
        """One piece of work with so many kills in it."""
        kind = self.chance.choice(["upload", "deploy", "jobs", "jobs"])
        self.tally.rounds[kind] += 1
        port = self.ground.line.host_path
        if kind == "jobs":
            jobs = [NewJob("generate", {"seed": self.chance.randrange(SEEDS)}) for _ in range(BATCH)]
            self._queue.add(jobs)
            watch = ["firmware_bridge", "watch", "--port", port, "--queue", str(self._folder / "queue.db")]
            self._work([*watch, "--until-empty"], kills)
            self._check_jobs(jobs)
        else:
            what = self._blob() if kind == "upload" else next(self._bundles)
            before, disturbed = self.ground.bytes, self.tally.kills["host"] + self.tally.kills["supervisor"]
            self._work(["tests.device.kills", "host", kind, port, str(what)], kills)
            disturbed = self.tally.kills["host"] + self.tally.kills["supervisor"] - disturbed
            if kind == "upload":
                self._check_resent(self.ground.bytes - before - self._clean_upload, disturbed)
                what.unlink()
        self.ground.check_bundle()

    def _work(self, words: list[str], kills: int) -> None:
        """Run a host until it is done, killing as it goes; it is started again as often as it takes."""
        until = time.monotonic() + PATIENCE + 10 * kills
        self._start(words)
        while True:
            assert time.monotonic() < until, f"{words[1:3]} does not come to an end"
            assert self._host is not None
            if kills:
                time.sleep(self.chance.uniform(0.02, 2.0))
                kills -= self._kill(words)
                continue
            if self._host.wait(PATIENCE) == 0:
                return
            self._start(words)  # it was killed, or the engine was in its activation

    def _start(self, words: list[str]) -> None:
        with (self._folder / "host.log").open("ab") as log:
            self._host = subprocess.Popen([sys.executable, "-m", *words], stdout=log, stderr=log, cwd=REPOSITORY)

    def _kill(self, words: list[str]) -> int:
        assert self._host is not None
        victim = self.chance.choice(["host", "supervisor", "engine"])
        if victim == "host":
            if self._host.poll() == 0:
                victim = "supervisor"  # the work is done; the device is still there
            else:
                self._host.kill()
                self._host.wait()
                self._start(words)
        if victim == "supervisor":
            self.ground.kill_supervisor()
        if victim == "engine":
            engine = self.ground.engine()
            if engine is None:
                return 0
            try:
                os.kill(engine, signal.SIGKILL)
            except ProcessLookupError:
                return 0
        self.tally.kills[victim] += 1
        return 1

    def _check_jobs(self, jobs: list[NewJob]) -> None:
        good = self.ground.good_ends()
        for job in jobs:
            outcome = self._queue.outcome(job.job_id)
            assert outcome is not None, f"job {job.job_id} is lost"
            if outcome.state is State.DONE:
                seed = job.params["seed"]
                assert isinstance(seed, int)
                assert outcome.payload == self._expected[seed], f"job {job.job_id} has other bytes"
                assert good[job.job_id] == 1, f"job {job.job_id} was done {good[job.job_id]} times"
                self.tally.jobs["restarted" if "restarts" in outcome.meta else "done"] += 1
            else:
                assert outcome.code in ALLOWED, f"job {job.job_id}: {outcome.code} {outcome.message}"
                assert good[job.job_id] == 0, f"job {job.job_id} was done and is reported as failed"
                self.tally.jobs[FailureCode(outcome.code).name.lower()] += 1
        self._queue.drop([job.job_id for job in jobs])

    def _check_resent(self, more: int, disturbed: int) -> None:
        each = more / max(1, disturbed)
        self.tally.resent.append(each)
        assert more <= max(1, disturbed) * allowed_again(), f"{more} bytes sent again after {disturbed} kills"

    def _blob(self) -> Path:
        path = self._folder / "blob"
        path.write_bytes(self.chance.randbytes(BLOB))
        return path

    def close(self) -> None:
        self._queue.close()
        if self._host is not None and self._host.poll() is None:
            self._host.kill()
            self._host.wait()


def allowed_again() -> int:
    """Bytes that a kill may cost: a window, a chunk, and for the new session a hello and the list once more."""
    return limits.WINDOW + MAX_CHUNK + ENTRY * (BLOB // MIN_CHUNK + 1) + 1024


@contextmanager
def refereed(bundles: list[Path], folder: Path, seed: int) -> Iterator[Referee]:
    """A ground with a device on it, and its referee."""
    ground = Ground(folder)
    try:
        referee = Referee(ground, bundles, folder, seed)
        try:
            yield referee
        finally:
            referee.close()
    finally:
        ground.close()


def upload(client: Client, path: Path) -> None:
    client.upload(hashlib.sha256(path.read_bytes()).hexdigest(), path)


def deploy(client: Client, bundle: Path) -> None:
    for path in sorted(bundle.iterdir()):
        upload(client, path)
    bundle_id = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    if client.refresh().active_bundle != bundle_id:
        client.activate(bundle_id)


def host(kind: str, port: str, what: Path) -> None:
    """The host's part of a round that is no job."""
    with Client.open(port) as client:
        (upload if kind == "upload" else deploy)(client, what)


def main() -> None:
    if sys.argv[1:2] == ["host"]:
        host(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
        return
    from tests.conftest import write_tiny_model

    from .real_bundle import make, twin

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        write_tiny_model(folder / "model")
        made = make(folder / "model", folder)
        begun = time.monotonic()
        with refereed([made.bundle.folder, twin(made, folder / "twin")], folder, options.seed) as referee:
            tally = referee.tally
            while tally.kills.total() < options.kills:
                referee.round(referee.chance.randint(1, 3))
                sys.stderr.write(f"\r{tally.kills.total()} kills, {time.monotonic() - begun:.0f} s ")
        document = {
            "seed": options.seed,
            "kills": tally.kills,
            "rounds": tally.rounds,
            "jobs": tally.jobs,
            "resent_bytes_a_kill": {"most": round(max(tally.resent)), "allowed": allowed_again()},
            "lost": 0,
            "done_twice": 0,
            "half_active": 0,
        }
        print(json.dumps(document))


if __name__ == "__main__":
    main()
