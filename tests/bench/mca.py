"""Cycles of the engine's inner loops on a core's model, by llvm-mca, from the machine code that was built.

Each function of the built engine is disassembled; an inner loop is a backward branch with no other inside it. Of the
loops that multiply-accumulate integers, llvm-mca says how many cycles an iteration takes when it repeats: data from the
first-level cache, branches predicted.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.instructions import BenchError

VERSIONS = range(22, 15, -1)  # LLVM 16 is the first with a model of the Cortex-A76
ITERATIONS = 400
CORES = ("cortex-a76", "cortex-a55")
IDEAL = {"cortex-a76": 0.5, "cortex-a55": 1.0}
"""Cycles per 16 MACs at the rate of the core's dot-product units: two SDOT of 128 bits a cycle on the A76 (Arm
Cortex-A76 Software Optimization Guide, 3.16), one on the A55 (Arm Cortex-A55 Software Optimization Guide, 3.15)."""

_FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*?)\s*(?://.*)?$")
_BRANCH = re.compile(r"^(?:b|b\.\w+|cbn?z|tbn?z)$")
_TARGET = re.compile(r"0x([0-9a-f]+)(?: <.*>)?$")


@dataclass(frozen=True)
class Instruction:
    """One line of a disassembly; ``target`` is where a branch goes."""

    address: int
    mnemonic: str
    operands: str
    target: int | None

    @property
    def macs(self) -> int:
        """Integer multiply-accumulates that it does."""
        lanes = re.match(r"v\d+\.(\d+)([hsd])", self.operands)
        if self.mnemonic in {"sdot", "udot", "usdot", "sudot"} and lanes:
            return 4 * int(lanes[1])
        if self.mnemonic in {"smmla", "ummla", "usmmla"}:
            return 32
        if re.fullmatch(r"[su](?:mull|mlal|mlsl)2?", self.mnemonic) and lanes:
            return int(lanes[1])
        return 0


@dataclass(frozen=True)
class Loop:
    """An inner loop that multiply-accumulates.

    Attributes:
        function: it is part of.
        body: its instructions; the last one branches to the first.
    """

    function: str
    body: tuple[Instruction, ...]

    @property
    def macs(self) -> int:
        """Of one iteration."""
        return sum(instruction.macs for instruction in self.body)

    def assembly(self) -> str:
        """The body as an assembler takes it."""
        lines = []
        for instruction in self.body:
            operands = instruction.operands
            if instruction.target is not None:
                operands = _TARGET.sub("loop", operands)
            lines.append(f"{instruction.mnemonic} {operands}")
        return "loop:\n" + "\n".join(lines) + "\n"


@dataclass(frozen=True)
class LoopCost:
    """What a core's model says of a loop.

    Attributes:
        function: the loop is part of.
        instructions: of one iteration.
        macs: of one iteration.
        core: the model's.
        cycles: of one iteration.
    """

    function: str
    instructions: int
    macs: int
    core: str
    cycles: float

    @property
    def per_16_macs(self) -> float:
        """Cycles per 16 MACs: of one SDOT of 128 bits."""
        return 16 * self.cycles / self.macs


def find_tool(name: str) -> str:
    """``name`` of LLVM 16 or later.

    Raises:
        BenchError: there is none.
    """
    for version in VERSIONS:
        found = shutil.which(f"{name}-{version}") or shutil.which(f"/usr/lib/llvm-{version}/bin/{name}")
        if found:
            return found
    raise BenchError(f"{name} of LLVM 16 or later is not installed", mend="sudo apt install llvm-16")


def loops(engine: Path) -> list[Loop]:
    """The inner loops with integer MACs of an aarch64 program that was built with symbols."""
    flags = ["-d", "--no-show-raw-insn", "--demangle", "--mattr=+dotprod,+i8mm,+fullfp16"]
    done = subprocess.run(
        [find_tool("llvm-objdump"), *flags, str(engine)], capture_output=True, text=True, check=True, timeout=300
    )
    found: list[Loop] = []
    name, body = "", list[Instruction]()
    for line in [*done.stdout.splitlines(), "0 <end>:"]:
        if start := _FUNCTION.match(line):
            found += _inner_loops(name, body)
            name, body = start[1], []
        elif match := _LINE.match(line):
            target = _TARGET.search(match[3]) if _BRANCH.match(match[2]) else None
            address = int(match[1], 16)
            body.append(Instruction(address, match[2], match[3], int(target[1], 16) if target else None))
    return [loop for loop in found if loop.macs]


def loop_cost(loop: Loop, core: str) -> LoopCost:
    """What llvm-mca says of ``loop`` on ``core``."""
    flags = ["-mtriple=aarch64", f"-mcpu={core}", "-mattr=+dotprod,+i8mm", f"-iterations={ITERATIONS}"]
    done = subprocess.run(
        [find_tool("llvm-mca"), *flags], input=loop.assembly(), capture_output=True, text=True, check=False, timeout=120
    )
    match = re.search(r"^Total Cycles:\s+(\d+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not match:
        raise BenchError(f"llvm-mca refuses the loop: {done.stderr.strip()[:300]}", where=loop.function)
    return LoopCost(_short(loop.function), len(loop.body), loop.macs, core, int(match[1]) / ITERATIONS)


def _inner_loops(function: str, body: list[Instruction]) -> list[Loop]:
    """Backward branches of one function, without those that hold another."""
    index = {instruction.address: i for i, instruction in enumerate(body)}
    spans = [
        (index[instruction.target], i)
        for i, instruction in enumerate(body)
        if instruction.target is not None and instruction.target <= instruction.address and instruction.target in index
    ]
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [Loop(function, tuple(body[first : last + 1])) for first, last in inner]


def _short(function: str) -> str:
    """The name without namespaces' noise and arguments."""
    return re.sub(r"\(anonymous namespace\)::|modiff::|^void ", "", function).partition("(")[0].strip()
