"""What onnxruntime makes of the same file: every evaluated image compared, rounding told from anything else."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stabilitykit_adapters.outputs import pick

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.base.errors import describe
from stabilitykit_onnx.reading import Graph

if TYPE_CHECKING:
    from stabilitykit_adapters.adapter import AdaptedModel

ROUNDING = 1e-5
"""Difference of outputs, relative to the largest of them, that float32 always explains."""
HALVES = 2e-2
"""The same where weights or sums are stored in 16 bits, which onnxruntime may compute in."""
STEPS = 2 / 255
"""The same where the graph quantises: a value between two whole numbers goes either way, two steps of 8 bits."""
FACTOR = 16
"""Times the difference between the graph in float32 and in float64 that is rounding, too."""
STEP_FACTOR = 4
"""The same where the graph quantises: the steps that rounding decides are in that difference already."""
SOUNDED = 32
"""Images of the first batch that are run in float64."""
LISTED = 20
"""Images named in a line."""


class OnnxRuntime:
    """The file of a graph, run by onnxruntime on the CPU: as it stands, and optimised as it is by default.

    Sessions are made on first use, and shared by copies of the model.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._sessions: dict[bool, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxRuntime:
        return self

    def outputs(self, inputs: np.ndarray, *, optimised: bool) -> dict[str, np.ndarray]:
        """Inputs (B, C, H, W) -> every output by name, batch first.

        Raises:
            CellProblem: onnxruntime cannot load or run the file.
        """
        session = self._session(optimised)
        kinds = {torch.float16: np.float16, torch.float64: np.float64}
        batch = np.ascontiguousarray(inputs, dtype=kinds.get(self.graph.dtype, np.float32))
        parts = [batch] if self.graph.batch.fixed is None else [batch[n : n + 1] for n in range(len(batch))]
        try:
            found = [session.run(list(self.graph.outputs), {self.graph.input: part}) for part in parts]
        except Exception as error:  # a library of its own, with errors of its own
            raise CellProblem(f"onnxruntime cannot run {self.graph.path}: {describe(error, 300)}") from None
        return {name: np.concatenate([p[n] for p in found]) for n, name in enumerate(self.graph.outputs)}

    def compare(self, model: AdaptedModel, batches: Iterable[tuple[Sequence[int], torch.Tensor]]) -> Mapping[str, Any]:
        """Every image's outputs beside the model's own.

        Returns:
            ``{"onnxruntime": ...}``: ``says`` in words; ``images``; of the graph as it stands ``bit_equal``, the
            ``largest_difference`` of an output and its share of the largest output, the image it is of, the
            ``allowed`` difference and ``changed``, the images whose decision is another; the same under
            ``optimised``. ``remarks`` where a decision changes.

        Raises:
            CellProblem: a difference beyond rounding, or values that are not finite on one side only.
        """
        plain, optimised, drift = _Gap(), _Gap(), 0.0
        for number, (indices, inputs) in enumerate(batches):
            with torch.inference_mode():
                own = model.outputs(inputs).double().cpu()
            if number == 0:
                drift = _drift(model, inputs[:SOUNDED])
            for gap, way in ((plain, False), (optimised, True)):
                found = self.outputs(inputs.detach().float().cpu().numpy(), optimised=way)
                named = {name: torch.from_numpy(array) for name, array in found.items()}
                one = next(iter(named.values()))
                gap.add(model, indices, own, pick(named if len(named) > 1 else one, model.program.output_path).double())
        floor = STEPS if self.graph.quantised else HALVES if self._halves else ROUNDING
        factor = STEP_FACTOR if self.graph.quantised else FACTOR
        allowed = max(factor * drift, floor * plain.scale)
        said = self._said(plain, optimised)
        if not plain.largest <= allowed:
            raise CellProblem(
                f"the graph run by torch is not the one onnxruntime runs: {said} Rounding explains {allowed:.3g}; do "
                "not trust either before this is understood (please report it with the file)"
            )
        report: dict[str, Any] = {
            "onnxruntime": {
                "says": said,
                "version": _package().__version__,
                **plain.to_json(),
                "allowed": allowed,
                "optimised": optimised.to_json(),
            }
        }
        if plain.changed or optimised.changed:
            report["remarks"] = [said]
        return report

    def _said(self, plain: _Gap, optimised: _Gap) -> str:
        version = _package().__version__
        return f"onnxruntime {version}, graph as it stands: {plain.text()}; optimised by default: {optimised.text()}."

    @property
    def _halves(self) -> bool:
        return any("16" in kind for kind in self.graph.record["stored_as"] if "float" in kind) or (
            self.graph.dtype == torch.float16
        )

    def _session(self, optimised: bool) -> Any:
        if optimised not in self._sessions:
            runtime = _package()
            options = runtime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = torch.get_num_threads()
            if not optimised:
                options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            try:
                session = runtime.InferenceSession(str(self.graph.path), options, providers=["CPUExecutionProvider"])
            except Exception as error:
                raise CellProblem(f"onnxruntime cannot load {self.graph.path}: {describe(error, 300)}") from None
            self._sessions[optimised] = session
        return self._sessions[optimised]


@dataclass
class _Gap:
    """How far the outputs of two programs are apart, image after image."""

    images: int = 0
    largest: float = 0.0
    scale: float = 0.0
    where: int | None = None
    changed: list[int] = field(default_factory=list)

    def add(self, model: AdaptedModel, indices: Sequence[int], own: torch.Tensor, theirs: torch.Tensor) -> None:
        """One batch: outputs (B, K) float64 of both sides."""
        if own.shape != theirs.shape:
            raise CellProblem(
                f"the graph run by torch gives outputs {tuple(own.shape)}, onnxruntime {tuple(theirs.shape)}"
            )
        gap = torch.where(own == theirs, torch.zeros_like(own), (own - theirs).abs())
        gap = torch.where(own.isnan() & theirs.isnan(), torch.zeros_like(gap), gap).nan_to_num(nan=float("inf"))
        worst = gap.amax(1)
        if self.where is None or float(worst.max()) > self.largest:
            self.largest, self.where = float(worst.max()), int(indices[int(worst.argmax())])
        finite = theirs[torch.isfinite(theirs)].abs()
        self.scale = max(self.scale, float(finite.max()) if finite.numel() else 0.0)
        self.images += len(own)
        decided = [model.as_chosen(outputs).argmax(1) for outputs in (own, theirs)]
        self.changed += [int(indices[int(n)]) for n in torch.nonzero(decided[0] != decided[1]).flatten()]

    @property
    def relative(self) -> float:
        return self.largest / self.scale if self.scale else self.largest

    def text(self) -> str:
        if self.largest == 0.0:
            return f"the outputs of all {self.images} images are equal bit for bit"
        text = f"outputs of {self.images} images differ by at most {self.largest:.3g} ({self.relative:.2g} of the "
        text += f"largest, image {self.where}), "
        if not self.changed:
            return text + "no decision differs"
        more = "..." if len(self.changed) > LISTED else ""
        shown = ", ".join(map(str, self.changed[:LISTED]))
        return text + f"{len(self.changed)} decisions differ (images {shown}{more})"

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "bit_equal": self.largest == 0.0,
            "largest_difference": self.largest,
            "relative": self.relative,
            "image": self.where,
            "changed": self.changed,
        }


def _drift(model: AdaptedModel, inputs: torch.Tensor) -> float:
    """Largest change of an output when the network computes in float64: what rounding does to it."""
    twin = copy.deepcopy(model)
    twin.module.double()
    with torch.inference_mode():
        gap = (twin.outputs(inputs.double()) - model.outputs(inputs).double()).abs()
    return float(gap.nan_to_num(nan=0.0, posinf=0.0).max())


def _package() -> Any:
    """The package onnxruntime; UsageProblem that says how to get it where it is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageProblem(
            f"onnx: models are compared with onnxruntime, which is not installed ({error}): pip install "
            "'stabilitykit[onnx]', or say compare=none"
        ) from None
    return onnxruntime


def require_runtime() -> None:
    """UsageProblem where onnxruntime is missing: said before anything heavy."""
    _package()
