"""Hostile input through the real command line: no traceback, exit codes 0, 1 or 2 only, no code executed.

    python benchmarks/fuzz.py --count 150 --seed 0 --write benchmarks/results/fuzz.md

Prints how many inputs of each family were tried and how they ended. An input that breaks a promise is kept in
--keep (default: fuzz-failures) with the arguments that led to it; exit 1 then.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fuzz_bench import Bench
from benchmarks.fuzz_inputs import FAMILIES

# An input of a few kB that keeps a core busy for longer than this is a denial of service.
SECONDS = 60
# Work that was asked for is interrupted after this long; exit 130 then.
PATIENCE = 6


CODES = ("0", "1", "2", "130")


class TooLong(BaseException):
    """An input took longer than SECONDS."""


@dataclass
class Outcome:
    """How one command line ended. ``broken``: the promise it broke, if any."""

    code: int | None
    seconds: float
    text: str
    broken: str = ""


@dataclass
class Tally:
    """Counts of a family: exit code -> inputs."""

    codes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest: float = 0.0


def try_input(arguments: list[str], bench: Bench, must_fail: bool = False, long: bool = False) -> Outcome:
    """Run the command line in this process. ``must_fail``: an exit code 0 would be a wrong number given silently."""
    from stabilitykit.cli import run

    out, started = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), time.monotonic()
    code: int | None = None
    broken = ""

    def ring(signum: int, frame: object) -> None:
        raise KeyboardInterrupt if long else TooLong

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE if long else SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = run(arguments)
    except TooLong:
        broken = f"took longer than {SECONDS} s"
    except BaseException as error:
        broken = f"{type(error).__name__} reached the user: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    out.flush()
    text = out.buffer.getvalue().decode(errors="replace")  # type: ignore[attr-defined]
    if not broken and time.monotonic() - started > 2 * SECONDS:
        broken = f"took longer than {2 * SECONDS} s"
    if not broken and code not in (0, 1, 2, *((130,) if long else ())):
        broken = f"exit code {code}"
    if not broken and ("Traceback" in text.split('"traceback"')[0] or "internal error" in text):
        broken = "a traceback or an internal error"
    if not broken and must_fail and code == 0:
        broken = "exit 0 for input that cannot give a number"
    if bench.canary.exists():
        broken = "CODE WAS EXECUTED"
        bench.canary.unlink()
    return Outcome(code, time.monotonic() - started, text, broken)


def fuzz(
    families: list[str],
    count: int,
    seed: int,
    bench: Bench,
    keep: Path | None = None,
    report: Callable[[str, Tally], None] | None = None,
) -> dict[str, Tally]:
    """``count`` inputs of each family. Equal seeds give equal inputs, whatever the other families are."""
    tallies = {}
    for name in families:
        tally = tallies.setdefault(name, Tally())
        for number in range(count):
            rng = random.Random(f"{name} {seed} {number}")
            folder = bench.fresh()
            case = FAMILIES[name](rng, folder, bench)
            outcome = try_input(case.arguments, bench, case.must_fail, case.long)
            tally.codes["broken" if outcome.broken else str(outcome.code)] += 1
            tally.slowest = max(tally.slowest, outcome.seconds)
            if outcome.broken:
                tally.broken.append(
                    f"{name} {seed} {number}: {outcome.broken}: {' '.join(case.arguments)[:300]!r}: "
                    f"{outcome.text[-500:]}"
                )
                if keep is not None:
                    target = keep / f"{name}-{seed}-{number}"
                    shutil.copytree(folder, target, dirs_exist_ok=True)
                    (target / "arguments.json").write_text(json.dumps(case.arguments) + "\n" + outcome.text)
        if report:
            report(name, tally)
    return tallies


def markdown(tallies: dict[str, Tally]) -> str:
    lines = [
        "| family | inputs | exit 0 | exit 1 | exit 2 | interrupted | broken promises | slowest |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, t in tallies.items():
        cells = [str(t.codes.get(code, 0)) for code in CODES]
        count, counts = sum(t.codes.values()), " | ".join(cells)
        lines.append(f"| {name} | {count} | {counts} | {len(t.broken)} | {t.slowest:.1f} s |")
    every = sum(sum(t.codes.values()) for t in tallies.values())
    totals = " | ".join(str(sum(t.codes.get(code, 0) for t in tallies.values())) for code in CODES)
    lines.append(f"| **all** | {every} | {totals} | {sum(len(t.broken) for t in tallies.values())} | |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=150, help="inputs per family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", nargs="*", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        keep = given.keep.resolve()
        target = given.write.resolve() if given.write else None  # the bench works in a folder of its own
        bench = Bench(Path(name))

        def report(family: str, tally: Tally) -> None:
            print(f"{family}: {sum(tally.codes.values())} inputs, exits {dict(tally.codes)}", flush=True)
            for text in tally.broken:
                print("BROKEN", text, flush=True)

        tallies = fuzz(given.family, given.count, given.seed, bench, keep, report)
    text = markdown(tallies)
    print(f"\n{text}\n{time.monotonic() - started:.0f} s, seed {given.seed}")
    if target:
        command = f"python benchmarks/fuzz.py --count {given.count} --seed {given.seed}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            f"# Hostile inputs tried\n\n`{command}`\n\n{text}\n\n"
            "A broken promise is a traceback, an exit code other than 0, 1 or 2, code executed from a file, more than "
            f"{SECONDS} s for one small input, or exit 0 where no number can be given. Interrupted: valid options that "
            f"ask for much work, stopped after {PATIENCE} s as by Ctrl-C (130).\n"
        )
    return 1 if any(t.broken for t in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
