"""Ten lines on what agrees with the paper and what does not, counted from Table 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from readings import EXPANSIVE, LIPSCHITZ, SHADOWING, TOPOLOGICAL

WHY = {
    EXPANSIVE: "a minimum over millions of pairs, of whichever two images happen to meet; Definition 1 has the largest "
    "distance over blocks, which is far above",
    SHADOWING: "delta of one chain over eps of one chain (Sh, eps and delta each have to agree, since a ratio alone "
    "comes near 1 with eps of 1e-11 as well): another training finds another chain; over "
    "all pseudo-orbits of the sample the exact constant is far lower",
    LIPSCHITZ: "the head's norm stays near that of an untrained linear layer; a probe's tells how long it was trained",
    TOPOLOGICAL: "a quotient of the two columns before it, and as uncertain as both (and blind to the size of eps and "
    "delta); the prose multiplies, the table divides",
}

MOVED = {EXPANSIVE: "g-expansive, labels", SHADOWING: "Sh, authors' chains", LIPSCHITZ: "Lip(g), largest"}
"""The column of the dependence table that shows how a column of Table 2 moves."""
VARIED = {"probe steps": "probe steps", "epoch": "epochs", "seed": "seeds"}
SETTINGS = ("model", "readout", "N", "probe images", *VARIED)


def lines(
    table_1: Sequence[Mapping[str, Any]],
    table_2: Sequence[Mapping[str, Any]],
    dependence: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """What Table 1 reaches, then for each column of Table 2 which reading comes near, and why not nearer."""
    goals = [row for row in table_1 if row["met"] is not None and not str(row["seed"]).startswith("mean")]
    trained = {(row["model"], row["seed"]) for row in goals}
    missed = [f"{row['model']}, seed {row['seed']}: {row['measure']}" for row in goals if row["met"] == "no"]
    told = [
        f"**Table 1**: {len(trained)} trainings; F1 within 0.01 of the paper's or above and loss at most 10 % above: "
        + ("all of them." if not missed else f"all but {'; '.join(missed)}.")
    ]
    for column, why in WHY.items():
        rows = [row for row in table_2 if row["column"] == column and row["readout"] != "untrained head"]
        if rows:
            told += [_best(column, rows), f"Why {column} moves: {why}. {moved(column, dependence)}".rstrip()]
    told.append(_all_columns(table_2))
    return told


def moved(column: str, dependence: Sequence[Mapping[str, Any]]) -> str:
    """What the dependence table has where one thing varies and the others stand: the longest such row of values."""
    told = []
    for varied, shown in VARIED.items():
        alike: dict[Any, list[tuple[Any, float]]] = {}
        for row in dependence:
            value = row.get(MOVED.get(column, ""))
            if value is not None and row.get(varied) is not None:
                others = tuple(row.get(key) for key in SETTINGS if key != varied)
                alike.setdefault(others, []).append((row[varied], value))
        others, found = max(alike.items(), key=lambda entry: len(entry[1]), default=((), []))
        if len(found) > 1:
            found.sort()
            model, readout, n = others[:3]
            told.append(
                f"{shown} {', '.join(str(key) for key, _ in found)} ({model}, {readout}, N = {n}): "
                + ", ".join(f"{value:.3g}" for _, value in found)
            )
    return f"Measured: {'; '.join(told)}." if told else ""


def _best(column: str, rows: Sequence[Mapping[str, Any]]) -> str:
    counted = []
    for reading, readout in dict.fromkeys((row["reading"], row["readout"]) for row in rows):
        same = [row for row in rows if (row["reading"], row["readout"]) == (reading, readout)]
        counted.append((sum(row["within 3 times"] == "yes" for row in same), len(same), f"{reading} ({readout})"))
    counted.sort(key=lambda entry: -entry[0] / entry[1])
    near = [f"{name} {hits} of {of}" for hits, of, name in counted if hits]
    far = [name for hits, _, name in counted if not hits]
    return (
        f"**{column}**, models within 3 times of the paper: {', '.join(near) or 'none'}"
        + (f"; never: {', '.join(far)}" if far else "")
        + "."
    )


def _all_columns(rows: Sequence[Mapping[str, Any]]) -> str:
    """Does one readout give all four columns of a model?"""
    said = []
    for readout in dict.fromkeys(row["readout"] for row in rows if row["readout"] != "untrained head"):
        models = dict.fromkeys(row["model"] for row in rows if row["readout"] == readout)
        whole = [
            model
            for model in models
            if all(
                any(
                    r["within 3 times"] == "yes"
                    for r in rows
                    if (r["model"], r["readout"], r["column"]) == (model, readout, c)
                )
                for c in WHY
            )
        ]
        said.append(f"{readout}: {', '.join(whole) or 'none'}")
    return f"**All four columns at once**, by the best reading of each, within 3 times: {'; '.join(said)}."
