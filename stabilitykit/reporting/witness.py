"""Images of witnesses in words: their class, and what the network takes them for."""

from __future__ import annotations

from typing import Any

from stabilitykit.base.decisions import Decisions


class Names:
    """Words for images and depths of one (model, dataset).

    Arguments:
        decisions: what the network decided; None where the run does not say: then nothing is added.
    """

    def __init__(self, decisions: Decisions | None = None) -> None:
        self.decisions = decisions
        self._rows: dict[int, int] | None = None

    def taken(self, index: Any) -> str:
        """What image ``index`` is taken for: ``"recognised"``, ``"taken for dog"``; empty where it is not known."""
        if self.decisions is None or isinstance(index, bool) or not isinstance(index, int):
            return ""
        if self._rows is None:
            self._rows = {image: row for row, image in enumerate(self.decisions.columns["index"])}
        row = self._rows.get(index)
        if row is None:
            return ""
        output = self.decisions.columns["prediction"][row]
        if self.decisions.comparable and output == self.decisions.columns["label"][row]:
            return "recognised"
        return f"taken for {self.decisions.outputs[output]}"

    def image(self, index: Any, name: str = "") -> str:
        """``image 17 (cat, taken for dog)``."""
        inside = ", ".join(part for part in (name, self.taken(index)) if part)
        return f"image {index} ({inside})" if inside else f"image {index}"

    def block(self, depth: Any) -> str:
        """The block's own name in the network; empty where it has none beside its number."""
        if self.decisions is None or isinstance(depth, bool) or not isinstance(depth, int):
            return ""
        blocks = self.decisions.blocks
        if not 1 <= depth <= len(blocks) or blocks[depth - 1] == f"block {depth - 1}":
            return ""
        return blocks[depth - 1]

    def place(self, depth: int) -> str:
        """``at layer3.2 (depth 7 of 8)``, ``at depth 7 of 8``, ``before the first block``."""
        if depth == 0:
            return "before the first block"
        count = "" if self.decisions is None else f" of {len(self.decisions.blocks)}"
        name = self.block(depth)
        return f"at {name} (depth {depth}{count})" if name else f"at depth {depth}{count}"
