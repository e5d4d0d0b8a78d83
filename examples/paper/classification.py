"""Table 1: macro precision, recall, F1 and loss of every training on its test images, beside the paper's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from images import images_of
from nets import Net, trained_epochs
from paper_values import TABLE_1, TITLES

from stabilitykit.base.files import write_json
from stabilitykit.evaluation.settings import choose_indices
from stabilitykit.machine.device import choose_device
from stabilitykit.plugins.registry import Registry
from stabilitykit.training.metrics import classification_metrics, predict

Rows = list[dict[str, Any]]
MEASURES = ("precision", "recall", "f1", "loss")
F1_WITHIN, LOSS_ABOVE = 0.01, 1.10
"""The goals: F1 at most 0.01 below the paper's, loss at most 10 % above."""


def classification(net: Net, given: argparse.Namespace) -> dict[str, Any]:
    """Metrics of one training on its test images; kept in --runs."""
    registry = Registry.load()
    model = registry.create("model", net.spec(given.width))
    kept = given.runs / "classification" / f"{net.key}-{model.fingerprint()[:16]}-{given.limit or 'all'}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    images = images_of(net.name, given)
    assert images is not None
    dataset, device = registry.create("dataset", images[1]), choose_device(given.device)
    model.module.to(device).eval()
    indices = choose_indices(len(dataset), given.limit, seed=0)
    found = {
        **classification_metrics(*predict(model, dataset, indices, device=device)),
        "epochs": trained_epochs(net.weights),
        "fingerprint": model.fingerprint()[:16],
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, found)
    return found


def untrained_norm(net: Net, width: int | None) -> float:
    """||W||_2 of the head of the same network without weights, seed 0."""
    import torch

    spec = Net(net.name, net.seed, Path("no weights")).spec(width)
    model = Registry.load().create("model", spec)
    linear = next(part for part in model.head.modules() if isinstance(part, torch.nn.Linear))
    return float(torch.linalg.matrix_norm(linear.weight.detach().double(), 2))


def table_1(metrics: Mapping[Net, Mapping[str, Any]]) -> Rows:
    """A row for every training and measure, and one for the mean over seeds where there are several."""
    rows = []
    for name in dict.fromkeys(net.name for net in metrics):
        found = {net: m for net, m in metrics.items() if net.name == name}
        for key in MEASURES:
            values = [float(m[key]) for m in found.values()]
            rows += [_row(name, key, str(net.seed), float(m[key]), m["n"], m["epochs"]) for net, m in found.items()]
            if len(values) > 1:
                mean = _row(name, key, f"mean of {len(values)}", sum(values) / len(values), "", "")
                rows.append(mean | {"lowest": min(values), "highest": max(values)})
    return rows


def _row(name: str, key: str, seed: str, value: float, n: Any, epochs: Any) -> dict[str, Any]:
    paper = TABLE_1[name][key]
    goal, met = None, None
    if key == "f1":
        goal, met = paper - F1_WITHIN, value >= paper - F1_WITHIN
    if key == "loss":
        goal, met = paper * LOSS_ABOVE, value <= paper * LOSS_ABOVE
    return {
        "model": TITLES[name],
        "measure": key,
        "seed": seed,
        "ours": value,
        "lowest": None,
        "highest": None,
        "paper": paper,
        "difference": value - paper,
        "goal": goal,
        "met": None if met is None else "yes" if met else "no",
        "N": n,
        "epochs (paper: 100)": epochs,
    }
