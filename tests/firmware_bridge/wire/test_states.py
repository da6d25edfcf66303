from pathlib import Path

import firmware_bridge
from firmware_bridge.wire.packet import Kind
from firmware_bridge.wire.states import TRANSITIONS, Action, Input, Role, State, after, classify, table


def test_the_document_prints_this_table() -> None:
    document = (Path(firmware_bridge.__file__).parent / "PROTOCOL.md").read_text()
    assert table() in document


def test_states_that_a_role_does_not_have_are_never_reached() -> None:
    assert not any(
        role is Role.DEVICE and State.OPENING in (state, target)
        for (role, state, _), (target, _) in TRANSITIONS.items()
    )
    states = {
        each for (role, state, _), (target, _) in TRANSITIONS.items() if role is Role.DEVICE for each in (state, target)
    }
    assert State.OPENING not in states
    reached = {(role, target) for (role, _, _), (target, _) in TRANSITIONS.items()}
    assert {(Role.HOST, State.OPEN), (Role.HOST, State.IDLE), (Role.DEVICE, State.OPEN)} <= reached


def test_what_the_table_does_not_name_changes_nothing() -> None:
    for role in Role:
        for state in State:
            for what in Input:
                if (role, state, what) not in TRANSITIONS:
                    assert after(role, state, what) == (state, Action.IGNORE)


def test_every_action_is_used_and_noise_never_is() -> None:
    assert {action for _, action in TRANSITIONS.values()} | {Action.IGNORE} == set(Action)
    assert not any(what is Input.NOISE for _, _, what in TRANSITIONS)


def test_what_a_packet_is() -> None:
    ours, theirs, offered = 5 << 32 | 1, 6 << 32 | 1, 7 << 32 | 2
    for kind in Kind:
        traffic = kind in {Kind.DATA, Kind.ACK, Kind.PING}
        host = classify(Role.HOST, kind, ours, ours, None)
        device = classify(Role.DEVICE, kind, ours, ours, offered)
        ends = {Kind.RESET: Input.RESET, Kind.CLOSE: Input.CLOSE}
        assert host is {Kind.ACCEPT: Input.ACCEPT, Kind.OPEN: Input.NOISE, **ends}.get(kind, Input.TRAFFIC)
        assert device is {Kind.ACCEPT: Input.NOISE, Kind.OPEN: Input.OPEN, **ends}.get(kind, Input.TRAFFIC)
        assert classify(Role.HOST, kind, theirs, ours, None) is (Input.STRANGE if traffic else Input.NOISE)
        first = classify(Role.DEVICE, kind, offered, ours, offered)
        assert (first is Input.FIRST) == (traffic or kind is Kind.CLOSE)
