"""From a job as the wire brings it to a job as the engine runs it; what is wrong is said before it is queued."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import cbor2

from edge.device.engine import ImageType
from edge.device.errors import JobRejected
from edge.device.job import Job
from firmware_bridge.errors import DeviceRefused
from firmware_bridge.jobs import JobRequest
from firmware_bridge.wire.messages import RefusalCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge.bundle import ModelFacts

_SEED_LIMIT = 2**63
_IMAGE_TYPES = {"float32": (ImageType.FLOAT32, 4), "uint8": (ImageType.UINT8, 1)}
_PARAMETERS = {"generate": {"seed"}, "inspect": {"seed", "start", "dtype"}}


def read_job(request: JobRequest, model: ModelFacts, steps: int) -> Job:
    """Check a job against the active bundle.

    Args:
        request: kind "generate" (seed) or "inspect" (seed, start, dtype, and the image [C,H,W] as payload); the
            payload ends with the model's conditions, if it has any.
        model: the bundle's: sizes of images and conditions.
        steps: of the bundle's sampler.

    Raises:
        JobRejected: a parameter is missing, unknown or out of range, or image or conditions have another size.
        DeviceRefused: UNSUPPORTED, a kind this device does not know.
    """
    where = f"job {request.job_id}"
    if request.kind not in _PARAMETERS:
        known = ", ".join(_PARAMETERS)
        raise DeviceRefused(RefusalCode.UNSUPPORTED, f"unknown kind {request.kind!r} (known: {known})", where=where)
    wanted, given = _PARAMETERS[request.kind], set(request.params)
    if wanted != given:
        parts = (("missing", wanted - given), ("unknown", given - wanted))
        odd = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in parts if names)
        takes = f"{request.kind} takes {', '.join(sorted(wanted))}"
        raise JobRejected(f"parameters {odd}", where=where, mend=takes)
    seed = _whole(request.params, "seed", _SEED_LIMIT, where)
    if request.kind == "generate":
        if request.payload and not model.conditions:
            raise JobRejected("an image where none belongs", where=where, mend="send it to an 'inspect' job")
        _check_size(request.payload, model, None, where)
        return Job(request.job_id, seed, conditions=request.payload)
    start = _whole(request.params, "start", steps, where)
    dtype = request.params["dtype"]
    if not isinstance(dtype, str) or dtype not in _IMAGE_TYPES:
        raise JobRejected(f"dtype {dtype!r}", where=where, mend=f"allowed: {', '.join(_IMAGE_TYPES)}")
    image_type, _ = _IMAGE_TYPES[dtype]
    size = _check_size(request.payload, model, dtype, where)
    return Job(request.job_id, seed, start, request.payload[:size], image_type, request.payload[size:])


def _check_size(payload: bytes, model: ModelFacts, dtype: str | None, where: str) -> int:
    """The image's bytes in a payload of just the right length; 0 where ``dtype`` is None, for no image."""
    shape = (model.channels, model.height, model.width)
    image = prod(shape) * _IMAGE_TYPES[dtype][1] if dtype is not None else 0
    if len(payload) != image + model.condition_bytes:
        parts = [f"{'x'.join(map(str, shape))} {dtype}"] if dtype is not None else []
        parts += [f"{each.name} {'x'.join(map(str, each.sizes))} {each.type}" for each in model.conditions]
        raise JobRejected(
            f"the {'image' if not model.conditions else 'payload'} has {len(payload)} bytes",
            where=where,
            mend=f"the bundle takes {', then '.join(parts)}, {image + model.condition_bytes} bytes",
        )
    return image


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
