"""The states of a session and every transition between them, as one table.

`session.py` looks up what a packet means here and does it; PROTOCOL.md prints the same table, and a test compares.
What the table does not name is ignored and counted.
"""

from __future__ import annotations

import enum
from typing import Final

from firmware_bridge.wire.packet import Kind


class Role(enum.Enum):
    """Who opens."""

    HOST = "host"
    DEVICE = "device"


class State(enum.Enum):
    """Where a session stands."""

    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"


class Ending(enum.Enum):
    """Why a session is over."""

    CLOSED = "the other end closed the session"
    REPLACED = "a new host session replaced it"
    RESET = "the device has restarted"
    TIMEOUT = "packets are not acknowledged any more"
    SILENT = "the other end does not answer any more"
    UNANSWERED = "nobody answers"
    VERSION = "the other end speaks another version of the protocol"
    VIOLATION = "the other end broke the protocol"
    UNTRUSTED = "one of the two ends has not proved who it is"
    LINK = "the link is gone"


class Input(enum.Enum):
    """What a packet is, seen from this end: its kind, and whose session it names."""

    OPEN = "OPEN"
    ACCEPT = "ACCEPT of this opening"
    FIRST = "any packet of the session offered"
    TRAFFIC = "DATA, ACK, PING of this session"
    RESET = "RESET of this session"
    CLOSE = "CLOSE of this session"
    STRANGE = "DATA, ACK, PING of another session"
    OTHER_OPEN = "OPEN of another version"
    OTHER_VERSION = "another packet of another version"
    NOISE = "anything else"


class Action(enum.Enum):
    """What the session does about it."""

    OFFER = "answer ACCEPT, with the same session for the same opening"
    ADOPT = "Lost(REPLACED) if there was a session; Opened; then take the packet"
    BEGIN = "Opened; acknowledge at once"
    CONFIRM = "acknowledge again"
    TAKE = "take data and acknowledgement, answer a PING"
    END_RESET = "Lost(RESET)"
    END_CLOSED = "Lost(CLOSED)"
    END_VERSION = "Lost(VERSION)"
    SAY_RESET = "answer RESET with the packet's session"
    SAY_VERSION = "answer RESET, whose first byte tells the device's version"
    IGNORE = "count it"


TRANSITIONS: Final[dict[tuple[Role, State, Input], tuple[State, Action]]] = {
    (Role.HOST, State.OPENING, Input.ACCEPT): (State.OPEN, Action.BEGIN),
    (Role.HOST, State.OPENING, Input.OTHER_OPEN): (State.IDLE, Action.END_VERSION),
    (Role.HOST, State.OPENING, Input.OTHER_VERSION): (State.IDLE, Action.END_VERSION),
    (Role.HOST, State.OPEN, Input.ACCEPT): (State.OPEN, Action.CONFIRM),
    (Role.HOST, State.OPEN, Input.TRAFFIC): (State.OPEN, Action.TAKE),
    (Role.HOST, State.OPEN, Input.RESET): (State.IDLE, Action.END_RESET),
    (Role.HOST, State.OPEN, Input.CLOSE): (State.IDLE, Action.END_CLOSED),
    (Role.DEVICE, State.IDLE, Input.OPEN): (State.IDLE, Action.OFFER),
    (Role.DEVICE, State.IDLE, Input.FIRST): (State.OPEN, Action.ADOPT),
    (Role.DEVICE, State.IDLE, Input.STRANGE): (State.IDLE, Action.SAY_RESET),
    (Role.DEVICE, State.IDLE, Input.OTHER_OPEN): (State.IDLE, Action.SAY_VERSION),
    (Role.DEVICE, State.OPEN, Input.OPEN): (State.OPEN, Action.OFFER),
    (Role.DEVICE, State.OPEN, Input.FIRST): (State.OPEN, Action.ADOPT),
    (Role.DEVICE, State.OPEN, Input.TRAFFIC): (State.OPEN, Action.TAKE),
    (Role.DEVICE, State.OPEN, Input.CLOSE): (State.IDLE, Action.END_CLOSED),
    (Role.DEVICE, State.OPEN, Input.STRANGE): (State.OPEN, Action.SAY_RESET),
    (Role.DEVICE, State.OPEN, Input.OTHER_OPEN): (State.OPEN, Action.SAY_VERSION),
}

_TRAFFIC: Final = frozenset({Kind.DATA, Kind.ACK, Kind.PING})


def classify(role: Role, kind: Kind, named: int, ours: int, offered: int | None) -> Input:
    """What a packet of this version is.

    Args:
        role: of this end.
        kind: of the packet.
        named: the session in the packet.
        ours: this end's session; while a host opens one, its own epoch in the upper half.
        offered: device: the session offered and not yet used.
    """
    if role is Role.HOST:
        if kind is Kind.ACCEPT and named >> 32 == ours >> 32:
            return Input.ACCEPT
    elif kind is Kind.OPEN:
        return Input.OPEN
    elif named == offered and kind in _TRAFFIC | {Kind.CLOSE}:
        return Input.FIRST
    if named == ours:
        if kind in _TRAFFIC:
            return Input.TRAFFIC
        return {Kind.RESET: Input.RESET, Kind.CLOSE: Input.CLOSE}.get(kind, Input.NOISE)
    return Input.STRANGE if kind in _TRAFFIC else Input.NOISE


def after(role: Role, state: State, what: Input) -> tuple[State, Action]:
    """The next state, and what to do."""
    return TRANSITIONS.get((role, state, what), (state, Action.IGNORE))


def table() -> str:
    """The transitions as PROTOCOL.md prints them."""
    rows = [
        f"| {role.value} {state.value} | {what.value} | {target.value} | {action.value} |"
        for (role, state, what), (target, action) in TRANSITIONS.items()
    ]
    return "\n".join(["| state | packet | next | does |", "|---|---|---|---|", *rows])
