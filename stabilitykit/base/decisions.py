"""What a network decided about every image: plain data that a run folder keeps beside its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from stabilitykit.base.results import SCHEMA_VERSION, to_plain
from stabilitykit.base.text import BEFORE

COLUMNS = ("index", "label", "prediction", "confidence", "margin", "prediction_depth")
"""What is known of every image: its dataset index, its label, the class of the largest final readout (lowest on ties),
that class's softmax probability, by how much its readout exceeds the second largest (in ``unit``), and the first depth
from which the decision stays the final one."""


@dataclass(frozen=True)
class Decisions:
    """The decisions of one (model, dataset): lists with one entry per evaluated image, in ascending dataset index.

    Attributes:
        classes: names of the dataset's classes, by label.
        outputs: names of the K outputs, by number.
        comparable: is output c the class c? Else nothing is right or wrong.
        blocks: T names of blocks.
        unit: of ``margin``.
        columns: :data:`COLUMNS`, each a list of numbers; ``confidence`` None where readouts are no logits.
    """

    model: str
    dataset: str
    classes: list[str]
    outputs: list[str]
    comparable: bool
    blocks: list[str]
    unit: str
    columns: Mapping[str, list[Any]]

    def __len__(self) -> int:
        """N, the number of images."""
        return len(self.columns["index"])

    @cached_property
    def correct(self) -> list[bool | None]:
        """Whether each decision is the label; None where outputs are not the dataset's classes."""
        pairs = zip(self.columns["label"], self.columns["prediction"], strict=True)
        return [label == found if self.comparable else None for label, found in pairs]

    def mistakes(self, limit: int | None = None) -> list[int]:
        """Rows of the images that are not taken for what they are, the surest first; at most ``limit``."""
        sureness, margins = self.columns["confidence"], self.columns["margin"]
        wrong = sorted(
            (-1.0 if sureness[row] is None else -sureness[row], -margins[row], row)
            for row, right in enumerate(self.correct)
            if right is False
        )
        return [row for _, _, row in wrong[:limit]]

    def block_name(self, depth: int) -> str:
        """The block whose output is the state at ``depth``; what stands before the blocks has no name of its own."""
        return self.blocks[depth - 1] if 1 <= depth <= len(self.blocks) else BEFORE

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA_VERSION, **to_plain({part.name: getattr(self, part.name) for part in fields(self)})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Decisions:
        """Inverse of :meth:`to_json`; KeyError, TypeError or ValueError when ``data`` holds no decisions."""
        columns = {name: list(data["columns"][name]) for name in COLUMNS}
        found = cls(
            str(data["model"]),
            str(data["dataset"]),
            [str(name) for name in data["classes"]],
            [str(name) for name in data["outputs"]],
            bool(data["comparable"]),
            [str(name) for name in data["blocks"]],
            str(data["unit"]),
            columns,
        )
        _check(columns["label"], len(found), len(found.classes), "label")
        _check(columns["prediction"], len(found), len(found.outputs), "prediction")
        _check(columns["prediction_depth"], len(found), len(found.blocks) + 1, "prediction_depth")
        for name in COLUMNS:
            if len(columns[name]) != len(found) or not _are_numbers(columns[name], name):
                raise ValueError(f"{name} is not one number per image")
        return found


def _check(values: Sequence[Any], count: int, limit: int, what: str) -> None:
    whole = set(map(type, values)) <= {int}
    if len(values) != count or not whole or not (min(values, default=0) >= 0 and max(values, default=-1) < limit):
        raise ValueError(f"{what} is not one whole number below {limit} for each of {count} images")


def _are_numbers(values: Sequence[Any], name: str) -> bool:
    kinds = set(map(type, values))
    if name == "index":
        return kinds <= {int} and min(values, default=0) >= 0
    return kinds <= ({int, float, type(None)} if name == "confidence" else {int, float})
