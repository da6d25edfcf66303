import json
import random
from pathlib import Path

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge import limits
from firmware_bridge.chunks import MAX_CHUNK
from firmware_bridge.errors import LocalProtocolError, RemoteProtocolError, UnknownMessage
from firmware_bridge.wire import fields
from firmware_bridge.wire import messages as m
from firmware_bridge.wire.messages import codec

DIGEST = bytes(range(32))
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def strategy(check: object) -> st.SearchStrategy[object]:  # noqa: PLR0911  one for each check
    """Values that a field's check allows."""
    match check:
        case fields.UInt(maximum, minimum):
            return st.integers(minimum, maximum)
        case fields.Flag():
            return st.booleans()
        case fields.Text(limit, pattern):
            text = st.from_regex(pattern, fullmatch=True) if pattern else st.text(st.characters(codec="utf-8"))
            return text.map(lambda value: value[:limit])
        case fields.Blob(limit, minimum):
            return st.binary(min_size=minimum, max_size=min(limit, 9000))
        case fields.Maybe(inner):
            return st.none() | strategy(inner)
        case fields.Many(inner, limit):
            return st.lists(strategy(inner), max_size=min(limit, 5)).map(tuple)
        case fields.Tree(depth):
            leaf = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))
            leaf |= st.integers(-(2**63), 2**63 - 1) | st.binary()
            value = leaf
            for _ in range(depth - 1):
                value = leaf | st.lists(value, max_size=3)
            return st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=20), value, max_size=4)
    raise AssertionError(check)


def any_message() -> st.SearchStrategy[m.Message]:
    return st.one_of(
        *(
            st.builds(kind, **{name: strategy(check) for name, check in codec.CHECKS[kind].items()})
            for kind in m.BY_CODE.values()
        )
    )


def test_every_message_has_a_sample_and_golden_bytes(samples: dict[str, m.Message]) -> None:
    assert {kind.__name__ for kind in m.BY_CODE.values()} == samples.keys() == GOLDEN.keys()


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_bytes(name: str, samples: dict[str, m.Message]) -> None:
    assert m.encode(samples[name]).hex() == GOLDEN[name]
    assert m.decode(bytes.fromhex(GOLDEN[name])) == samples[name]


def test_golden_bytes_by_hand() -> None:
    # map of 2: "m" -> 36, "request" -> 5
    assert m.encode(m.Done(5)) == b"\xa2" + b"\x61m" + b"\x18\x24" + b"\x67request" + b"\x05"
    # map of 3: "m" -> 8, "job_id" -> text, "request" -> 256; shorter keys first
    assert m.encode(m.Cancel(256, "j")) == b"\xa3\x61m\x08\x66job_id\x61j\x67request\x19\x01\x00"


def test_type_numbers_are_unique() -> None:
    kinds = codec.CLASSES
    assert len({kind.code for kind in kinds}) == len(kinds)


@given(any_message())
@settings(max_examples=400, deadline=None)
def test_what_is_encoded_is_decoded(message: m.Message) -> None:
    try:
        data = m.encode(message)
    except LocalProtocolError as error:
        assert "bytes are more" in str(error)  # noqa: PT017
        return
    assert m.decode(data) == message


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_any_bytes_parse_or_raise_the_remote_error(data: bytes) -> None:
    try:
        m.decode(data)
    except RemoteProtocolError:
        return


