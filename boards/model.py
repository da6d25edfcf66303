"""The typed, frozen description of a board. A TOML file has exactly these keys, under these names.

A key that ends in ``_bytes`` may be written as an integer or as text with a binary unit
("512 MiB"). ``boards.schema`` turns a table into these classes and explains what does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from boards.schema import Between, Pattern, Range, Size

Arch = Literal["aarch64", "x86_64", "native"]
Isa = Literal["neon", "dotprod", "fp16", "i8mm", "atomics", "crc32", "avx2", "avx512vnni"]
LinkKind = Literal["uart", "usb"]

Name = Annotated[str, Pattern(r"[a-z0-9][a-z0-9_-]{0,31}", "lower-case letters, digits, '-' and '_'")]
Text = Annotated[str, Pattern(r"[^\x00-\x1f]{1,120}", "1 to 120 printable characters")]
Rate = Annotated[float, Between(0, 1e9)]
UsbNumber = Annotated[int, Range(0, 0xFFFF)]


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor.

    ``core`` is the name compilers and emulators use (``-mcpu=``, ``-cpu``). ``arch = "native"`` is written only in
    files: the loader puts the machine's own architecture in its place, and its features into ``isa``.
    """

    core: Name
    arch: Arch
    cores: Annotated[int, Range(1, 1024)]
    clock_hz: Annotated[int, Range(1_000_000, 10_000_000_000)]
    isa: tuple[Isa, ...] = ()

    def has(self, feature: Isa) -> bool:
        """Whether kernels that need ``feature`` may run here."""
        return feature in self.isa


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory, in bytes and bytes a second.

    ``budget_bytes`` is what program, activations and states of all slots may take together; ``state_budget_bytes``
    is the part of it that the states of the slots may take. ``bandwidth_bytes_per_s`` is a measured copy rate.
    """

    total_bytes: Annotated[int, Size()]
    budget_bytes: Annotated[int, Size()]
    state_budget_bytes: Annotated[int, Size()]
    bandwidth_bytes_per_s: Annotated[int, Range(1, 10**13)]


@dataclass(frozen=True, slots=True)
class UsbId:
    """A USB device that the board, or the adapter on its UART, appears as on the host."""

    vendor: UsbNumber
    product: UsbNumber
    title: Text


@dataclass(frozen=True, slots=True)
class Link:
    """The line between host and board; ``usb_ids`` lets ``--port auto`` find it."""

    kind: LinkKind
    baud: Annotated[int, Range(9_600, 12_000_000)]
    usb_ids: tuple[UsbId, ...] = ()


@dataclass(frozen=True, slots=True)
class Storage:
    """What the kit may keep on the board's disk or card: bundles, uploads and the journal, in bytes."""

    budget_bytes: Annotated[int, Size()]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a modulated layer costs with the board's kernels, in executed instructions (of any class).

    ``python -m tests.bench fit`` measures layers of many shapes under emulation and fits the five numbers:
    ``per_mac``, ``per_input`` and ``per_prologue`` count once a pass, ``per_output`` and ``per_call`` once a step.
    """

    per_mac: Rate
    per_input: Rate
    per_prologue: Rate
    per_output: Rate
    per_call: Rate

    def layer(self, macs: int, inputs: int, outputs: int, passes: int, *, prologue: bool = True) -> float:
        """Instructions of one layer in one step.

        Args:
            macs: multiply-accumulates of one pass.
            inputs: elements of the layer's input.
            outputs: elements of its output.
            passes: main and residual ones; 0 = the output is made from the state alone.
            prologue: whether the layer reads its input through a normalization and an activation, as most do.
        """
        per_input = self.per_input + (self.per_prologue if prologue else 0.0)
        return passes * (self.per_mac * macs + per_input * inputs) + self.per_output * outputs + self.per_call


MACS_ALONE = Cost(per_mac=1.0, per_input=0.0, per_prologue=0.0, per_output=0.0, per_call=0.0)
"""For a board whose file has no measured cost: a layer costs its multiply-accumulates."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """How the engine of a virtual board is run: ``<program> -cpu <cpu> -L <sysroot>``."""

    program: Annotated[str, Pattern(r"[A-Za-z0-9._/-]{1,120}", "the name or path of a program")]
    cpu: Name
    sysroot: Annotated[str, Pattern(r"/[^\x00-\x1f]*", "an absolute path")]


@dataclass(frozen=True, slots=True)
class Board:
    """One kind of board. ``slots`` is how many jobs it may have under way at once."""

    name: Name
    title: Text
    slots: Annotated[int, Range(1, 64)]
    cpu: Cpu
    memory: Memory
    link: Link
    storage: Storage
    emulator: Emulator | None = field(default=None)
    cost: Cost = field(default=MACS_ALONE)
