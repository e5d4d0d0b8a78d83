"""What an operator of an ONNX graph is told beside its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stabilitykit import UsageProblem


class Unsupported(UsageProblem):
    """An operator, or a way of using one, that has no counterpart here; the message names it."""


@dataclass
class Batch:
    """How many images run at once, for graphs that were exported for a fixed number of them.

    Attributes:
        fixed: leading size of the graph's input where it is written into the file; None: left open.
        ratio: images of this pass over ``fixed``; 1 where that is open.
    """

    fixed: int | None = None
    ratio: int = 1


@dataclass(frozen=True)
class Attributes:
    """Attributes of one node.

    Attributes:
        op, name: the operator, and the node's name as errors give it.
        opset: version of the operator set the graph was written for.
        values: attribute name -> int, float, text, list of those, or tensor.
        outputs: how many outputs are used.
        batch: shared by all nodes of a graph.
    """

    op: str
    name: str
    opset: int
    values: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    batch: Batch = field(default_factory=Batch)

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute's value, ``default`` where it is not given."""
        return self.values.get(name, default)

    def refuse(self, what: str) -> Unsupported:
        """The error for a way of using this operator that is not known."""
        return Unsupported(f"node {self.name!r} ({self.op}): {what} is not supported")
