"""The engine as a child process: starts it, talks its pipe protocol, notices when it dies.

One request at a time, from one thread. Every wait has a limit; an engine that misses it is killed.
After ``EngineDied`` the object is finished: start a new one (``edge.device.scheduler`` does, at the next job).

Frames both ways: u32 payload length, u8 kind, u8 slot, u16 zero, then the payload; little endian.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import select
import signal
import struct
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Self

from edge.device.engine import EngineInfo, EngineResult, ImageType, StepReport
from edge.device.errors import EngineDied, EngineRefused

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_HEADER = struct.Struct("<IBBH")
_BEGIN = struct.Struct("<QIBBH")
_STEP = struct.Struct("<IIQQQQQ")
_RESULT = struct.Struct("<BB2xff")
_MEMORY = struct.Struct("<QQ")
_ERROR = struct.Struct("<I")
PAYLOAD_LIMIT = 64 * 2**20
_ERROR_KIND = 0xFF
_REPLY_BIT = 0x80
_STARTUP = {
    3: "the program cannot be read or does not fit this engine",
    4: "an operator is missing",
    5: "out of memory",
}
_LOG_LINES = 20
_LINE_LIMIT = 400
_CHATTER = re.compile(r"[DI] \d\d:\d\d:\d\d\.\d+ executorch:")  # the runtime's own debug and information lines


class Kind(IntEnum):
    """Requests; the reply has the same number with the top bit set."""

    INFO = 0x01
    BEGIN = 0x02
    STEP = 0x03
    RESULT = 0x04
    SNAPSHOT = 0x05
    RESTORE = 0x06
    RELEASE = 0x07
    MEMORY = 0x08
    LOOK = 0x09


@dataclass(frozen=True)
class EngineCommand:
    """How to start an engine.

    Args:
        executable: the ``modiff-engine`` of a bundle.
        program: the bundle's ``program.pte``.
        program_id: 64 hex digits, the program's SHA-256; snapshots carry it.
        slots: how many jobs may hold state at once.
        state_budget: bytes that all slots' states may take together.
        prefix: words put before the command, such as an emulator's.
        isa: which kernels to use; "auto" lets the engine look at its CPU.
        threads: that share the kernels; no result depends on them.
        memory_limit: bytes of private memory after which allocations fail (RLIMIT_DATA), or None.
    """

    executable: Path
    program: Path
    program_id: str
    slots: int
    state_budget: int
    prefix: tuple[str, ...] = ()
    isa: str = "auto"
    threads: int = 1
    memory_limit: int | None = None

    def words(self) -> list[str]:
        """The command line."""
        options = {
            "--program": self.program,
            "--program-id": self.program_id,
            "--slots": self.slots,
            "--state-budget": self.state_budget,
            "--isa": self.isa,
            "--threads": self.threads,
        }
        return [*self.prefix, str(self.executable), *(str(word) for pair in options.items() for word in pair)]


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait. Long, because an emulated board is a hundred times slower than a real one."""

    start: float = 120.0
    step: float = 600.0
    other: float = 120.0
    stop: float = 5.0


