"""Faults at the size of a large trajectory: a disk that fills up in the middle, a killed worker, eight processes.

The trajectory is recorded readouts at 10 depths, made by a script; on disk 8 bytes a number. `faults.py --images N
--classes K` sets its size. What is measured of it is a digest of all its bytes: a property of a plugin made here. The
disks are tmpfs of their own, smaller than the trajectory or filled up while it grows.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fault_process import Child, Site, start
from benchmarks.fault_scenarios import Scenario, Table, expect, results, tmpfs

PLUGIN = """
import hashlib
from stabilitykit import Component, Kind, Measurement, Property, PropertyResult, hookimpl

class Digest(Property):
    def evaluate(self, context):
        found = hashlib.sha256()
        for logits in context.trajectory.logits:
            found.update(logits.data)
        value = int.from_bytes(found.digest()[:6], "big")
        return PropertyResult([Measurement("digest", value, Kind.EXACT, len(context.indices), note=found.hexdigest())])

@hookimpl
def stabilitykit_properties():
    return [Component("property", "digest", "stabilitykit_digest:Digest", "All bytes of the trajectory")]
"""


@dataclass
class Size:
    """How large the trajectory is.

    Attributes:
        rounds: how often a fault at a moment drawn by chance is injected.
    """

    images: int = 10_000
    classes: int = 10
    depths: int = 10
    rounds: int = 3

    @property
    def bytes(self) -> int:
        return 8 * self.depths * self.images * self.classes


SIZE = Size()


def evaluate(root: Path, *more: str) -> list[str]:
    """The command over the large trajectory, whose file, true results and plugin are made once."""
    path, plugin = root / "large.npz", root / "plugin"
    if not path.exists():
        from stabilitykit.search.synthetic import softmax_trajectory

        values, labels = softmax_trajectory(SIZE.images, SIZE.depths, SIZE.classes, seed=4)
        np.maximum(values, np.float32(1e-30), out=values)
        np.savez(path, values=np.log(values, out=values), labels=labels)
        info = plugin / "stabilitykit_digest-1.0.dist-info"
        info.mkdir(parents=True)
        (plugin / "stabilitykit_digest.py").write_text(PLUGIN)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stabilitykit_digest\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[stabilitykit]\ndigest = stabilitykit_digest\n")
        sys.path.append(str(plugin))
    return ["evaluate", "--trajectories", str(path), "-q", "-p", "digest", *more]


def truth_of(root: Path) -> dict[str, str]:
    """Results of an undisturbed run over the large trajectory, made once."""
    run = root / "large-undisturbed"
    if not run.exists():
        wrong = expect(start([*evaluate(root), "--no-cache", "-o", str(run)], root / "out", Site(root)), {0})
        if wrong:
            raise SystemExit(wrong[0])
    return results(run)


def growing(cache: Path, child: Child) -> bool:
    """Wait until the trajectory in ``cache`` grows; False where the child ended before."""
    while child.alive():
        if any(cache.rglob("progress.json")):
            return True
        time.sleep(0.001)
    return False


def workers(pid: int) -> list[int]:
    """The children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def large_full_disk(root: Path, table: Table, rng: random.Random) -> None:
    """No room for the trajectory; the disk filled by another while it grows; no room for the decisions."""
    truth, small = truth_of(root), root / "large-small"
    with tmpfs(small, f"{SIZE.bytes * 3 // 4}") as mounted:
        if not mounted:
            return table.skip("full disk under a large trajectory", "mounting a tmpfs needs root")
        run = root / "large-refused"
        command = evaluate(root, "--cache", str(small / "cache"), "-o", str(run))
        wrong = expect(start(command, root / "out", Site(small)), {1}, "--no-cache")
        wrong += expect(
            start([*evaluate(root), "--no-cache", "-o", str(run), "--resume"], root / "out", Site(root)), {0}
        )
        wrong += [] if results(run) == truth else ["the resumed results differ"]
        table.add("large trajectory larger than the disk of the cache", 1, wrong)
    for number in range(SIZE.rounds):
        with tmpfs(small, f"{SIZE.bytes * 3 // 2}") as mounted:
            if not mounted:
                return table.skip("disk filled up while a large trajectory grows", "mounting a tmpfs is not allowed")
            run, cache, ballast = root / f"large-filled-{number}", small / "cache", small / "ballast"
            command = evaluate(root, "--cache", str(cache), "-o", str(run))
            child = start(command, root / "out", Site(small))
            wrong = [] if growing(cache, child) else ["it ended before the trajectory grew"]
            time.sleep(rng.uniform(0, 0.2))
            with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
                while file.write(b"x" * 65536):
                    pass
            code, _ = child.wait()
            said = child.output()
            if code != 0 and not (code == 1 and "No space" in said and "Traceback" not in said):
                wrong.append(f"exit {code}: {said[-400:]}")
            ballast.unlink(missing_ok=True)
            if code != 0:
                wrong += expect(start([*command, "--resume"], root / "out", Site(small)), {0})
            wrong += [] if results(run) == truth else ["the results differ"]
            wrong += expect(
                start(evaluate(root, "--cache", str(cache), "-o", f"{run}-again"), root / "out", Site(small)), {0}
            )
            wrong += [] if results(Path(f"{run}-again")) == truth else ["the results from the cache differ"]
            table.add("disk filled up while a large trajectory grows", 1, wrong)
    with tmpfs(small, f"{SIZE.bytes // 40}") as mounted:
        if not mounted:
            return table.skip("disk too small for the decisions of a large run", "mounting a tmpfs is not allowed")
        run = small / "run"
        child = start([*evaluate(root), "--no-cache", "-o", str(run)], root / "out", Site(small))
        wrong = expect(child, {1, 2}, "No space")
        saved = root / "large-run"
        shutil.copytree(run, saved)
        wrong += expect(
            start([*evaluate(root), "--no-cache", "-o", str(saved), "--resume"], root / "out", Site(root)), {0}
        )
        wrong += [] if results(saved) == truth else ["the resumed results differ"]
        table.add("disk too small for the decisions of a large run", 1, wrong)


