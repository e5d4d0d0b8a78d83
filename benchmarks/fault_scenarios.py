"""Faults other than kills: full disks, read-only folders, competing processes, polite signals."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fault_process import Child, Site, start

EVALUATE = [
    "evaluate",
    "-m",
    "resnet18-digits",
    "-d",
    "digits",
    "--limit",
    "80",
    "--batch-size",
    "10",
    "-q",
    "-p",
    "expansivity",
    "-p",
    "expansivity:curve=0",
]
TRAIN = [
    "train",
    "resnet18:width=4",
    "-d",
    "digits:train",
    "--limit",
    "64",
    "--batch-size",
    "32",
    "--epochs",
    "2",
    "-q",
]


@dataclass
class Table:
    """Kinds of faults: how many injected, survived, and what went wrong."""

    rows: dict[str, list[int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, injected: int, wrong: list[str]) -> None:
        row = self.rows.setdefault(kind, [0, 0])
        row[0] += injected
        row[1] += 0 if wrong else injected
        for text in wrong:
            self.wrong.append(f"{kind}: {text}")
            print(f"LOST {kind}: {text}", flush=True)

    def skip(self, kind: str, reason: str) -> None:
        self.skipped[kind] = reason

    @property
    def nothing_lost(self) -> bool:
        return not self.wrong

    def last(self) -> str:
        name = next(reversed(self.rows), "")
        return f"{name}: {self.rows[name][1]} of {self.rows[name][0]} survived" if name else ""

    def markdown(self) -> str:
        lines = ["| fault | injected | survived |", "|---|---:|---:|"]
        lines += [f"| {kind} | {count} | {good} |" for kind, (count, good) in self.rows.items()]
        lines.append(f"| **all** | {sum(r[0] for r in self.rows.values())} | {sum(r[1] for r in self.rows.values())} |")
        lines += [f"| {kind} | skipped: {reason} | |" for kind, reason in self.skipped.items()]
        return "\n".join(lines + [""] + [f"- LOST {text}" for text in self.wrong])


Scenario = Callable[[Path, Table, random.Random], None]


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[bool]:
    """A small file system of its own at ``folder``; False where mounting is not allowed."""
    folder.mkdir(exist_ok=True)
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True
        ).returncode
        == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def expect(child: Child, codes: set[int], *texts: str) -> list[str]:
    """What is wrong with how ``child`` ends: another exit code, a traceback, or a message without ``texts``."""
    code, _ = child.wait()
    output = child.output()
    wrong = [] if code in codes else [f"exit {code}, expected {sorted(codes)}: {output[-400:]}"]
    wrong += [f"no {text!r} in: {output[-400:]}" for text in texts if text not in output]
    if "Traceback" in output or "internal error" in output:
        wrong.append(f"a traceback: {output[-600:]}")
    return wrong


def results(run: Path) -> dict[str, str]:
    """Results of the finished cells of a run folder by file name."""
    found = {}
    for path in (run / "cells").glob("*.json"):
        cell = json.loads(path.read_text())
        found[path.name] = json.dumps([cell["status"], cell["result"]], sort_keys=True)
    return found


def reference(root: Path) -> dict[str, str]:
    """Results of an undisturbed run, made once."""
    run = root / "undisturbed"
    if not run.exists():
        wrong = expect(start([*EVALUATE, "--no-cache", "-o", str(run)], root / "out", Site(root)), {0})
        if wrong:
            raise SystemExit(wrong[0])
    return results(run)


def full_disk(root: Path, table: Table, rng: random.Random) -> None:
    """No room for the run folder, for the cache, for the weights, for the report; room again, resumed."""
    truth, small = reference(root), root / "small"
    with tmpfs(small, "3m") as mounted:
        if not mounted:
            return table.skip("full disk (tmpfs)", "mounting a tmpfs needs root")
        for _ in range(6):
            run, ballast = small / "run", small / "ballast"
            room = rng.randrange(0, 90_000)
            free = shutil.disk_usage(small).free
            ballast.write_bytes(b"x" * max(free - room, 0))
            child = start([*EVALUATE, "--no-cache", "-o", str(run)], root / "out", Site(small))
            code, _ = child.wait()
            wrong = []
            if code != 0:
                wrong += (
                    []
                    if code in (1, 2)
                    and ("No space" in child.output() or "no room" in child.output())
                    and "Traceback" not in child.output()
                    else [f"exit {code}: {child.output()[-400:]}"]
                )
                wrong += ["an earlier cell is damaged" for name, text in results(run).items() if truth[name] != text]
                ballast.unlink()
                again = [*EVALUATE, "--no-cache", "-o", str(run), "--resume"]
                wrong += expect(start(again, root / "out", Site(small)), {0})
            wrong += [] if results(run) == truth else ["the resumed results differ"]
            table.add("full disk under the run folder", 1, wrong)
            shutil.rmtree(run)
            ballast.unlink(missing_ok=True)
        ballast.write_bytes(b"x" * (shutil.disk_usage(small).free - 12_000))
        wrong = expect(
            start(
                [*EVALUATE, "--cache", str(small / "cache"), "-o", str(root / "full-cache")], root / "out", Site(small)
            ),
            {1},
            "--no-cache",
        )
        table.add("full disk under the cache", 1, wrong)
        output = small / "w.safetensors"
        shutil.rmtree(small / "cache", ignore_errors=True)
        wrong = expect(start([*TRAIN, "-o", str(output)], root / "out", Site(small)), {1}, "No space")
        ballast.unlink()
        wrong += expect(start([*TRAIN, "-o", str(output), "--resume"], root / "out", Site(small)), {0})
        table.add("full disk under the weights", 1, wrong)
        output.unlink()
        run = small / "run"
        shutil.copytree(root / "undisturbed", run)
        wrong = expect(start(["report", str(run)], root / "out", Site(small)), {0})
        before = (run / "report.html").read_bytes()
        ballast.write_bytes(b"x" * (shutil.disk_usage(small).free - 4_096))
        wrong += expect(start(["report", str(run)], root / "out", Site(small)), {1}, "No space")
        wrong += [] if (run / "report.html").read_bytes() == before else ["the old report is damaged"]
        table.add("full disk under the report", 1, wrong)


def file_limit(root: Path, table: Table, rng: random.Random) -> None:
    """No file may grow beyond a limit (RLIMIT_FSIZE), at several limits."""
    truth = reference(root)
    for number in range(6):
        run, limit = root / f"limited-{number}", rng.choice([1, 500, 2_000, 6_000, 20_000])
        child = start(
            [*EVALUATE, "--cache", str(root / f"limited-cache-{number}"), "-o", str(run)],
            root / "out",
            Site(root, file_limit=limit),
        )
        code, _ = child.wait()
        text = child.output()
        wrong = [] if code in (0, 1, 2) and "Traceback" not in text else [f"exit {code}: {text[-400:]}"]
        wrong += [] if code == 0 or "File too large" in text else [f"no reason given: {text[-400:]}"]
        wrong += [
            "an earlier cell is damaged"
            for name, text in results(run).items()
            if '"ok"' in text[:6] and truth[name] != text
        ]
        wrong += expect(
            start(
                [*EVALUATE, "--cache", str(root / f"limited-cache-{number}"), "-o", str(run), "--resume"],
                root / "out",
                Site(root),
            ),
            {0},
        )
        wrong += [] if results(run) == truth else ["the resumed results differ"]
        table.add("limit on the size of files", 1, wrong)
    output = root / "limited.safetensors"
    code, _ = start([*TRAIN, "-o", str(output)], root / "out", Site(root, file_limit=30_000)).wait()
    wrong = [] if code == 1 and not output.exists() else [f"train: exit {code}"]
    wrong += expect(start([*TRAIN, "-o", str(output), "--resume"], root / "out", Site(root)), {0})
    table.add("limit on the size of files", 1, wrong)


def read_only(root: Path, table: Table, rng: random.Random) -> None:
    """Run folder, cache, weights, and report on a file system mounted read-only (permissions do not bind root)."""
    reference(root)
    small = root / "read-only"
    with tmpfs(small, "16m") as mounted:
        if not mounted:
            return table.skip("read-only folder", "mounting a tmpfs needs root")
        run = small / "run"
        shutil.copytree(root / "undisturbed", run)
        if subprocess.run(["mount", "-o", "remount,ro", str(small)], capture_output=True).returncode:
            return table.skip("read-only folder", "remounting is not allowed")
        before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        for arguments, codes, text in (
            ([*EVALUATE, "--no-cache", "-o", str(small / "new")], {2}, "Read-only"),
            ([*EVALUATE, "--no-cache", "-o", str(run), "--resume"], {2}, "Read-only"),
            ([*EVALUATE, "--cache", str(small / "cache"), "-o", str(root / "beside")], {1}, "--no-cache"),
            ([*TRAIN, "-o", str(small / "w.safetensors")], {2}, "Read-only"),
            (["report", str(run)], {1}, "Read-only"),
            (["verify", str(run), "-q"], {0}, "stands"),
        ):
            wrong = expect(start(arguments, root / "out", Site(root)), codes, text)
            wrong += [] if {p: p.read_bytes() for p in before} == before else ["a file changed"]
            table.add("read-only folder", 1, [f"{arguments[0]}: {w}" for w in wrong])


def two_processes(root: Path, table: Table, rng: random.Random) -> None:
    """The same output folder, weights, and cache, at the same time."""
    truth = reference(root)
    for number in range(3):
        run = root / f"shared-{number}"
        first = start([*EVALUATE, "--no-cache", "-o", str(run)], root / "out-1", Site(root))
        while first.alive() and not (run / ".lock").exists():
            time.sleep(0.002)
        second = start([*EVALUATE, "--no-cache", "-o", str(run), "--resume"], root / "out-2", Site(root))
        wrong = expect(second, {2}, "in use")
        wrong += expect(first, {0}) + ([] if results(run) == truth else ["the first one's results differ"])
        table.add("two processes, one output folder", 1, wrong)
    for number in range(3):
        cache = root / f"shared-cache-{number}"
        runs = [root / f"sharing-{number}-{which}" for which in range(2)]
        children = [
            start([*EVALUATE, "--cache", str(cache), "-o", str(run)], root / f"out-{which}", Site(cache))
            for which, run in enumerate(runs)
        ]
        wrong = [text for child in children for text in expect(child, {0})]
        wrong += ["results differ" for run in runs if results(run) != truth]
        table.add("two processes, one cache", 1, wrong)
    for number in range(3):
        cache, run = root / f"killed-cache-{number}", root / f"waiting-{number}"
        first = start(
            [*EVALUATE, "--cache", str(cache), "-o", str(root / f"killed-{number}")],
            root / "out-1",
            Site(cache, kill_at=rng.randint(8, 30)),
        )
        second = start([*EVALUATE, "--cache", str(cache), "-o", str(run)], root / "out-2", Site(cache))
        first.wait()
        wrong = expect(second, {0}) + ([] if results(run) == truth else ["results differ"])
        table.add("one of two processes on one cache killed", 1, wrong)
    for number in range(2):
        output = root / f"shared-{number}.safetensors"
        first = start([*TRAIN, "-o", str(output)], root / "out-1", Site(root))
        while first.alive() and not output.with_name(f".{output.name}.lock").exists():
            time.sleep(0.002)
        wrong = expect(start([*TRAIN, "-o", str(output), "--resume"], root / "out-2", Site(root)), {2}, "in use")
        table.add("two processes, one file of weights", 1, wrong + expect(first, {0}))


def polite_signals(root: Path, table: Table, rng: random.Random) -> None:
    """SIGINT ends with 130 and SIGTERM with 143, without a traceback, and --resume finishes."""
    truth = reference(root)
    for name, code in (("SIGINT", 130), ("SIGTERM", 143)):
        for number in range(6):
            run = root / f"{name}-{number}"
            child = start([*EVALUATE, "--no-cache", "-o", str(run)], root / "out", Site(root))
            ended, _ = child.wait(kill_after=rng.uniform(0.02, 1.0), kill=getattr(signal, name))
            wrong = [] if ended in (0, code) else [f"exit {ended}: {child.output()[-400:]}"]
            wrong += [f"a traceback: {child.output()[-600:]}"] if "Traceback" in child.output() else []
            if ended:
                resumed = start([*EVALUATE, "--no-cache", "-o", str(run), "--resume"], root / "out", Site(root))
                wrong += expect(resumed, {0})
            wrong += [] if results(run) == truth else ["the results differ"]
            table.add(f"{name} during evaluate", 1, wrong)
        for number in range(2):
            output = root / f"{name}-{number}.safetensors"
            child = start([*TRAIN, "-o", str(output)], root / "out", Site(root))
            ended, _ = child.wait(kill_after=rng.uniform(0.02, 1.0), kill=getattr(signal, name))
            wrong = [] if ended in (0, code) else [f"exit {ended}: {child.output()[-400:]}"]
            wrong += [f"a traceback: {child.output()[-600:]}"] if "Traceback" in child.output() else []
            if ended:
                wrong += expect(start([*TRAIN, "-o", str(output), "--resume"], root / "out", Site(root)), {0})
            table.add(f"{name} during train", 1, wrong)


SCENARIOS: dict[str, Scenario] = {
    "full-disk": full_disk,
    "file-limit": file_limit,
    "read-only": read_only,
    "two-processes": two_processes,
    "signals": polite_signals,
}
