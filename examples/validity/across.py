"""Across networks: what every number says about what is done to them, group by group of comparable networks."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from correlations import corrected, partial, spearman
from population import Member

Rows = list[dict[str, Any]]
OUTCOMES = ("pgd", "ensemble", "noise", "blur", "jpeg", "int8", "pruning", "ece", "gap")
SUBSETS = ("all", "not adversarial")
LEVEL = 0.05
# The same thing measured twice: no finding.
SAME = {("head: changed_decisions.pruning", "pruning"), ("head: flips.int8", "int8")}


def networks(members: Sequence[Member], results: Mapping[str, Any]) -> Rows:
    """One row a network: what it is, baselines, outcomes."""
    return [
        {"network": m.key, "group": m.group, **m.about, **results[m.key]["baselines"], **_outcomes(results[m.key])}
        for m in members
    ]


def constants(members: Sequence[Member], results: Mapping[str, Any]) -> Rows:
    """One row a network and number, with kind and N; beside them why others are missing."""
    rows: Rows = []
    for m in members:
        rows += [{"network": m.key, "number": number, **found} for number, found in _numbers(results[m.key]).items()]
    return rows


def missing(members: Sequence[Member], results: Mapping[str, Any]) -> Rows:
    """Properties that could not be measured, and why."""
    return [
        {"network": m.key, "readout": readout, "property": name, "why": why}
        for m in members
        for readout in ("head", "lens", "probe")
        for name, why in results[m.key][readout]["failed"].items()
    ]


def correlations(members: Sequence[Member], results: Mapping[str, Any]) -> Rows:
    """Every number with every outcome in every group and subset: Spearman's rho, 95 % interval, p, Benjamini and
    Hochberg's q over all numbers and outcomes of the group and subset; the same with accuracy held fixed."""
    rows: Rows = []
    for group, subset in itertools.product(dict.fromkeys(m.group for m in members), SUBSETS):
        chosen = [m for m in members if m.group == group and (subset == "all" or not m.about.get("eps"))]
        found = _of_group([results[m.key] for m in chosen])
        for kind in ("constant", "baseline"):
            family = [row for row in found if row["kind of number"] == kind]
            for p, q in (("p", "q"), ("partial p", "partial q")):
                for row, value in zip(family, corrected(np.array([row[p] for row in family]))):
                    row[q] = float(value)
        rows += [{"group": group, "subset": subset, **row} for row in found if not math.isnan(row["rho"])]
    return rows


def _of_group(results: Sequence[Any]) -> Rows:
    """Correlations over the networks whose results these are."""
    numbers = [_numbers(result) for result in results]
    simple = [{f"baseline: {k}": {"value": v} for k, v in result["baselines"].items()} for result in results]
    outcomes = [_outcomes(result) for result in results]
    accuracy = _column([result["baselines"] for result in results], "accuracy")
    rows = []
    for kind, values in (("constant", numbers), ("baseline", simple)):
        names = dict.fromkeys(itertools.chain.from_iterable(values))
        for name, outcome in itertools.product(names, OUTCOMES):
            x = _column([{name: row.get(name, {}).get("value")} for row in values], name)
            y = _column(outcomes, outcome)
            plain = spearman(x, y)
            left, left_p = partial(x, y, accuracy)
            row = {"number": name, "outcome": outcome, "n": plain.n, "rho": plain.rho, "low": plain.low}
            row |= {"high": plain.high, "p": plain.p, "q": math.nan, "partial": left, "partial p": left_p}
            rows.append({**row, "partial q": math.nan, "kind of number": kind})
    return rows


def verdicts(found: Rows) -> Rows:
    """For each number and outcome, over the groups large enough (two at least): does it hold in all with one sign.

    ``holds``: q < 0.05 everywhere with one sign. ``beyond accuracy``: so with accuracy held fixed. ``without
    adversarial``: p < 0.05 everywhere with one sign, uncorrected, when those networks are left out.
    """
    groups = list(dict.fromkeys(row["group"] for row in found))
    cells = {(row["number"], row["outcome"], row["group"], row["subset"]): row for row in found}
    rows: Rows = []
    for number, outcome in dict.fromkeys((row["number"], row["outcome"]) for row in found):
        every = [cells.get((number, outcome, group, SUBSETS[0])) for group in groups]
        plain = [cells.get((number, outcome, group, SUBSETS[1])) for group in groups]
        row = {"number": number, "outcome": outcome}
        row |= {f"rho, {g}": None if c is None else c["rho"] for g, c in zip(groups, every)}
        row |= {f"partial, {g}": None if c is None else c["partial"] for g, c in zip(groups, every)}
        row["holds"] = _agree(every, "rho", "q")
        row["beyond accuracy"] = _agree(every, "partial", "partial q")
        row["without adversarial"] = _agree(plain, "rho", "p")
        row["same thing"] = (number, outcome) in SAME
        rows.append(row)
    return rows


