from pathlib import Path

import pytest

import firmware_bridge
from firmware_bridge.wire.frame import MAX_ENCODED
from firmware_bridge.wire.messages import FailureCode, RefusalCode, document
from firmware_bridge.wire.version import PROTOCOL

DOCUMENT = (Path(firmware_bridge.__file__).parent / "PROTOCOL.md").read_text()


def test_the_document_prints_every_message_as_it_is() -> None:
    assert document.table() in DOCUMENT
    assert document.numbers(RefusalCode) in DOCUMENT
    assert document.numbers(FailureCode) in DOCUMENT


def test_the_document_names_version_and_bounds() -> None:
    assert f"version {PROTOCOL}\n" in DOCUMENT
    assert f"{MAX_ENCODED:,}" in DOCUMENT


def test_a_field_of_an_unknown_type_is_said() -> None:
    with pytest.raises(TypeError, match="unknown type"):
        document.words(lambda value: value)
