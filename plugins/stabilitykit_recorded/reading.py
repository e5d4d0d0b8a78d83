"""Read a file of recorded readouts, trusting nothing in it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stabilitykit import DataProblem
from stabilitykit.base.errors import describe
from stabilitykit.base.memory import check_expansion

# Declared sizes are checked before anything is unpacked: a small file can announce terabytes.
MAX_BYTES = 16 * 2**30
MAX_CLASSES = 100_000
# Numbers that are looked at, or widened, at once.
CHUNK = 1 << 20


@dataclass(frozen=True)
class Recording:
    """What a file holds.

    Attributes:
        values: (T+1, N, K), of the type they have in the file: integers, float16, float32 or float64, all of which
            float64 holds (:meth:`rows` widens them).
        labels: int64 (N,).
        class_names: one per label.
    """

    values: np.ndarray
    labels: np.ndarray
    class_names: list[str]

    def rows(self, indices: Any) -> np.ndarray:
        """float64 (T+1, B, K), a copy: the trajectories of B images, given as a slice or a list of numbers."""
        chosen: np.ndarray = self.values[:, indices].astype(np.float64, order="C")
        return chosen


def read_recording(path: str) -> Recording:
    """The recording in ``path``; DataProblem with one clear line when it is not one.

    ``values`` are taken as they are; NaN and infinities are refused.
    """
    with _opened(path) as data:
        values, labels = np.asarray(data["values"]), np.asarray(data["labels"])
        names = [str(name) for name in data["class_names"]] if "class_names" in data.files else None
    _check_kind(path, values.shape, values.dtype)
    if labels.shape != (values.shape[1],) or labels.dtype.kind not in "iu":
        raise DataProblem(
            f"{path}: labels have shape {labels.shape} and type {labels.dtype}; expected {values.shape[1]} integers"
        )
    values = np.ascontiguousarray(values.astype(np.float64) if values.itemsize > 8 else values)
    _check_finite(path, values)
    labels = labels.astype(np.int64)
    if names is None:
        classes = max(int(labels.max(initial=0)) + 1, 1)
        if classes > MAX_CLASSES:  # every class is named in the record, and one label can announce millions
            raise DataProblem(f"{path}: label {classes - 1} is out of any sensible range (0..{MAX_CLASSES - 1})")
        names = [str(c) for c in range(classes)]
    return Recording(values, labels, names)


def read_shape(path: str) -> tuple[int, int, int]:
    """(T+1, N, K) of the recording in ``path``, whose values are not read.

    Raises:
        DataProblem: it is no recording, as far as that shows.
    """
    with _opened(path) as data, data.zip.open("values.npy") as stream:
        # Version 3.0 is for names of fields, and numbers have none.
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = headers[np.lib.format.read_magic(stream)](stream)
    _check_kind(path, shape, dtype)
    depths, images, classes = shape
    return depths, images, classes


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The archive, once it is one with values and labels that fit into memory; damage met in the body is DataProblem,
    too."""
    if Path(path).exists() and not Path(path).is_file():  # reading a pipe may never end
        raise DataProblem(f"{path} is no file; expected an .npz file of recorded readouts")
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
        if declared > MAX_BYTES:
            raise DataProblem(
                f"{path} would unpack to {declared / 2**30:.1f} GiB; the limit is {MAX_BYTES / 2**30:.0f} GiB"
            )
        check_expansion(Path(path), declared, "no recording is that empty")
        with np.load(path, allow_pickle=False) as data:
            missing = {"values", "labels"} - set(data.files)
            if missing:
                raise DataProblem(
                    f"{path} holds {', '.join(data.files) or 'nothing'}; expected values (T+1, N, K) and labels (N,)"
                )
            yield data
    except DataProblem:
        raise
    except FileNotFoundError:
        raise DataProblem(f"{path} does not exist") from None
    except Exception as error:  # zipfile and numpy raise many kinds for damaged files
        raise DataProblem(f"cannot read {Path(path)} as .npz: {describe(error)}") from None


def _check_kind(path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 3 or dtype.kind not in "fiu" or 0 in shape:
        raise DataProblem(f"{path}: values have shape {shape} and type {dtype}; expected numbers of shape (T+1, N, K)")


def _check_finite(path: str, values: np.ndarray) -> None:
    """DataProblem, naming image and depth, for NaN and infinities among ``values`` (T+1, N, K), contiguous."""
    flat = values.reshape(-1)
    for start in range(0, len(flat), CHUNK):
        finite = np.isfinite(flat[start : start + CHUNK])
        if not finite.all():
            t, i, _ = np.unravel_index(start + int(np.flatnonzero(~finite)[0]), values.shape)
            raise DataProblem(f"{path}: the readout of image {i} at depth {t} is NaN or infinite")
