"""How the constants of one architecture move with training: steps of the probes, epochs of the network, seeds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import FEW, Wanted
from nets import Net, trained_epochs
from paper_values import TABLE_2, TITLES
from readings import Results, lipschitz_by_depth, results_of

Rows = list[dict[str, Any]]
COLUMNS = {
    "g-expansive, labels": ("expansivity labels", "expansive_constant.min"),
    "g-expansive, predictions": ("expansivity predictions", "expansive_constant.min"),
    "Definition 1 (max)": ("expansivity labels", "expansive_constant.max"),
    "Lip(g), largest": ("lipschitz", "lipschitz"),
    "Sh, two orbits": ("shadowing", "Sh_paper"),
    "Sh, authors' chains": ("shadowing", "Sh_chain.mean"),
}
MIDDLE_STEPS = 500
"""Steps of the probes where epochs or seeds are what varies, if --steps has them."""


def runs_wanted(trained: Sequence[Net], kept: Sequence[Net], given: argparse.Namespace) -> list[Wanted]:
    """Head and probes of every training and snapshot; all --steps for the first seed of a model at its end."""
    first = {}
    for net in trained:
        first.setdefault(net.name, net)
    middle = MIDDLE_STEPS if MIDDLE_STEPS in given.steps else min(given.steps)
    wanted = []
    for net in [*trained, *kept]:
        steps = given.steps if net is first.get(net.name) else [middle]
        for count in (None, *steps):
            images = None if count is None else given.dependence_images
            wanted.append(Wanted(net, FEW, given.dependence_limit, count, images))
    return wanted


def dependence(runs: Mapping[Wanted, Path]) -> Rows:
    """One row for each network and readout: what varies, then the constants."""
    rows = []
    for one, run in runs.items():
        results, _ = results_of(run)
        n = results["lipschitz"].measurements[0].n if "lipschitz" in results else None
        rows.append(
            {
                "model": TITLES[one.net.name],
                "seed": one.net.seed,
                "epoch": trained_epochs(one.net.weights) if one.net.epoch is None else one.net.epoch,
                "readout": "head" if one.steps is None else "probe",
                "probe steps": one.steps,
                "accuracy": _value(results, "expansivity labels", "accuracy"),
                **{column: _value(results, *where) for column, where in COLUMNS.items()},
                **_by_depth(results),
                "eps": _witnessed(results, "Sh_chain.mean", "eps"),
                "delta": _witnessed(results, "Sh_chain.mean", "delta"),
                "N": n,
                "probe images": one.images,
            }
        )
    return rows


def paper_row(name: str) -> dict[str, Any]:
    """What the paper prints, in the columns it can be compared in."""
    values = TABLE_2[name]
    return {
        "model": TITLES[name],
        "readout": "the paper",
        "g-expansive, labels": values["g-expansive"],
        "Lip(g), largest": values["Lip(g)"],
        "Sh, two orbits": values["g-shadowing"],
        "eps": values["eps"],
        "delta": values["delta"],
    }


def _by_depth(results: Results) -> dict[str, float | None]:
    """Lip(g_t) of the first, the middle and the last probe."""
    bounds = lipschitz_by_depth(results)
    last = max(bounds, default=0)
    places = {"Lip(g_0)": 0, "Lip(g_T/2)": last // 2, "Lip(g_T)": last} if last else {}
    return {column: bounds.get(places[column]) if places else None for column in ("Lip(g_0)", "Lip(g_T/2)", "Lip(g_T)")}


def _value(results: Results, key: str, name: str) -> float | None:
    found = results[key].measurements if key in results else []
    return next((m.value for m in found if m.name == name), None)


def _witnessed(results: Results, name: str, key: str) -> float | None:
    found = results["shadowing"].measurements if "shadowing" in results else []
    return next((m.witness.get(key) for m in found if m.name == name), None)
