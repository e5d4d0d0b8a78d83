"""Which image classifiers have a course through the whole network, and which equal-dimension blocks they have.

Every name of timm and of torchvision.

    python benchmarks/coverage_timm.py discover [--seconds 1500]   # meta device, no weights; resumable
    python benchmarks/coverage_timm.py certify  [--seconds 1500]   # exact round trips, one small member per family
    python benchmarks/coverage_timm.py table                       # the tables from what is there
    ... --each 25                                                  # discover and certify a part: every 25th family

Results in benchmarks/results: coverage_timm.md (per family) and coverage_timm.csv (a row per name: T, steps and cost of
the course, T and run by mode, reason). What is measured so far is kept in coverage_timm.jsonl and
coverage_certificates.jsonl; remove them to start over. Run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
import warnings
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LINES, CERTIFICATES, TABLE, NAMES = (Path(),) * 4


def _into(folder: Path) -> None:
    """Where what is measured is kept."""
    global LINES, CERTIFICATES, TABLE, NAMES
    LINES, CERTIFICATES = folder / "coverage_timm.jsonl", folder / "coverage_certificates.jsonl"
    TABLE, NAMES = folder / "coverage_timm.md", folder / "coverage_timm.csv"


MODES = ("closed", "open", "plain")
STEPS = ("residual", "equal", "transition")
LARGEST = 500e6  # parameters: certified models also need room for their activations


def names(each: int = 0) -> list[tuple[str, str, str]]:
    """(library, family, name) of every model, the families taking turns, so that a part is a fair sample.

    Arguments:
        each: 0: all; else one name of every family, the middle one, of every ``each``-th family.
    """
    import timm
    import torchvision

    families = {("timm", module): timm.list_models(module=module) for module in timm.list_modules()}
    for name in torchvision.models.list_models(module=torchvision.models):
        families.setdefault(("torchvision", f"torchvision.{_torchvision_family(name)}"), []).append(name)
    if each:
        families = {key: [members[len(members) // 2]] for key, members in list(families.items())[::each]}
    longest = max(map(len, families.values()))
    return [
        (library, family, members[turn])
        for turn in range(longest)
        for (library, family), members in families.items()
        if turn < len(members)
    ]


def _torchvision_family(name: str) -> str:
    from torchvision.models import get_model_builder

    return get_model_builder(name).__module__.split(".")[-1]


def build(library: str, name: str, device: str) -> tuple[Any, tuple[int, ...]]:
    """An untrained network on ``device`` and the shape of its input."""
    from stabilitykit_timm.names import input_shape_of, skeleton

    module = skeleton(f"{library}:{name}", device=device)
    return module, input_shape_of(module)


def discover_all(seconds: float, each: int) -> None:
    from stabilitykit_adapters.discovery import discover

    done = {(row["library"], row["name"]) for row in rows(LINES)}
    start = time.monotonic()
    RESULTS.mkdir(exist_ok=True)
    with open(LINES, "a") as out:
        for library, family, name in names(each):
            if (library, name) in done:
                continue
            if time.monotonic() - start > seconds:
                return
            row: dict[str, Any] = {"library": library, "family": family, "name": name}
            began = time.process_time()
            try:
                module, shape = build(library, name, "meta")
                row["parameters"] = sum(p.numel() for p in module.parameters())
                found = discover(module, shape)
                row["gflops"] = round(found.flops / 2e9, 3)
                if isinstance(found.course, str):
                    row["no_course"] = found.course
                else:
                    row["course"] = {
                        "T": found.course.depth,
                        "steps": found.course.steps,
                        "cost": round(found.course.cost, 3),
                        "tail": round(found.course.tail, 4),
                    }
                for mode in MODES:
                    runs = found.of_mode(mode)
                    if runs:
                        best = max(runs, key=lambda r: r.depth)
                        row[mode] = {
                            "T": best.depth,
                            "run": best.name,
                            "cost": round(best.cost, 3),
                            "runs": len(runs),
                            "kinds": best.kinds,
                        }
                row["reasons"] = [[r.code, str(r)[:160]] for r in found.reasons[:4]]
                row["notes"] = found.notes
            except Exception as error:  # a name that cannot be built or recorded is a result, with its reason
                row["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            row["seconds"] = round(time.process_time() - began, 2)
            out.write(json.dumps(row) + "\n")
            out.flush()


def certify_all(seconds: float) -> None:
    """Exact round trips of every run of the smallest members of every covered family."""
    import torch
    from stabilitykit_adapters.adapting import model_class
    from stabilitykit_adapters.discovery import discover
    from stabilitykit_adapters.equivalence import certify, randomise

    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows(LINES):
        if "course" in row or any(mode in row for mode in MODES):
            families[row["family"]].append(row)
    done = {row["family"] for row in rows(CERTIFICATES) if "skipped" not in row}  # a smaller member may turn up
    start = time.monotonic()
    with open(CERTIFICATES, "a") as out:
        for family, members in sorted(families.items()):
            if family in done:
                continue
            if time.monotonic() - start > seconds:
                return
            member = min(members, key=lambda r: (next((i for i, m in enumerate(MODES) if m in r), 3), r["gflops"]))
            entry: dict[str, Any] = {"family": family, "name": member["name"], "library": member["library"]}
            if member["parameters"] > LARGEST:
                entry["skipped"] = f"smallest covered member has {member['parameters'] / 1e6:.0f} M parameters"
            else:
                try:
                    module, shape = build(member["library"], member["name"], "cpu")
                    randomise(module, seed=0)
                    found = discover(module, shape)
                    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
                    runs = [*found.runs, *([] if isinstance(found.course, str) else [found.course])]
                    reports = [
                        certify(model_class(run)(module, found.program, run), inputs, thorough=False) for run in runs
                    ]
                    if not isinstance(found.course, str):
                        entry["course"] = {"T": found.course.depth, "exact": reports.pop()["bit_exact"]}
                    entry |= {
                        "runs": len(reports),
                        "blocks": sum(r["blocks"] for r in reports),
                        "exact": sum(r["bit_exact"] for r in reports),
                        "vacuous": sum(bool(r["vacuous"]) for r in reports),
                        "problems": [
                            [run.name, run.mode, r["max_abs_difference"], r["vacuous"]]
                            for run, r in zip(found.runs, reports)
                            if not r["bit_exact"] or r["vacuous"]
                        ],
                    }
                except Exception as error:
                    entry["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            out.write(json.dumps(entry) + "\n")
            out.flush()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table() -> str:
    """Markdown: totals, and a row per family."""
    found, certificates = rows(LINES), {row["family"]: row for row in rows(CERTIFICATES)}
    versions = ", ".join(f"{package} {version(package)}" for package in ("timm", "torchvision", "torch"))
    lines = [
        "# Coverage",
        "",
        "`python benchmarks/coverage_timm.py discover`, then `certify`: "
        f"{len(found)} of {len(names())} names measured, with {versions}. A name's own row is in "
        f"{NAMES.name}.",
        "",
    ]
    for library in ("timm", "torchvision"):
        lines += _totals(library, [r for r in found if r["library"] == library])
    lines += [
        "",
        "| family | models | course T>=2 | deepest course | closed T>=2 | with open | with plain | longest T | "
        "certified member | reason of those without a course | without a closed run |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        families[row["family"]].append(row)
    for family, members in sorted(families.items()):
        counts = [sum(any(m in r for m in MODES[: k + 1]) for r in members) for k in range(3)]
        longest = max((r[m]["T"] for r in members for m in MODES if m in r), default=0)
        lines.append(
            f"| {family} | {len(members)} | {sum('course' in r for r in members)} | "
            f"{max((r['course']['T'] for r in members if 'course' in r), default=0)} | {counts[0]} | {counts[1]} | "
            f"{counts[2]} | {longest} | {_certificate(certificates.get(family))} | {_uncovered(members)} | "
            f"{_rest(members)} |"
        )
    return "\n".join(lines) + "\n"


def write_names() -> None:
    """A row per name: its longest run of each mode, or the first reason why there is none."""
    with open(NAMES, "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            ["library", "family", "name", "course_T", *STEPS, "course_cost"]
            + [f"{mode}_T" for mode in MODES]
            + ["run", "cost", "reason"]
        )
        for row in sorted(rows(LINES), key=lambda r: (r["library"], r["family"], r["name"])):
            best = next((row[mode] for mode in MODES if mode in row), {})
            reason = row.get("error") or (row["reasons"][0][0] if row.get("reasons") else "")
            writer.writerow(
                [
                    row["library"],
                    row["family"],
                    row["name"],
                    row.get("course", {}).get("T", ""),
                    *(row["course"]["steps"].get(step, 0) if "course" in row else "" for step in STEPS),
                    row.get("course", {}).get("cost", ""),
                    *(row.get(mode, {}).get("T", "") for mode in MODES),
                    best.get("run", ""),
                    best.get("cost", ""),
                    "" if "closed" in row else reason,
                ]
            )


def _totals(library: str, found: list[dict[str, Any]]) -> list[str]:
    count = len(found) or 1
    cells = []
    for k in range(3):
        covered = sum(any(m in r for m in MODES[: k + 1]) for r in found)
        cells.append(f"{' or '.join(MODES[: k + 1])}: {covered} ({100 * covered / count:.1f} %)")
    deep = sum(r.get("closed", {}).get("T", 0) >= 4 for r in found)
    depths = sorted(r["closed"]["T"] for r in found if "closed" in r)
    costs = sorted(r["closed"]["cost"] for r in found if "closed" in r)
    if not depths:
        return []
    courses = [r["course"] for r in found if "course" in r]
    tall, dear = sorted(c["T"] for c in courses), sorted(c["cost"] for c in courses)
    middle = len(courses) // 2
    steps = {step: sum(c["steps"].get(step, 0) for c in courses) for step in STEPS}
    headless = sum("residual" not in c["steps"] for c in courses)
    return [
        f"- {library}, {len(found)} names: **a course with T >= 2 for {len(courses)} "
        f"({100 * len(courses) / count:.1f} %)**; median T {tall[middle]}, deepest {tall[-1]}; "
        f"{', '.join(f'{n} {step}' for step, n in steps.items())} steps; {headless} without a residual step (readouts "
        f"lens and probe only); all head readouts: median {dear[middle]:.2f} forwards, dearest {dear[-1]:.2f}",
        f"- {library}, {len(found)} names, T >= 2: " + "; ".join(cells) + f"; closed T >= 4: {deep}; median "
        f"longest closed run {depths[len(depths) // 2]}, longest {depths[-1]}; median cost "
        f"{costs[len(costs) // 2]:.2f} forwards; failed to record: {sum('error' in r for r in found)}; "
        f"median {sorted(r['seconds'] for r in found)[len(found) // 2]:.2f} s a model",
    ]


def _certificate(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if "runs" not in row:
        return f"{row['name']}: {row.get('skipped') or row.get('error')}"
    course = (
        f"course of {row['course']['T']} steps {'' if row['course']['exact'] else 'NOT '}exact; "
        if "course" in row
        else ""
    )
    vacuous = f", {row['vacuous']} vacuous" if row["vacuous"] else ""
    return f"{row['name']}: {course}{row['exact']} of {row['runs']} runs exact, {row['blocks']} blocks{vacuous}"


def _uncovered(members: list[dict[str, Any]]) -> str:
    """Why members have no course, and how many."""
    reasons: dict[str, int] = defaultdict(int)
    for row in members:
        if "course" not in row:
            reasons[row.get("error") or row.get("no_course", "")] += 1
    return "; ".join(f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda x: -x[1])[:3])


def _rest(members: list[dict[str, Any]]) -> str:
    reasons: dict[str, int] = defaultdict(int)
    for row in members:
        if "closed" not in row:
            reasons[row.get("error") or (row["reasons"][0][0] if row.get("reasons") else "no candidate")] += 1
    return "; ".join(f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda x: -x[1])[:3])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("discover", "certify", "table"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long; run again to go on")
    parser.add_argument("--each", type=int, default=0, help="one name of every EACH-th family only (0: every name)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables and of what is done so far")
    arguments = parser.parse_args()
    _into(arguments.results)
    warnings.simplefilter("ignore")
    if arguments.what == "discover":
        discover_all(arguments.seconds, arguments.each)
    elif arguments.what == "certify":
        certify_all(arguments.seconds)
    TABLE.write_text(table())
    write_names()
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
