"""Table 2: every reading of its columns through the head and through probes, beside what the paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import Wanted
from nets import Net
from paper_values import TABLE_2, TITLES
from readings import LIPSCHITZ, READINGS, SHADOWING, UNTRAINED, Reading, Value, lipschitz_by_depth, results_of

from stabilitykit.base.results import READOUT_FIT
from stabilitykit.reporting.rundata import records

Rows = list[dict[str, Any]]
WITHIN = 3.0
"""A reading agrees with the paper where it is at most so many times off."""


def table_2(runs: Mapping[Wanted, Path], untrained: Mapping[str, float]) -> Rows:
    """One row for each model, readout and reading: the first seed's number, the range over seeds, the paper's.

    Arguments:
        untrained: by model, ||W||_2 of a head that was never trained.
    """
    rows = []
    found = {one: results_of(run)[0] for one, run in runs.items()}
    for name in dict.fromkeys(one.net.name for one in runs):
        readouts = dict.fromkeys(one.readout for one in runs if one.net.name == name)
        for reading in READINGS:
            for readout in readouts:
                of_model = [one for one in found if one.net.name == name and one.readout == readout]
                values = [reading.value(found[one]) for one in sorted(of_model, key=lambda o: o.net.seed)]
                known = [value for value in values if value is not None]
                if not known:
                    continue
                first, numbers = known[0], [value.value for value in known]
                rows.append(
                    _row(name, reading, readout, first.value)
                    | {
                        "seeds": len(known),
                        "lowest": min(numbers),
                        "highest": max(numbers),
                        "within 3 times": "yes" if near(name, reading, first) else "no",
                        "kind": first.kind,
                        "N": first.n,
                        "eps": first.eps,
                        "paper eps": TABLE_2[name]["eps"] if reading.column == SHADOWING else None,
                        "delta": first.delta,
                        "paper delta": TABLE_2[name]["delta"] if reading.column == SHADOWING else None,
                        "product (the prose)": first.product,
                    }
                )
        rows += [_row(name, reading, "untrained head", value) for reading, value in _untrained(untrained[name])]
    return rows


def _untrained(norm: float) -> Sequence[tuple[Reading, float]]:
    says = "||W||_2 before any training: what the head's Lip(g) starts from"
    numbers = {"measured, seed 0": norm, "(1 + (10/4096)^1/2) / 3^1/2": UNTRAINED}
    return [(Reading(LIPSCHITZ, name, lambda results: None, says), number) for name, number in numbers.items()]


def _row(name: str, reading: Reading, readout: str, value: float) -> dict[str, Any]:
    paper = TABLE_2[name][reading.column]
    return {
        "model": TITLES[name],
        "column": reading.column,
        "reading": reading.name,
        "readout": readout,
        "ours": value,
        "seeds": None,
        "lowest": None,
        "highest": None,
        "paper": paper,
        "ours / paper": value / paper,
        "within 3 times": "yes" if agrees(value, paper) else "no",
        "kind": "",
        "N": None,
        "eps": None,
        "paper eps": None,
        "delta": None,
        "paper delta": None,
        "product (the prose)": None,
        "says": reading.says,
    }


def near(name: str, reading: Reading, found: Value) -> bool:
    """Does the reading agree with the paper? Of g-shadowing eps and delta have to, too: ratios are often near 1."""
    paper = TABLE_2[name]
    pairs = [(found.value, paper[reading.column])]
    if reading.column == SHADOWING:
        pairs += [(found.eps, paper["eps"]), (found.delta, paper["delta"])]
    return all(ours is not None and agrees(ours, theirs) for ours, theirs in pairs)


def agrees(value: float, paper: float) -> bool:
    """Is the number at most three times off?"""
    return paper / WITHIN <= value <= paper * WITHIN


def probes_by_depth(runs: Mapping[Wanted, Path]) -> Rows:
    """Lip(g_t) of the probe of every depth, with what it gets right on images it was not trained on."""
    rows = []
    for one, run in runs.items():
        results, _ = results_of(run)
        if one.steps is None or "lipschitz" not in results:
            continue
        fits = {r["depth"]: r for r in records(results["lipschitz"].tables[READOUT_FIT])}
        for depth, bound in lipschitz_by_depth(results).items():
            rows.append(
                {
                    "model": TITLES[one.net.name],
                    "seed": one.net.seed,
                    "steps": one.steps,
                    "depth": depth,
                    "Lip(g_t)": bound,
                    "accuracy held out": fits[depth]["accuracy held out"],
                    "N in sample": fits[depth]["N in sample"],
                }
            )
    return rows


def first_seed(runs: Mapping[Wanted, Path]) -> dict[str, Path]:
    """By model the run of its head with the lowest seed: what Tables 3 to 5 and the figures show."""
    heads: dict[str, tuple[Net, Path]] = {}
    for one, run in runs.items():
        if one.steps is None and (one.net.name not in heads or one.net.seed < heads[one.net.name][0].seed):
            heads[one.net.name] = (one.net, run)
    return {name: run for name, (_, run) in heads.items()}
