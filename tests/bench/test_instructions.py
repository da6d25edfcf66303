"""The plugin counts what it says: every class, a loop to the instruction, stretches between marks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bench.instructions import PLUGIN, BenchError, Mark, count, parse

TURNS = 1000
COMPILER = "aarch64-linux-gnu-gcc"
ENCODINGS = {
    "sdot": "sdot v0.2s, v1.8b, v2.8b; udot v0.4s, v1.16b, v2.16b; sdot v0.4s, v1.16b, v2.4b[3];"
    "usdot v0.4s, v1.16b, v2.16b; sudot v0.4s, v1.16b, v2.4b[2]",
    "smmla": "smmla v0.4s, v1.16b, v2.16b; ummla v0.4s, v1.16b, v2.16b; usmmla v0.4s, v1.16b, v2.16b",
    "smull": "smull v0.8h, v1.8b, v2.8b; smull2 v0.8h, v1.16b, v2.16b; smlal v0.4s, v1.4h, v2.h[3];"
    "smlal2 v0.4s, v1.8h, v2.8h; umull v0.4s, v1.4h, v2.4h; sadalp v0.4s, v1.8h; mla v0.4s, v1.4s, v2.s[1];"
    "mul v0.4s, v1.4s, v2.4s; mul v0.4s, v1.4s, v2.s[1]; mla v0.8h, v1.8h, v2.8h",
    "fmla": "fmla v0.4s, v1.4s, v2.4s; fmls v0.4s, v1.4s, v2.s[3]; fmadd s0, s1, s2, s3",
    "fmla16": "fmla v0.8h, v1.8h, v2.8h; fmla v0.8h, v1.8h, v2.h[7]",
    "vector": "fadd v0.4s, v1.4s, v2.4s; fmul v0.4s, v1.4s, v2.4s; fmul v0.4s, v1.4s, v2.s[2]; scvtf v0.4s, v1.4s;"
    "saddl v0.8h, v1.8b, v2.8b; sshll v0.8h, v1.8b, #0; zip1 v0.4s, v1.4s, v2.4s; movi v0.4s, #0;"
    "sqxtn v0.8b, v1.8h; sqdmulh v0.4s, v1.4s, v2.4s",
    "load": "ldr q0, [x0], #16; ldr x0, [x1, x2]; ldp q0, q1, [x0]; ld1 {v0.16b, v1.16b}, [x0], #32;"
    "ld1r {v0.4s}, [x0]; ldrsb w0, [x1]; ldaxr w0, [x1]",
    "store": "str q0, [x0, #16]; stp x0, x1, [sp, #-16]!; st1 {v0.16b}, [x0]; strb w0, [x1, w2, uxtw];"
    "stur d0, [x0, #-8]",
    "integer": "add x0, x1, x2; madd x0, x1, x2, x3; csel x0, x1, x2, ne; movk x0, #1",
    "branch": "b .; ret; cbz x0, .; nop",
    "other": "prfm pldl1keep, [x0]; ldadd w0, w1, [x2]",
}
LOOP = f"""
.arch armv8.2-a+dotprod
.globl _start
_start: mov x0, #{TURNS}
1:  sdot v0.4s, v1.16b, v2.4b[1]
    sdot v0.4s, v1.16b, v2.16b
    smull v3.8h, v1.8b, v2.8b
    ldr q1, [sp]
    ldr q2, [sp]
    ldr q2, [sp]
    str q1, [sp]
    subs x0, x0, #1
    b.ne 1b
    mov x8, #93
    mov x0, #0
    svc #0
"""

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-aarch64") is None or shutil.which(COMPILER) is None, reason="needs qemu-user and g++-aarch64"
)


def _assemble(source: str, folder: Path, *flags: str) -> Path:
    path, output = folder / "source.S", folder / "program"
    path.write_text(source)
    subprocess.run([COMPILER, "-nostdlib", "-static", *flags, str(path), "-o", str(output)], check=True)
    return output


def test_every_encoding_falls_into_its_class(tmp_path: Path) -> None:
    listing = [(name, one) for name, text in ENCODINGS.items() for one in text.split(";")]
    source = ".arch armv8.6-a+dotprod+i8mm+fp16+lse\n" + "\n".join(one for _, one in listing) + "\n"
    code = tmp_path / "code"
    subprocess.run(["aarch64-linux-gnu-objcopy", "-O", "binary", _assemble(source, tmp_path, "-c"), code], check=True)
    program = tmp_path / "classify.c"
    program.write_text(
        '#include <stdio.h>\n#include "a64.h"\n'
        "int main(void) { uint32_t word; while (fread(&word, 4, 1, stdin)) puts(kClassNames[class_of(word)]); }\n"
    )
    subprocess.run(["gcc", f"-I{PLUGIN}", program, "-o", tmp_path / "classify"], check=True)
    done = subprocess.run([tmp_path / "classify"], input=code.read_bytes(), capture_output=True, check=True)
    found = list(zip(done.stdout.decode().split(), [one for _, one in listing], strict=True))
    assert found == listing


def test_counts_a_loop_to_the_instruction(tmp_path: Path) -> None:
    recording = count([str(_assemble(LOOP, tmp_path))])
    expected = {"sdot": 2, "smull": 1, "load": 3, "store": 1, "integer": 1, "branch": 1}
    before_and_after = {"integer": 3, "branch": 1}
    for name, found in recording.total.items():
        assert found == TURNS * expected.get(name, 0) + before_and_after.get(name, 0), name


def test_takes_stock_at_a_mark(tmp_path: Path) -> None:
    program = _assemble(LOOP, tmp_path)
    first = min(block.offset for block in count([str(program)]).blocks)
    recording = count([str(program)], mark=Mark(program.name, first + 4))
    stretches = recording.stretches()
    assert len(stretches) == TURNS
    assert all(stretch.total == 9 for stretch in stretches[1:-1])


def test_refuses_the_output_of_a_killed_program() -> None:
    with pytest.raises(BenchError, match="no total"):
        parse("classes sdot load\nmark 1 2\n", "counts.txt")