def test_damaged_messages_parse_or_raise_the_remote_error() -> None:
    chance = random.Random(5)
    encoded = [bytes.fromhex(text) for text in GOLDEN.values()]
    refused = 0
    for _ in range(20_000):
        data = bytearray(chance.choice(encoded))
        for _ in range(chance.randint(1, 3)):
            match chance.randrange(3):
                case 0:
                    data[chance.randrange(len(data))] = chance.randrange(256)
                case 1:
                    del data[chance.randrange(len(data)) :]
                case 2:
                    data.insert(chance.randrange(len(data) + 1), chance.randrange(256))
            data = data or bytearray(b"x")
        try:
            message = m.decode(bytes(data))
        except RemoteProtocolError:
            refused += 1
        else:
            assert m.encode(message) == bytes(data)  # what is accepted has exactly these bytes
    assert refused > 10_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xa0",
        cbor2.dumps([1, 2]),
        cbor2.dumps({"m": True, "request": 1}),
        cbor2.dumps({"m": 36}),
        cbor2.dumps({"m": 36, "request": 1, "more": 2}, canonical=True),
        cbor2.dumps({"m": 36, "request": -1}, canonical=True),
        cbor2.dumps({"m": 36, "request": 2**32}, canonical=True),
        cbor2.dumps({"m": 36, "request": 1.0}, canonical=True),
        cbor2.dumps({"m": 36, "request": True}, canonical=True),
        cbor2.dumps({"m": 8, "job_id": "../etc", "request": 1}, canonical=True),
        cbor2.dumps({"m": 8, "job_id": "", "request": 1}, canonical=True),
        cbor2.dumps({"m": 5, "request": 1, "bundle_id": DIGEST[:31]}, canonical=True),
        cbor2.dumps({"m": 36, "request": 1}, canonical=True) + b"\x00",  # trailing byte
        b"\xa2\x67request\x05\x61m\x18\x24",  # keys out of order
        b"\xa2\x61m\x19\x00\x24\x67request\x05",  # 36 in more bytes than it needs
        b"\xbf\x61m\x18\x24\x67request\x05\xff",  # map of indefinite length
        b"\xa2\x61m\x18\x24\x67request\xc2\x41\x05",  # tag: bignum
        b"\xc5\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x03",  # tag: bigfloat 3 * 2**(2**63)
        b"\xa1\x61m\xd8\x23\x64(a+)",  # tag: regular expression
        b"\x81" * 10_000,  # nesting
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",  # a map of 2**64 entries
        b"\xa1\x61m\x5b\x00\x00\xff\xff\xff\xff\xff\xff",  # a string of 2**48 bytes
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        m.decode(data)


def test_an_unknown_type_is_its_own_error() -> None:
    with pytest.raises(UnknownMessage) as caught:
        m.decode(cbor2.dumps({"m": 1000}))
    assert caught.value.code == 1000


@pytest.mark.parametrize(
    "message",
    [
        m.Done(-1),
        m.Done(2**32),
        m.Done(True),
        m.Cancel(1, "a b"),
        m.Cancel(1, "x" * 65),
        m.DeviceLog("x" * (limits.MAX_TEXT + 1)),
        m.DeviceLog("half a surrogate: \udc80"),
        m.BlobChunk(1, 0, False, b""),
        m.BlobChunk(1, 0, False, b"x" * limits.MAX_MESSAGE),
        m.BeginUpload(1, DIGEST, 0, DIGEST, 34),
        m.QueryBlobs(1, (DIGEST,) * (limits.MAX_QUERY + 1)),
        m.Submit(1, "j", "echo", {"a": [1]}, 0),
        m.Submit(1, "j", "echo", {"a": object()}, 0),
        m.Submit(1, "j", "echo", {"a": 2**63}, 0),
        m.Submit(1, "j", "echo", {str(n): n for n in range(limits.MAX_PARAMS + 1)}, 0),
        m.JobResult("j", {"deep": [[[[1]]]]}, 0),
        m.JobResult("j", {"long": list(range(limits.MAX_ITEMS + 1))}, 0),
        m.JobResult("j", {"large": [2**40] * 4000}, 0),
    ],
)
def test_what_the_protocol_does_not_allow_is_not_encoded(message: m.Message) -> None:
    with pytest.raises(LocalProtocolError):
        m.encode(message)


def test_a_thousand_steps_of_nanoseconds_fit_in_a_result() -> None:
    meta = {"nanoseconds": [2**40 + n for n in range(1000)], "score": 0.5, "shape": [3, 256, 256]}
    assert m.decode(m.encode(m.JobResult("j", meta, 0))).meta == meta


def test_a_chunk_of_the_chosen_size_fits() -> None:
    assert len(m.encode(m.JobPayload(2**32 - 1, limits.MAX_PAYLOAD, bytes(limits.CHUNK)))) <= limits.CHUNK + 64
    assert len(m.encode(m.BlobChunk(2**32 - 1, 2**32 - 1, False, bytes(MAX_CHUNK)))) <= limits.MAX_MESSAGE
    assert len(m.encode(m.ResultPayload("x" * 64, limits.MAX_PAYLOAD, bytes(limits.CHUNK)))) <= limits.MAX_MESSAGE


def test_a_message_that_is_too_long_is_not_even_looked_at() -> None:
    with pytest.raises(RemoteProtocolError, match="is over"):
        m.decode(bytes(limits.MAX_MESSAGE + 1))
