"""The images of a recording: image i is its trajectory, (T+1, K, 1) numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from stabilitykit import Dataset
from stabilitykit_recorded.reading import read_recording


class RecordedDataset(Dataset):
    """Trajectories in the order of the file. Not pictures: there is nothing to show but the numbers."""

    name = "recorded"

    def __init__(self, path: str) -> None:
        self._recording = read_recording(path)
        self._path = path

    def __len__(self) -> int:
        return len(self._recording.labels)

    @property
    def labels(self) -> np.ndarray:
        return self._recording.labels

    @property
    def class_names(self) -> Sequence[str]:
        return self._recording.class_names

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        """Each float64 (T+1, K, 1)."""
        return [self._recording.values[:, i, :, None] for i in indices]

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self._recording.values.shape).encode())
        digest.update(self._recording.values.tobytes())
        digest.update(self._recording.labels.tobytes())
        return digest.hexdigest()
