"""stabilitykit: how stable is this residual network, block by block, and why should I believe the number?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stabilitykit.base.errors import CellProblem, DataProblem, PluginProblem, Refusal, StabilityKitError, UsageProblem
from stabilitykit.base.results import Kind, Measurement, PropertyResult, Table
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.evaluation.property import Property
from stabilitykit.plugins.component import Command, Component, Option, ReportSection
from stabilitykit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from stabilitykit.evaluation.evaluate import evaluate

__version__ = "0.1.0"
__all__ = [
    "CellProblem",
    "Command",
    "Component",
    "DataProblem",
    "Dataset",
    "Kind",
    "Measurement",
    "Model",
    "Option",
    "PluginProblem",
    "Property",
    "PropertyResult",
    "Refusal",
    "ReportSection",
    "StabilityKitError",
    "Table",
    "UsageProblem",
    "__version__",
    "evaluate",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    # `evaluate` pulls in the machinery of a run; loading it on first use keeps `import stabilitykit` cheap.
    if name == "evaluate":
        from stabilitykit.evaluation.evaluate import evaluate

        return evaluate
    raise AttributeError(f"module 'stabilitykit' has no attribute {name!r}")