def large_killed_worker(root: Path, table: Table, rng: random.Random) -> None:
    """SIGKILL for the worker alone while the trajectory grows; its supervisor lives, and the run is finished."""
    truth = truth_of(root)
    for number in range(SIZE.rounds):
        run, cache = root / f"large-killed-{number}", root / f"large-killed-cache-{number}"
        command = evaluate(root, "--cache", str(cache), "-o", str(run))
        child = start(command, root / "out", Site(cache))
        wrong = [] if growing(cache, child) else ["it ended before the trajectory grew"]
        time.sleep(rng.uniform(0, 0.2))
        for worker in workers(child.pid):
            os.kill(worker, signal.SIGKILL)
        code, _ = child.wait()
        said = child.output()
        wrong += [] if code in (0, 1) and "Traceback" not in said else [f"exit {code}: {said[-400:]}"]
        wrong += expect(start([*command, "--resume"], root / "out", Site(cache)), {0})
        wrong += [] if results(run) == truth else ["the resumed results differ"]
        wrong += [f"{p.name} was left behind" for p in cache.rglob(".*.tmp")]
        table.add("worker killed while a large trajectory grows", 1, wrong)


def eight_processes(root: Path, table: Table, rng: random.Random) -> None:
    """Eight processes want one large trajectory of one cache at the same time."""
    truth, cache = truth_of(root), root / "large-eight-cache"
    runs = [root / f"large-eight-{which}" for which in range(8)]
    children = [
        start(evaluate(root, "--cache", str(cache), "-o", str(run)), root / f"out-{which}", Site(cache))
        for which, run in enumerate(runs)
    ]
    wrong = [text for child in children for text in expect(child, {0})]
    wrong += [f"the results of {run.name} differ" for run in runs if results(run) != truth]
    kept = list(cache.rglob("logits.npy"))
    wrong += [] if len(kept) == 1 else [f"{len(kept)} trajectories are kept"]
    wrong += [f"{p.name} was left behind" for p in cache.rglob(".*.tmp")]
    table.add("eight processes, one cache, one large trajectory", 8, wrong)


SCENARIOS: dict[str, Scenario] = {
    "large-full-disk": large_full_disk,
    "large-killed-worker": large_killed_worker,
    "eight-processes": eight_processes,
}
