"""Arrays, torch Datasets and DataLoaders as a dataset: read once, in a fixed order, and refused where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stabilitykit import DataProblem, UsageProblem
from stabilitykit.base.errors import describe
from stabilitykit.base.progress import shown
from stabilitykit.evaluation.cache import scratch_array
from stabilitykit_vision.given import GivenImages

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

IMAGE_KEYS = ("image", "images", "img", "pixel_values", "x", "input", "inputs")
LABEL_KEYS = ("label", "labels", "target", "targets", "y")
AGAIN = 8
"""Items that are read twice: a random crop or flip shows in them."""


def arrays(
    data: Any, *, name: str, class_names: Sequence[str] | None = None, num_classes: int | None = None
) -> GivenImages:
    """``(images, labels)``, arrays or tensors; options as of :class:`~stabilitykit_vision.given.GivenImages`.

    Raises:
        DataProblem: another number of parts or of labels, ragged images.
    """
    if len(data) != 2:
        raise DataProblem(f"dataset {name}: expected (images, labels), got a tuple of {len(data)}")
    inputs, labels = (_array(name, part, what) for part, what in zip(data, ("images", "labels")))
    if len(inputs) != len(labels):
        raise DataProblem(f"dataset {name}: {len(inputs)} images and {len(labels)} labels")
    return GivenImages(
        name, inputs, labels, class_names, num_classes=num_classes, record={"source": "arrays given in Python"}
    )


def torch_dataset(
    data: Any, *, name: str, class_names: Sequence[str] | None = None, num_classes: int | None = None
) -> GivenImages:
    """A torch Dataset of (image, label), read once by index.

    Raises:
        DataProblem: no length, items of another form, images of different shapes, another image at the second reading.
    """
    count = _length(data, name)

    def item(index: int) -> tuple[np.ndarray, Any]:
        try:
            return _pair(name, data[index], f"item {index}")
        except DataProblem:
            raise
        except Exception as error:
            raise DataProblem(f"dataset {name}: item {index} cannot be read: {describe(error)}") from error

    for index in range(min(AGAIN, count)):
        if not _equal(item(index), item(index)):
            raise DataProblem(
                f"dataset {name}: item {index} is another one each time it is read (a random crop or flip?); give the "
                "dataset the transforms of testing"
            )
    return _read(name, data, (item(i) for i in range(count)), count, class_names, num_classes)


def loader(
    data: DataLoader[Any], *, name: str, class_names: Sequence[str] | None = None, num_classes: int | None = None
) -> GivenImages:
    """A DataLoader of batches (images, labels), read once in its order.

    Raises:
        DataProblem: it shuffles, has no length, its batches are of another form or others at the second reading.
    """
    from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

    sampler = getattr(data.batch_sampler, "sampler", data.sampler)
    if isinstance(sampler, (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)):
        raise DataProblem(
            f"dataset {name}: the DataLoader shuffles ({type(sampler).__name__}); results name images by their place, "
            "so give one with shuffle=False"
        )
    _length(data, name)
    first, again = (next(_batches(name, data), None) for _ in range(2))
    if first is None or again is None:
        raise DataProblem(f"dataset {name} is empty")
    if not _equal(first, again):
        raise DataProblem(
            f"dataset {name}: the first batch is another one at the second reading (a sampler that shuffles, or random "
            "transforms); give a DataLoader with a fixed order and the transforms of testing"
        )
    pairs = ((image, label) for images, labels in _batches(name, data) for image, label in zip(images, labels))
    dropped = getattr(data, "drop_last", False) and "the DataLoader has drop_last=True: the last images may be missing"
    return _read(name, data.dataset, pairs, None, class_names, num_classes, [dropped] if dropped else [])


def _read(
    name: str,
    data: Any,
    pairs: Iterator[tuple[np.ndarray, Any]],
    count: int | None,
    class_names: Sequence[str] | None,
    num_classes: int | None,
    notes: Sequence[str] = (),
) -> GivenImages:
    """All images and labels into one array: in memory, or in a temporary file where they are many."""
    inputs, labels = np.empty(0, np.float32), []
    position = 0
    for position, (image, label) in enumerate(shown(pairs, f"reading {name}", count), 1):
        if position == 1:
            inputs = scratch_array((count or 256, *image.shape), str(image.dtype))
        elif image.shape != inputs.shape[1:]:
            raise DataProblem(
                f"dataset {name}: image {position - 1} is {image.shape}, the first one {inputs.shape[1:]}; resize them "
                "to one size"
            )
        if position > len(inputs):
            more = scratch_array((2 * len(inputs), *image.shape), str(inputs.dtype))
            more[: len(inputs)] = inputs
            inputs = more
        inputs[position - 1] = image
        labels.append(label)
    known = class_names if class_names is not None else _known_names(data)
    return GivenImages(
        name,
        inputs[:position],
        np.asarray(labels),
        known,
        num_classes=num_classes,
        notes=notes,
        record={"source": f"{type(data).__module__}.{type(data).__qualname__} given in Python"},
    )


def _known_names(data: Any) -> list[str] | None:
    """The names torchvision's datasets keep in ``classes``; of a Subset those of the whole."""
    while not hasattr(data, "classes") and hasattr(data, "dataset"):
        data = data.dataset
    names = getattr(data, "classes", None)
    return list(names) if isinstance(names, (list, tuple)) and all(isinstance(n, str) for n in names) else None