def _agree(cells: Sequence[dict[str, Any] | None], value: str, p: str) -> bool:
    """Whether all cells, two or more, are there, below LEVEL, and of one sign: one group alone shows nothing."""
    known = [cell for cell in cells if cell is not None and cell[p] < LEVEL]
    return len(known) == len(cells) > 1 and len({cell[value] > 0 for cell in known}) == 1


def hypotheses(path: Path, found: Rows) -> Rows:
    """What was fixed beforehand (hypotheses.toml): rho in every group, q over these tests alone, what came of it."""
    cells = {(row["number"], row["outcome"], row["group"]): row for row in found if row["subset"] == SUBSETS[0]}
    rows: Rows = []
    stated = tomllib.loads(path.read_text(encoding="utf-8"))["hypothesis"]
    for entry in stated:
        for group in dict.fromkeys(row["group"] for row in found):
            cell = cells.get((entry["number"], entry["outcome"], group))
            row = {
                "number": entry["number"],
                "outcome": entry["outcome"],
                "expected": "+" if entry["sign"] > 0 else "-",
            }
            row["because"] = entry["because"]
            kept = ("n", "rho", "low", "high", "p", "partial", "partial p")
            rows.append({**row, "group": group, **{k: math.nan if cell is None else cell[k] for k in kept}})
    for p, q in (("p", "q"), ("partial p", "partial q")):
        for row, value in zip(rows, corrected(np.array([row[p] for row in rows], dtype=float))):
            row[q] = float(value)
    for row in rows:
        signed = (row["rho"] > 0) == (row["expected"] == "+")
        seen = row["q"] < LEVEL
        row["result"] = "not measured" if math.isnan(row["rho"]) else _result(seen, signed)
    return rows


def _result(seen: bool, signed: bool) -> str:
    return ("held" if signed else "the opposite") if seen else "nothing seen"


def transfer(found: Rows) -> Rows:
    """The strongest number of one group, chosen there, and what it is worth in the other groups; beside baselines."""
    whole = [row for row in found if row["subset"] == SUBSETS[0] and (row["number"], row["outcome"]) not in SAME]
    groups = list(dict.fromkeys(row["group"] for row in whole))
    rows: Rows = []
    for kind, outcome, group in itertools.product(("constant", "baseline"), OUTCOMES, groups):
        here = [r for r in whole if (r["kind of number"], r["outcome"], r["group"]) == (kind, outcome, group)]
        if not here:
            continue
        best = max(here, key=lambda row: abs(row["rho"]))
        for other in groups:
            there = [r for r in whole if (r["number"], r["outcome"], r["group"]) == (best["number"], outcome, other)]
            if other != group and there:
                row = {"outcome": outcome, "kind of number": kind, "chosen in": group, "number": best["number"]}
                rows.append({**row, "rho there": best["rho"], "read in": other, "rho": there[0]["rho"]})
    return rows


def _numbers(result: Any) -> dict[str, Any]:
    """Constants by "readout: name", each with value, kind and n."""
    found = {
        f"{readout}: {name}": entry
        for readout in ("head", "lens", "probe")
        for name, entry in result[readout]["values"].items()
    }
    for format in ("bf16", "int8"):
        value = result["outcomes"][f"flips.{format}"]
        found[f"head: flips.{format}"] = {"value": value, "kind": "exact on the sample", "n": result["outcomes"]["n"]}
    return found


def _outcomes(result: Any) -> dict[str, Any]:
    merged = {**result["outcomes"], **result.get("attacks", {})}
    return {name: merged.get(name) for name in OUTCOMES}


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """float (n,), NaN where there is no finite number."""
    values = [row.get(name) for row in rows]
    return np.array([math.nan if v is None or not math.isfinite(v) else v for v in values], dtype=float)


def pair(keys: tuple[str, str], networks: Rows, constants: Rows) -> Rows:
    """Two networks that differ in their training alone, number by number; no rows where one is missing."""
    values = {key: {row["number"]: row["value"] for row in constants if row["network"] == key} for key in keys}
    for row in networks:
        if row["network"] in values:
            values[row["network"]] |= {name: row.get(name) for name in ("accuracy", *OUTCOMES)}
    first, second = (values[key] for key in keys)
    rows: Rows = []
    for name in first:
        a, b = first[name], second.get(name)
        if a is not None and b is not None:
            rows.append({"number": name, keys[0]: float(a), keys[1]: float(b), "ratio": b / a if a else math.nan})
    return rows
