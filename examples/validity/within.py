"""Within a network: do numbers of single images find what softmax does not?"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import harms
import image_scores
import image_sets
import image_targets
import numpy as np
from correlations import corrected
from image_statistics import auroc, difference, foretold
from member_results import fingerprint
from population import Member, trained_member
from trainings import Training

from stabilitykit.base.files import write_atomic

Rows = list[dict[str, Any]]
Found = dict[str, np.ndarray]
HERE = Path(__file__).resolve().parent
HYPOTHESES = HERE / "within_hypotheses.toml"
SIZES = {"images": 1000, "attacked": 400, "given": 2000}
QUICK_SIZES = {"images": 200, "attacked": 60, "given": 500}
FLIPPED = 5
LABEL_ERROR, ATTACKED = "label error", "attacked first"
ALL = "all of them"
SHOWN = (
    *("number", "target", "networks", "images", "to be found", "auroc", "auroc low", "auroc high", "baseline", "finds"),
    *("turned round in", "better in", "worse in", "gain", "gain most", "adds in", "adds"),
)
"""Columns of ``images-verdicts`` for a page."""
LEVEL = 0.05


def within(members: Sequence[Member], options: argparse.Namespace) -> dict[str, Rows]:
    """Tables ``images`` (every number on every target of every network), ``images-verdicts`` (over networks).

    Arguments:
        members: of the population; :func:`chosen` of them are looked at.
        options: as of ``population.members``; ``finished``: nothing is measured that is not there yet.
    """
    sizes = QUICK_SIZES if options.quick else SIZES
    rows: Rows = []
    for member in chosen(members):
        if _pixels_as_they_are(member):
            rows += _of_member(member, "test", sizes, options)
    for member in mislabelled(options):
        rows += _of_member(member, "given", sizes, options)
    rows = corrected_rows(rows)
    return {"images": rows, "images-verdicts": verdicts(rows)}


def _of_member(member: Member, part: str, sizes: Mapping[str, int], options: argparse.Namespace) -> Rows:
    """Its rows; with ``options.finished`` none where nothing is kept of it yet."""
    if options.finished and not _file(member, part, options.work).exists():
        options.left_out[f"{member.key}, single images"] = "not measured yet"
        return []
    return compared(member.key, kept(member, part, sizes, options.work))


def _file(member: Member, part: str, work: Path) -> Path:
    return work / "within" / f"{part}-{member.key}.npz"


def corrected_rows(rows: Rows) -> Rows:
    """``rows`` with Benjamini and Hochberg's ``q`` over all AUROCs of all networks and ``gain q`` over all gains."""
    found = [dict(row) for row in rows]
    for p, q in (("p", "q"), ("gain p", "gain q")):
        for row, value in zip(found, corrected(np.array([row[p] for row in found]))):
            row[q] = float(value)
    return found


def chosen(members: Sequence[Member]) -> list[Member]:
    """All that were trained elsewhere; of those trained here, per image set, the widest one of seed 0 with plain
    images and clean labels, and the same of the strongest adversarial training."""
    found = [m for m in members if m.about.get("source") != "trained here"]
    plain = [m for m in members if m not in found and not (m.about["seed"] or m.about["augment"] or m.about["noise"])]
    for images in dict.fromkeys(m.images for m in plain):
        for attacked in (False, True):
            of_kind = [m for m in plain if m.images == images and (m.about["eps"] > 0) == attacked]
            found += sorted(of_kind, key=lambda m: (m.about["width"], m.about["eps"]))[-1:]
    return found


def _pixels_as_they_are(member: Member) -> bool:
    return not member.load().preprocessing.get("resize")


def mislabelled(options: argparse.Namespace) -> list[Member]:
    """Of every image set one network that was trained with 5 % of its labels flipped; see ``population.members``."""
    found = []
    for images in image_sets.image_sets(cifar=options.cifar, mnist=options.mnist, quick=options.quick):
        training = Training(images.name, 8 if options.quick else 16, 0, (), FLIPPED)
        member = trained_member(training, images, images.files(options.work), options)
        found += [] if member is None else [member]
    return found


