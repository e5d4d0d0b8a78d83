"""Random networks, regions, norms and methods: is any slope above a bound of `lipschitz`?

    python benchmarks/lipschitz_fuzz.py --count 10000 --seed 0 [--state FILE] [--family wired] [--only INDEX]

Slopes are found without the plugin (``lipschitz_slopes.py``). A network that is refused with a ValueError is counted
with its reason; anything else raised, a slope above the bound, a lower end above the upper one or a local bound above
the global one is a failure, printed with the command that repeats it. --state keeps the counts, so that a run can be
stopped and resumed. --weaken 0.99 lowers every bound: the search must then find slopes above, which shows how near the
bounds it comes. A new region is one entry of REGIONS, a new layer one of STAGES in ``lipschitz_nets.py``. Exit status 1
when there were failures.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import math
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from stabilitykit_lipschitz import Ball, Box, Data, lipschitz

from benchmarks.lipschitz_nets import FAMILIES, Case
from benchmarks.lipschitz_slopes import Place, by_quotient, find

# What float64 may add to a slope by autograd; mpmath's slopes are exact to many more digits.
ROUNDING = 1e-9
METHODS = ("auto",) * 7 + ("sdp", "layer", "product")
# How near the bound the best slope came, as lower ends of classes of slope / bound.
CLASSES = (0.999, 0.99, 0.9, 0.5, 0.1, 0.0)


def everywhere(case: Case, rng: np.random.Generator) -> Place:
    n = case.inputs

    def sample(count: int) -> np.ndarray:
        return case.typical * 10.0 ** rng.uniform(-2, 2, (count, 1)) * rng.standard_normal((count, n))

    return Place("whole space", None, sample, lambda x: x)


def ball(case: Case, rng: np.random.Generator) -> Place:
    centre = case.typical * rng.standard_normal(case.inputs)
    radius = case.typical * 10.0 ** float(rng.uniform(-6, 1))

    def project(x: np.ndarray) -> np.ndarray:
        away = x - centre
        size = np.abs(away).max(1, keepdims=True) + 1e-300  # norms of 1e200 must not overflow
        length = size * np.linalg.norm(away / size, axis=1, keepdims=True)
        return centre + away * np.minimum(1.0, radius * (1 - 1e-6) / length)

    def sample(count: int) -> np.ndarray:
        return project(centre + radius * rng.standard_normal((count, case.inputs)))

    return Place("Ball", Ball(centre, radius), sample, project)


def box(case: Case, rng: np.random.Generator) -> Place:
    centre = case.typical * rng.standard_normal(case.inputs)
    half = case.typical * 10.0 ** rng.uniform(-6, 1, case.inputs if rng.random() < 0.5 else 1) * np.ones(case.inputs)

    def project(x: np.ndarray) -> np.ndarray:
        return np.clip(x, centre - half * (1 - 1e-6), centre + half * (1 - 1e-6))

    def sample(count: int) -> np.ndarray:
        return project(centre + half * rng.uniform(-1.2, 1.2, (count, case.inputs)))

    return Place("Box", Box(centre - half, centre + half), sample, project)


def data(case: Case, rng: np.random.Generator) -> Place:
    rows = case.typical * rng.standard_normal((6, case.inputs))
    return Place("Data", Data(rows), lambda count: rows, lambda x: rows)


REGIONS: dict[str, Callable[[Case, np.random.Generator], Place]] = {
    "whole space": everywhere,
    "Ball": ball,
    "Box": box,
    "Data": data,
}


def attempt(index: int, args: argparse.Namespace, tally: Counter[str]) -> list[str]:
    """Failures of network ``index``, as sentences; what happened is counted in ``tally``."""
    rng = np.random.default_rng([args.seed, index])
    family = args.family or str(rng.choice(list(FAMILIES)))
    case = FAMILIES[family](rng)
    place = REGIONS[args.region or str(rng.choice(list(REGIONS), p=(0.4, 0.25, 0.25, 0.1)))](case, rng)
    infinity, method = rng.random() < 0.15, str(rng.choice(METHODS))
    tol = float(rng.choice([1e-2, 1e-4, 1e-6]))
    about = f"{family} ({case.text}), {place.name}, norm {'inf' if infinity else 2}, {method}, tol {tol:g}"
    options: dict[str, Any] = {"norm": "inf" if infinity else 2, "tol": tol, "input_shape": case.shape}
    options |= {"seconds": 5.0, "search_seconds": 0.05}
    try:
        found = lipschitz(case.module, method=method, region=place.region, **options)
    except ValueError as error:
        tally[f"refused: {reason(str(error))}"] += 1
        return []
    except Exception:
        return [f"{about}: raised {traceback.format_exc(limit=-3)}"]
    tally[f"bounded: {family}, {place.name}, norm {'inf' if infinity else 2}"] += 1
    tally[f"method: {found.method}"] += 1
    upper = found.upper * args.weaken
    failures = []
    witness = [] if found.witness_input is None else [np.ravel(found.witness_input)]
    slope = find(case, place, infinity, rng, witness)
    share = 0.0 if math.isinf(upper) else 1.0 if upper == slope.value == 0 else math.inf
    if 0 < upper < math.inf:
        share = float(slope.value / upper)
        if share > 1 + ROUNDING and case.exactly is None:
            tally["autograd above the bound, looked at again by quotients"] += 1
            slope = by_quotient(case, place, infinity, slope)
            share = slope.value / upper
        tally[f"slope / bound >= {next(c for c in CLASSES if share >= c)}"] += 1
    if math.isnan(found.upper) or share > 1 + ROUNDING:
        failures.append(
            f"{about}: slope {_text(slope.value)} at {slope.x.tolist()} above the bound {upper!r} ({share})"
        )
    if found.lower > found.upper * (1 + ROUNDING):
        failures.append(f"{about}: lower end {found.lower!r} above the upper {found.upper!r}")
    if place.name in ("Ball", "Box") and math.isfinite(found.upper) and rng.random() < 0.2:
        try:
            whole = lipschitz(case.module, method=method, **options).upper
        except ValueError:
            whole = math.inf
        tally["local against global"] += math.isfinite(whole)
        if found.upper > whole * (1 + max(tol, ROUNDING)):
            failures.append(f"{about}: local bound {found.upper!r} above the global one {whole!r}")
    return failures


def _text(value: Any) -> str:
    from mpmath import nstr

    return nstr(value, 17)


def reason(message: str) -> str:
    """The refusal without names and numbers."""
    import re

    return re.sub(r"module '.*?' \(\w+\)|'.*?'|[-+]?\d[\d.e+-]*", "_", message)[:90]


def report(done: int, seconds: float, tally: Counter[str], failures: list[str], seed: int) -> str:
    lines = [f"{done} networks of seed {seed}, {seconds:.0f} s of processor time, {len(failures)} failures"]
    return "\n".join([*lines, *(f"  {count:7d}  {what}" for what, count in sorted(tally.items()))])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the network of this index, nothing else")
    parser.add_argument("--family", choices=list(FAMILIES))
    parser.add_argument("--region", choices=list(REGIONS))
    parser.add_argument("--state", type=Path, help="JSON file of the counts so far; resumed where it exists")
    parser.add_argument("--weaken", type=float, default=1.0, help="factor on every bound (a check of this check)")
    return parser.parse_args(arguments)


def main() -> int:
    args = parse()
    warnings.filterwarnings("ignore")
    tally: Counter[str] = Counter()
    failures: list[str] = []
    first, earlier = 0, 0.0
    how = [args.seed, args.family, args.region, args.weaken]
    if args.state is not None and args.state.exists():
        kept = json.loads(args.state.read_text())
        if kept["how"] != how:
            sys.exit(f"{args.state} belongs to a run with [seed, family, region, weaken] = {kept['how']}")
        first, earlier, failures, tally = kept["done"], kept["seconds"], kept["failures"], Counter(kept["tally"])
    began, told = time.process_time(), time.monotonic()
    for index in [args.only] if args.only is not None else range(first, args.count):
        found = attempt(index, args, tally)
        repeat = f"--seed {args.seed} --only {index}" + "".join(
            f" --{k} '{v}'" for k, v in (("family", args.family), ("region", args.region)) if v
        )
        for failure in found:
            print(f"FAILURE ({repeat}): {failure}", flush=True)
        failures += [f"{repeat}: {f}" for f in found]
        if index + 1 == args.count or time.monotonic() - told > 30:
            told = time.monotonic()
            spent = earlier + time.process_time() - began
            print(f"{index + 1} of {args.count}, {len(failures)} failures, {spent:.0f} s", file=sys.stderr, flush=True)
            if args.state is not None and args.only is None:
                kept = {"how": how, "done": index + 1, "seconds": spent, "failures": failures, "tally": tally}
                args.state.write_text(json.dumps(kept))
    spent = earlier + time.process_time() - began
    print(report(max(args.count, first) if args.only is None else 1, spent, tally, failures, args.seed))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
