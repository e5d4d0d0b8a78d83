"""All that is measured of one network, kept part by part, so that an interrupted study goes on."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harms
import image_sets
import numpy as np
from headline import constants
from population import Member
from simple import baselines, calibration_and_gap

from stabilitykit.base.files import write_atomic

READOUTS = ("head", "lens", "probe")


def measured(member: Member, sizes: dict[str, int], work: Path) -> dict[str, Any]:
    """Parts by name (``baselines``, ``outcomes``, ``attacks``, ``head``, ``lens``, ``probe``), measured or read back.

    Arguments:
        sizes: ``pgd_images``, ``ensemble_images``, ``probe_steps``.
        work: folder; results lie in results/PART-KEY.json and are made anew where weights or sizes changed.
    """
    return {name: kept(work, name, member, asked, make) for name, (make, asked) in _parts(member, sizes).items()}


def is_measured(member: Member, sizes: dict[str, int], work: Path) -> bool:
    """Whether :func:`measured` would only read back."""
    return all(_stored(work, name, member, asked) for name, (_, asked) in _parts(member, sizes).items())


def _parts(member: Member, sizes: dict[str, int]) -> dict[str, tuple[Callable[[], Any], dict[str, int]]]:
    """How each part is made, and what of ``sizes`` it depends on."""
    parts: dict[str, tuple[Callable[[], Any], dict[str, int]]] = {
        "baselines": (lambda: baselines(member), {}),
        "outcomes": (lambda: outcomes(member), {}),
        "head": (lambda: constants(member, "head", 0), {}),
    }
    steps = {"probe_steps": sizes["probe_steps"]}
    for readout in READOUTS[1:]:
        parts[readout] = (lambda readout=readout: constants(member, readout, sizes["probe_steps"]), steps)
    if harms.without_attacks() is None:
        counts = {name: sizes[name] for name in ("pgd_images", "ensemble_images")}
        parts["attacks"] = (lambda: attacks(member, **counts), counts)
    return parts


def kept(work: Path, part: str, member: Member, asked: dict[str, int], make: Callable[[], Any]) -> Any:
    """What ``make`` gives, plain data; read back where it was made of the same weights and images for the same."""
    stored = _stored(work, part, member, asked)
    if stored is not None:
        return stored["found"]
    started = time.process_time()
    found = make()
    seconds = time.process_time() - started
    print(f"{member.key}: {part}, {seconds:.0f} s of processor time", file=sys.stderr, flush=True)
    path = _path(work, part, member)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"identity": _identity(member, asked), "found": found, "seconds": seconds}, indent=1)
    write_atomic(path, text.encode())
    return json.loads(text)["found"]


def _path(work: Path, part: str, member: Member) -> Path:
    return work / "results" / f"{part}-{member.key}.json"


def _identity(member: Member, asked: dict[str, int]) -> dict[str, Any]:
    return {"of": fingerprint(member), "asked": asked}


def _stored(work: Path, part: str, member: Member, asked: dict[str, int]) -> dict[str, Any] | None:
    """The result file, where it was made of the same weights and images for the same sizes."""
    path = _path(work, part, member)
    if not path.exists():
        return None
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored if stored["identity"] == _identity(member, asked) else None


def fingerprint(member: Member) -> str:
    """Of the weights, the model's options and the files of images."""
    digest = hashlib.sha256(json.dumps(dict(member.model), sort_keys=True).encode())
    for path in (member.weights, member.test):
        if path is not None:
            digest.update(path.read_bytes())
    digest.update(repr((member.labels, member.attack_eps)).encode())
    return digest.hexdigest()


def outcomes(member: Member) -> dict[str, float]:
    """Accuracy under ``noise``, ``blur``, ``jpeg``, ``int8`` and ``pruning`` (the mean over the shares pruned), the
    shares of decisions that bf16 and int8 change (``flips.bf16``, ``flips.int8``), ``ece``, ``gap``, and ``n``."""
    images, labels = image_sets.read(member.test)
    decided = harms.corrupted(member, images)
    low = harms.quantised(member, images)
    pruned = harms.pruned(member, images)
    found: dict[str, float] = {"n": len(labels)}
    found |= {name: float((decided[name] == labels).mean()) for name in ("noise", "blur", "jpeg")}
    found["int8"] = float((low["int8"] == labels).mean())
    found["pruning"] = float(np.mean([(classes == labels).mean() for classes in pruned.values()]))
    found |= {f"flips.{format}": float((low[format] != decided["clean"]).mean()) for format in harms.FORMATS}
    return found | calibration_and_gap(member)


def attacks(member: Member, pgd_images: int, ensemble_images: int) -> dict[str, Any]:
    """``pgd``: accuracy, the mean over all radii; ``pgd_at``: at each. ``ensemble``: at the middle radius."""
    images, labels = image_sets.read(member.test)
    pgd = harms.attacked(member, images[:pgd_images], labels[:pgd_images])
    middle = member.attack_eps[len(member.attack_eps) // 2]
    ensemble = harms.attacked(member, images[:ensemble_images], labels[:ensemble_images], [middle], "ensemble")
    return {
        "pgd": float(pgd.correct.mean()),
        "pgd_at": pgd.correct.mean(1).tolist(),
        "ensemble": float(ensemble.correct.mean()),
    }
