"""How far do numbers move between equal runs, batch sizes and thread counts? Measured on the embedded model.

    python benchmarks/determinism.py --write benchmarks/results/determinism.md

Exit 1 when two equal runs differ in any bit of any result, or a logit moves by more than the bound that every run
records (``stabilitykit.runs.provenance.LOGIT_BOUND``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CODE = """
import json, sys, numpy as np, torch
from stabilitykit import evaluate, Property, PropertyResult, Measurement, Kind
threads, batch, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(threads)
class Keep(Property):
    name = "keep"
    def evaluate(self, context):
        np.save(out + ".npy", context.trajectory.logits)
        return PropertyResult([Measurement("kept", 1.0, Kind.EXACT, len(context.indices))])
run = evaluate("resnet18-digits", "digits", ["expansivity", "shadowing", Keep()], batch_size=batch, cache=False,
               device="cpu")
json.dump([c.result.to_json() for c in run.cells if c.property != "keep"], open(out + ".json", "w"), sort_keys=True)
"""


def measure(folder: Path, name: str, threads: int, batch: int) -> tuple[np.ndarray, str]:
    """(logits (T+1, N, K), results as JSON text) of one run in a process of its own."""
    out = folder / name
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-c", CODE, str(threads), str(batch), str(out)], check=True, env=environment)
    return np.load(f"{out}.npy"), Path(f"{out}.json").read_text()


def constants(text: str) -> dict[str, float]:
    return {
        m["name"]: float(m["value"])
        for result in json.loads(text)
        for m in result["measurements"]
        if m["value"] is not None
    }


def main() -> int:
    from stabilitykit.dynamics.space import to_space
    from stabilitykit.runs.provenance import LOGIT_BOUND

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 7, 32, 597])
    parser.add_argument("--threads", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logits, results = measure(folder, "reference", 1, 100)
        repeated, again = measure(folder, "again", 1, 100)
        equal = results == again and np.array_equal(logits, repeated)
        rows, worst = [], 0.0
        base, before = constants(results), to_space(logits, "probabilities")
        for threads, batch in [*((1, b) for b in given.batches), *((t, 100) for t in given.threads)]:
            other, text = measure(folder, f"{threads}-{batch}", threads, batch)
            moved = float(np.abs(other.astype(np.float64) - logits).max())
            worst = max(worst, moved)
            there = constants(text)
            drift = max((abs(there[k] - v) / max(abs(v), 1e-12), k) for k, v in base.items() if np.isfinite(v))
            rows.append((threads, batch, moved, float(np.abs(to_space(other, "probabilities") - before).max()), *drift))
    same = "identical to the last bit" if equal else "DIFFERENT"
    lines = [
        f"Two equal runs (1 thread, batch size 100): {same}.",
        "",
        f"Largest logit: {np.abs(logits).max():.3g}; depths, images, classes: {logits.shape}.",
        "",
        "| threads | batch size | logits move by | probabilities move by | constants move by (relative) | which |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    lines += [f"| {t} | {b} | {m:.2e} | {p:.2e} | {d:.2e} | {k} |" for t, b, m, p, d, k in rows]
    lines += [
        "",
        f"Against 1 thread, batch size 100, float32 on the CPU. Bound recorded with every run: {LOGIT_BOUND:g} "
        f"(relative to the largest logit); measured: {worst / np.abs(logits).max():.2e}.",
    ]
    text = "\n".join(lines)
    print(text)
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(f"# Determinism\n\n`python benchmarks/determinism.py`\n\n{text}\n")
    return 0 if equal and worst <= LOGIT_BOUND * np.abs(logits).max() else 1


if __name__ == "__main__":
    sys.exit(main())
