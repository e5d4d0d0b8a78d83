"""stabilitykit: how stable is this residual network, block by block, and why should I believe the number?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stabilitykit.component import Command, Component, Option, ReportSection
from stabilitykit.errors import CellProblem, DataProblem, PluginProblem, Refusal, StabilityKitError, UsageProblem
from stabilitykit.hookspecs import hookimpl
from stabilitykit.interfaces import Dataset, Model, Property
from stabilitykit.results import Kind, Measurement, PropertyResult, Table

if TYPE_CHECKING:
    from stabilitykit.evaluation import evaluate

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
        from stabilitykit.evaluation import evaluate

        return evaluate
    raise AttributeError(f"module 'stabilitykit' has no attribute {name!r}")
