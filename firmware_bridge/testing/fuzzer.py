"""The fuzzing engine under `fuzzing.check`: atheris (libFuzzer), which instruments the wire as it is imported.

Run by `python -m firmware_bridge.testing fuzz`, in a process of its own: atheris takes the process over.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["firmware_bridge.wire", "firmware_bridge.testing.fuzzing"]):
    from firmware_bridge.testing import fuzzing


def main() -> None:
    """Fuzz; the arguments are libFuzzer's."""
    atheris.Setup(sys.argv, fuzzing.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