def _batches(name: str, data: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for number, batch in enumerate(data):
        images, labels = _pair(name, batch, f"batch {number}")
        if len(np.atleast_1d(labels)) != len(images):
            raise DataProblem(f"dataset {name}: batch {number} has {len(images)} images and {np.size(labels)} labels")
        yield images, labels


def _pair(name: str, item: Any, what: str) -> tuple[np.ndarray, Any]:
    """(image or images, label or labels) of an item or a batch: a pair, or a mapping with keys of usual names."""
    if isinstance(item, Mapping):
        found = [[key for key in keys if key in item] for keys in (IMAGE_KEYS, LABEL_KEYS)]
        if any(len(keys) != 1 for keys in found):
            raise DataProblem(
                f"dataset {name}: {what} is a mapping of {', '.join(map(str, item))}; expected one key for images "
                f"({', '.join(IMAGE_KEYS)}) and one for labels ({', '.join(LABEL_KEYS)}), or (image, label)"
            )
        item = item[found[0][0]], item[found[1][0]]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise DataProblem(f"dataset {name}: {what} is a {type(item).__name__}{size}, expected (image, label)")
    label = item[1]
    return _array(name, item[0], what), label if isinstance(label, (str, int)) else _array(
        name, label, f"label of {what}"
    )


def _array(name: str, thing: Any, what: str) -> np.ndarray:
    """A numpy array or a tensor (of any device, with or without gradient) as an array, without a copy if possible."""
    if hasattr(thing, "detach"):
        thing = thing.detach().cpu()
        return (thing.float() if str(thing.dtype) == "torch.bfloat16" else thing).numpy()
    if hasattr(thing, "getbands"):
        raise DataProblem(
            f"dataset {name}: {what} is a PIL image; give the dataset a transform that makes the network's input of it "
            "(torchvision.transforms.ToTensor() and its normalisation)"
        )
    try:
        made = np.asarray(thing)
    except ValueError as error:
        raise DataProblem(f"dataset {name}: {what} cannot be one array: {describe(error)}") from None
    if made.dtype == object:
        raise DataProblem(f"dataset {name}: {what} is a {type(thing).__name__}, expected an array or a tensor")
    return made


def _length(data: Any, name: str) -> int:
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        raise UsageProblem(
            f"dataset {name} has no length (an iterable dataset): results name images by their place; give a Dataset "
            "with indices, or read it into (images, labels)"
        ) from None


def _equal(a: tuple[Any, Any], b: tuple[Any, Any]) -> bool:
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b))
