"""Finished cells on their way from the worker to the supervisor, which writes them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stabilitykit.base.decisions import Decisions
from stabilitykit.runs.folder import Cell
from stabilitykit.runs.recorder import Recorder

if TYPE_CHECKING:
    from stabilitykit.supervision.inheritance import Inheritance


class HandingOver(Recorder):
    """Sends cells and pictures to the supervisor; knows what earlier workers of this run finished."""

    announces = True

    def __init__(self, tell: Callable[[Any], None], inheritance: Inheritance, answer: Mapping[str, Any]) -> None:
        """``answer``: the supervisor's, with the folder and what it held when it was opened."""
        super().__init__()
        self._tell = tell
        self._pictures: set[tuple[str, int]] = set()
        self._draws = inheritance.draws
        self._request, self._earlier = answer["request"], answer["cells"]
        self.path = Path(answer["path"])
        self.info = dict(inheritance.info)
        self._told: Mapping[str, Any] | None = None  # what the supervisor knows of run.json
        self.cells = [Cell.from_json(cell) for cell in inheritance.cells]

    def earlier(self) -> tuple[Mapping[str, Any] | None, list[Cell]]:
        return self._request, [Cell.from_json(cell) for cell in self._earlier]

    def finish(self, cell: Cell, info: Mapping[str, Any]) -> None:
        super().finish(cell, info)
        # A request of thousands of cells is not to be told with each of them.
        news, self._told = None if info is self._told else self.info, info
        self._tell({"t": "cell", "cell": cell.to_json(), "info": news})

    def decide(self, decisions: Decisions) -> None:
        super().decide(decisions)
        self._tell({"t": "decisions", "decisions": decisions.to_json()})

    def wants_image(self, dataset: str, index: int) -> bool:
        return self._draws and (dataset, index) not in self._pictures

    def image(self, dataset: str, index: int, png: bytes) -> None:
        self._pictures.add((dataset, index))
        self._tell({"t": "image", "dataset": dataset, "index": index, "png": base64.b64encode(png).decode("ascii")})

    def close(self, status: str, info: Mapping[str, Any] | None = None) -> None:
        super().close(status, info)
        self._tell({"t": "close", "status": status, "info": self.info})
