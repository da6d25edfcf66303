"""A job's payload: image first, then the conditions that the manifest lists, of just that length."""

from __future__ import annotations

import pytest

from edge.bundle import ConditionFacts, ModelFacts
from edge.device.engine import ImageType
from edge.device.errors import JobRejected
from edge.device.requests import read_job
from firmware_bridge.jobs import JobRequest

PLAIN = ModelFacts("plain", 1, 2, 3, "0" * 64)
CONDITIONS = (ConditionFacts("label", "int64", (1,)), ConditionFacts("hint", "float32", (1, 2)))
ASKED = ModelFacts("asked", 1, 2, 3, "0" * 64, CONDITIONS)
INSPECT = {"seed": 1, "start": 2, "dtype": "uint8"}


def test_conditions_follow_the_image() -> None:
    conditions = bytes(range(16))
    generated = read_job(JobRequest("a", "generate", {"seed": 1}, conditions), ASKED, 5)
    assert (generated.image, generated.conditions) == (None, conditions)
    inspected = read_job(JobRequest("b", "inspect", INSPECT, b"pixels" + conditions), ASKED, 5)
    assert (inspected.image, inspected.image_type, inspected.conditions) == (b"pixels", ImageType.UINT8, conditions)
    assert read_job(JobRequest("c", "inspect", INSPECT, b"pixels"), PLAIN, 5).conditions == b""


@pytest.mark.parametrize(
    ("kind", "model", "payload", "message"),
    [
        ("generate", PLAIN, 1, "an image where none belongs"),
        ("generate", ASKED, 15, r"payload has 15 bytes.*label 1 int64, then hint 1x2 float32, 16 bytes"),
        ("inspect", PLAIN, 7, r"image has 7 bytes.*1x2x3 uint8, 6 bytes"),
        ("inspect", ASKED, 6, r"payload has 6 bytes.*1x2x3 uint8, then label 1 int64, then hint 1x2 float32, 22 bytes"),
    ],
)
def test_another_length_is_refused(kind: str, model: ModelFacts, payload: int, message: str) -> None:
    params = {"seed": 1} if kind == "generate" else INSPECT
    with pytest.raises(JobRejected, match=message):
        read_job(JobRequest("a", kind, params, bytes(payload)), model, 5)
