"""Run folders made by hand through the store, for tests of everything that reads one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stabilitykit.base.pictures import png_bytes
from stabilitykit.base.results import Kind, Measurement, PropertyResult, Table
from stabilitykit.runs.folder import Cell, RunFolder

CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
HOSTILE = (
    "<script>alert(1)</script>",
    'a" onload="x',
    "{{ 7*7 }}",
    "&amp;",
    "<!-- ",
    "]]>",
    "ü 漢字",
    "'",
    "</svg>",
    "%s",
)
BLOCKS = 8
PLUGIN = {"distribution": "stabilitykit", "version": "0.1.0"}


def expansivity_result(classes: tuple[str, ...] = CLASSES, count: int = 500, seed: int = 0) -> PropertyResult:
    """What the expansivity property returns, with random distances."""
    rng = np.random.default_rng(seed)
    pairs: list[list[Any]] = []
    for reduction, size in (("max", 0.05), ("min", 1e-4), ("mean", 0.02)):
        rows = []
        for a in range(len(classes)):
            for b in range(a + 1, len(classes)):
                i, j = (int(v) for v in rng.choice(60, 2, replace=False))
                value = float(size * np.exp(2 * rng.standard_normal()))
                rows.append(
                    [
                        classes[a],
                        classes[b],
                        reduction,
                        value,
                        i,
                        j,
                        i // 7,
                        j // 7,
                        int(rng.integers(0, BLOCKS + 1)),
                        50,
                        50,
                    ]
                )
        pairs += sorted(rows, key=lambda r: r[3])
    measurements = []
    for reduction in ("max", "min", "mean"):
        best = next(r for r in pairs if r[2] == reduction)
        distances = (best[3] * (1 + rng.random(BLOCKS + 1))).tolist()
        measurements.append(
            Measurement(
                f"expansive_constant.{reduction}",
                best[3],
                Kind.EXACT,
                count,
                "probability (l2)",
                {
                    "indices": best[4:6],
                    "classes": best[:2],
                    "orders": best[6:8],
                    "block": best[8],
                    "distances": distances,
                },
                "Definition 1",
                recheck=0.0,
                note="over the sampled pairs",
            )
        )
        measurements.append(
            Measurement(
                f"expansive_constant.{reduction}.normalised",
                best[3] / 0.8,
                Kind.ESTIMATE,
                count,
                "ratio",
                reference="Definition 1",
            )
        )
    measurements.append(Measurement("accuracy", 0.9812, Kind.EXACT, count, "share"))
    depth = [
        [t, 0.01 * 0.5**t, 1, 2, classes[0], classes[1], 1, 2, 0.3 + 0.1 * t, True, count] for t in range(BLOCKS + 1)
    ]
    accuracy = [[t, 0.1 + 0.88 * t / BLOCKS, 0.12 + 0.88 * t / BLOCKS, t / BLOCKS, count] for t in range(BLOCKS + 1)]
    sizes = [count >> k for k in range(4, -1, -1)]
    scales = (("max", 0.05), ("min", 1e-3), ("mean", 0.02))
    curve = [[n, r, 10 * s * n**-0.6, 1, 2, 3] for n in sizes for r, s in scales]
    tables = {
        "class_pairs": Table(
            [
                "class_a",
                "class_b",
                "reduction",
                "value",
                "index_a",
                "index_b",
                "order_a",
                "order_b",
                "block",
                "n_a",
                "n_b",
            ],
            pairs,
            "Closest pair of every two classes (by labels)",
        ),
        "depth": Table(
            [
                "block",
                "closest",
                "index_i",
                "index_j",
                "class_i",
                "class_j",
                "order_i",
                "order_j",
                "median",
                "median_exact",
                "N",
            ],
            depth,
            "Closest and median cross-class distance at each depth",
        ),
        "accuracy": Table(
            ["block", "accuracy", "agrees_with_final", "decided", "N"],
            accuracy,
            "Decisions of the readout after each block",
        ),
        "curve": Table(["N", "reduction", "value", "index_i", "index_j", "block"], curve, "Constants over subsamples"),
    }
    closest = [r for r in pairs if r[2] == "min"][:6]
    shown = list(dict.fromkeys(i for r in closest for i in r[4:6]))
    return PropertyResult(measurements, tables, shown, ["min: falls about as N^-0.600 over the subsample curve"])


def record(model: str, dataset: str, classes: tuple[str, ...], count: int, name: str) -> dict[str, Any]:
    """A cell's record with the keys reports and comparisons read."""
    return {
        "model": {
            "spec": model,
            "fingerprint": "ab" * 32,
            "num_blocks": BLOCKS,
            "num_classes": len(classes),
            "state_shape": [64, 8, 8],
            "details": {"parameters": 6253386},
        },
        "dataset": {"spec": dataset, "fingerprint": "cd" * 32, "size": count, "class_names": list(classes)},
        "n": count,
        "limit": None,
        "seed": 0,
        "readout": "head",
        "probe": None,
        "space": "probabilities",
        "batch_size": 100,
        "extract_dtype": "float32",
        "device": "cpu",
        "property": {"name": name, "options": {}, "plugin": PLUGIN},
    }


