"""One run: time, lines, power and cables around the real ends, and the promises that are checked."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from firmware_bridge.device import DeviceEndpoint
from firmware_bridge.errors import LinkError
from firmware_bridge.jobs import Failure, JobRequest, Result
from firmware_bridge.testing.disk import Loss, MemoryDisk, PowerCut
from firmware_bridge.testing.faulty import BOOT_LOG, Faults, FaultyLine
from firmware_bridge.testing.simulation.host import HostProcess, Queue
from firmware_bridge.testing.simulation.machine import Bundle, Machine, Nature, SimulatedDevice
from firmware_bridge.testing.simulation.scenario import HEALED_AT, Event, Scenario, Trouble
from firmware_bridge.wire.connection import Connection
from firmware_bridge.wire.messages import FailureCode

LIMIT = 600.0
"""Virtual seconds after which a run that is not done never will be."""
_TICK = 1e-6
_FALLS_OF_ONE_JOB = 3
"""A device may give up a job that ran whenever it went down, this often."""


@dataclass
class Outcome:
    """What came of a run.

    Args:
        seed: that replays it.
        violations: the promises that were broken; empty: none.
        seconds: of virtual time.
        frames: that went over the lines.
        boots: of all devices.
        ends: how many jobs ended how: "result", or a failure's name.
    """

    seed: int
    violations: list[str]
    seconds: float
    frames: int
    boots: int
    ends: dict[str, int] = field(default_factory=dict)
    operations: int = 0


@dataclass
class Story:
    """What befell a device: what its jobs may blame."""

    cancelled: set[str] = field(default_factory=set)
    engine_kills: int = 0
    falls: int = 0
    blows: int = 0  # of the falls, those that were not the bundle's fault

    def excuses(self, job: JobRequest, failure: Failure, bundles: Sequence[Bundle]) -> bool:
        """Whether a job may have failed so."""
        match failure.code:
            case FailureCode.CANCELLED:
                return job.job_id in self.cancelled
            case FailureCode.DEADLINE:
                return job.deadline is not None
            case FailureCode.ENGINE_DIED:
                return self.engine_kills > 0
            case FailureCode.BUNDLE_CHANGED:
                return self.falls > 0 and len(bundles) > 1
            case FailureCode.INTERNAL:
                fatal = [bundle.nature is Nature.FATAL for bundle in bundles]
                # A bundle that takes the device down is left at once, unless no better one stands behind it, or a blow
                # in the first job of the bundle after it made the device go back to it.
                has_no_other = fatal[0] or sum(fatal) > 1 or (self.blows > 0 and any(fatal[:-1]))
                return self.falls >= _FALLS_OF_ONE_JOB and (has_no_other or self.blows > 1)
            case _:
                return False


class Station:
    """One device with its disk and its line, and the host's process at the other end.

    Args:
        machine: what the device is.
        scenario: the run.
        number: of the device.
        chance: where the run's chances come from.
    """

    def __init__(self, machine: Machine, scenario: Scenario, number: int, chance: random.Random) -> None:
        self.queue = Queue(scenario.work[number])
        self.disk = MemoryDisk()
        self.boots = 0
        self.due_at = 0.0
        self.violations: list[str] = []
        self._machine = machine
        self._chance = chance
        self._faults = scenario.faults[number]
        self._name = f"line-{number}"
        self.to_device = FaultyLine(self._faults, chance)
        self.to_host = FaultyLine(self._faults, chance)
        self._plugged_at = 0.0
        self._is_plugged = True
        self._boot_at = 0.0
        self._restart: Loss | None = None
        self._handler: SimulatedDevice | None = None
        self._story = Story()
        self._device: DeviceEndpoint | None = None
        self._wake_at: float | None = None
        self._now = 0.0
        self.host = self._new_host()

    # ------------------------------------------------------------------ time

    def turn(self, now: float) -> None:
        """Let everything happen that happens now, and note when the next thing does."""
        self._turn(now)
        self.due_at = self._due(now)

    def _turn(self, now: float) -> None:
        self._now = now
        if not self._is_plugged and now >= self._plugged_at:
            self._is_plugged = True
            self.host.endpoint.link_back(self._faults.bytes_per_second)
        if self._handler is None and now >= self._boot_at:
            self._boot()
        self._device_turn(now)
        _receive(self.host.endpoint.connection, self.to_host, now)
        self.host.turn(now)
        self._write(self.host.endpoint.connection, self.to_device, now)
        self.host.turn(now)

    def _due(self, now: float) -> float:
        times = [*self.host.due(now), self.to_device.next_arrival(), self.to_host.next_arrival()]
        if not self._is_plugged:
            times.append(self._plugged_at)
        if self._handler is None:
            times.append(self._boot_at)
        elif self._wake_at is not None:
            times.append(self._wake_at)
        if self._device is not None and (deadline := self._device.connection.deadline()) is not None:
            times.append(deadline)
        return min(times)

    def heal(self) -> None:
        """From here on the line is good, only as slow as it is."""
        good = Faults(delay=self._faults.delay, bytes_per_second=self._faults.bytes_per_second)
        self.to_device.faults = self.to_host.faults = good
        self.disk.cut_at = None
        self.due_at = self._now

    # ------------------------------------------------------------------ trouble

    def befall(self, event: Event) -> None:
        """Trouble."""
        self._now = self.due_at = event.at
        match event.trouble:
            case Trouble.POWER_CUT:
                self._story.blows += 1
                self.disk.cut_at = self.disk.operations + int(event.number)
            case Trouble.KILL:
                self._story.blows += 1
                self._fall(Loss.NOTHING)
            case Trouble.UNPLUG:
                self._unplug(event.at + event.number)
            case Trouble.ENGINE_KILL:
                if self._handler is not None:
                    self._handler.kill_engine()
                    self._story.engine_kills += 1
            case Trouble.HOST_KILL:
                self.host = self._new_host()
                if not self._is_plugged:
                    self.host.endpoint.link_lost(LinkError("unplugged", where=self._name))
            case Trouble.CANCEL:
                self._story.cancelled.add(self.host.cancel(int(event.number)))

    def audit(self) -> None:
        """Look at the disk of the device as it lies there."""
        self.violations += self._machine.audit(self.disk)

    def final_audit(self) -> None:
        """When all is done: every job that was taken was run, once."""
        self._fall(Loss.EVERYTHING)
        self.disk.restart(Loss.EVERYTHING)
        self.audit()
        finished = self._machine.finished(self.disk)
        self.violations += [f"{job} was finished {times} times" for job, times in finished.items() if times > 1]
        for _, job in self.queue.work.jobs:
            end = self.queue.ends.get(job.job_id)
            if isinstance(end, Result):
                self._audit_result(job, end, finished.get(job.job_id))
            elif end is not None and not self._story.excuses(job, end, self.queue.work.bundles):
                self.violations.append(f"{job.job_id} failed for no reason: {end.code}, {end.message}")
        self.violations += [f"{job} was accepted and is lost" for job in self.queue.accepted - self.queue.ends.keys()]
        self.violations += self.queue.violations

    def _audit_result(self, job: JobRequest, result: Result, finished: int | None) -> None:
        if finished != 1:
            self.violations.append(f"{job.job_id} has a result at the host, {finished} on the device")
        made_with = self._machine.bundle_of(result)
        bundle = next((each for each in self.queue.work.bundles if each.bundle_id == made_with), None)
        if bundle is None or result.payload != self._machine.expected(bundle, job):
            self.violations.append(f"{job.job_id}: its result is not the right one of bundle {made_with[:12]}")

    # ------------------------------------------------------------------ inside

    def _new_host(self) -> HostProcess:
        rate = self._faults.bytes_per_second
        return HostProcess(self._name, self.queue, self._machine.release, self._epoch, rate)

    def _epoch(self) -> int:
        return self._chance.randrange(1, 2**32)

    def _boot(self) -> None:
        self.boots += 1
        try:
            if self._restart is not None:
                self.disk.restart(self._restart, self._chance)
                self._restart = None
                self.audit()
            self._handler = self._machine.boot(self.disk, lambda: self._now, self._chance)
        except PowerCut:
            self._fall(Loss.ANYTHING)
            return
        self._serve()
        self.to_host.send(self._now, BOOT_LOG)

    def _serve(self) -> None:
        assert self._handler is not None
        self._device = DeviceEndpoint(self._handler, epoch=self._epoch, bytes_per_second=self._faults.bytes_per_second)

    def _fall(self, loss: Loss) -> None:
        """The device is off, or its supervisor gone; it boots again in a while."""
        self._story.falls += 1
        self._handler = self._device = None
        self._wake_at = None
        self._restart = loss
        self._boot_at = self._now + self._chance.uniform(0.1, 4.0)

    def _unplug(self, until: float) -> None:
        self.to_device.cut()
        self.to_host.cut()
        self.host.endpoint.link_lost(LinkError("unplugged", where=self._name))
        self._plugged_at = max(until, self._plugged_at)
        self._is_plugged = False
        if self._handler is not None:
            self._serve()  # the loop opens the port anew

    def _device_turn(self, now: float) -> None:
        if self._device is None or self._handler is None:
            while self.to_device.receive(now) is not None:
                pass  # nobody listens
            return
        try:
            _receive(self._device.connection, self.to_device, now)
            while self._device.process():
                self._write(self._device.connection, self.to_host, now)
            self._wake_at = self._handler.advance(now)
            while self._device.process():
                self._write(self._device.connection, self.to_host, now)
            self._write(self._device.connection, self.to_host, now)
        except PowerCut:
            self._fall(Loss.ANYTHING)

    def _write(self, connection: Connection, line: FaultyLine, now: float) -> None:
        while data := bytes(connection.to_write(now)):
            if self._is_plugged:
                line.send(now, data)
            connection.wrote(len(data))


def _receive(connection: Connection, line: FaultyLine, now: float) -> None:
    while (data := line.receive(now)) is not None:
        connection.receive(now, data)
    connection.tick(now)


def simulate(machine: Machine, seed: int) -> Outcome:
    """Run one seed to its end.

    Args:
        machine: what the devices are.
        seed: everything follows from it.
    """
    return play(machine, Scenario.draw(machine, seed))


def play(machine: Machine, scenario: Scenario) -> Outcome:
    """Run a scenario to its end.

    Args:
        machine: what the devices are.
        scenario: what they go through; its seed decides what it leaves open.
    """
    chance = random.Random(~scenario.seed)  # noqa: S311  a simulation wants the same numbers again
    stations = [Station(machine, scenario, number, chance) for number in range(len(scenario.work))]
    events = list(scenario.events)
    now, is_healed = 0.0, False
    while now < LIMIT and not (is_healed and all(station.queue.is_done for station in stations)):
        while events and events[0].at <= now:
            event = events.pop(0)
            stations[event.device].befall(replace(event, at=now))
        if not is_healed and now >= HEALED_AT:
            is_healed = True
            for station in stations:
                station.heal()
        for station in stations:
            if station.due_at <= now:
                station.turn(now)
        ahead = [station.due_at for station in stations]
        ahead += [events[0].at] if events else []
        ahead += [] if is_healed else [HEALED_AT]
        now = min(LIMIT, max(now + _TICK, min(ahead)))
    violations = []
    for number, station in enumerate(stations):
        if not station.queue.is_done:
            missing = [job.job_id for _, job in station.queue.work.jobs if job.job_id not in station.queue.ends]
            deployed = f"{station.queue.deployed} of {len(station.queue.work.bundles)} bundles"
            station.violations.append(
                f"not done {LIMIT - HEALED_AT:g} s after all healed: {deployed}, missing {missing}"
            )
        station.final_audit()
        violations += [f"device {number}: {each}" for each in station.violations]
    every = [end for station in stations for end in station.queue.ends.values()]
    ends = Counter("result" if isinstance(end, Result) else FailureCode(end.code).name.lower() for end in every)
    frames = sum(line.sent for station in stations for line in (station.to_device, station.to_host))
    operations = sum(station.disk.operations for station in stations)
    boots = sum(station.boots for station in stations)
    return Outcome(scenario.seed, violations, now, frames, boots, dict(ends), operations)
