"""Jobs and what comes back from them, as both ends see them; and job ids.

The bridge knows a job as a kind, parameters and bytes. What they mean is between calib's caller and the device:
contract of "generate": params {"seed"}, no payload; of "inspect": params {"seed", "start", "dtype"}, payload the image.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class JobRequest:
    """A job for a device.

    Args:
        job_id: 1..64 of A-Z a-z 0-9 _ . -; the same id is the same job: submitted twice, it runs once.
        kind: "generate" or "inspect"; the device refuses what it does not know.
        params: flat map of the job's parameters (bool, int, float, text).
        payload: the job's bytes, e.g. an image [C,H,W]; at most limits.MAX_PAYLOAD.
        priority: 0..255; jobs of a higher one begin before those of a lower one.
        deadline: seconds from its submission after which nobody wants the result (FailureCode.DEADLINE); None: never.
        bundle: id of the bundle that it must run in, or be refused; None: whichever is active.
        preview_every: steps between two previews of its image; 0: none.
    """

    job_id: str
    kind: str
    params: Mapping[str, object] = field(default_factory=dict)
    payload: bytes = b""
    priority: int = 0
    deadline: float | None = None
    bundle: str | None = None
    preview_every: int = 0


@dataclass(frozen=True)
class Progress:
    """A job ran a step. One may be missing where the line was too slow for all of them.

    Args:
        job_id: which job.
        step: steps run so far, 1..of.
        of: steps the job runs in all.
        nanoseconds: time of this step on the device.
        passes: INT8 passes of this step, over all layers.
        residual_passes: the same on the residual weight plane.
        macs: multiply-accumulates of this step.
        saturated: elements that the step's passes clamped.
    """

    job_id: str
    step: int
    of: int
    nanoseconds: int = 0
    passes: int = 0
    residual_passes: int = 0
    macs: int = 0
    saturated: int = 0


@dataclass(frozen=True)
class Preview:
    """What a job's image looks like under way. Any of them may be missing.

    Args:
        job_id: which job.
        step: steps run so far.
        of: steps the job runs in all.
        shape: (C, H, W), at most (limits.PREVIEW_CHANNELS, limits.PREVIEW_SIDE, limits.PREVIEW_SIDE).
        pixels: u8 [C, H, W]; 0 is -1 or less, 255 is 1 or more.
    """

    job_id: str
    step: int
    of: int
    shape: tuple[int, int, int]
    pixels: bytes


@dataclass(frozen=True)
class Result:
    """A job ended well.

    Args:
        job_id: which job.
        meta: {"score", "novelty", "novel", "shape", "map", "steps", "passes", ...}: plain values, at most
            limits.MAX_META encoded.
        payload: the result's bytes, e.g. x float32 [C,H,W] little-endian and then the map [H,W].
    """

    job_id: str
    meta: Mapping[str, object]
    payload: bytes


@dataclass(frozen=True)
class Failure:
    """A job that was accepted ended without a result.

    Args:
        job_id: which job.
        code: messages.FailureCode.
        message: what happened, in the device's words.
    """

    job_id: str
    code: int
    message: str


JobEvent = Progress | Preview | Result | Failure
UnderWay = Progress | Preview
"""What says that a job goes on; either of the others is its end."""
JobEnd = Result | Failure


_birth = threading.Lock()
_last_birth = 0


def new_job_id() -> str:
    """A UUIDv7 (RFC 9562, sections 5.7 and 6.2, method 3); a process's later ones sort behind its earlier ones.

    48 bits of Unix milliseconds, 12 bits of their fraction, raised where the clock has not moved on, 62 random bits.
    """
    global _last_birth  # noqa: PLW0603  the last id of this process, for all threads
    with _birth:
        _last_birth = max(_last_birth + 1, (time.time_ns() << 12) // 1_000_000)
        milliseconds, fraction = _last_birth >> 12, _last_birth & 0xFFF
    number = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=number))
