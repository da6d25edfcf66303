"""Files as payloads of jobs, and results as files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from firmware_bridge.commands.errors import CommandError, PayloadError
from firmware_bridge.queue.records import NewJob, Outcome

PICTURES: Final = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
_NUMBER: Final = re.compile(r"[+-]?\d+")


def parse_params(words: list[str]) -> dict[str, object]:
    """``NAME=VALUE`` words as parameters: true, false, whole numbers, numbers, else text.

    Raises:
        CommandError: a word without "=".
    """
    params: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise CommandError(f"{word!r} is no parameter", where="--param", mend="write NAME=VALUE")
        params[name] = _parse(value)
    return params


def _parse(value: str) -> object:
    if value in {"true", "false"}:
        return value == "true"
    if _NUMBER.fullmatch(value):
        return int(value)
    try:
        return float(value)
    except ValueError:
        return value


def read_payload(path: Path) -> tuple[bytes, dict[str, object]]:
    """A file's bytes; of a picture its pixels, uint8 [C, H, W] (C is 1 for grey, 3 for colour), with ``dtype``.

    Raises:
        PayloadError: the file cannot be read, or is no picture though its name says so.
    """
    try:
        if path.suffix.lower() not in PICTURES:
            return path.read_bytes(), {}
        return _pixels(path), {"dtype": "uint8"}
    except OSError as error:  # Pillow's are OSErrors too
        raise PayloadError(f"the file cannot be read: {error}", where=str(path)) from error


def _pixels(path: Path) -> bytes:
    from PIL import Image  # noqa: PLC0415  only where pictures are sent

    with Image.open(path) as picture:
        if picture.mode in {"1", "L", "LA", "I;16"}:
            return picture.convert("L").tobytes()
        planes = picture.convert("RGB").split()
    return b"".join(plane.tobytes() for plane in planes)


def jobs_of(kind: str, files: list[Path], seeds: list[int], params: dict[str, object], **more: object) -> list[NewJob]:
    """One job a file, or a seed where there are no files; the seeds go round among the files."""
    if not files:
        return [NewJob(kind, {**params, "seed": seed}, label=f"{kind}-{seed}", **more) for seed in seeds]  # type: ignore[arg-type]
    jobs = []
    for number, path in enumerate(files):
        payload, about = read_payload(path)
        seed = {"seed": seeds[number % len(seeds)]} if seeds else {}
        jobs.append(NewJob(kind, {**about, **seed, **params}, payload, path.stem, **more))  # type: ignore[arg-type]
    return jobs


def make_folder(folder: Path) -> None:
    """Make a folder for what a command writes. CommandError: it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        mend = "name a folder that you may write to"
        raise CommandError(f"no folder for results: {error.strerror}", where=str(folder), mend=mend) from error


def write_outcome(outcome: Outcome, folder: Path) -> list[Path]:
    """``LABEL-ID.json`` and the result's bytes beside it: ``.f32`` as they came, ``.png`` what they show.

    The json file comes last and by rename: where it is, the others are whole.
    """
    make_folder(folder)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", outcome.label)[:80] + "-" + outcome.job_id[-12:]
    written = []
    if outcome.payload:
        written.append(folder / f"{stem}.f32")
        written[-1].write_bytes(outcome.payload)
        written += _draw(outcome, folder / f"{stem}.png")
    about = {
        "job_id": outcome.job_id,
        "label": outcome.label,
        "state": outcome.state.value,
        "code": outcome.code,
        "message": outcome.message,
        **outcome.meta,
    }
    part = folder / f"{stem}.json.part"
    part.write_text(json.dumps(about, indent=1) + "\n")
    written.append(part.replace(folder / f"{stem}.json"))
    return written


def _draw(outcome: Outcome, path: Path) -> list[Path]:
    """The image of a result of ``shape`` [C, H, W], float32 in [-1, 1], as 8-bit pixels; none for other results."""
    from array import array  # noqa: PLC0415  only where pictures come

    shape = outcome.meta.get("shape")
    if not isinstance(shape, list | tuple) or len(shape) != 3 or shape[0] not in {1, 3}:
        return []
    channels, height, width = (int(size) for size in shape)
    size = height * width
    values = array("f", outcome.payload[: 4 * channels * size])
    pixels = bytes(min(255, max(0, round((value + 1) * 127.5))) for value in values)
    save_pixels(pixels, (channels, height, width), path)
    return [path]


def save_pixels(pixels: bytes, shape: tuple[int, int, int], path: Path) -> None:
    """Write u8 pixels [C, H, W] as a picture, whole or not at all: in colour with 3 channels, else the first one."""
    from PIL import Image  # noqa: PLC0415  only where pictures come

    channels, height, width = shape
    size = height * width
    planes = [Image.frombytes("L", (width, height), pixels[at * size : (at + 1) * size]) for at in range(channels)]
    part = path.with_suffix(".part")
    (Image.merge("RGB", planes) if channels == 3 else planes[0]).save(part, "PNG")
    part.replace(path)