def kept(member: Member, part: str, sizes: Mapping[str, int], work: Path) -> dict[str, Found]:
    """Scores and targets of one network's images, float64 (N,) by name; read back where weights and sizes are the same.

    Arguments:
        part: ``test`` (test images) or ``given`` (training images with the labels the network saw).
    """
    path = _file(member, part, work)
    asked = {name: sizes[name] for name in (("images", "attacked") if part == "test" else ("given",))}
    identity = json.dumps({"of": fingerprint(member), "asked": asked, "attacks": harms.without_attacks() is None})
    if path.exists():
        with np.load(path) as file:
            if str(file["identity"]) == identity:
                return _unpacked(file)
    started = time.process_time()
    found = _on_test(member, sizes) if part == "test" else _on_given(member, sizes)
    print(f"{member.key}: images, {time.process_time() - started:.0f} s of processor time", file=sys.stderr, flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    arrays = {f"{kind}/{name}": values for kind, named in found.items() for name, values in named.items()}
    np.savez(buffer, identity=identity, **arrays)
    write_atomic(path, buffer.getvalue())
    return found


def _unpacked(file: Mapping[str, np.ndarray]) -> dict[str, Found]:
    found: dict[str, Found] = {"scores": {}, "targets": {}}
    for name in file:
        kind, _, rest = name.partition("/")
        if rest:
            found[kind][rest] = file[name]
    return found


def _on_test(member: Member, sizes: Mapping[str, int]) -> dict[str, Found]:
    images, labels = image_sets.read(member.test)
    scores = image_scores.scores(member, images, labels, given=False, count=sizes["images"])
    rows = scores.pop("index")
    targets = image_targets.changes(member, images[rows], labels[rows])
    if harms.without_attacks() is None:
        targets[ATTACKED] = image_targets.attacked_first(member, images[rows], labels[rows], sizes["attacked"])
    return {"scores": scores, "targets": targets}


def _on_given(member: Member, sizes: Mapping[str, int]) -> dict[str, Found]:
    images, given = image_sets.read(member.train, member.labels)
    _, true = image_sets.read(member.train)
    scores = image_scores.scores(member, images, given, given=True, count=sizes["given"])
    rows = scores.pop("index")
    return {"scores": scores, "targets": {LABEL_ERROR: (given != true)[rows].astype(np.float64)}}


def compared(network: str, found: Mapping[str, Found], seed: int = 0) -> Rows:
    """Every number on every target: AUROC in the direction that was fixed, against the best baseline, and what
    it adds to all baselines by cross-validated logistic regression; last, all numbers together."""
    signs = {entry["name"]: 1 if entry["images"] == "high" else -1 for entry in hypotheses()}
    rows: Rows = []
    for name, target in found["targets"].items():
        counted = ~np.isnan(target)
        truth = target[counted]
        scores = {key: values[counted] for key, values in found["scores"].items()}
        sizes = {"network": network, "target": name, "n": len(truth), "found": int(truth.sum())}
        if not image_targets.telling(truth):
            rows.append({**sizes, "number": "too few", "p": math.nan, "gain p": math.nan})
            continue
        simple = {key: _sign(key) * _filled(scores[key]) for key in scores if key in _simple(name)}
        best = max(simple, key=lambda key: auroc(simple[key], truth).value)
        ours = {key: signs[key] * values for key, values in scores.items() if key in signs and _defined(values)}
        alone = foretold(np.stack(list(simple.values()), axis=1), truth, seed)
        for key, values in simple.items():
            rows.append({**sizes, "number": f"baseline: {key}", **_flat("auroc", auroc(values, truth)), "p": math.nan})
            rows[-1]["gain p"] = math.nan
        for key, columns in [*((key, [values]) for key, values in ours.items()), (ALL, list(ours.values()))]:
            both = foretold(np.stack([*simple.values(), *map(_filled, columns)], axis=1), truth, seed)
            added = difference(both, alone, truth)
            row = {**sizes, "number": key, "p": math.nan}
            if key != ALL:
                own = auroc(_filled(columns[0]), truth)
                against = difference(_filled(columns[0]), simple[best], truth)
                row |= {**_flat("auroc", own), "p": own.p, **_flat("against", against), "baseline": best}
            row |= {**_flat("gain", added), "gain p": added.p, "without it": auroc(alone, truth).value}
            rows.append(row)
    return rows


def _simple(target: str) -> tuple[str, ...]:
    return image_scores.BASELINES + (image_scores.OF_THE_LABEL if target == LABEL_ERROR else ())


def _sign(baseline: str) -> int:
    """1 where it is high for images in doubt."""
    return 1 if baseline in image_scores.HIGH else -1


def _defined(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _filled(values: np.ndarray) -> np.ndarray:
    """Images for which a number is undefined stand in the middle; infinite ones at the end."""
    finite = values[np.isfinite(values)]
    return np.nan_to_num(values, nan=float(np.median(finite)), posinf=finite.max(), neginf=finite.min())


def _flat(name: str, found: Any) -> dict[str, float]:
    return {name: found.value, f"{name} low": found.low, f"{name} high": found.high}


def hypotheses() -> list[dict[str, Any]]:
    """What was fixed beforehand, number by number."""
    stated: list[dict[str, Any]] = tomllib.loads(HYPOTHESES.read_text(encoding="utf-8"))["number"]
    return stated


def verdicts(rows: Rows) -> Rows:
    """Over networks, for each number and target: in how many the direction that was fixed is confirmed (q < 0.05),
    turned round (q < 0.05), in how many the number is better or worse than the best baseline (95 % interval,
    uncorrected) and adds to it (gain q < 0.05), with medians.

    ``finds``: confirmed in more than half of the networks and turned round in none. ``adds``: so for the gain.
    """
    found: Rows = []
    measured = [row for row in rows if "gain" in row]
    for number, target in dict.fromkeys((row["number"], row["target"]) for row in measured):
        cells = [row for row in measured if (row["number"], row["target"]) == (number, target)]
        row: dict[str, Any] = {"number": number, "target": target, "networks": len(cells)}
        row["images"] = sum(cell["n"] for cell in cells)
        row["to be found"] = sum(cell["found"] for cell in cells)
        row["gain"] = _median(cells, "gain")
        row["gain most"] = max(cell["gain"] for cell in cells)
        row["adds in"] = sum(cell["gain"] > 0 and cell["gain q"] < LEVEL for cell in cells)
        row["harms in"] = sum(cell["gain"] < 0 and cell["gain q"] < LEVEL for cell in cells)
        row["adds"] = 2 * row["adds in"] > len(cells) and not row["harms in"]
        if number != ALL:
            row["auroc"] = _median(cells, "auroc")
            row["auroc low"] = min(cell["auroc"] for cell in cells)
            row["auroc high"] = max(cell["auroc"] for cell in cells)
            row["baseline"] = float(np.median([cell["auroc"] - cell["against"] for cell in cells]))
            row["confirmed in"] = sum(cell["auroc"] > 0.5 and cell["q"] < LEVEL for cell in cells)
            row["turned round in"] = sum(cell["auroc"] < 0.5 and cell["q"] < LEVEL for cell in cells)
            row["better in"] = sum(cell["against low"] > 0 for cell in cells)
            row["worse in"] = sum(cell["against high"] < 0 for cell in cells)
            row["finds"] = 2 * row["confirmed in"] > len(cells) and not row["turned round in"]
        found.append(row)
    return found


def _median(cells: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.median([cell[name] for cell in cells]))
