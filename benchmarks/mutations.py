"""Do the tests bite? Small errors are put into code that guards trust, one at a time, and related tests must fail.

    python benchmarks/mutations.py --jobs 2 --write benchmarks/results/mutations.md
    python benchmarks/mutations.py --only cache

The errors are listed in `benchmarks/mutants.py`. Each is applied to a copy of the tree, never to the tree itself. The
unchanged copy must pass all tests named first. Exit 1 when a mutant survives, 2 when the list or the tests are wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
# Imported once here and inherited by every child: these imports take longer than most tests.
HEAVY = ("numpy", "torch", "scipy.sparse.linalg", "scipy.optimize", "hypothesis", "pytest", "safetensors.torch")
PASSED, FAILED, STOPPED = 0, 1, 2


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``"killed"``, ``"survived"`` or ``"equivalent"``, after how long, by which test."""

    mutant: Mutant
    status: str
    seconds: float = 0.0
    by: str = ""


class Tree:
    """A copy of the files of the working tree that git knows or would know."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._clock = time.time()
        listed = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def change(self, name: str, text: str) -> None:
        """Replace a file. Its time is one it never had: compiled code of another version is never taken for its."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        self._clock += 2.0
        # Machine code of one file holds functions of others, and numba looks only at the time of the first.
        together = path.parent.rglob("*.py") if "/search/" in name or "_kernel" in name else [path]
        for one in together:
            os.utime(one, (self._clock, self._clock))

    def start(self, tests: Sequence[str], log: Path) -> int:
        """Run pytest on ``tests`` in a child whose packages are those of the tree -> its process id."""
        child = os.fork()
        if child:
            return child
        code = 70
        try:
            os.setsid()
            os.chdir(self.folder)
            with open(log, "wb") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            own = [str(self.folder), str(self.folder / "plugins")]
            os.environ["PYTHONPATH"] = os.pathsep.join(own)
            sys.path[:] = own + [p for p in sys.path if p not in (str(ROOT), str(ROOT / "plugins"))]
            for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
                del sys.modules[name]
            import pytest

            code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))
        finally:
            sys.stdout.flush()
            os._exit(code)


@dataclass
class Running:
    """A child that tests a mutant (None: the unchanged tree)."""

    mutant: Mutant | None
    tree: Tree
    log: Path
    begun: float


def problems(mutants: Iterable[Mutant], root: Path = ROOT) -> list[str]:
    """What is wrong with the list: a text that its file does not hold exactly once, tests that are not there."""
    found = []
    texts: dict[str, str] = {}
    for mutant in mutants:
        where = f"{mutant.file} ({mutant.breaks})"
        if mutant.file not in texts:
            path = root / mutant.file
            texts[mutant.file] = path.read_text(encoding="utf-8") if path.is_file() else ""
        count = texts[mutant.file].count(mutant.old)
        if count != 1:
            found.append(f"{where}: {mutant.old!r} occurs {count} times, expected once")
        if mutant.old == mutant.new:
            found.append(f"{where}: changes nothing")
        if not mutant.equivalent and not mutant.tests:
            found.append(f"{where}: names no test")
        for test in mutant.tests:
            name, _, function = test.partition("::")
            path = root / name
            if not path.is_file():
                found.append(f"{where}: no file {name}")
            elif function and f"def {function.partition('[')[0]}(" not in path.read_text(encoding="utf-8"):
                found.append(f"{where}: no test {test}")
    return found


