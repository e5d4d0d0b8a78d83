"""What a Property is given: model, data, trajectory, options, earlier results. Everything is computed on first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stabilitykit.base.errors import CellProblem
from stabilitykit.base.progress import no_progress
from stabilitykit.base.results import PropertyResult
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model, depth_names
from stabilitykit.evaluation.rerun import Rerun
from stabilitykit.machine.distributed import World

if TYPE_CHECKING:
    import torch

    from stabilitykit.dynamics.extraction import Extraction
    from stabilitykit.dynamics.readout import Readout
    from stabilitykit.dynamics.space import Space
    from stabilitykit.dynamics.trajectory import Forward, Trajectory


# A default audit of 100 images is to cost at most 25 forward passes an image (benchmarks/audit_cost.py).
FEW, MANY = 20, 100


@dataclass
class Context:
    """Everything one (model, dataset) pair offers to a property.

    Attributes:
        model: in eval mode on ``device``. Do not modify it: work on ``copy.deepcopy(model)``.
        dataset: the full dataset; the evaluated images are ``dataset.images(indices)``.
        indices: int64 (N,) dataset indices evaluated (all, or the ``--limit`` subset), ascending.
        readout: g_t for every depth.
        extraction: how trajectories were extracted; :meth:`readouts` repeats it.
        options: this property's parsed options.
        seed: base seed; derive generators from it.
        device: where the network runs.
        results: results of the properties named in the component's ``needs`` and ``wants``, by name.
        progress: ``progress(iterable, description, total)`` wraps long loops.
        world: the processes of this run; only a Property with ``parallel = True`` sees more than one.
        rerun: what :meth:`readouts` computed so far, and how it batches images.
        certificate: what the model said of itself on the first images (``Model.certify``); empty where not asked.
        make_trajectory, make_forward: the trajectory and the compiled forward pass (None: there is none), on first use.
    """

    model: Model
    dataset: Dataset
    indices: np.ndarray
    readout: Readout
    extraction: Extraction
    device: torch.device
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, PropertyResult] = field(default_factory=dict)
    progress: Callable[..., Iterator[Any]] = no_progress
    make_trajectory: Callable[[], Trajectory] | None = None
    world: World = field(default_factory=World)
    make_forward: Callable[[], Forward | None] | None = None
    rerun: Rerun = field(default_factory=Rerun)
    certificate: Mapping[str, Any] = field(default_factory=dict)

    @property
    def space(self) -> Space:
        """Where distances are taken: ``"probabilities"`` or ``"logits"``."""
        return self.extraction.space

    @property
    def batch_size(self) -> int:
        """Images run together. It is fixed: another one moves logits by about 1e-6."""
        return self.extraction.batch_size

    @property
    def trajectory(self) -> Trajectory:
        """G[t, i, :], extracted (or read from the cache) on first use and shared by all properties of the subject.

        Raises:
            CellProblem: the context was made without a trajectory.
        """
        if self.make_trajectory is None:
            raise CellProblem("this context offers no trajectory")
        return self.make_trajectory()

    def starting_at(self, first: int) -> Context:
        """The same with a trajectory of which the depths below ``first`` do not count (an option ``first_depth``).

        Raises:
            CellProblem: there is no such depth.
        """
        if not first:
            return self
        later = self.trajectory.starting_at(first)
        return replace(self, make_trajectory=lambda: later)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,): labels of the evaluated images."""
        labels: np.ndarray = np.asarray(self.dataset.labels)[self.indices]
        return labels

    def sample_size(self, asked: int | None) -> int:
        """How many of the images something costly looks at: ``asked`` (0: all), or for None a tenth, of 20 to 100."""
        count = len(self.indices)
        wanted = max(FEW, min(count // 10, MANY)) if asked is None else asked or count
        return min(wanted, count)

    def batches(self, rows: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """(row numbers, inputs) over ``rows`` (default: all N).

        Row numbers are int64 (B,) in 0..N-1; inputs (B, C, H, W) are preprocessed, of the model's dtype and on its
        device.
        """
        from stabilitykit.dynamics.trajectory import batches

        rows = np.arange(len(self.indices)) if rows is None else np.asarray(rows)
        for part, inputs in batches(
            self.model,
            self.dataset,
            self.indices[rows],
            self.batch_size,
            self.device,
            channels_last=self.extraction.channels_last,
        ):
            yield rows[part], inputs

    def running(self) -> torch.autocast:
        """A ``with`` block in which the network runs in the precision the trajectories were extracted in."""
        import torch

        dtype = self.extraction.autocast
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def readouts(self, rows: np.ndarray) -> np.ndarray:
        """Trajectories of ``rows``, integers (n,), recomputed from model and data -> float64 (T+1, n, K) in ``space``.

        Each row is run in a batch of the size it had in extraction: only then are the logits bit-identical.
        """
        from stabilitykit.dynamics.space import to_space

        return to_space(self.logits(rows), self.space)

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """As :meth:`readouts`, before they are taken to the space: (T+1, n, K), float32 or float64."""
        return self.rerun.logits(rows, len(self.indices), self.batch_size, self._run)

    def _run(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The rows of one batch run through the network: (row numbers, logits (T+1, B, K))."""
        from stabilitykit.dynamics.trajectory import batch_logits

        forward = self.make_forward() if self.make_forward is not None else None
        for part, inputs in self.batches(rows):
            yield part, batch_logits(self.model, self.readout, inputs, self.extraction.autocast, forward)

    def rows_of(self, dataset_indices: Iterable[int]) -> np.ndarray:
        """int64 (n,): row numbers (positions in ``indices``) of n dataset indices.

        Raises:
            CellProblem: one of them was not evaluated.
        """
        wanted = np.asarray(list(dataset_indices), dtype=np.int64)
        rows = np.searchsorted(self.indices, wanted)
        rows = np.minimum(rows, len(self.indices) - 1)
        if not np.array_equal(self.indices[rows], wanted):
            raise CellProblem(f"images {wanted.tolist()} are not all among the {len(self.indices)} evaluated ones")
        return rows

    def at(self, depth: int) -> dict[str, Any]:
        """Witness fields of a depth t in 0..T: its number ``block``, and ``at``, the block passed last by its name."""
        return {"block": int(depth), "at": self.depth_names[int(depth)]}

    @property
    def depth_names(self) -> list[str]:
        """T+1 names of the depths, see :func:`~stabilitykit.dynamics.model.depth_names`."""
        return depth_names(self.model)

    def describe_images(self, dataset_indices: Iterable[int]) -> dict[str, list[Any]]:
        """Witness fields ``indices``, ``classes`` and ``orders`` (0-based position within the class)."""
        wanted = [int(i) for i in dataset_indices]
        labels = np.asarray(self.dataset.labels)
        return {
            "indices": wanted,
            "classes": [str(self.dataset.class_names[int(labels[i])]) for i in wanted],
            "orders": [int(self.dataset.order_in_class[i]) for i in wanted],
        }
