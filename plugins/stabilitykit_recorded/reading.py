"""Read a file of recorded readouts, trusting nothing in it."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stabilitykit import DataProblem
from stabilitykit.base.errors import describe
from stabilitykit.base.memory import check_expansion

# Declared sizes are checked before anything is unpacked: a small file can announce terabytes.
MAX_BYTES = 16 * 2**30
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Recording:
    """``values`` float64 (T+1, N, K), ``labels`` int64 (N,), ``class_names``."""

    values: np.ndarray
    labels: np.ndarray
    class_names: list[str]


def read_recording(path: str) -> Recording:
    """The recording in ``path``; DataProblem with one clear line when it is not one.

    ``values`` are taken as they are (integers and float16/32 are exact in float64); NaN and infinities are refused.
    """
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
            values, labels = np.asarray(data["values"]), np.asarray(data["labels"])
            names = [str(name) for name in data["class_names"]] if "class_names" in data.files else None
    except DataProblem:
        raise
    except FileNotFoundError:
        raise DataProblem(f"{path} does not exist") from None
    except Exception as error:  # zipfile and numpy raise many kinds for damaged files
        raise DataProblem(f"cannot read {Path(path)} as .npz: {describe(error)}") from None
    if values.ndim != 3 or values.dtype.kind not in "fiu" or 0 in values.shape:
        raise DataProblem(
            f"{path}: values have shape {values.shape} and type {values.dtype}; expected numbers of shape (T+1, N, K)"
        )
    if labels.shape != (values.shape[1],) or labels.dtype.kind not in "iu":
        raise DataProblem(
            f"{path}: labels have shape {labels.shape} and type {labels.dtype}; expected {values.shape[1]} integers"
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        t, i, _ = np.argwhere(~np.isfinite(values))[0]
        raise DataProblem(f"{path}: the readout of image {i} at depth {t} is NaN or infinite")
    labels = labels.astype(np.int64)
    if names is None:
        classes = max(int(labels.max(initial=0)) + 1, 1)
        if classes > MAX_CLASSES:  # every class is named in the record, and one label can announce millions
            raise DataProblem(f"{path}: label {classes - 1} is out of any sensible range (0..{MAX_CLASSES - 1})")
        names = [str(c) for c in range(classes)]
    return Recording(np.ascontiguousarray(values), labels, names)
