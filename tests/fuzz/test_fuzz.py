import subprocess
import sys
from pathlib import Path

import pytest

from firmware_bridge.testing import fuzzing
from firmware_bridge.wire import frame, messages

CORPUS = Path(__file__).parent / "corpus"


def test_the_corpus_and_what_grows_out_of_it_break_nothing() -> None:
    inputs = fuzzing.corpus(CORPUS)
    assert len(inputs) > 40
    for data in inputs:
        fuzzing.check(data)
    for data in fuzzing.mutations(inputs, 3000, seed=5):
        fuzzing.check(data)


def test_a_parser_that_lets_another_error_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(data: bytes) -> messages.Message:
        raise KeyError(data)

    monkeypatch.setattr(messages, "decode", careless)
    with pytest.raises(KeyError):
        fuzzing.check(b"\0")


def test_a_decoder_that_depends_on_the_cuts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = frame.FrameDecoder.feed
    monkeypatch.setattr(frame.FrameDecoder, "feed", lambda self, data: whole(self, data) if len(data) > 1 else [])
    with pytest.raises(fuzzing.Broken, match="byte by byte"):
        fuzzing.check(frame.encode(b"packet"))


def test_the_fuzzer_runs_guided_by_coverage() -> None:
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "firmware_bridge.testing", "fuzz", "--runs", "2000", "--corpus", str(CORPUS)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Done" in run.stderr
