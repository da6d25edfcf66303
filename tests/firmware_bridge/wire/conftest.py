"""One sample of every message, for the golden bytes and wherever a test needs a valid message."""

import pytest

from firmware_bridge.wire import messages as m

DIGEST = bytes(range(32))
OTHER = bytes(range(32, 64))

SAMPLES = {
    type(message).__name__: message
    for message in (
        m.Hello(1, 1, "firmware_bridge/0.1.0", ("resume",)),
        m.QueryBlobs(2, (DIGEST, OTHER)),
        m.BeginUpload(3, DIGEST, 12_000_000, OTHER, 61_200),
        m.BlobChunk(3, 17, False, b"\x00\x01\x02\xff"),
        m.Activate(4, DIGEST, b"signed"),
        m.Submit(5, "job-1", "inspect", {"seed": 7, "start": 25, "dtype": "uint8"}, 4096, 5, 60_000, 8192, OTHER, 10),
        m.JobPayload(5, 0, b"\x7f\x80"),
        m.Cancel(6, "job-1"),
        m.Taken("job-1"),
        m.IndexPart(3, 0, b"\x00\x10" + DIGEST),
        m.Confirm(6, DIGEST),
        m.ChangeRate(6, 3_000_000),
        m.HelloReply(
            1,
            1,
            "edge.device/0.1.0",
            (),
            "d3adbeef",
            "b007",
            "rpi5",
            {"kit": "0.1.0", "operators": 1},
            2,
            64,
            1 << 30,
            5_000_000_000,
            None,
        ),
        m.BlobsReply(2, (OTHER,)),
        m.UploadReady(3, 65536),
        m.BlobStored(3),
        m.ChunksWanted(3, 0, b"\x05", True),
        m.Done(5),
        m.Refused(4, int(m.RefusalCode.SELF_TEST), "golden output differs: 31.2 dB"),
        m.ActivationProgress(4, "verify", 3, 5),
        m.Activated(4, DIGEST),
        m.JobProgress("job-1", 3, 50, 81_000_000, 40, 4, 123_456_789, 0),
        m.JobPreview("job-1", 10, 50, 1, 2, 3, b"\x00\x40\x80\xc0\xff\x01"),
        m.JobResult("job-1", {"score": 0.25, "shape": [1, 64, 64], "map": True, "nanoseconds": [1, 2, 3]}, 32_768),
        m.ResultPayload("job-1", 8192, b"\x00\x00\x80\x3f"),
        m.JobFailure("job-1", int(m.FailureCode.ENGINE_DIED), "engine ended with signal 9"),
        m.DeviceLog("engine: ready"),
    )
}


@pytest.fixture(scope="session")
def samples() -> dict[str, m.Message]:
    return SAMPLES
