"""What is said of every single image of one network: by softmax alone, and by the toolkit along depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import harms
import numpy as np
import torch
from population import Member
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors

import stabilitykit

PROPERTIES = (
    "expansivity:curve=0,nearest=always,pairs={pairs}",
    "shadowing:bracket=false,exact=false",
    "certified_radius:precision=none,samples=20",
)
COLUMNS = (
    *(f"nearest_{how}_distance" for how in ("max", "mean", "min")),
    "prediction_depth",
    "tracing_error",
    "largest_jump",
    "certified_radius",
)
BASELINES = ("margin", "confidence", "entropy")
OF_THE_LABEL = ("label_probability", "label_margin", "pixel_ratio")
HIGH = {"entropy", "pixel_ratio"}
"""Baselines that are high where the network is in doubt; the others are low there."""
NOISE, DRAWS = 0.02, 4


def baselines(logits: np.ndarray, labels: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """float64 (N,) each: softmax ``margin`` (largest minus second), ``confidence`` and ``entropy`` (nats); with labels
    ``label_probability`` and ``label_margin`` (its logit minus the largest other one).

    Arguments:
        logits: float64 (N, K). labels: int64 (N,), those that the network was trained with.
    """
    p = softmax(logits, axis=1)
    ordered = np.sort(p, axis=1)
    found = {"margin": ordered[:, -1] - ordered[:, -2], "confidence": ordered[:, -1]}
    found["entropy"] = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
    if labels is not None:
        rows = np.arange(len(labels))
        others = logits.copy()
        others[rows, labels] = -np.inf
        found["label_probability"] = p[rows, labels]
        found["label_margin"] = logits[rows, labels] - others.max(1)
    return found


def along_depth(member: Member, spec: Mapping[str, Any], count: int, seed: int, given: bool) -> dict[str, np.ndarray]:
    """The toolkit's columns of images.csv, float64 (N,), with ``index``; one that is undefined there is NaN.

    Arguments:
        spec: the data set. count: images, drawn by ``seed`` where there are more.
        given: another class is one of another label, and ``outlying_ratio`` (distance to the nearest of the own class
            over that to the nearest of another) is measured; else it is another predicted class.
    """
    asked = [name.format(pairs="labels" if given else "predictions") for name in PROPERTIES]
    run = stabilitykit.evaluate(
        member.spec, dict(spec), asked + ["outlying"] * given, limit=count, seed=seed, cache=False
    )
    frame = run.images()
    nothing = np.full(len(frame), np.nan)
    found = {name: frame[name].to_numpy(float) if name in frame else nothing for name in COLUMNS}
    if given:
        own, other = (frame[f"{whose}_class_distance"].to_numpy(float) for whose in ("own", "other"))
        with np.errstate(divide="ignore", invalid="ignore"):
            found["outlying_ratio"] = own / other
    return {"index": frame["index"].to_numpy(), **found}


def pixel_ratio(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 (N,): the distance to the nearest image of the same label over that to the nearest of another, in pixels:
    what the nearest neighbour knows without any network. Infinite for the only image of its label.

    Arguments:
        images: float32 (N, C, H, W). labels: int64 (N,).
    """
    flat = images.reshape(len(images), -1)
    own, other = np.full(len(flat), np.inf), np.full(len(flat), np.inf)
    for label in np.unique(labels):
        of_it = labels == label
        known = NearestNeighbors(n_neighbors=min(2, of_it.sum())).fit(flat[of_it])
        if of_it.sum() > 1:
            own[of_it] = known.kneighbors(flat[of_it])[0][:, 1]
        other[~of_it] = np.minimum(other[~of_it], known.kneighbors(flat[~of_it], 1)[0][:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(own / other, nan=1.0, posinf=np.inf)


def local_expansion(member: Member, images: np.ndarray, seed: int = 0) -> np.ndarray:
    """float64 (N,): how much Gaussian noise of 0.02 in the pixels moves the probabilities at the depth where it moves
    them most, over the noise's length (both l2); the mean of four draws.

    Arguments:
        images: float32 (N, C, H, W) in [0, 1].
    """
    model = member.load()
    draw = np.random.Generator(np.random.PCG64(seed))
    still = _paths(model, images)
    total = np.zeros(len(images))
    for _ in range(DRAWS):
        noise = NOISE * draw.standard_normal(images.shape, dtype=np.float32)
        moved = np.linalg.norm(_paths(model, images + noise) - still, axis=2).max(0)
        total += moved / np.linalg.norm(noise.reshape(len(noise), -1).astype(np.float64), axis=1)
    return total / DRAWS


def _paths(model: stabilitykit.Model, images: np.ndarray) -> np.ndarray:
    """Probabilities along depth, float64 (T+1, N, K)."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), harms.BATCH):
            state = model.initial_state(model.preprocess(list(images[start : start + harms.BATCH])))
            depths = [model.readout_at(0, state)]
            for t in range(model.num_blocks):
                state = model.block(t, state)
                depths.append(model.readout_at(t + 1, state))
            parts.append(softmax(torch.stack(depths).double().numpy(), axis=2))
    return np.concatenate(parts, axis=1)


def scores(member: Member, images: np.ndarray, labels: np.ndarray, given: bool, count: int, seed: int = 0) -> Any:
    """All numbers of ``count`` images, float64 (N,), by name; ``index`` says which of ``images`` they are.

    Arguments:
        images, labels: the test images, or with ``given`` the training images with the labels the network saw.
    """
    spec = member.dataset if given else member.test_spec
    found = along_depth(member, spec, min(count, len(images)), seed, given)
    rows = found["index"]
    found["local_expansion"] = local_expansion(member, images[rows], seed)
    model = member.load()
    logits = harms.scores(model.logits, images[rows], model.preprocess)
    if given:
        found["pixel_ratio"] = pixel_ratio(images[rows], labels[rows])
    return {**found, **baselines(logits, labels[rows] if given else None)}
