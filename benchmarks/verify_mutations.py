"""Every number and every text of a run altered, one at a time: does `stabilitykit verify` see it?

    python benchmarks/verify_mutations.py [RUN] [--real 15] [--seed 0]

Without RUN, all properties are measured on 40 digits. The run is measured again once, and every alteration is judged
against that; a random sample goes through the real command. Writes results/verify_mutations.md.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from stabilitykit.testing.mutations import Mutated, Mutation, mutations

HERE = Path(__file__).parent
PROPERTIES = ("expansivity", "shadowing", "lipschitz", "perturbation", "topological", "blocks", "table2")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--real", type=int, default=15, help="alterations that go through the real command")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = options.run or _measured(Path(scratch) / "run")
        mutated = Mutated(run)
        assert mutated.verdict(mutated.files) == "stands", "the run does not stand before it is altered"
        start, every = time.perf_counter(), list(mutations(mutated.files))
        verdicts = [mutated.verdict(m.files, m.file, m.path) for m in every]
        seconds = time.perf_counter() - start
        chosen = random.Random(options.seed).sample(range(len(every)), options.real)
        real = [(every[i], verdicts[i], _command(run, every[i], Path(scratch) / f"altered-{i}")) for i in chosen]
    text = _report(every, verdicts, seconds, real)
    (HERE / "results" / "verify_mutations.md").write_text(text)
    print(text)
    agree = all((verdict in ("fails", "refused")) == (code != 0) for _, verdict, code in real)
    return 0 if "stands" not in verdicts and agree else 1


def _measured(folder: Path) -> Path:
    words = [word for name in PROPERTIES for word in ("-p", name)]
    command = [sys.executable, "-m", "stabilitykit", "evaluate", "-m", "resnet18-digits", "-d", "digits", *words]
    subprocess.run([*command, "--limit", "40", "-q", "--output", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


def _command(run: Path, mutation: Mutation, folder: Path) -> int:
    """Exit code of `stabilitykit verify` on a copy of ``run`` with that alteration."""
    shutil.copytree(run, folder)
    if mutation.file == "measurements.csv":
        (folder / mutation.file).write_text(mutation.files.csv or "", encoding="utf-8")
    else:
        name = mutation.file.removeprefix("cells/")
        data = mutation.files.info if mutation.file == "run.json" else mutation.files.cells[name]
        (folder / mutation.file).write_text(json.dumps(data), encoding="utf-8")
    command = [sys.executable, "-m", "stabilitykit", "verify", str(folder), "-q"]
    return subprocess.run(command, check=False, capture_output=True).returncode


def _report(every: list[Mutation], verdicts: list[str], seconds: float, real: list[tuple[Mutation, str, int]]) -> str:
    kinds = [(m.file.rpartition("--")[2].partition(".")[0] if "cells/" in m.file else m.file) for m in every]
    counts = Counter(zip(kinds, verdicts, strict=True))
    numbers = [v for m, v in zip(every, verdicts, strict=True) if m.is_number]
    caught, seen = (sum(v in ("fails", "refused") for v in some) for some in (verdicts, numbers))
    lines = [
        "# Every leaf of a run altered, one at a time",
        "",
        f"`benchmarks/verify_mutations.py`: properties {', '.join(PROPERTIES)} on 40 digits. A float becomes the "
        "next float, a whole number the next one, a text gets a letter more. *fails*: exit 1; *refused*: exit 2, the "
        "file is damaged; *listed*: exit 0, and `verify` names the place among what it does not "
        "recompute; *missed*: exit 0.",
        "",
        f"{len(every)} alterations, {caught} caught ({caught / len(every):.2%}); of {len(numbers)} numbers {seen} "
        f"({seen / max(1, len(numbers)):.2%}). {seconds:.0f} s.",
        "",
        "| file | leaves | fails | refused | listed | missed |",
        "|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(kinds):
        row = [counts[kind, verdict] for verdict in ("fails", "refused", "listed", "stands")]
        lines.append(f"| {kind} | {sum(row)} | {' | '.join(map(str, row))} |")
    left = [(m, v) for m, v in zip(every, verdicts, strict=True) if v in ("listed", "stands")]
    lines += ["", "## Not caught", ""]
    lines += [f"- {'listed' if v == 'listed' else 'missed'}: {m.file} `{m.path}` (`{m.was!r}`)" for m, v in left]
    lines += ["", "## Through the real command", "", "| file | place | was | is | in process | exit code |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [f"| {m.file} | `{m.path}` | `{m.was!r:.40}` | `{m.now!r:.40}` | {v} | {code} |" for m, v, code in real]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
