"""Instructions that a program executes on an emulated ARM core, by class, counted by our own QEMU plugin.

``count`` runs a command under ``qemu-aarch64`` with ``plugin/count.c`` (how it counts is written there). The numbers
are exact and repeatable for one thread: no clock is involved, so a busy machine does not change them.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from boards.errors import ExitCode, KitError
from edge.cache import cache_folder, sources_key

PLUGIN = Path(__file__).parent / "plugin"
SYSROOT = "/usr/aarch64-linux-gnu"  # Debian: libc6-arm64-cross
X86 = "x86_64"
"""In place of a core's name: this machine's architecture, emulated. Its instructions are counted, not classified."""
MAC_CLASSES = ("sdot", "smmla", "smull", "fmla", "fmla16")


class BenchError(KitError):
    """A measurement cannot be made on this machine."""

    exit_code = ExitCode.TOOLCHAIN


class Counts(dict[str, int]):
    """Instructions by class; the classes are named in ``plugin/a64.h``."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.values())

    def __sub__(self, other: Mapping[str, int]) -> Counts:
        return Counts({name: count - other.get(name, 0) for name, count in self.items()})

    def plus(self, other: Mapping[str, int], times: int = 1) -> Counts:
        """This, and ``other`` so many times."""
        names = dict.fromkeys([*self, *other])
        return Counts({name: self.get(name, 0) + times * other.get(name, 0) for name in names})

    def divided(self, by: int) -> Counts:
        """An equal share of each class, rounded down."""
        return Counts({name: count // by for name, count in self.items()})


@dataclass(frozen=True)
class Block:
    """A translated block that ran.

    Attributes:
        path: the file that it was mapped from, "?" for none.
        offset: of its first instruction in that file, in bytes.
        ran: how often.
        each: instructions of each class in it.
    """

    path: str
    offset: int
    ran: int
    each: Counts

    @property
    def executed(self) -> Counts:
        """Instructions that it executed in all."""
        return Counts({name: count * self.ran for name, count in self.each.items()})


@dataclass(frozen=True)
class Mark:
    """An instruction to take stock at, each time it runs: ``offset`` in the file whose path ends in ``name``."""

    name: str
    offset: int

    def __str__(self) -> str:
        return f"{self.name}:{self.offset:x}"


@dataclass(frozen=True)
class Recording:
    """What one run executed: in all, up to each mark, and by block."""

    total: Counts
    marks: tuple[Counts, ...] = ()
    blocks: tuple[Block, ...] = field(default=(), repr=False)

    def stretches(self) -> list[Counts]:
        """Instructions from each mark to the next; from the last one to the end."""
        ends = [*self.marks[1:], self.total]
        return [end - start for start, end in zip(self.marks, ends, strict=True)]


def build_plugin() -> Path:
    """The plugin's shared library, from the cache when its sources have not changed.

    Raises:
        BenchError: no C compiler, or it refuses the source.
    """
    library = cache_folder() / "bench" / f"count-{sources_key(PLUGIN.glob('*.[ch]'))}.so"
    if library.is_file():
        return library
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BenchError("no C compiler", mend="sudo apt install gcc")
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        fresh = Path(scratch) / library.name
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
        command = [compiler, *flags, "-o", str(fresh), str(PLUGIN / "count.c")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            raise BenchError(f"the plugin does not compile:\n{done.stderr}", where=str(PLUGIN))
        fresh.rename(library)
    return library


class Counter:
    """One counted run: start the program with ``prefix`` before its command, then ``read`` what it executed."""

    def __init__(self, cpu: str, output: Path, mark: Mark | None = None) -> None:
        emulator = ("qemu-x86_64", "-cpu", "max") if cpu == X86 else ("qemu-aarch64", "-cpu", cpu, "-L", SYSROOT)
        if shutil.which(emulator[0]) is None:
            raise BenchError(f"{emulator[0]} is not installed", mend="sudo apt install qemu-user")
        self._output = output
        marked = f",mark={mark}" if mark else ""
        plugin = f"{build_plugin()},out={output}{marked}"
        self.prefix = (*emulator, "-plugin", plugin)

    def read(self) -> Recording:
        """What the run that has ended executed.

        Raises:
            BenchError: it did not end by itself, so nothing was written.
        """
        text = self._output.read_text(encoding="utf-8") if self._output.is_file() else ""
        return parse(text, str(self._output))


@contextlib.contextmanager
def counter(cpu: str = "cortex-a76", mark: Mark | None = None) -> Iterator[Counter]:
    """A ``Counter`` with a scratch file of its own.

    Args:
        cpu: the core to emulate, as QEMU names it.
        mark: where to take stock.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        yield Counter(cpu, Path(scratch) / "counts.txt", mark)


def count(
    command: list[str],
    *,
    cpu: str = "cortex-a76",
    mark: Mark | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 1800,
) -> Recording:
    """Run an aarch64 program to its end and say what it executed.

    Args:
        command: the program and its arguments.
        cpu: the core to emulate, as QEMU names it.
        mark: where to take stock.
        environment: variables of the program.
        timeout: seconds.

    Raises:
        BenchError: the program fails, or the emulator is missing.
    """
    with counter(cpu, mark) as counted:
        variables = [word for name, value in (environment or {}).items() for word in ("-E", f"{name}={value}")]
        words = [*counted.prefix, *variables, *command]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout)
        if done.returncode != 0:
            raise BenchError(f"status {done.returncode}: {done.stderr.strip()[-500:]}", where=command[0])
        return counted.read()


def parse(text: str, where: str) -> Recording:
    """Read the plugin's output.

    Raises:
        BenchError: it is incomplete.
    """
    classes: list[str] = []
    marks: list[Counts] = []
    blocks: list[Block] = []
    total: Counts | None = None
    for line in text.splitlines():
        kind, *words = line.split(" ")
        if kind == "classes":
            classes = words
        elif kind == "mark":
            marks.append(_counts(classes, words))
        elif kind == "block":
            path, offset, ran, *each = words
            blocks.append(Block(path, int(offset, 16), int(ran), _counts(classes, each)))
        elif kind == "total":
            total = _counts(classes, words)
    if total is None:
        raise BenchError("the plugin wrote no total: the program was killed", where=where)
    return Recording(total, tuple(marks), tuple(blocks))


def _counts(classes: list[str], words: list[str]) -> Counts:
    return Counts(dict(zip(classes, map(int, words), strict=True)))
