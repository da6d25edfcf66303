"""The bundle: a folder with everything that a board needs to run one model, and the manifest that proves it whole.

    manifest.json    what is in it, for which board, how much memory it takes; its SHA-256 is the bundle's id
    program.pte      the program
    modiff-engine    the engine, and the libraries it loads
    golden.f32       output of the self-test, float32 little endian [C, H, W]
    release          signed statement that it may run, if it was signed beforehand (edge.release); no part of the id

Runs on the device too: standard library and ``boards`` only.
"""

from edge.bundle.folder import (
    GOLDEN,
    PROGRAM,
    Bundle,
    Contents,
    check_fits,
    pack_bundle,
    read_bundle,
    verify_bundle,
)
from edge.bundle.manifest import (
    ENGINE_BYTES,
    FORMAT,
    GOLDEN_STEPS,
    KIT_VERSION,
    BundleFile,
    ConditionFacts,
    Golden,
    Manifest,
    MemoryNeeds,
    ModelFacts,
    Role,
    RuntimeVersions,
    SamplerFacts,
)
from edge.bundle.parse import MANIFEST, RELEASE, parse_manifest

__all__ = [
    "ENGINE_BYTES",
    "FORMAT",
    "GOLDEN",
    "GOLDEN_STEPS",
    "KIT_VERSION",
    "MANIFEST",
    "PROGRAM",
    "RELEASE",
    "Bundle",
    "BundleFile",
    "ConditionFacts",
    "Contents",
    "Golden",
    "Manifest",
    "MemoryNeeds",
    "ModelFacts",
    "Role",
    "RuntimeVersions",
    "SamplerFacts",
    "check_fits",
    "pack_bundle",
    "parse_manifest",
    "read_bundle",
    "verify_bundle",
]
