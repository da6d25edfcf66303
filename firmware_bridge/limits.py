"""Every bound of the bridge, in one place, with its reason. Nothing here grows with what the peer sends."""

from __future__ import annotations

from typing import Final

CHUNK: Final = 8 * 1024
"""Bytes of data in one chunk message, and of the stream in one DATA packet: 0.8% overhead, and at 115200 baud still
under a second of line time."""

MIN_FRAME: Final = 96
"""Bytes of the stream in one DATA packet on the worst of lines: with its 30 bytes of overhead, one in ten arrives whole
at an error in 500 bits."""

MAX_RANGES: Final = 32
"""Ranges in one acknowledgement: 128 bytes, about the length of the frames that a line with so many gaps carries."""

MAX_PACKET: Final = CHUNK + 192
"""Bytes of one packet (what a frame carries, before COBS and CRC): a DATA packet with all ranges."""

MAX_MESSAGE: Final = 16 * 1024 - 64
"""Bytes of one encoded message, which may take several packets."""

WINDOW: Final = 48 * 1024
"""Bytes in flight in one direction: 160 ms of a 3 Mbaud line, many times its turnaround. With the frame that is being
read it is all that a receiver holds: under 64 KiB."""

MAX_RETRANSMISSIONS: Final = 16
"""Timeouts of one packet in a row before the link counts as lost: about 25 s with back-off."""

OPEN_ATTEMPTS: Final = 20
"""Openings sent before the host gives up: 10 s at the initial timeout, a supervisor's start on a slow board."""

INITIAL_TIMEOUT: Final = 0.5
"""Seconds until the first retransmission before a round trip was measured."""

MIN_TIMEOUT: Final = 0.1
"""Seconds: below it the scheduler's jitter on a small board looks like loss."""

MAX_TIMEOUT: Final = 2.0
"""Seconds between two attempts at most, so that a healed line is noticed soon."""

KEEPALIVE: Final = 2.0
"""Seconds of silence after which the host asks whether the device is still there."""

HURRY: Final = 0.2
"""Seconds between two questions of an end that wants to know at once whether the other one is there."""

UNANSWERED_PINGS: Final = 10
"""Questions in a row without any answer, 20 s of them, after which the link is lost. Counted, not timed: a
suspended host must not lose its devices."""

OUTBOX: Final = 32
"""Messages that wait behind the window at either end; a producer that finds it full waits (backpressure)."""

HANDSHAKE: Final = 32 * 1024
"""Bytes of one end's part of a TLS handshake: a certificate and those of its authorities, several times over."""

READ_SIZE: Final = 16 * 1024
"""Bytes taken from a link at once: what a pty holds."""

MAX_REQUEST: Final = 2**32 - 1
"""Request numbers are u32."""

MAX_COUNT: Final = 2**63 - 1
"""Counters (nanoseconds, MACs, bytes): what SQLite and every language hold in a signed 64-bit integer."""

MIN_BAUD: Final = 1200
"""Bits a second: slower, a single frame outlasts every timeout."""

MAX_BAUD: Final = 16_000_000
"""Bits a second: no UART goes faster."""

MAX_BLOB: Final = 2**31 - 1
"""Bytes of one blob: more does not fit any board's memory."""

MAX_RELEASE: Final = 4096
"""Bytes of the signed statement that goes with an activation."""

MAX_PAYLOAD: Final = 64 * 1024 * 1024
"""Bytes of a job's payload or result, as the engine's pipe frame."""

PREVIEW_SIDE: Final = 64
"""Pixels of a preview's longer side: what the eye needs to see that a job goes wrong, and with three channels one
message."""

PREVIEW_CHANNELS: Final = 3
"""Planes of a preview; what a latent has beyond them is left out."""

PREVIEW_SECONDS: Final = 0.5
"""Between two previews of one job at least, and only while half of the outbox is free: results go first."""

MAX_QUERY: Final = 256
"""Digests asked about at once: 8.5 KiB, one message."""

MAX_JOBS: Final = 64
"""Jobs in flight from one host on one device; a device has a handful of slots and a short queue."""

MAX_TEXT: Final = 2048
"""Characters of an error message or a line of the device's log."""

MAX_NAME: Final = 128
"""Characters of a name: board, agent, capability, stage, key."""

MAX_CAPABILITIES: Final = 64
"""Capabilities and version entries in a hello."""

MAX_PARAMS: Final = 64
"""Entries in a job's parameters."""

MAX_META: Final = 12 * 1024
"""Encoded bytes of a result's meta: 1,000 steps' nanoseconds at 9 bytes each, and the rest."""

MAX_DEPTH: Final = 4
"""Nesting of a result's meta."""

MAX_ITEMS: Final = 4096
"""Entries of one list or map inside a result's meta."""

CONSOLE: Final = 64 * 1024
"""Characters of the device's console text kept on the host; the oldest goes first."""

REPLY_TIMEOUT: Final = 30.0
"""Seconds the host waits for the reply to an ordinary request."""

ACTIVATION_TIMEOUT: Final = 600.0
"""Seconds the host waits for the next sign of an activation: the self-test runs the engine, under emulation too."""

UPLOAD_TIMEOUT: Final = 60.0
"""Seconds an upload may stand still."""

QUIET: Final = 0.5
"""Seconds without a byte after which an unfinished frame is not coming any more: it was text, or was cut off."""

BACKLOG: Final = 4
"""Messages that the host's client lets wait behind the window: enough to keep the line busy, few enough that progress
shown is progress made."""

PROGRESS_KEPT: Final = 4096
"""Job events kept for a caller who does not ask; then the oldest progress goes, never a result or a failure."""

RECONNECTIONS: Final = 5
"""New sessions that one operation may need before it gives up."""

FAREWELL: Final = 1.0
"""Seconds that closing may take to send what is left."""

LOG_KEPT: Final = 256
"""Lines of the device's log kept for a caller who does not ask; the oldest go first."""
