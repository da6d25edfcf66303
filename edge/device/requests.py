"""From a job as the wire brings it to a job as the engine runs it; what is wrong is said before it is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cbor2

from edge.device.engine_process import ImageType
from edge.device.errors import JobRejected
from edge.device.scheduler import Job
from firmware_bridge.errors import DeviceRefused
from firmware_bridge.jobs import JobRequest
from firmware_bridge.wire.messages import RefusalCode

if TYPE_CHECKING:
    from collections.abc import Mapping

_SEED_LIMIT = 2**63
_IMAGE_TYPES = {"float32": (ImageType.FLOAT32, 4), "uint8": (ImageType.UINT8, 1)}
_PARAMETERS = {"generate": {"seed"}, "inspect": {"seed", "start", "dtype"}}


def read_job(request: JobRequest, shape: tuple[int, int, int], steps: int) -> Job:
    """Check a job against the active bundle.

    Args:
        request: kind "generate" (seed) or "inspect" (seed, start, dtype, and the image [C,H,W] as payload).
        shape: (C, H, W) of the bundle's images.
        steps: of the bundle's sampler.

    Raises:
        JobRejected: a parameter is missing, unknown or out of range, or the image has another size.
        DeviceRefused: UNSUPPORTED, a kind this device does not know.
    """
    where = f"job {request.job_id}"
    if request.kind not in _PARAMETERS:
        known = ", ".join(_PARAMETERS)
        raise DeviceRefused(RefusalCode.UNSUPPORTED, f"unknown kind {request.kind!r} (known: {known})", where=where)
    wanted, given = _PARAMETERS[request.kind], set(request.params)
    if wanted != given:
        odd = ", ".join(sorted(wanted ^ given))
        raise JobRejected(
            f"parameters missing or unknown: {odd}", where=where, mend=f"it takes {', '.join(sorted(wanted))}"
        )
    seed = _whole(request.params, "seed", _SEED_LIMIT, where)
    if request.kind == "generate":
        if request.payload:
            raise JobRejected("an image where none belongs", where=where, mend="send it to an 'inspect' job")
        return Job(request.job_id, seed)
    start = _whole(request.params, "start", steps, where)
    dtype = request.params["dtype"]
    if not isinstance(dtype, str) or dtype not in _IMAGE_TYPES:
        raise JobRejected(f"dtype {dtype!r}", where=where, mend=f"allowed: {', '.join(_IMAGE_TYPES)}")
    image_type, width = _IMAGE_TYPES[dtype]
    size = shape[0] * shape[1] * shape[2] * width
    if len(request.payload) != size:
        raise JobRejected(
            f"the image has {len(request.payload)} bytes",
            where=where,
            mend=f"the bundle takes {'x'.join(map(str, shape))} {dtype}, {size} bytes",
        )
    return Job(request.job_id, seed, start, request.payload, image_type)


def request_bytes(request: JobRequest) -> bytes:
    """What makes two requests the same, and all that is needed to run one: kind, parameters and payload."""
    return cbor2.dumps([request.kind, dict(request.params), request.payload], canonical=True)


def request_from(job_id: str, data: bytes) -> JobRequest:
    """The request that ``request_bytes`` wrote."""
    kind, params, payload = cbor2.loads(data)
    return JobRequest(job_id, kind, params, payload)


def _whole(params: Mapping[str, object], name: str, limit: int, where: str) -> int:
    value = params[name]
    if type(value) is not int or not 0 <= value < limit:
        raise JobRejected(f"{name} {value!r}", where=where, mend=f"it takes an integer from 0 to {limit - 1}")
    return value
