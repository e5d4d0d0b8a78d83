"""The property ``lyapunov``: exponents along depth, the stretch of every block, and how well both converged."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from stabilitykit import CellProblem, Context, Kind, Measurement, Model, Property, PropertyResult, Table
from stabilitykit.base.results import to_plain

from stabilitykit_lyapunov.flow import Flow
from stabilitykit_lyapunov.singular import GUARD, SingularValues, top_singular_values

REFERENCE = "Storm et al. 2024, Finite-time Lyapunov exponents of deep neural networks"
REALISED = "realised by subspace iteration: never above the true value"


@dataclass(frozen=True)
class Spectra:
    """Singular values of all Jacobians of some images.

    Attributes:
        block: (T, N, k), of J_t.
        cumulative: (T, N, k), of M_1..M_T.
        block_residual, cumulative_residual: the same shapes, relative to the largest singular value.
    """

    block: np.ndarray
    cumulative: np.ndarray
    block_residual: np.ndarray
    cumulative_residual: np.ndarray

    @property
    def exponents(self) -> np.ndarray:
        """(T, N, k): log sigma_j(M_t) / t for t = 1..T; minus infinity where sigma_j is 0."""
        depths = np.arange(1, len(self.cumulative) + 1)[:, None, None]
        return logarithm(self.cumulative) / depths


class Lyapunov(Property):
    """How much do the blocks stretch small changes of an image's state?

    Finite-time Lyapunov exponents log(sigma_j(M_t)) / t of the cumulative Jacobians M_t = J_{t-1} .. J_0.
    """

    name = "lyapunov"

    def __init__(
        self, k: int = 3, images: int = 8, iterations: int = 60, tolerance: float = 1e-6, dtype: str = "float64"
    ) -> None:
        """Options of the component: see the README."""
        self.k = k
        self.images = images
        self.iterations = iterations
        self.tolerance = tolerance
        self.dtype = torch.float64 if dtype == "float64" else torch.float32

    def evaluate(self, context: Context) -> PropertyResult:
        """Measure; CellProblem when k exceeds the dimension of a state or the device has no float64."""
        rows = self._rows(context)
        spectra = self.spectra(context, rows)
        indices = [int(i) for i in context.indices[rows]]
        exponents, final = spectra.exponents, spectra.exponents[-1]
        depth, count = len(exponents), len(rows)

        def witness(position: int) -> dict[str, object]:
            return dict(context.describe_images([indices[position]]))

        most = int(final[:, 0].argmax())
        block, stretched = np.unravel_index(int(spectra.block[:, :, 0].argmax()), spectra.block.shape[:2])
        worst = max(float(spectra.block_residual.max()), float(spectra.cumulative_residual.max()))
        measurements = [
            Measurement(
                "exponent.max",
                final[most, 0],
                Kind.LOWER,
                count,
                "1/block",
                witness(most) | {"block": depth, "exponents": exponents[:, most, 0].tolist()},
                REFERENCE,
                note=f"largest over the images; {REALISED}",
            ),
            *(
                Measurement(
                    f"exponent.mean.{j + 1}",
                    final[:, j].mean(),
                    Kind.LOWER,
                    count,
                    "1/block",
                    reference=REFERENCE,
                    note=f"singular value {j + 1}, mean over these images; {REALISED}",
                )
                for j in range(self.k)
            ),
            Measurement(
                "block_stretch.max",
                spectra.block[block, stretched, 0],
                Kind.LOWER,
                count,
                "ratio",
                witness(int(stretched)) | {"block": int(block)},
                "largest singular value of a block's Jacobian",
                note=f"bounds the Lipschitz constant of block {int(block)} from below; {REALISED}",
            ),
            Measurement(
                "residual.max",
                worst,
                Kind.EXACT,
                count,
                "ratio",
                reference="||M'u - sigma v|| / sigma_1",
                note=self._converged(worst),
            ),
        ]
        tables = {
            "exponents": _profile(
                exponents,
                spectra.cumulative_residual,
                1,
                "Finite-time Lyapunov exponents log(sigma_j(M_t)) / t at depth t",
            ),
            "blocks": _profile(
                logarithm(spectra.block), spectra.block_residual, 0, "Stretch log(sigma_j(J_t)) of block t"
            ),
            "images": Table(
                ["index", *(f"exponent_{j + 1}" for j in range(self.k))],
                [[i, *values] for i, values in zip(indices, final.tolist(), strict=True)],
                "Exponents of every image at full depth",
            ),
        }
        return PropertyResult(measurements, to_plain_rows(tables), images=[indices[most], indices[int(stretched)]])

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | None]:
        """The two largest values, computed again for their witness alone; None for means over all images."""
        found: dict[str, float | None] = {m.name: None for m in result.measurements}
        index = result["exponent.max"].witness["indices"]
        found["exponent.max"] = float(self.spectra(context, context.rows_of(index)).exponents[-1, 0, 0])
        witness = result["block_stretch.max"].witness
        spectra = self.spectra(context, context.rows_of(witness["indices"]))
        found["block_stretch.max"] = float(spectra.block[witness["block"], 0, 0])
        return found

    def spectra(self, context: Context, rows: np.ndarray) -> Spectra:
        """Singular values of all Jacobians of the evaluated images ``rows``."""
        model = self._model(context)
        parts = [self._of_batch(context, model, numbers, inputs) for numbers, inputs in self._batches(context, rows)]
        return Spectra(*(np.concatenate([part[f] for part in parts], axis=1) for f in range(4)))

    def _of_batch(
        self, context: Context, model: Model, numbers: np.ndarray, inputs: torch.Tensor
    ) -> tuple[np.ndarray, ...]:
        flow = Flow(model, inputs)
        size, depth = flow.points[0].shape[1], model.num_blocks
        if self.k > size:
            raise CellProblem(f"lyapunov: k={self.k} exceeds the {size} numbers of a state; lower k")
        seeds = [int(np.random.default_rng([context.seed, int(i)]).integers(2**62)) for i in context.indices[numbers]]

        def top(start: int, stop: int) -> SingularValues:
            return top_singular_values(
                flow.between(start, stop),
                flow.points[start],
                self.k,
                seeds,
                iterations=self.iterations,
                tolerance=self.tolerance,
            )

        steps = context.progress(range(depth), "Jacobians", depth)
        found = [(top(t, t + 1), top(0, t + 1)) for t in steps]
        fields = [
            [b.values for b, _ in found],
            [c.values for _, c in found],
            [b.residuals for b, _ in found],
            [c.residuals for _, c in found],
        ]
        return tuple(torch.stack(field).double().cpu().numpy() for field in fields)

    def _rows(self, context: Context) -> np.ndarray:
        count = len(context.indices)
        chosen = np.random.default_rng([context.seed, 2]).permutation(count)[: self.images]
        return np.sort(chosen)

    def _batches(self, context: Context, rows: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        # Every image is repeated once per vector: keep the network's batch near the one the user chose.
        width = max(4, context.batch_size // (self.k + GUARD))
        for numbers, inputs in context.batches(rows):
            for start in range(0, len(numbers), width):
                yield numbers[start : start + width], inputs[start : start + width].to(self.dtype)

    def _model(self, context: Context) -> Model:
        if self.dtype is torch.float64 and context.device.type == "mps":
            raise CellProblem("lyapunov: device mps has no float64; use --property lyapunov:dtype=float32")
        model = copy.deepcopy(context.model)
        model.module.requires_grad_(False).to(self.dtype)
        return model

    def _converged(self, worst: float) -> str:
        if worst <= self.tolerance:
            return "all Jacobians converged"
        return f"above the tolerance {self.tolerance:g} after {self.iterations} iterations: some values are still low"


def logarithm(values: np.ndarray) -> np.ndarray:
    """Natural logarithm, minus infinity at 0 without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def to_plain_rows(tables: dict[str, Table]) -> dict[str, Table]:
    """The same tables with plain JSON cells (minus infinity becomes text)."""
    return {name: Table(t.columns, [to_plain(list(row)) for row in t.rows], t.title) for name, t in tables.items()}


def _profile(values: np.ndarray, residuals: np.ndarray, first: int, title: str) -> Table:
    """(T, N, k) -> one row per depth and singular value: mean, min, max over images, worst residual, N."""
    rows = [
        [
            t + first,
            j + 1,
            values[t, :, j].mean(),
            values[t, :, j].min(),
            values[t, :, j].max(),
            residuals[t, :, j].max(),
            values.shape[1],
        ]
        for t in range(values.shape[0])
        for j in range(values.shape[2])
    ]
    return Table(["block", "j", "mean", "min", "max", "residual", "N"], rows, title)
