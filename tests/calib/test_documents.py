"""Configurations as JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calib.calibration import CalibrationConfig
from calib.documents import from_document, to_document
from calib.errors import CalibrationError
from calib.ranges import Percentile
from calib.weights import CorrectBias, Gptq, MseRange, WeightMethod

CONFIG = CalibrationConfig(
    seeds=3, weights=WeightMethod(MseRange(0.5), Gptq(damping=0.1), CorrectBias()), changes=Percentile(0.99)
)


def test_a_configuration_comes_back_equal() -> None:
    document = json.loads(json.dumps(to_document(CONFIG)))
    assert document["weights"]["rounding"] == {"method": "Gptq", "damping": 0.1, "seeds": 4, "every": 5}
    assert from_document(CalibrationConfig, document, where="x") == CONFIG
    assert from_document(CalibrationConfig, {}, where="x") == CalibrationConfig()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": 1}, "colour"),
        ({"changes": {"method": "Guess"}}, "Guess"),
        ({"changes": {"method": "Percentile", "share": 2}}, "share"),
        ({"changes": {"share": 0.5}}, "no method"),
        ({"changes": 3}, "no method"),
        ({"weights": {"method": "WeightMethod", "rounding": {"method": "Gptq", "tilt": 1}}}, "tilt"),
        ({"seeds": "many"}, "seeds|supported"),
    ],
)
def test_other_documents_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        from_document(CalibrationConfig, to_document(CONFIG) | change, where="x")
    with pytest.raises(CalibrationError, match="object"):
        from_document(CalibrationConfig, [change], where="x")
