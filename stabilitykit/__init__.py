"""stabilitykit: how stable is this residual network, block by block, and why should I believe the number?"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would take longer than all the rest of this file

if TYPE_CHECKING:
    from typing import Any

    from stabilitykit.base.errors import CellProblem as CellProblem
    from stabilitykit.base.errors import DataProblem as DataProblem
    from stabilitykit.base.errors import PluginProblem as PluginProblem
    from stabilitykit.base.errors import Refusal as Refusal
    from stabilitykit.base.errors import StabilityKitError as StabilityKitError
    from stabilitykit.base.errors import UsageProblem as UsageProblem
    from stabilitykit.base.results import Kind as Kind
    from stabilitykit.base.results import Measurement as Measurement
    from stabilitykit.base.results import PropertyResult as PropertyResult
    from stabilitykit.base.results import Table as Table
    from stabilitykit.dynamics.dataset import Dataset as Dataset
    from stabilitykit.dynamics.model import Model as Model
    from stabilitykit.evaluation.context import Context as Context
    from stabilitykit.evaluation.property import Property as Property
    from stabilitykit.interactive.audit import audit as audit
    from stabilitykit.interactive.audit import evaluate as evaluate
    from stabilitykit.interactive.audit import list_runs as list_runs
    from stabilitykit.interactive.run import Run as Run
    from stabilitykit.plugins.component import Adapter as Adapter
    from stabilitykit.plugins.component import Command as Command
    from stabilitykit.plugins.component import Component as Component
    from stabilitykit.plugins.component import Option as Option
    from stabilitykit.plugins.component import ReportSection as ReportSection
    from stabilitykit.plugins.hookspecs import hookimpl as hookimpl

__version__ = "0.1.0"

# Name -> its module, imported when the name is first used: the command must be able to answer Ctrl-C before numpy is
# there, and `import stabilitykit` in a plugin must cost nothing.
_PUBLIC = {
    "Adapter": "plugins.component",
    "CellProblem": "base.errors",
    "Command": "plugins.component",
    "Component": "plugins.component",
    "Context": "evaluation.context",
    "DataProblem": "base.errors",
    "Dataset": "dynamics.dataset",
    "Kind": "base.results",
    "Measurement": "base.results",
    "Model": "dynamics.model",
    "Option": "plugins.component",
    "PluginProblem": "base.errors",
    "Property": "evaluation.property",
    "PropertyResult": "base.results",
    "Refusal": "base.errors",
    "ReportSection": "plugins.component",
    "Run": "interactive.run",
    "StabilityKitError": "base.errors",
    "Table": "base.results",
    "UsageProblem": "base.errors",
    "audit": "interactive.audit",
    "evaluate": "interactive.audit",
    "hookimpl": "plugins.hookspecs",
    "list_runs": "interactive.audit",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'stabilitykit' has no attribute {name!r}")
    from importlib import import_module

    thing = getattr(import_module(f"stabilitykit.{_PUBLIC[name]}"), name)
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
