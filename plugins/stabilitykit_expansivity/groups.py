"""Which images count as different: by label (the paper's practice), by predicted class, or by their final readout.

Definition 1 quantifies over all x, x' with g(x) != g(x'): ``distinct`` is its literal reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stabilitykit import CellProblem
from stabilitykit.evaluation.context import Context

# The reading of Definition 1, in the words of notes.
READINGS = {
    "labels": "pairs of different label, the paper's practice",
    "predictions": "pairs of different predicted class",
    "distinct": "all pairs whose final readouts differ, Definition 1 literally",
}


@dataclass(frozen=True)
class Groups:
    """A class for every image.

    Attributes:
        ids: int64 (N,), the class of each image.
        names: one name per class; none of ``"distinct"``, whose classes are the final readouts that occur.
        by: ``"labels"``, ``"predictions"`` or ``"distinct"``.
    """

    ids: np.ndarray
    names: Sequence[str]
    by: str

    @property
    def sizes(self) -> np.ndarray:
        """int64 (classes,): number of images per class."""
        sizes: np.ndarray = np.bincount(self.ids, minlength=len(self.names))
        return sizes

    @property
    def present(self) -> int:
        """Number of classes with an image."""
        return int((self.sizes > 0).sum())


def choose_groups(context: Context, by: str) -> Groups:
    """Classes of the evaluated images; CellProblem unless at least two of them have an image."""
    names = [str(name) for name in context.dataset.class_names]
    if by == "labels":
        groups = Groups(np.asarray(context.labels, dtype=np.int64), names, by)
    elif by == "distinct":
        final = np.asarray(context.trajectory.values[-1])
        _, ids = np.unique(final, axis=0, return_inverse=True)
        groups = Groups(ids.reshape(-1).astype(np.int64), (), by)
    else:
        trajectory = context.trajectory
        if trajectory.num_classes != len(names):
            names = [f"output {k}" for k in range(trajectory.num_classes)]
        groups = Groups(trajectory.predictions, names, by)
    if groups.present < 2:
        raise CellProblem(_nothing_to_compare(groups))
    return groups


def _nothing_to_compare(groups: Groups) -> str:
    count = len(groups.ids)
    if count == 0:
        return "expansivity compares images of different classes, and no image was evaluated; raise --limit"
    if groups.by == "distinct":
        return f"expansivity compares images whose final readouts differ, and those of all {count} images are equal"
    only = groups.names[int(groups.ids[0])]
    if groups.by == "predictions":
        return (
            f"expansivity compares images of different predicted classes, and all {count} images are "
            f"predicted as {only!r}; use pairs=labels, another checkpoint or more images"
        )
    return (
        f"expansivity compares images of different classes, and all {count} evaluated images are of "
        f"class {only!r}; raise --limit or choose a dataset with at least two classes"
    )
