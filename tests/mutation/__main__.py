"""The mutation score of the wire's core: how many small changes of its code the tests notice.

    python -m tests.mutation --sample 150 --seed 1

cosmic-ray (the extra `fuzz`) makes the mutants, in a copy of the repository; all of them take a night, so a sample is
drawn from a seed. What survived is printed as it was changed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

REPOSITORY = Path(__file__).parents[2]
CONFIG = "tests/mutation/wire.toml"
COPIED = ("boards", "firmware_bridge", "tests", "pyproject.toml")


def copy(folder: Path) -> None:
    """The part of the repository that the tests of the wire need."""
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def draw(database: WorkDB, sample: int, seed: int) -> int:
    """Leave a sample to be run, the rest is marked as skipped; the number of mutants it was drawn from."""
    waiting = sorted(item.job_id for item in database.pending_work_items)
    places = {item.job_id: _place(item) for item in database.pending_work_items}
    waiting.sort(key=places.__getitem__)  # ids are random
    chosen = set(random.Random(seed).sample(waiting, min(sample, len(waiting))))
    for job_id in waiting:
        if job_id not in chosen:
            database.set_result(job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
    return len(waiting)


def _place(item: object) -> str:
    (mutation,) = item.mutations  # type: ignore[attr-defined]
    return f"{mutation.module_path} {mutation.start_pos} {mutation.operator_name} {mutation.occurrence}"


def main() -> None:
    """Make mutants, run a sample, print the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        session = folder / "session.sqlite"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([name, os.environ.get("PYTHONPATH", "")]),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        }

        def run(module: str, *words: str) -> None:
            subprocess.run([sys.executable, "-m", module, *words], cwd=folder, env=environment, check=True)

        run("cosmic_ray.cli", "baseline", CONFIG)  # tests that fail without a mutant would notice every one
        run("cosmic_ray.cli", "init", CONFIG, str(session))
        run("cosmic_ray.tools.filters.operators_filter", str(session), CONFIG)
        with use_db(session) as database:
            mutants = draw(database, options.sample, options.seed)
        run("cosmic_ray.cli", "exec", CONFIG, str(session))
        outcomes: Counter[str] = Counter()
        with use_db(session) as database:
            for _, result in database.completed_work_items:
                if result.worker_outcome is WorkerOutcome.SKIPPED:
                    continue
                outcomes[str(getattr(result.test_outcome, "value", result.worker_outcome.value))] += 1
                if result.test_outcome is TestOutcome.SURVIVED:
                    print(result.diff)
    survived = outcomes[TestOutcome.SURVIVED.value]
    ran = sum(outcomes.values())
    score = {"mutants": mutants, "ran": ran, "survived": survived, "score": round(1 - survived / max(1, ran), 3)}
    print(json.dumps({"seed": options.seed, **score, "outcomes": outcomes}))


if __name__ == "__main__":
    main()