def run(mutants: Sequence[Mutant], jobs: int, timeout: float) -> Iterator[Outcome]:
    """Test every mutant, ``jobs`` at a time; a test that takes longer than ``timeout`` seconds counts as failed."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        free = [Tree(Path(name) / f"tree{number}") for number in range(jobs)]
        waiting = [mutant for mutant in mutants if not mutant.equivalent]
        running: dict[int, Running] = {}
        while waiting or running:
            while waiting and free:
                mutant, tree = waiting.pop(0), free.pop()
                text = (ROOT / mutant.file).read_text(encoding="utf-8")
                tree.change(mutant.file, text.replace(mutant.old, mutant.new))
                log = tree.folder.with_suffix(".log")
                running[tree.start(mutant.tests, log)] = Running(mutant, tree, log, time.monotonic())
            child, code, late = _next(running, timeout)
            done = running.pop(child)
            assert done.mutant is not None
            done.tree.change(done.mutant.file, (ROOT / done.mutant.file).read_text(encoding="utf-8"))
            free.append(done.tree)
            by = "" if code == PASSED else "time" if late else _first_failure(done.log)
            if not late and code not in (PASSED, FAILED, STOPPED):
                raise SystemExit(f"error: pytest ended with {code} for {done.mutant.breaks}:\n{_tail(done.log)}")
            status = "survived" if code == PASSED and not late else "killed"
            yield Outcome(done.mutant, status, time.monotonic() - done.begun, by)


def require_passing(tests: Sequence[str]) -> None:
    """Exit 2 unless the unchanged copy passes ``tests``: what fails anyway kills no mutant."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        tree, log = Tree(Path(name) / "tree"), Path(name) / "log"
        child = tree.start([f"--rootdir={tree.folder}", *tests], log)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != PASSED:
            print(_tail(log) + "\nerror: these tests fail without any mutant", file=sys.stderr)
            raise SystemExit(2)


def _next(running: dict[int, Running], timeout: float) -> tuple[int, int, bool]:
    """(child, exit code, whether it had to be killed) of the next child that ends."""
    while True:
        for child, what in running.items():
            late = time.monotonic() - what.begun > timeout
            if late:
                os.killpg(child, signal.SIGKILL)
            gone, status = os.waitpid(child, 0 if late else os.WNOHANG)
            if gone:
                return child, os.waitstatus_to_exitcode(status), late
        time.sleep(0.02)


def _first_failure(log: Path) -> str:
    text = log.read_text(errors="replace")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    return found[1].removeprefix("tests/") if found else "?"


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: one row per mutant, then totals."""
    lines = ["| file | what breaks | outcome | by | s |", "|---|---|---|---|---:|"]
    for o in outcomes:
        file = o.mutant.file.removeprefix("plugins/").removeprefix("stabilitykit/")
        by = f"`{o.by}`" if o.by else o.mutant.equivalent
        status = f"**{o.status}**" if o.status == "survived" else o.status
        lines.append(f"| {file} | {o.mutant.breaks} | {status} | {by} | {o.seconds:.1f} |".replace("| 0.0 |", "| |"))
    count = Counter(o.status for o in outcomes)
    real = count["killed"] + count["survived"]
    lines += [
        "",
        f"{len(outcomes)} mutants: {count['killed']} killed, {count['survived']} survived, {count['equivalent']} "
        f"equivalent; {100 * count['killed'] / max(real, 1):.1f} % of the others killed.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run related tests on small errors in code that guards trust.")
    parser.add_argument("--only", default="", help="mutants whose file or description matches this pattern")
    parser.add_argument("--jobs", type=int, default=1, help="mutants tested at a time")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for the tests of one mutant")
    parser.add_argument("--no-baseline", action="store_true", help="the tests are known to pass without any mutant")
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    options = parser.parse_args()
    wrong = problems(MUTANTS)
    if wrong:
        print("\n".join(f"error: {text}" for text in wrong), file=sys.stderr)
        return 2
    chosen = [m for m in MUTANTS if re.search(options.only, f"{m.file} {m.breaks}", re.IGNORECASE)]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in HEAVY:
        __import__(name)
    begun = time.monotonic()
    if not options.no_baseline:
        require_passing(sorted({test for mutant in chosen if not mutant.equivalent for test in mutant.tests}))
    done = {m: Outcome(m, "equivalent") for m in chosen if m.equivalent}
    for outcome in run(chosen, options.jobs, options.timeout):
        done[outcome.mutant] = outcome
        print(
            f"{outcome.status:9} {outcome.seconds:6.1f} s  {outcome.mutant.file}: {outcome.mutant.breaks}", flush=True
        )
    outcomes = [done[m] for m in chosen]
    text = table(outcomes)
    print("\n" + text)
    if options.write:
        head = f"# Mutants\n\n`python benchmarks/mutations.py` on {os.cpu_count()} cores, {options.jobs} at a time, in "
        options.write.write_text(f"{head}{time.monotonic() - begun:.0f} s.\n\n{text}", encoding="utf-8")
    return 1 if any(o.status == "survived" for o in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
