"""The reference table: every constant of some networks, so that a value measured elsewhere can be placed.

    python benchmarks/reference.py --checkpoints DIR --cifar10 TEST.npz --mnist DIR --mnist-weights FILE [--only NAME]
        [--cache DIR] [--threads 1]

Each network on 1,000 and on all images of its test set (digits: the 597 embedded ones; seed 0), probabilities, head
readouts. Writes benchmarks/results/reference.csv and reference.md, and the copy that ships with the package,
stabilitykit/reporting/reference.csv. With --only the other rows stay as they are.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

from reference_networks import NETWORKS, Network

import stabilitykit
from stabilitykit.base.text import csv_text
from stabilitykit.reporting.reference import COLUMNS, PACKAGED, markdown, reference_table

RESULTS = Path(__file__).parent / "results"
# The constants need neither subsamples nor the nearest image of every image.
PROPERTIES = ("expansivity:curve=0,nearest=never", "shadowing", "lipschitz", "topological", "window", "outlying")
# What is placed; the others are variants of these or belong to one image.
CONSTANTS = (
    "accuracy",
    "prediction_depth.mean",
    "expansive_constant.max",
    "expansive_constant.min",
    "expansive_constant.mean",
    "expansive_constant.max.normalised",
    "expansive_constant.min.normalised",
    "expansive_constant.mean.normalised",
    "Sh_exact",
    "Sh_profile",
    "Sh_paper",
    "smallest_jump",
    "lipschitz",
    "lipschitz.probabilities",
    "T_g.lower",
    "T_g.profile",
    "T_g.paper",
    "window.ratio",
    "outlying.share",
)


def main() -> None:
    """Measure what the command line asks for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, default=None)
    parser.add_argument("--cifar10", type=Path, default=None)
    parser.add_argument("--mnist", type=Path, default=None)
    parser.add_argument("--mnist-weights", type=Path, default=None)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--sizes", type=int, nargs="*", default=None)
    parser.add_argument("--cache", type=Path, default=None)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    kept = _stored()
    for network in NETWORKS:
        if given.only and network.name not in given.only:
            continue
        for size in network.sizes:
            if given.sizes is not None and size not in given.sizes:
                continue
            made = _measured(network, size, given)
            names = {(row["network"], row["N"]) for row in made}
            kept = [row for row in kept if (row["network"], row["N"]) not in names] + made
            _write(kept)


def _stored() -> list[dict[str, str]]:
    path = RESULTS / "reference.csv"
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []


def _measured(network: Network, size: int, given: argparse.Namespace) -> list[dict[str, str]]:
    """Rows of one network on ``size`` images (0: all)."""
    data = {"digits": "digits", "cifar10": f"npz:{given.cifar10}", "mnist": f"mnist:root={given.mnist}"}[network.data]
    checkpoint = None
    if network.checkpoint:
        folder = given.mnist_weights if network.checkpoint == "mnist" else given.checkpoints / network.checkpoint
        checkpoint = str(folder)
    start = time.perf_counter(), time.process_time()
    run = stabilitykit.evaluate(
        network.model,
        data,
        list(PROPERTIES),
        checkpoint=checkpoint,
        limit=size or None,
        cache=False if given.cache is None else given.cache,
    )
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    record = run.info["pairs"][0]["record"]
    rows: list[dict[str, str]] = []
    for cell in run.cells:
        if cell.result is None:
            print(f"{network.name}: {cell.property} failed: {cell.error['message']}", flush=True)
            continue
        for m in cell.result.measurements:
            if m.name in CONSTANTS and m.value is not None:
                found: dict[str, Any] = {
                    "network": network.name,
                    "about": network.about,
                    "dataset": {"digits": "digits", "cifar10": "CIFAR-10 test", "mnist": "MNIST test"}[network.data],
                    "N": m.n,
                    "readout": record["readout"],
                    "space": record["space"],
                    "constant": m.name,
                    "value": repr(m.value),
                    "kind": str(m.kind),
                    "unit": m.unit,
                }
                rows.append({column: str(found[column]) for column in COLUMNS})
    print(f"{network.name}, N = {rows[0]['N']}: {wall:.0f} s, {cpu:.0f} s of CPU", flush=True)
    for cell in run.cells:
        print(f"    {cell.property} {cell.seconds:.1f} s", flush=True)
    return rows


def _write(rows: list[dict[str, str]]) -> None:
    order = {network.name: number for number, network in enumerate(NETWORKS)}
    names = {name: number for number, name in enumerate(CONSTANTS)}
    rows = sorted(rows, key=lambda r: (order[r["network"]], int(r["N"]), names[r["constant"]]))
    text = csv_text(COLUMNS, rows)
    for path in (RESULTS / "reference.csv", PACKAGED):
        path.write_text(text, encoding="utf-8")
    about = "# Reference table\n\nWritten by `python benchmarks/reference.py`; all constants: reference.csv.\n\n"
    (RESULTS / "reference.md").write_text(about + markdown(reference_table()), encoding="utf-8")


if __name__ == "__main__":
    main()
