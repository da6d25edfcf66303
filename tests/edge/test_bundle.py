"""Bundles: what is packed is read back, and whatever is damaged, contradictory or too large is refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge
from boards import load_board
from edge.bundle import (
    ENGINE_BYTES,
    FORMAT,
    Bundle,
    Contents,
    Golden,
    Manifest,
    MemoryNeeds,
    ModelFacts,
    RuntimeVersions,
    SamplerFacts,
    check_fits,
    pack_bundle,
    parse_manifest,
    read_bundle,
    verify_bundle,
)
from edge.errors import BundleError

PROGRAM = b"program " * 100
GOLDEN = struct.pack("<6f", *range(6))


def make_contents(folder: Path, **changes: object) -> Contents:
    engine, library = folder / "modiff-engine", folder / "libexecutorch.so"
    engine.write_bytes(b"engine")
    library.write_bytes(b"library")
    manifest = Manifest(
        format=FORMAT,
        name="demo",
        board="rpi5",
        kit="0.1.0",
        runtime=RuntimeVersions("1.5.1", 1),
        model=ModelFacts("demo", 1, 2, 3, "ab" * 32),
        sampler=SamplerFacts("ddim", 50),
        plan={"layers": 3, "residual_every": 10},
        memory=MemoryNeeds.estimate(state_bytes=1000, activation_bytes=500, program_bytes=len(PROGRAM), slots=2),
        slots=2,
        files=(),
        golden=Golden(0, 47, "zeros", exact=False, min_psnr_db=60.0),
    )
    return Contents(dataclasses.replace(manifest, **changes), PROGRAM, (engine, library), GOLDEN)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return pack_bundle(tmp_path / "bundle", make_contents(tmp_path))


@pytest.fixture(scope="module")
def manifest_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("bundle")
    return pack_bundle(folder / "bundle", make_contents(folder)).manifest.to_bytes()


def test_round_trip(bundle: Bundle) -> None:
    again = read_bundle(bundle.folder)
    verify_bundle(again)
    assert again == bundle
    assert again.bundle_id == hashlib.sha256((bundle.folder / "manifest.json").read_bytes()).hexdigest()
    assert again.bundle_id == again.manifest.bundle_id
    roles = {file.name: (file.role, file.executable) for file in again.manifest.files}
    assert roles == {
        "program.pte": ("program", False),
        "modiff-engine": ("engine", True),
        "libexecutorch.so": ("library", False),
        "golden.f32": ("golden", False),
    }
    assert (bundle.folder / "modiff-engine").stat().st_mode & 0o111


def test_same_contents_give_the_same_id(tmp_path: Path, bundle: Bundle) -> None:
    assert pack_bundle(tmp_path / "again", make_contents(tmp_path)).bundle_id == bundle.bundle_id


def test_an_older_bundle_is_replaced_and_nothing_else(tmp_path: Path, bundle: Bundle) -> None:
    newer = pack_bundle(bundle.folder, make_contents(tmp_path, name="newer"))
    assert read_bundle(bundle.folder).bundle_id == newer.bundle_id != bundle.bundle_id
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "letter").write_text("mine")
    with pytest.raises(BundleError, match="something else"):
        pack_bundle(stranger, make_contents(tmp_path))
    assert (stranger / "letter").read_text() == "mine"


def test_failed_packing_leaves_the_older_bundle(tmp_path: Path, bundle: Bundle) -> None:
    broken = dataclasses.replace(make_contents(tmp_path), golden_output=struct.pack("<6f", *[float("nan")] * 6))
    with pytest.raises(BundleError, match="not a finite image"):
        pack_bundle(bundle.folder, broken)
    assert read_bundle(bundle.folder).bundle_id == bundle.bundle_id
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["program.pte", "modiff-engine", "libexecutorch.so", "golden.f32"])
def test_damage_is_found(bundle: Bundle, name: str) -> None:
    path = bundle.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{name}: SHA-256") as changed:
        verify_bundle(read_bundle(bundle.folder))
    assert changed.value.exit_code == 7
    path.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=f"{name}: the file has {len(whole) - 1} bytes"):
        read_bundle(bundle.folder)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name}: the file is missing"):
        read_bundle(bundle.folder)
    with pytest.raises(BundleError, match=f"{name}: unreadable"):
        verify_bundle(bundle)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle"):
        read_bundle(tmp_path)


def change(manifest: bytes, path: str, value: object) -> bytes:
    document = json.loads(manifest)
    *parents, last = path.split(".")
    place = document
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", 2, "format 2 is unknown"),
        ("format", ..., "format None is unknown"),
        ("board", ..., "missing: board"),
        ("board", 5, "board: 5 is not allowed"),
        ("surprise", 1, "unknown: surprise"),
        ("slots", 0, "slots = 0"),
        ("slots", True, "slots: True is not allowed"),
        ("sampler.steps", 0, "sampler.steps = 0"),
        ("golden.start", 50, "golden.start = 50"),
        ("golden.seed", -1, "golden.seed"),
        ("golden.exact", 1, "exact: 1 is not allowed"),
        ("golden.exact", ..., "missing: exact"),
        ("golden.image", "noise", "image: 'noise'"),
        ("golden.min_psnr_db", 10**400, "min_psnr_db"),
        ("model.height", 0, "model sizes"),
        ("model.width", 4, "golden output has not the size"),
        ("memory.state_bytes", -1, "memory sizes"),
        ("memory.program_bytes", 1, "memory.program_bytes"),
        ("files", {}, "files: {} is not allowed"),
        ("files", [], "0 files of role 'program'"),
        ("files.0.name", "../golden.f32", "no name for a file"),
        ("files.0.name", "manifest.json", "no name for a file"),
        ("files.0.name", ".hidden", "no name for a file"),
        ("files.0.name", "program.pte", "listed twice"),
        ("files.0.role", "library", "0 files of role 'golden'"),
        ("files.0.role", "virus", "role: 'virus'"),
        ("files.0.sha256", "AB" * 32, "not 64 lower-case hex digits"),
        ("files.0.bytes", 1 << 40, "bytes are not possible"),
        ("plan", [], "plan: \\[\\] is not allowed"),
        ("model", "demo", "model: not a JSON object"),
    ],
)
def test_manifest_that_breaks_the_format_is_refused(
    manifest_bytes: bytes, path: str, value: object, message: str
) -> None:
    with pytest.raises(BundleError, match=message) as refused:
        parse_manifest(change(manifest_bytes, path, value))
    assert refused.value.exit_code == 7


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"\xff", b"[" * 100_000, b'{"format": 3, "format": 3}', b'{"format": NaN}', b" " * ((1 << 20) + 1)],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(data)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_damaged_manifest_gives_a_manifest_or_a_bundle_error(manifest_bytes: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(manifest_bytes) - 1))
    cut = data.draw(st.integers(0, 40))
    inserted = data.draw(st.binary(max_size=8) | st.sampled_from([b"null", b"1e999", b"{}", b'"', b"-1"]))
    damaged = manifest_bytes[:place] + inserted + manifest_bytes[place + cut :]
    try:
        manifest = parse_manifest(damaged)
    except BundleError:
        return
    assert parse_manifest(manifest.to_bytes()) == manifest


def test_fits_or_says_what_does_not(bundle: Bundle) -> None:
    board = load_board("rpi5")
    check_fits(bundle.manifest, board)
    with pytest.raises(BundleError, match="made for board 'rpi5', this is 'rpi4'"):
        check_fits(bundle.manifest, load_board("rpi4"))
    peak = ENGINE_BYTES + len(PROGRAM) + 500 + 2 * 1000
    for changed, what in (
        ({"budget_bytes": peak - 1}, f"peak memory: {peak} bytes, 1 more than memory.budget_bytes"),
        ({"state_budget_bytes": 1999}, "the states of 2 slots: 2000 bytes, 1 more than memory.state_budget_bytes"),
    ):
        small = dataclasses.replace(board, memory=dataclasses.replace(board.memory, **changed))
        with pytest.raises(BundleError, match=what) as refused:
            check_fits(bundle.manifest, small)
        assert refused.value.exit_code == 7
    full = dataclasses.replace(board, storage=dataclasses.replace(board.storage, budget_bytes=800))
    with pytest.raises(BundleError, match="the bundle on disk"):
        check_fits(bundle.manifest, full)


def test_reader_needs_no_third_party_package() -> None:
    root = Path(edge.__file__).parents[1]
    # -S: no site-packages, so that anything but the standard library and the kit cannot be imported.
    subprocess.run([sys.executable, "-S", "-c", "import edge.bundle"], cwd=root, check=True, timeout=60)
