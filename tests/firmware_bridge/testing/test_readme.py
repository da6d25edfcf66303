"""The examples of the page run, and print what they say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import firmware_bridge.testing

FOLDER = Path(firmware_bridge.testing.__file__).parent
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SAID = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


def test_the_examples_print_what_they_say() -> None:
    code = "\n".join(BLOCK.findall(TEXT))
    said = SAID.findall(code)
    assert len(said) > 4
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102 - our own page
    assert printed.getvalue().splitlines() == said


def test_the_page_names_every_module_that_is_for_others() -> None:
    named = set(re.findall(r"^\| `(\w+)`", TEXT, re.MULTILINE))
    there = {path.stem for path in FOLDER.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert named == there - {"__init__", "__main__", "fuzzer"}
