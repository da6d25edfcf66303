"""The examples of calib's page run, and print what they say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch

import calib

PAGE = Path(calib.__file__).parent / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SAID = re.compile(r"^print\(.*\)  # (.*)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_examples_print_what_they_say() -> None:
    code = "\n".join(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    assert code.count("calib.") > 10
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(PAGE), "exec"), {"__name__": "readme"})  # noqa: S102 - our own page
    assert printed.getvalue().splitlines() == SAID.findall(code)


def test_the_page_names_the_whole_public_interface() -> None:
    text = PAGE.read_text(encoding="utf-8")
    spoken = {name for name in calib.__all__ if name in text}
    results = {"Calibration", "ModulatedModel", "PretrainedModel", "Sampler", "Support", "calibration_key", "noise"}
    assert set(calib.__all__) - spoken <= results
