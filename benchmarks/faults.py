"""Inject faults into train, extraction, evaluate and report, and check that nothing is lost.

    python benchmarks/faults.py --kills 60 --seed 0 --write benchmarks/results/faults.md

Every workload runs in a forked child, so that a kill costs no import. Kills (SIGKILL) come at random times and at
random file operations (before or after an open for writing, a rename, a removal, an fsync or an allocation). After
each kill every file must be whole, and a `--resume` must end with the results of a run never interrupted. Exit 0 when
everything survived, 1 otherwise.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fault_process import Child, Site, digest, start
from benchmarks.fault_scale import SCENARIOS as LARGE
from benchmarks.fault_scale import SIZE
from benchmarks.fault_scenarios import SCENARIOS as OTHERS
from benchmarks.fault_scenarios import Table

SCENARIOS = {**OTHERS, **LARGE}
EVALUATE = ["evaluate", "-m", "resnet18-digits", "-d", "digits", "--limit", "80", "--batch-size", "10", "-q"]
PROPERTIES = ["-p", "expansivity", "-p", "expansivity:pairs=predictions", "-p", "expansivity:curve=0"]
TRAIN = [
    "train",
    "resnet18:width=4",
    "-d",
    "digits:train",
    "--limit",
    "96",
    "--batch-size",
    "32",
    "--epochs",
    "3",
    "--lr",
    "1e-3",
    "-q",
]


@dataclass
class Workload:
    """A command that can be killed: ``command(folder, resume)``, what it must leave behind, and how to read it."""

    name: str
    command: Callable[[Path, bool], list[str]]
    prepare: Callable[[Path], None] = lambda folder: None
    duration: float = 0.0
    operations: int = 0
    reference: dict[str, str] = field(default_factory=dict)
    versions: dict[str, set[str]] = field(default_factory=dict)


def workloads(run: Path) -> list[Workload]:
    """``run``: a finished run folder for `report` to read."""
    return [
        Workload("train", lambda f, again: [*TRAIN, "-o", str(f / "w.safetensors"), *(["--resume"] if again else [])]),
        Workload(
            "extraction",
            lambda f, again: [*EVALUATE, "--cache", str(f / "cache"), "-o", str(f / f"run-{again}-{random.random()}")],
        ),
        Workload(
            "evaluate",
            lambda f, again: [
                *EVALUATE,
                *PROPERTIES,
                "--no-cache",
                "-o",
                str(f / "run"),
                *(["--resume"] if again else []),
            ],
        ),
        Workload("report", lambda f, again: ["report", str(f / "run")], lambda f: shutil.copytree(run, f / "run")),
    ]


def files(folder: Path) -> list[Path]:
    """Every file that somebody may read; not locks, nor what a killed writer had not named yet."""
    return [p for p in folder.rglob("*") if p.is_file() and "lock" not in p.name and p.suffix != ".tmp"]


def check_whole(folder: Path, work: Workload) -> list[str]:
    """What is wrong with the files in ``folder`` right after a kill."""
    import numpy as np
    import torch
    from PIL import Image
    from safetensors import safe_open

    wrong = []
    for path in files(folder):
        try:
            if path.suffix == ".json":
                data = json.loads(path.read_text())
                if path.parent.name == "cells" and digest(path) not in work.versions.get(path.name, set()):
                    wrong.append(f"{path.name} holds another result")
                assert isinstance(data, dict)
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt") as file:
                    assert list(file.keys())
            elif path.suffix == ".pt":
                torch.load(path, weights_only=True)
            elif path.suffix == ".png":
                Image.open(path).load()
            elif path.suffix == ".html":
                assert path.read_text().rstrip().endswith("</html>")
            elif path.suffix == ".npy" and (path.parent / "record.json").exists():
                assert np.load(path, mmap_mode="r").ndim == 3
            if path.suffix in (".safetensors", ".pt") and digest(path) not in work.versions[path.name]:
                wrong.append(f"{path.name} is no version an uninterrupted training writes")
        except Exception as error:
            wrong.append(f"{path.name}: {type(error).__name__}: {error}")
    return wrong


def summary(folder: Path) -> dict[str, str]:
    """What two finished workloads must agree on."""
    found = {}
    for path in files(folder):
        name = path.relative_to(folder).as_posix()
        if name.startswith("run-"):  # the extraction's output folders: only the last one is whole
            continue
        # Times differ; a note of progress beside a finished record (killed in between) is read by nobody.
        if path.name not in ("record.json", "times.json", "progress.json"):
            found[name] = digest(path)
    return found


def measure(work: Workload, root: Path) -> None:
    """An uninterrupted run: how long, how many file operations, which versions of files, which end."""
    folder = root / f"{work.name}-reference"
    folder.mkdir()
    work.prepare(folder)
    for path in files(folder):
        work.versions.setdefault(path.name, set()).add(digest(path))
    log = root / f"{work.name}.log"
    child = start(work.command(folder, False), root / "out", Site(folder, log=log))
    code, work.duration = child.wait()
    if code != 0:
        raise SystemExit(f"the uninterrupted {work.name} failed:\n{child.output()}")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    work.operations = sum(e["event"] == "operation" for e in events)
    for e in events:
        if e["event"] == "version":
            work.versions.setdefault(e["name"], set()).add(e["digest"])
    work.reference = summary(folder)


def attack(work: Workload, root: Path, rng: random.Random, table: Table, kills: int) -> None:
    """Kill, check, resume and kill again (one to three times), then let it finish and compare; until enough kills."""
    done = trial = 0
    while done < kills and trial < 4 * kills:
        trial += 1
        folder = root / f"{work.name}-{trial}"
        folder.mkdir()
        work.prepare(folder)
        wrong: list[str] = []
        again, landed = False, 0
        for _ in range(rng.randint(1, 3)):
            if done + landed >= kills:
                break
            if rng.random() < 0.5:
                site = Site(folder, kill_at=rng.randint(1, max(work.operations, 1)))
                child = start(work.command(folder, again), root / "out", site)
                code, _ = child.wait()
            else:
                child = start(work.command(folder, again), root / "out", Site(folder))
                code, _ = child.wait(kill_after=rng.uniform(0, work.duration))
            again = True
            if code == -9:
                landed += 1
            elif code != 0:
                wrong.append(f"exit {code}: {child.output()[-300:]}")
            wrong += check_whole(folder, work)
        child = start(work.command(folder, again), root / "out", Site(folder))
        code, _ = child.wait()
        if code != 0:
            wrong.append(f"could not be finished, exit {code}: {child.output()[-300:]}")
        else:
            end = summary(folder)
            wrong += [
                f"{name} differs from the uninterrupted run"
                for name in sorted(work.reference.keys() | end.keys())
                if end.get(name) != work.reference.get(name)
            ]
            wrong += check_whole(folder, work)
            # Folders that no later process took over keep what a killed writer had not named yet: hidden, harmless.
            taken = {"train": folder, "extraction": folder / "cache", "evaluate": folder / "run"}.get(work.name)
            left = [p.name for p in taken.rglob(".*.tmp")] if taken is not None else []
            wrong += [f"{name} was left behind" for name in left]
        done += landed
        table.add(f"kill -9 during {work.name}", landed, wrong)
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="kills in all, over the four workloads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="scenarios besides the kills (default: all): " + ", ".join(SCENARIOS))
    parser.add_argument(
        "--images", type=int, default=SIZE.images, help="of the large trajectory, 80 bytes each a class"
    )
    parser.add_argument("--classes", type=int, default=SIZE.classes, help="of the large trajectory")
    parser.add_argument("--rounds", type=int, default=SIZE.rounds, help="faults of each kind while it grows")
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    parser.add_argument("--append", action="store_true", help="add to that file what is run in parts")
    given = parser.parse_args()
    SIZE.images, SIZE.classes, SIZE.rounds = given.images, given.classes, given.rounds
    rng = random.Random(given.seed)
    started = time.monotonic()
    table = Table()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        root = Path(name)
        os.environ["STABILITYKIT_CACHE"] = str(root / "default-cache")
        Child.preload()
        run = root / "run"
        code, _ = start([*EVALUATE, *PROPERTIES, "--no-cache", "-o", str(run)], root / "out", Site(root)).wait()
        if code != 0:
            raise SystemExit((root / "out").read_text())
        for number, work in enumerate(workloads(run)):
            share = given.kills // 4 + (number < given.kills % 4)
            if share:
                measure(work, root)
                attack(work, root, rng, table, share)
                print(table.last(), flush=True)
        for scenario in SCENARIOS if given.only is None else given.only:
            SCENARIOS[scenario](root, table, rng)
            print(table.last(), flush=True)
    text = table.markdown()
    print(f"\n{text}\n{time.monotonic() - started:.0f} s, seed {given.seed}")
    if given.write:
        only = "" if given.only is None else " --only " + " ".join(given.only)
        command = f"python benchmarks/faults.py --kills {given.kills} --seed {given.seed}{only}".rstrip()
        given.write.parent.mkdir(parents=True, exist_ok=True)
        before = (
            given.write.read_text() + "\n"
            if given.append and given.write.exists()
            else "# Faults injected and survived\n\n"
        )
        given.write.write_text(
            f"{before}`{command}`\n\n{text}\n\n"
            "Survived: every file whole (old or new) after the fault, no lock left, and the "
            "finished or resumed result equal to the uninterrupted one (cells: their results; "
            "trained weights and trajectories: their bytes).\n"
        )
    return 0 if table.nothing_lost else 1


if __name__ == "__main__":
    sys.exit(main())