class EngineProcess:
    """A running engine, an ``edge.device.engine.Engine``. Use as a context manager, or call ``close``.

    Raises:
        EngineDied: from any method: the process ended or did not answer in time.
        EngineRefused: from any request: the engine is well but says no.
    """

    def __init__(self, command: EngineCommand, timeouts: Timeouts | None = None) -> None:
        self._timeouts = timeouts or Timeouts()
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._process = _spawn(command)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = self._process.stdin.fileno()
        self._from = self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._reader = threading.Thread(target=self._read_log, name="engine log", daemon=True)
        self._reader.start()
        try:
            self.info = _info(self._ask(Kind.INFO, timeout=self._timeouts.start))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id (the emulator's, where there is one)."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def begin(  # noqa: PLR0917 - a job
        self,
        slot: int,
        seed: int,
        start: int,
        image: bytes | None,
        kind: ImageType = ImageType.FLOAT32,
        conditions: bytes = b"",
    ) -> None:
        """Reset ``slot`` and put a job into it.

        Args:
            slot: where.
            seed: of its noise.
            start: its first sampler step.
            image: [C,H,W] to inspect, or None to generate.
            kind: the image's element type.
            conditions: the program's further inputs, one after the other, ``info.condition_bytes`` in all.
        """
        head = _BEGIN.pack(seed, start, image is not None, kind, 0)
        self._ask(Kind.BEGIN, slot, head + (image or b"") + conditions)

    @property
    def log(self) -> tuple[str, ...]:
        """The last lines that the engine wrote on stderr, all of them once it is closed."""
        return tuple(self._lines)

    def step(self, slot: int) -> StepReport:
        """Run one sampler step of the job in ``slot``."""
        return StepReport(*self._fields(_STEP, self._ask(Kind.STEP, slot, timeout=self._timeouts.step)))

    def result(self, slot: int) -> EngineResult:
        """The finished job's output; ``slot`` keeps it until released or begun anew."""
        reply = self._ask(Kind.RESULT, slot)
        channels, height, width = self.info.shape
        image_size, map_size = 4 * channels * height * width, 4 * height * width
        has_map, has_novelty, score, novelty = self._fields(_RESULT, reply[: _RESULT.size])
        body = reply[_RESULT.size :]
        if len(body) != image_size + (map_size if has_map else 0):
            raise self._end(f"it sent a result of {len(body)} bytes for an image of {image_size}")
        return EngineResult(
            body[:image_size], body[image_size:], score if has_map else None, novelty if has_novelty else None
        )

    def look(self, slot: int) -> bytes:
        """The job's image as it stands, float32 LE [C,H,W]. EngineRefused also by engines that cannot (error 1)."""
        image = self._ask(Kind.LOOK, slot)
        channels, height, width = self.info.shape
        if len(image) != 4 * channels * height * width:
            raise self._end(f"it showed an image of {len(image)} bytes")
        return image

    def snapshot(self, slot: int) -> bytes:
        """The whole state of ``slot``, checksummed, for ``restore`` in an engine with the same program."""
        return self._ask(Kind.SNAPSHOT, slot)

    def restore(self, slot: int, blob: bytes) -> None:
        """Put a snapshot into ``slot``."""
        self._ask(Kind.RESTORE, slot, blob)

    def release(self, slot: int) -> None:
        """Free the state of ``slot``."""
        self._ask(Kind.RELEASE, slot)

    def memory(self) -> tuple[int, int]:
        """(peak resident set, state in use), in bytes."""
        peak, in_use = self._fields(_MEMORY, self._ask(Kind.MEMORY))
        return peak, in_use

    def close(self) -> None:
        """End the process: politely by closing its input, then by force. Never raises."""
        process = self._process
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        try:
            process.wait(self._timeouts.stop)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(self._timeouts.stop)
        if process.stdout is not None:
            process.stdout.close()

    def _ask(self, kind: Kind, slot: int = 0, payload: bytes = b"", timeout: float | None = None) -> bytes:
        """Send a request, return the reply's payload."""
        if len(payload) > PAYLOAD_LIMIT:
            raise EngineRefused(1, f"{len(payload)} bytes are more than a frame takes")
        deadline = time.monotonic() + (timeout or self._timeouts.other)
        self._send(_HEADER.pack(len(payload), kind, slot, 0) + payload, kind, deadline)
        length, reply, reply_slot, _ = _HEADER.unpack(self._receive(_HEADER.size, kind, deadline))
        if length > PAYLOAD_LIMIT:
            raise self._end(f"it sent a frame of {length} bytes")
        body = self._receive(length, kind, deadline)
        if reply == _ERROR_KIND and length >= _ERROR.size:
            (code,) = _ERROR.unpack_from(body)
            raise EngineRefused(code, body[_ERROR.size :].decode(errors="replace"))
        if reply != kind | _REPLY_BIT or reply_slot != slot:
            raise self._end(f"it answered {kind.name} of slot {slot} with 0x{reply:02x} of slot {reply_slot}")
        return body

    def _send(self, data: bytes, kind: Kind, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._to, kind, deadline, for_writing=True)
            try:
                view = view[os.write(self._to, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._dead() from None

    def _receive(self, count: int, kind: Kind, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            self._wait(self._from, kind, deadline)
            chunk = os.read(self._from, min(count - len(data), 2**20))
            if not chunk:
                raise self._dead()
            data += chunk
        return bytes(data)

    def _wait(self, fd: int, kind: Kind, deadline: float, *, for_writing: bool = False) -> None:
        left = max(0.0, deadline - time.monotonic())
        fds = [fd]
        ready = select.select([] if for_writing else fds, fds if for_writing else [], [], left)
        if not any(ready):
            raise self._end(f"it did not answer {kind.name} in time")

    def _fields(self, layout: struct.Struct, body: bytes) -> tuple[Any, ...]:
        if len(body) != layout.size:
            raise self._end(f"it sent {len(body)} bytes where {layout.size} belong")
        return layout.unpack(body)

    def _end(self, what: str) -> EngineDied:
        """Kill an engine that no longer makes sense."""
        self._process.kill()
        self._process.wait()
        self._reader.join(self._timeouts.stop)
        return EngineDied(f"{what}, and was killed", log=tuple(self._lines), returncode=self._process.returncode)

    def _dead(self) -> EngineDied:
        """What to raise after the pipe broke."""
        try:
            code = self._process.wait(self._timeouts.stop)
        except subprocess.TimeoutExpired:
            return self._end("it closed its pipe")
        self._reader.join(self._timeouts.stop)
        return EngineDied(_how_it_ended(code), log=tuple(self._lines), returncode=code)

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while line := stream.readline(_LINE_LIMIT):
                text = "".join(c if c.isprintable() else " " for c in line.decode(errors="replace")).strip()
                if _CHATTER.match(text):
                    log.debug("engine says: %s", text)
                elif text:
                    self._lines.append(text)
                    log.info("engine says: %s", text)


def _spawn(command: EngineCommand) -> subprocess.Popen[bytes]:
    words = command.words()
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
    except OSError as error:
        raise EngineDied(f"it cannot be started: {error.strerror}: {words[0]}") from error
    if command.memory_limit is not None:
        # After the start, not between fork and exec, which is unsafe beside threads. Nothing large is allocated
        # before the first request, and the limit counts what is held already.
        try:
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (command.memory_limit, command.memory_limit))
        except ProcessLookupError:
            log.debug("the engine ended before its memory limit was set")
    return process


def _info(body: bytes) -> EngineInfo:
    try:
        fields = json.loads(body)
        return EngineInfo(**{name: fields[name] for name in EngineInfo.__dataclass_fields__})
    except (ValueError, KeyError, TypeError) as error:
        raise EngineDied(f"its INFO makes no sense: {error!r}") from error


def _how_it_ended(code: int) -> str:
    if code in _STARTUP:
        return f"it ended with status {code}: {_STARTUP[code]}"
    if code >= 0:
        return f"it ended with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", perhaps out of memory" if -code in (signal.SIGKILL, signal.SIGABRT) else ""
    return f"it was ended by {name}{hint}"
