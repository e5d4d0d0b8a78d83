"""Contract checks of a Dataset."""

from __future__ import annotations

import numpy as np

from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.testing.checks import Check, Checklist, require, require_plain

SAMPLE = 8


def check_dataset(dataset: Dataset) -> list[Check]:
    """Contract checks of ``dataset``; looks at 8 of its images."""
    found = Checklist()
    with found.check("is a stabilitykit.Dataset"):
        require(isinstance(dataset, Dataset), f"it is {type(dataset).__name__}; derive from stabilitykit.Dataset")
    if found.failed:
        return found.checks
    with found.check("labels and class names fit together"):
        dataset.check()
        labels = np.asarray(dataset.labels)
        require(labels.shape == (len(dataset),), f"labels have shape {labels.shape}, expected ({len(dataset)},)")
        require(labels.dtype == np.int64, f"labels are {labels.dtype}, expected int64")
        require(np.array_equal(labels, dataset.labels), "labels change between two calls; do not shuffle")
    if found.failed:
        return found.checks
    with found.check("classes have names"):
        names = list(dataset.class_names)
        require(
            all(isinstance(name, str) and name.strip() for name in names),
            f"class_names holds {next((n for n in names if not isinstance(n, str) or not n.strip()), '')!r}; "
            "give every class a text",
        )
    sample = np.unique(np.linspace(0, len(dataset) - 1, SAMPLE).astype(int)).tolist()
    with found.check("images are float32 (C, H, W) in [0, 1]"):
        images = dataset.images(sample)
        require(len(images) == len(sample), f"{len(images)} images for {len(sample)} indices")
        for index, image in zip(sample, images, strict=True):
            require(isinstance(image, np.ndarray), f"image {index} is {type(image).__name__}, expected np.ndarray")
            require(image.dtype == np.float32, f"image {index} is {image.dtype}, expected float32")
            require(
                image.ndim == 3 and image.shape[0] in (1, 3),
                f"image {index} has shape {image.shape}, expected (C, H, W) with C = 1 or 3",
            )
            low, high = float(image.min()), float(image.max())
            require(
                low >= 0.0 and high <= 1.0,
                f"image {index} ranges over [{low:g}, {high:g}], expected [0, 1]; divide bytes by 255 and "
                "leave normalisation to the model",
            )
    with found.check("images can be asked for in any order, again and again"):
        forward = dataset.images(sample)
        backward = dataset.images(sample[::-1])[::-1]
        alone = [dataset.images([index])[0] for index in sample]
        for index, a, b, c in zip(sample, forward, backward, alone, strict=True):
            require(
                np.array_equal(a, b) and np.array_equal(a, c),
                f"image {index} differs between two requests; no random transforms, no hidden position",
            )
    with found.check("an index outside is an error"):
        try:
            dataset.images([len(dataset)])
        except Exception:
            pass
        else:
            require(False, f"images([{len(dataset)}]) gives something; raise IndexError")
    with found.check("order in class counts from 0 in dataset order"):
        labels = np.asarray(dataset.labels)
        for label in np.unique(labels):
            order = np.asarray(dataset.order_in_class)[labels == label]
            require(np.array_equal(order, np.arange(len(order))), f"class {label}: expected 0, 1, 2...")
    with found.check("fingerprint is stable"):
        first = dataset.fingerprint()
        require(
            isinstance(first, str) and len(first) >= 16 and all(c in "0123456789abcdef" for c in first),
            f"it is {first!r}; expected a hex digest of pixels, labels and transforms",
        )
        require(dataset.fingerprint() == first, "two calls give different fingerprints")
    with found.check("transforms and describe are plain data"):
        require(all(isinstance(text, str) for text in dataset.transforms), "transforms is a sequence of strings")
        require_plain(dataset.describe(), "describe()")
    return found.checks