def make_run(
    folder: Path,
    *,
    models: tuple[str, ...] = ("resnet18",),
    dataset: str = "digits",
    classes: tuple[str, ...] = CLASSES,
    count: int = 500,
    failed: bool = True,
    extra: dict[str, PropertyResult] | None = None,
    status: str = "complete",
) -> Path:
    """Write a run folder: expansivity (and ``extra`` properties by name) for each model, one failed cell."""
    run = RunFolder(folder)
    cells = []
    for seed, model in enumerate(models):
        results = {"expansivity": expansivity_result(classes, count, seed), **(extra or {})}
        for name, result in results.items():
            cells.append(
                Cell(
                    model,
                    dataset,
                    name,
                    result=result,
                    seconds=1.5,
                    plugin=PLUGIN,
                    record=record(model, dataset, classes, count, name),
                )
            )
    if failed:
        cells.append(
            Cell(
                models[0],
                dataset,
                "shadowing",
                "failed",
                plugin=PLUGIN,
                error={
                    "type": "CellProblem",
                    "message": f"no orbit in {classes[0]}",
                    "culprit": "property shadowing of other 9.9",
                },
            )
        )
    run.write_run(
        {
            "status": status,
            "request": {
                "models": list(models),
                "datasets": [dataset],
                "properties": ["expansivity"],
                "readout": "head",
                "space": "probabilities",
                "seed": 0,
                "batch_size": 100,
            },
            "provenance": {
                "created": "2026-01-02T03:04:05+00:00",
                "command": ["stabilitykit", "evaluate"],
                "seed": 0,
                "python": "3.11.9",
                "system": "Linux",
                "git": "0" * 40,
                "packages": {"torch": "2.14.1"},
                "device": {"type": "cpu", "name": "x86", "threads": 2},
                "plugins": [
                    {"name": "p", "distribution": "stabilitykit", "version": "0.1.0", "status": "loaded", "error": ""}
                ],
            },
            "pairs": [
                {
                    "model": m,
                    "dataset": dataset,
                    "record": record(m, dataset, classes, count, "expansivity"),
                    "certificate": {"bit_exact": True, "max_abs_difference": 0.0, "batch_size": 100},
                }
                for m in models
            ],
            "cells": [[c.model, c.dataset, c.property] for c in cells],
        }
    )
    for cell in cells:
        run.write_cell(cell)
        for index in cell.result.images if cell.result else ():
            run.write_image(dataset, index, png_bytes(picture(index)))
    run.write_csv(cells)
    return folder


def picture(index: int) -> np.ndarray:
    """A 3 x 16 x 16 image whose pattern depends on the index."""
    y, x = np.mgrid[:16, :16] / 15
    shape = np.exp(-((x - 0.5 - 0.3 * np.sin(index)) ** 2 + (y - 0.5 - 0.3 * np.cos(index)) ** 2) * 12)
    return np.repeat(shape[None].astype(np.float32), 3, axis=0)
