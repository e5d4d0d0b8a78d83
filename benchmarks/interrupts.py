"""Interrupt the main command at random moments: `python benchmarks/interrupts.py --count 100 --seed 0`.

Each trial starts a run in a fresh folder, sends it a signal after a random time (from the first millisecond on) and
looks at what is left: the exit code, whether anything like a traceback was printed, whether every finished cell reads
back, and whether a run that was finished in spite of the signal is whole. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from stabilitykit.base.errors import StabilityKitError
from stabilitykit.runs.folder import load_run

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def trial(folder: Path, moment: float, name: str, arguments: list[str]) -> str:
    """What became of one run -> ``"interrupted"``, ``"had finished"`` or what is wrong with it."""
    command = [sys.executable, "-m", "stabilitykit", *arguments, "-q", "-o", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(moment)
        process.send_signal(getattr(signal, name))
        try:
            _, error = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            return "the signal was lost"
    if "Traceback" in error or "Exception ignored" in error:
        return f"traceback: {error.strip().splitlines()[-1][:80]}"
    if process.returncode == -getattr(signal, name) and not error:
        return "ended by the system before Python listened"
    if process.returncode not in (0, CODES[name]):
        return f"exit {process.returncode}: {error.strip()[-80:]}"
    if (folder / "run.json").exists():
        try:
            info, cells = load_run(folder)
        except StabilityKitError as problem:
            return f"unreadable: {problem}"
        if process.returncode == 0 and (info["status"] != "complete" or not all(cell.ok for cell in cells)):
            return "exit 0 with cells missing"
    elif process.returncode == 0:
        return "exit 0 without a run"
    return "had finished" if process.returncode == 0 else "interrupted"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=7.0, help="latest moment of a signal, seconds")
    options = parser.parse_args()
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # a shell starts jobs in the background so, and it is inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
    draw = random.Random(options.seed)
    arguments = ["evaluate", "-p", "table2", "--limit", "100"]
    found: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["STABILITYKIT_CACHE"] = str(Path(scratch) / "cache")
        for number in range(options.count):
            name = draw.choice(list(CODES))
            # Half of them while Python starts: that is where an interrupt is most easily lost.
            moment = draw.uniform(0.0, 0.5 if draw.random() < 0.5 else options.longest)
            outcome = trial(Path(scratch) / str(number), moment, name, arguments)
            found[name, outcome] += 1
            if outcome not in ("interrupted", "had finished", "ended by the system before Python listened"):
                print(f"{name} after {moment:.3f} s: {outcome}", file=sys.stderr)
    print("| signal | outcome | runs |\n|---|---|---|")
    for (name, outcome), count in sorted(found.items()):
        print(f"| {name} | {outcome} | {count} |")


if __name__ == "__main__":
    main()
