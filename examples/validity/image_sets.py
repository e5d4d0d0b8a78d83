"""The images of the study: a training subset with clean and noisy labels and a test subset, kept as .npz files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stabilitykit.base.files import write_atomic
from stabilitykit.plugins.registry import Registry

NOISE_SEED = 19
SUBSET_SEED = 7
READOUT_IMAGES = 2000
# From where a network trained in a minute falls to where an adversarially trained one does.
CIFAR_EPS = (0.25 / 255, 0.5 / 255, 1 / 255, 2 / 255, 4 / 255)
MNIST_EPS = (0.005, 0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True)
class ImageSet:
    """Images of one kind, and how its networks are trained.

    Attributes:
        name: as in tables.
        train, test: specs of stabilitykit data sets with images 3x32x32.
        train_images, test_images: how many of them are taken, drawn by a fixed seed.
        epochs: of each training.
        repeats: seeds of the trainings without label noise and of the adversarial ones.
        attack_eps: l-infinity radii, in pixels of [0, 1], at which accuracy under attack is measured.
        training_eps: radii of the adversarial trainings.
        augment: what its augmented trainings do; a mirrored digit is none.
    """

    name: str
    train: str
    test: str
    train_images: int
    test_images: int
    epochs: int
    repeats: int
    attack_eps: tuple[float, ...]
    training_eps: tuple[float, ...]
    augment: tuple[str, ...]

    def files(self, work: Path) -> tuple[Path, Path]:
        """train.npz and test.npz, written on the first call: ``X`` float32 (N, 3, 32, 32) in [0, 1], ``y`` int64 (N,)
        and, for training, ``y5``, ``y10``, ``y30``: labels of which that percentage is another class; ``readout``: the
        first 2,000, on which lens and probes are trained."""
        folder = work / "images" / self.name
        found = folder / "train.npz", folder / "test.npz"
        for path, spec, count in zip(found, (self.train, self.test), (self.train_images, self.test_images)):
            if not path.exists():
                _write(path, spec, count, noisy=path.name == "train.npz")
        return found


def image_sets(*, cifar: Path | None, mnist: Path | None, quick: bool) -> list[ImageSet]:
    """Those of the committed study whose folders are given; with ``quick`` the embedded digits alone.

    Arguments:
        cifar: folder of train.npz and test.npz (X, y). mnist: folder with the idx files.
    """
    found = []
    if quick:
        return [
            ImageSet("digits", "digits:train", "digits:test", 500, 200, 6, 2, (0.01, 0.02, 0.05), (0.1,), ("crop",))
        ]
    if mnist is not None:
        train, test = f"mnist:root={mnist},split=train", f"mnist:root={mnist}"
        found.append(ImageSet("mnist", train, test, 4000, 1000, 6, 1, MNIST_EPS, (0.05, 0.1), ("crop",)))
    if cifar is not None:
        train, test = f"npz:{cifar / 'train.npz'}", f"npz:{cifar / 'test.npz'}"
        eps = (2 / 255, 8 / 255)
        found.append(ImageSet("cifar10", train, test, 6000, 1000, 10, 2, CIFAR_EPS, eps, ("flip", "crop")))
    return found


def with_noise(labels: np.ndarray, share: float, classes: int, seed: int = NOISE_SEED) -> np.ndarray:
    """``labels``, int64 (N,), with ``share`` of them (rounded) moved to another class, uniformly; nested in share."""
    draw = np.random.Generator(np.random.PCG64(seed))
    order = draw.permutation(len(labels))
    shift = draw.integers(1, classes, len(labels))
    moved = order[: round(share * len(labels))]
    noisy = labels.copy()
    noisy[moved] = (labels[moved] + shift[moved]) % classes
    return noisy


def read(path: Path, labels: str = "y") -> tuple[np.ndarray, np.ndarray]:
    """Images, float32 (N, 3, 32, 32), and the labels of that key, int64 (N,), of a file of :meth:`ImageSet.files`."""
    with np.load(path) as file:
        return file["X"], file[labels]


def _write(path: Path, spec: str, count: int, noisy: bool) -> None:
    import io

    data = Registry.load().create("dataset", spec)
    labels = np.asarray(data.labels)
    chosen = np.random.Generator(np.random.PCG64(SUBSET_SEED)).permutation(len(labels))[:count]
    arrays = {"X": np.stack(list(data.images(chosen.tolist()))).astype(np.float32), "y": labels[chosen]}
    if noisy:
        classes = int(labels.max()) + 1
        arrays["readout"] = np.arange(count) < READOUT_IMAGES
        arrays |= {f"y{percent}": with_noise(arrays["y"], percent / 100, classes) for percent in (5, 10, 30)}
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue())
