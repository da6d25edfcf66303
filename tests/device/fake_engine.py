"""A real child process that speaks the engine's pipe protocol with a toy model, for tests of what surrounds an engine.

The program file is JSON: steps, shape, slow (seconds a step), and misbehave: {"at": KIND or "step N", "how": ...}.
A toy step is x = x * 0.5 + seed-dependent noise, so that jobs differ and interleaving can be checked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import struct
import sys
import time
from array import array
from pathlib import Path

HEADER = struct.Struct("<IBBH")


class Refusal(Exception):  # noqa: N818
    pass


class Toy:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.program = json.loads(Path(options.program).read_text())
        self.channels, self.height, self.width = self.program["shape"]
        self.elements = self.channels * self.height * self.width
        self.slots: dict[int, dict] = {}

    def misbehave(self, place: str) -> None:
        """Do what the program says at this place; once only when it names a marker file."""
        rule = self.program.get("misbehave", {})
        if rule.get("at") != place:
            return
        marker = rule.get("once")
        if marker:
            if Path(marker).exists():
                return
            Path(marker).touch()
        how = rule["how"]
        sys.stderr.write(f"about to {how}\n")
        sys.stderr.flush()
        {
            "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "exit": lambda: sys.exit(rule["status"]),
            "hang": lambda: time.sleep(3600),
            "pause": lambda: time.sleep(rule["seconds"]),
            "garbage": self.say_garbage,
            "refuse": self.refuse,
            "hoard": lambda: setattr(self, "hoarded", bytearray(rule["bytes"])),
        }[how]()

    def say_garbage(self) -> None:
        sys.stdout.buffer.write(b"Segmentation fault\n")
        sys.stdout.buffer.flush()

    def refuse(self) -> None:
        raise Refusal(1, "not here")

    def info(self) -> bytes:
        return json.dumps(
            {
                "isa": "portable",
                "steps": self.program["steps"],
                "channels": self.channels,
                "height": self.height,
                "width": self.width,
                "state_bytes_per_slot": self.program["state"],
                "activation_bytes": 1000,
                "program_bytes": 1000,
                "slots": self.options.slots,
                "condition_bytes": 0,
                "operators": [],
                "executorch": "1.5.1",
            }
        ).encode()

    def begin(self, slot: int, payload: bytes) -> bytes:
        seed, start, has_image, dtype, _ = struct.unpack_from("<QIBBH", payload)
        body = payload[16:]
        others = len([s for s in self.slots if s != slot])
        if (others + 1) * self.program["state"] > self.options.state_budget:
            raise Refusal(4, "the state budget is spent")
        x = [0.0] * self.elements
        if has_image:
            if len(body) != self.elements * (1 if dtype else 4):
                raise Refusal(5, f"{len(body)} bytes")
            x = [b / 127.5 - 1 for b in body] if dtype else list(array("f", body))
            if any(v != v or v in (float("inf"), float("-inf")) for v in x):  # noqa: PLR0124
                raise Refusal(6, "not finite")
        if start >= self.program["steps"]:
            raise Refusal(7, f"start {start}")
        noise = random.Random(seed)
        self.slots[slot] = {"x": x, "i": start, "noise": noise, "map": bool(has_image)}
        return b""

    def step(self, slot: int) -> bytes:
        job = self.slot(slot)
        self.misbehave(f"step {job['i']}")
        time.sleep(self.program.get("slow", 0))
        job["x"] = list(array("f", [0.5 * v + job["noise"].uniform(-1, 1) for v in job["x"]]))
        job["i"] += 1
        left = self.program["steps"] - job["i"]
        took = self.program.get("claims", 1000)  # nanoseconds that it says a step took
        return struct.pack("<IIQQQQQ", job["i"] - 1, left, took, 10, 1, 12345, 0)

    def result(self, slot: int) -> bytes:
        job = self.slot(slot)
        if job["i"] < self.program["steps"]:
            raise Refusal(3, "not finished")
        anomaly = array("f", [0.25] * (self.height * self.width)) if job["map"] else array("f")
        return (
            struct.pack("<BB2xff", job["map"], job["map"], 0.25, 1.5)
            + array("f", job["x"]).tobytes()
            + anomaly.tobytes()
        )

    def look(self, slot: int) -> bytes:
        return array("f", self.slot(slot)["x"]).tobytes()

    def snapshot(self, slot: int) -> bytes:
        job = self.slot(slot)
        version, inner, gauss = job["noise"].getstate()
        return json.dumps({**job, "noise": [version, list(inner), gauss], "of": self.options.program_id}).encode()

    def restore(self, slot: int, payload: bytes) -> bytes:
        job = json.loads(payload)
        if job.pop("of") != self.options.program_id:
            raise Refusal(9, "of another program")
        version, inner, gauss = job["noise"]
        job["noise"] = random.Random()
        job["noise"].setstate((version, tuple(inner), gauss))
        self.slots[slot] = job
        return b""

    def slot(self, slot: int) -> dict:
        if slot not in self.slots:
            raise Refusal(3, "empty")
        return self.slots[slot]

    def release(self, slot: int) -> bytes:
        self.slots.pop(slot, None)
        return b""

    def memory(self) -> bytes:
        return struct.pack("<QQ", 5_000_000, self.program["state"] * len(self.slots))

    def answer(self, kind: int, slot: int, payload: bytes) -> bytes:
        name = ("", "info", "begin", "step", "result", "snapshot", "restore", "release", "memory", "look")[kind]
        self.misbehave(name)
        if slot >= self.options.slots:
            raise Refusal(2, f"slot {slot}")
        if name in {"info", "memory"}:
            return getattr(self, name)()
        if name in {"begin", "restore"}:
            return getattr(self, name)(slot, payload)
        return getattr(self, name)(slot)


def read(count: int) -> bytes:
    data = sys.stdin.buffer.read(count)
    if len(data) < count:
        sys.exit(0)
    return data


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("program", "program-id", "isa"):
        parser.add_argument(f"--{name}")
    for name in ("slots", "state-budget", "threads"):
        parser.add_argument(f"--{name}", type=int)
    toy = Toy(parser.parse_args())
    sys.stderr.write("toy engine up\nI 00:00:00.078974 executorch:cpuinfo_utils.cpp:71] Reading file /sys/x\n\n")
    sys.stderr.flush()
    toy.misbehave("start")
    while True:
        length, kind, slot, _ = HEADER.unpack(read(HEADER.size))
        payload = read(length)
        try:
            kind, body = kind | 0x80, toy.answer(kind, slot, payload)
        except Refusal as refusal:
            kind, body = 0xFF, struct.pack("<I", refusal.args[0]) + refusal.args[1].encode()
        sys.stdout.buffer.write(HEADER.pack(len(body), kind, slot, 0) + body)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
