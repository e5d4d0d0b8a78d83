"""A tiny model, a tiny dataset and a context over them: enough to run a plugin's code in milliseconds.

Importing this imports no torch; building a :class:`TinyModel` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.evaluation.context import Context

if TYPE_CHECKING:
    import torch

    from stabilitykit.dynamics.space import Space

IMAGE_SHAPE = (3, 4, 4)
STATE_SHAPE = (4, 2, 2)


class TinyModel(Model):
    """A residual network with states of 16 numbers: linear stem, blocks x + W2 tanh(W1 x), linear readout.

    Arguments:
        blocks: T.
        classes: K.
        seed: of the weights.
        double: float64 weights, for comparing with exact references.
    """

    name = "tiny-model"

    def __init__(self, blocks: int = 3, classes: int = 3, seed: int = 0, double: bool = False) -> None:
        import torch
        from torch import nn

        size = int(np.prod(STATE_SHAPE))
        generator = torch.Generator().manual_seed(seed)

        def linear(inputs: int, outputs: int, scale: float) -> nn.Linear:
            layer = nn.Linear(inputs, outputs)
            with torch.no_grad():
                layer.weight.copy_(torch.randn(outputs, inputs, generator=generator) * scale / inputs**0.5)
                layer.bias.copy_(torch.randn(outputs, generator=generator) * 0.1)
            return layer

        self._module = (
            nn.ModuleDict(
                {
                    "stem": linear(int(np.prod(IMAGE_SHAPE)), size, 2.0),
                    "blocks": nn.ModuleList(
                        nn.Sequential(linear(size, size, 1.0), nn.Tanh(), linear(size, size, 0.7))
                        for _ in range(blocks)
                    ),
                    "head": nn.Sequential(nn.Flatten(), linear(size, classes, 2.0)),
                }
            )
            .eval()
            .requires_grad_(False)
        )
        if double:
            self._module.double()
        self._classes = classes

    @property
    def module(self) -> torch.nn.Module:
        return self._module

    @property
    def num_blocks(self) -> int:
        return len(self._part("blocks"))

    @property
    def num_classes(self) -> int:
        return self._classes

    @property
    def state_shape(self) -> tuple[int, ...]:
        return STATE_SHAPE

    def initial_state(self, inputs: torch.Tensor) -> torch.Tensor:
        stem = self._part("stem")
        state: torch.Tensor = stem(inputs.to(stem.weight.dtype).flatten(1))
        return state.reshape(-1, *STATE_SHAPE)

    def block(self, t: int, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        change: torch.Tensor = self._part("blocks")[t](state.flatten(1))
        return state + change.reshape(state.shape)

    def readout(self, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        logits: torch.Tensor = self._part("head")(state)
        return logits

    def block_modules(self, t: int) -> Sequence[torch.nn.Module]:
        return (self._part("blocks")[t],)

    @property
    def head(self) -> torch.nn.Module:
        head: torch.nn.Module = self._part("head")
        return head

    def _part(self, name: str) -> Any:
        return self._module[name]


class TinyDataset(Dataset):
    """Seeded random 3 x 4 x 4 images whose brightness pattern depends on the class; labels cycle 0, 1, ..

    Arguments:
        count: N.
        classes: K.
        seed: of the pixels.
    """

    name = "tiny-dataset"

    def __init__(self, count: int = 24, classes: int = 3, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self._labels = np.arange(count, dtype=np.int64) % classes
        patterns = generator.random((classes, *IMAGE_SHAPE))
        noise = generator.random((count, *IMAGE_SHAPE))
        self._images = (0.5 * patterns[self._labels] + 0.5 * noise).astype(np.float32)
        self._names = [f"class{c}" for c in range(classes)]

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    @property
    def class_names(self) -> Sequence[str]:
        return self._names

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        return [self._images[i] for i in indices]

    def fingerprint(self) -> str:
        return hashlib.sha256(self._images.tobytes() + self._labels.tobytes()).hexdigest()


def tiny_context(
    model: Model | None = None,
    dataset: Dataset | None = None,
    *,
    space: Space = "probabilities",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    indices: Sequence[int] | None = None,
) -> Context:
    """A context over ``model`` and ``dataset`` (default: the tiny ones) with the head readout, on the CPU.

    Arguments:
        limit: evaluate the first ``limit`` images only.
        indices: evaluate these images, in ascending order, instead.
        options, results: what the property is given.
    """
    import torch

    from stabilitykit.dynamics.extraction import Extraction
    from stabilitykit.dynamics.readout import HeadReadout
    from stabilitykit.dynamics.trajectory import Trajectory, extract

    model = model or TinyModel()
    dataset = dataset or TinyDataset()
    readout = HeadReadout(model)
    extraction = Extraction(space=space, batch_size=batch_size)
    chosen = np.arange(len(dataset) if limit is None else min(limit, len(dataset)))
    if indices is not None:
        chosen = np.asarray(indices, dtype=np.int64)
    made: list[Trajectory] = []

    def trajectory() -> Trajectory:
        if not made:
            logits = np.empty((model.num_blocks + 1, len(chosen), model.num_classes), dtype=model.readout_dtype)
            extract(model, readout, dataset, chosen, logits, extraction)
            labels = np.asarray(dataset.labels)[chosen]
            names = [str(name) for name in dataset.class_names]
            made.append(Trajectory(logits, labels, chosen, space, names))
        return made[0]

    return Context(
        model,
        dataset,
        chosen,
        readout,
        extraction,
        torch.device("cpu"),
        seed,
        dict(options or {}),
        dict(results or {}),
        make_trajectory=trajectory,
    )
