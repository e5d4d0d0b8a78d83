"""Certified solver for LipSDP-Neuron beside others (Clarabel, SCS, eclipse-nn, the norm product), one run.

    python benchmarks/lipschitz_solvers.py [--limit SECONDS] [--tol 1e-6] [--only NAME] [--solver NAME] [--large]
        [--alone] [--lower] [--exact] [--state FILE]

Every solver runs in a process of its own with one BLAS thread unless --threads says otherwise. cvxpy gets the same
compressed matrix inequality (inputs compressed, dead neurons removed) that ours solves, eclipse-nn weights and slopes
(as float64) as its own interface takes them. All but ours are stopped after --limit seconds of processor time, so that
a busy machine does not stop them early. `wall` is the solver's own time (for ours reduction, solution and certificate)
and `cpu` the processor time of the same span, the fairer figure on a busy machine. Our bound is the certified one; what
another "says" is its unproven value relative to it; where it gives multipliers, they are certified afterwards.
--lower shows instead what the search for a large Jacobian finds for more and more nominal seconds (6e9 multiplications
each), --exact the interval that `method="exact"` leaves. --state keeps finished lines, so that a run can be stopped and
resumed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.lipschitz_others import OTHERS, why_not

SMALL = [
    "random 16-16x2-5",
    "random 32-32x2-10",
    "random 784-50-10",
    "trained 784-100-10",
    "random 784-100-10",
    "random 784-64x4-10",
    "random 784-256-128-10",
    "trained 784-256-128-10",
    "trained 784-512-256-128-10",
    "random 20 layers of 40",
    "gelu 784-100-10",
    "leaky 64-64x2-10",
]
LARGE = [
    "random 784-2048x4-10",
    "random 784-8192-10",
    "gelu 784-4096x2-10",
    "random 784-1024x8-10",
    "random 100 layers of 100",
]
# Ours alone, as well.
WIDE = ["trained 784-1024x3-10"]
# One hidden layer.
EXACT = ["trained 784-64-10", "trained 784-256-10", "random 784-64-10", "random 784-256-10"]
# Nominal seconds of searches for the lower bound.
BOUGHT = (0.5, 2.0, 10.0, 40.0)
# cvxpy is not started above this many rows: it needs gigabytes and far more than the limit.
MOST_ROWS = 330


def _sizes(text: str) -> list[int]:
    sizes: list[int] = []
    for part in text.split("-"):
        width, _, times = part.partition("x")
        sizes += [int(width)] * int(times or 1)
    return sizes


def network(name: str) -> Any:
    """The network of that name; trained ones are fitted to a seeded synthetic 10-class problem."""
    import numpy as np
    from stabilitykit_lipschitz.network import dense
    from stabilitykit_lipschitz.slopes import named

    if " layers of " in name:
        kind, count, _, _, width = name.split()
        sizes, activation = [int(width)] * (int(count) + 1) + [10], "relu"
    else:
        kind, text = name.split()
        sizes, activation = _sizes(text), {"gelu": "gelu", "leaky": "leaky relu"}.get(kind, "relu")
    if kind == "trained":
        return dense(_train(sizes), None, named(activation))
    rng = np.random.default_rng(0)
    return dense(
        [rng.standard_normal((b, a)) * math.sqrt(2.0 / a) for a, b in pairwise(sizes)], None, named(activation)
    )


def _train(sizes: list[int]) -> list[Any]:
    """Weights after 300 Adam steps on Gaussian clusters (two per class)."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    centers = torch.randn(2 * sizes[-1], sizes[0])
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(300):
        which = torch.randint(len(centers), (128,))
        x = centers[which] + 2.0 * torch.randn(128, sizes[0])
        loss = nn.functional.cross_entropy(model(x), which % sizes[-1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return [m.weight.detach().double().numpy() for m in model if isinstance(m, nn.Linear)]


def run(name: str, solver: str, tol: float, limit: float) -> dict[str, Any]:
    """One solver on one network, in this process."""
    net = network(name)
    if solver != "ours":
        from benchmarks.lipschitz_others import bound

        why_not("eclipse_nn")  # imports cvxpy too, which takes longer than many a solution
        wall, cpu = time.perf_counter(), time.process_time()
        found = bound(net, solver, tol)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, **found}
    from stabilitykit_lipschitz.lower import search
    from stabilitykit_lipschitz.proofs import solve_certified
    from stabilitykit_lipschitz.reduce import prepare
    from stabilitykit_lipschitz.units import constant, dual_constant

    warm = network("random 784-50-10")  # first calls load LAPACK and allocate
    solve_certified(prepare(warm, False, False), 1e-4, 10.0, 0)
    wall, cpu = time.perf_counter(), time.process_time()
    problem = prepare(net, False, False)
    solved = solve_certified(problem, tol, limit, 0)
    assert solved is not None
    certificate, dual, rank, _ = solved
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    upper, value = constant(problem, certificate), dual_constant(problem, dual)
    lower = search(net, seconds=5.0).value
    return {"rows": problem.rows, "wall": wall, "cpu": cpu, "upper": upper, "dual": value, "rank": rank, "lower": lower}


def lower_row(name: str) -> str:
    """One line of the table of lower bounds."""
    from stabilitykit_lipschitz.lower import search

    net, cells = network(name), [name]
    for seconds in BOUGHT:
        cpu = time.process_time()
        cells.append(f"{search(net, seconds=seconds).value:.6g} ({time.process_time() - cpu:.2g})")
    return "| " + " | ".join(cells) + " |"


def exact_row(name: str, seconds: float) -> str:
    """One line of the table of exact constants."""
    from stabilitykit_lipschitz import lipschitz

    net, cpu = network(name), time.process_time()
    found = lipschitz(net, method="exact", seconds=seconds)
    cpu = time.process_time() - cpu
    cells = [
        name,
        f"[{found.lower:.8g}, {found.upper:.8g}]",
        f"{found.upper / found.lower - 1:.1e}",
        "yes" if found.exact else "no",
        found.solver_status,
        f"{cpu:.3g}",
    ]
    return "| " + " | ".join(cells) + " |"


class Kept:
    """Finished lines, in a file where one is given: printed again instead of measured again."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lines: dict[str, str] = json.loads(path.read_text()) if path and path.exists() else {}

    def show(self, key: str, make: Callable[[], str]) -> None:
        if key not in self.lines:
            self.lines[key] = make()
            if self.path:
                self.path.write_text(json.dumps(self.lines, indent=1))
        print(self.lines[key], flush=True)


def child(name: str, solver: str, tol: float, limit: float, threads: int) -> dict[str, Any]:
    """`run` in a process of its own; all but ours are stopped after `limit` seconds of processor time."""
    threads_env = {
        v: str(threads) for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    }
    command = [sys.executable, __file__, "--child", name, solver, str(tol), str(limit)]

    def stop_by_processor_time() -> None:
        if solver != "ours":
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit) * threads, math.ceil(limit) * threads + 5))

    began = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **threads_env}, preexec_fn=stop_by_processor_time
    )
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"failed": f"no answer in {limit:.0f} s of cpu ({time.perf_counter() - began:.0f} s wall)", "cpu": limit}
    if done.returncode != 0:
        return {"failed": done.stderr.strip().splitlines()[-1][:80] if done.stderr.strip() else "died", "cpu": 0.0}
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, tol: float, limit: float, threads: int, solvers: list[str]) -> str:
    """One line of the table."""
    ours = child(name, "ours", tol, limit, threads)
    if "failed" in ours:
        return f"| {name} | | {ours['failed']} | | |" + " |" * len(solvers)
    cells = [
        name,
        str(ours["rows"]),
        f"[{ours['lower']:.6g}, {ours['upper']:.8g}]",
        f"{ours['upper'] / ours['dual'] - 1:.1e}",
        f"{ours['wall']:.3g} / {ours['cpu']:.3g}",
    ]
    for solver in solvers:
        if solver in ("CLARABEL", "SCS") and ours["rows"] > MOST_ROWS:
            cells.append("not run (too large)")
            continue
        other = child(name, solver, tol, limit, threads)
        if "failed" in other:
            ratio = f" (**> {other['cpu'] / ours['cpu']:.0f}x** in cpu)" if other["cpu"] else ""
            cells.append(other["failed"] + ratio)
            continue
        says = f"says {other['says'] / ours['upper'] - 1:+.1e}, {other['status']}"
        if not math.isnan(other["upper"]):
            says += f", certified {other['upper'] / ours['upper'] - 1:+.0e}"
        elif solver in ("CLARABEL", "SCS"):
            says += ", no proof"
        cells.append(f"{other['wall']:.3g} / {other['cpu']:.3g} s, {says} (cpu **{other['cpu'] / ours['cpu']:.1f}x**)")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=120.0)
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", action="append", help="a network's name; may be repeated")
    parser.add_argument("--large", action="store_true", help="the large networks, ours only, tol 1e-4")
    parser.add_argument("--solver", action="append", help="one of the others; may be repeated; none: all")
    parser.add_argument("--alone", action="store_true", help="ours only")
    parser.add_argument("--lower", action="store_true", help="the lower bound by nominal seconds, in this process")
    parser.add_argument("--exact", action="store_true", help="the exact constant of one hidden layer, in this process")
    parser.add_argument("--state", type=Path, help="JSON file of finished lines; resumed where it exists")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, solver, tol, limit = args.child
        print(json.dumps(run(name, solver, float(tol), float(limit))))
        return
    listed = LARGE if args.large else EXACT if args.exact else SMALL + (WIDE if args.alone else [])
    names = args.only or listed
    kept = Kept(args.state)
    tol = 1e-4 if args.large else args.tol
    solvers = [] if args.alone or args.large else args.solver or list(OTHERS)
    print(
        f"tol {tol:g}, {args.threads} BLAS thread(s), others stopped after {args.limit:.0f} s of cpu; {os.cpu_count()} "
        f"cores, load average at the start {os.getloadavg()[0]:.1f} (wall times suffer above the core count)\n"
    )
    if args.lower:
        print("| network | " + " | ".join(f"{s:g} nominal s (cpu s)" for s in BOUGHT) + " |")
        print("|---" * (len(BOUGHT) + 1) + "|")
        for name in names:
            kept.show(f"lower {name}", partial(lower_row, name))
        return
    if args.exact:
        print("| network | [realised, certified] | apart | closed to 1e-5 | nodes | cpu s |\n" + "|---" * 6 + "|")
        for name in names:
            kept.show(f"exact {args.limit:g} {name}", partial(exact_row, name, args.limit))
        return
    for package in ("eclipse_nn", "auto_LiRPA"):
        if solvers and why_not(package):
            print(f"{package} does not import here: {why_not(package)}.\n")
    columns = ["network", "rows", "[realised, certified]", "gap to dual", "ours s wall / cpu", *solvers]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name in names:
        how = f"{tol:g} {args.limit:g} {args.threads} {'+'.join(solvers)}"
        kept.show(f"{how} {name}", partial(row, name, tol, args.limit, args.threads, solvers))
    print(f"\nload average at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
