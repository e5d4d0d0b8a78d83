"""The images of a recording: image i is its trajectory, (T+1, K, 1) numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from stabilitykit import Dataset
from stabilitykit_recorded.reading import CHUNK, read_recording


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
        """float64 (B, T+1, K, 1)."""
        chosen: np.ndarray = np.ascontiguousarray(self._recording.rows(list(indices)).transpose(1, 0, 2))[..., None]
        return chosen  # type: ignore[return-value]  # a sequence of arrays in one piece

    def fingerprint(self) -> str:
        values = self._recording.values
        digest = hashlib.sha256(repr(values.shape).encode())
        flat = values.reshape(-1)
        for start in range(0, len(flat), CHUNK):
            digest.update(flat[start : start + CHUNK].astype(np.float64).data)
        digest.update(self._recording.labels.tobytes())
        return digest.hexdigest()
