"""What tests of the client share: devices in memory, blobs, echo jobs."""

import hashlib
import random

from firmware_bridge.jobs import JobRequest
from firmware_bridge.testing.bench import Bench
from firmware_bridge.testing.device import MemoryDevice


def start(bench: Bench, device: MemoryDevice | None = None) -> MemoryDevice:
    device = device or MemoryDevice()
    bench.start(device)
    return device


def blob(size: int, seed: int = 1) -> tuple[str, bytes]:
    data = random.Random(seed).randbytes(size)
    return hashlib.sha256(data).hexdigest(), data


def echo(job_id: str, payload: bytes = b"", **params: object) -> JobRequest:
    return JobRequest(job_id, "echo", params, payload)


class PausedDevice(MemoryDevice):
    paused = True

    def advance(self, now: float) -> float | None:
        return now + 0.01 if self.paused else super().advance(now)
