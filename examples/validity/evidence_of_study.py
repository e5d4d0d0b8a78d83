"""What the study showed of each number, for docs/numbers.md and for the first screen of reports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from across import Rows

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.files import write_atomic
from stabilitykit.reporting.evidence import OF_IMAGES, PACKAGED, Evidence, evidence_json, markdown

NUMBERS = Path(__file__).resolve().parents[2] / "docs" / "numbers.md"
BLOCK = re.compile(r"(<!-- begin: evidence -->\n).*?(<!-- end: evidence -->)", re.DOTALL)
OUTCOMES = {
    "pgd": "accuracy under PGD",
    "ensemble": "accuracy under an ensemble of attacks",
    "noise": "accuracy under noise",
    "blur": "accuracy under blur",
    "jpeg": "accuracy under JPEG",
    "int8": "accuracy in int8",
    "pruning": "accuracy after pruning",
    "ece": "calibration error",
    "gap": "generalisation gap",
}
TARGETS = {
    "wrong": "finds wrong decisions",
    "attacked first": "finds images that an attack breaks first",
    "label error": "finds planted label errors",
    "flips.bf16": "finds decisions that bf16 changes",
    "flips.int8": "finds decisions that int8 changes",
    "flips.pruned30": "finds decisions that pruning 30 % changes",
    "flips.pruned50": "finds decisions that pruning 50 % changes",
}


def write_evidence(tables: Mapping[str, Rows], file: Path = PACKAGED, page: Path = NUMBERS) -> None:
    """Write ``file`` and the table between the marks of ``page``, both from what held in ``tables``.

    Arguments:
        tables: ``verdicts`` and ``correlations`` of the study across networks, ``images-verdicts`` of that within them.

    Raises:
        UsageProblem: ``page`` has no marks.
    """
    entries = [*across_entries(tables["verdicts"], tables["correlations"]), *image_entries(tables["images-verdicts"])]
    text = page.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise UsageProblem(f"{page} has no <!-- begin: evidence --> and <!-- end: evidence --> to write between")
    write_atomic(file, evidence_json(entries).encode())
    table = markdown(entries)
    write_atomic(page, BLOCK.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", text).encode())


def across_entries(verdicts: Rows, correlations: Rows) -> list[Evidence]:
    """One entry for each constant and readout: the outcome that it went with most closely of those that it went with in
    every group of networks (``holds``)."""
    found: list[tuple[float, Evidence]] = []
    for row in verdicts:
        readout, _, number = row["number"].partition(": ")
        if readout == "baseline" or not row["holds"] or row["same thing"]:
            continue
        cells = [
            cell
            for cell in correlations
            if (cell["number"], cell["outcome"], cell["subset"]) == (row["number"], row["outcome"], "all")
        ]
        rhos = " and ".join(f"{cell['rho']:+.2f}" for cell in cells)
        sizes = " and ".join(str(cell["n"]) for cell in cells)
        beyond = "beyond accuracy, too" if row["beyond accuracy"] else "not shown beyond accuracy"
        if not row["without adversarial"]:
            beyond += ", nor without adversarially trained networks"
        figure = f"Spearman {rhos} ({sizes} networks)"
        strength = min(abs(cell["rho"]) for cell in cells)
        found.append((strength, Evidence(number, "networks", readout, OUTCOMES[row["outcome"]], figure, beyond)))
    return strongest(found, "outcomes")


def image_entries(verdicts: Rows) -> list[Evidence]:
    """One entry for each number of single images: of the targets that it finds (``finds``) the one it finds best;
    numbers that only the study has are none."""
    found: list[tuple[float, Evidence]] = []
    for row in verdicts:
        if row["number"] not in OF_IMAGES or not row["finds"]:
            continue
        aurocs = f"AUROC {row['auroc']:.2f}"
        if row["networks"] > 1:
            aurocs += f" ({row['auroc low']:.2f} to {row['auroc high']:.2f})"
        networks = f"{row['networks']} network" + "s" * (row["networks"] != 1)
        figure = f"{aurocs}, {networks}, {row['to be found']:,} of {row['images']:,} images; "
        figure += f"best baseline {row['baseline']:.2f}"
        beyond = f"adds {row['gain']:+.3f} to the baselines" if row["adds"] else "not shown to add to the baselines"
        found.append((row["auroc"], Evidence(row["number"], "images", "head", TARGETS[row["target"]], figure, beyond)))
    return strongest(found, "targets")


def strongest(found: Sequence[tuple[float, Evidence]], kind: str) -> list[Evidence]:
    """Of entries with their strength the strongest of each number and readout, and how many it stands for."""
    chosen = []
    for key in dict.fromkeys((entry.number, entry.readout) for _, entry in found):
        alike = [(strength, entry) for strength, entry in found if (entry.number, entry.readout) == key]
        best = max(alike, key=lambda pair: pair[0])[1]
        more = f", the most of {len(alike)} {kind}" if len(alike) > 1 else ""
        chosen.append(replace(best, figure=best.figure + more))
    return chosen
