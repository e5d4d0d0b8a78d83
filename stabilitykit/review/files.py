"""The files of a run folder as they lie there: plain JSON and text, before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stabilitykit.base.decisions import Decisions
from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.files import Folder
from stabilitykit.runs.folder import CSV_FILE, DECISIONS, IMAGES_FILE, RUN_FILE, Cell, load_run, parsed_decisions

Key = tuple[str, str, str]


@dataclass
class RunFiles:
    """What a finished run holds.

    Attributes:
        info: run.json.
        cells: file name below cells/ -> content.
        csv: measurements.csv, None where there is none.
        decisions: file name below decisions/ -> content.
        images: images.csv, None where there is none.
    """

    info: dict[str, Any]
    cells: dict[str, Any]
    csv: str | None
    decisions: dict[str, Any] = field(default_factory=dict)
    images: str | None = None

    @classmethod
    def read(cls, run: Path | str) -> RunFiles:
        """UsageProblem when ``run`` is no run folder or holds damaged files."""
        load_run(run)  # says what is wrong with a folder or a file, and what to do
        folder = Folder(Path(run))
        cells, decisions = (_json_files(folder, name) for name in ("cells", DECISIONS))
        csv, images = (_text(folder, name) for name in (CSV_FILE, IMAGES_FILE))
        found = cls(folder.read_json(RUN_FILE), cells, csv, decisions, images)
        _ = found.decided  # damaged ones are refused before anything is measured
        return found

    @property
    def parsed(self) -> dict[str, Cell]:
        """File name -> cell, in the order of run.json; UsageProblem for what is no cell."""
        found = {}
        for name, data in self.cells.items():
            try:
                found[name] = Cell.from_json(data)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise UsageProblem(f"cells/{name} is not a cell of a run ({type(error).__name__}: {error})") from None
        listed = self.info.get("cells")
        order = [tuple(key) for key in listed if isinstance(key, list)] if isinstance(listed, list) else []
        places = {key: place for place, key in enumerate(order)}
        return dict(sorted(found.items(), key=lambda item: (places.get(key_of(item[1]), len(places)), item[0])))

    @cached_property
    def decided(self) -> dict[str, Decisions]:
        """File name -> decisions; UsageProblem for what is none."""
        return {name: parsed_decisions(data, f"{DECISIONS}/{name}") for name, data in self.decisions.items()}

    @property
    def schema(self) -> int:
        return int(self.info["schema"])

    @property
    def provenance(self) -> Mapping[str, Any]:
        found = self.info.get("provenance")
        return found if isinstance(found, Mapping) else {}


def _json_files(folder: Folder, name: str) -> dict[str, Any]:
    names = [part for part in folder.names(name) if part.endswith(".json") and not part.startswith(".")]
    return {part: folder.read_json(name, part) for part in sorted(names)}


def _text(folder: Folder, name: str) -> str | None:
    try:
        return folder.read(name).decode() if folder.holds(name) else None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"cannot read {folder.root / name}: {error}") from None


def key_of(cell: Cell) -> Key:
    """(model, dataset, property): what a cell is of."""
    return cell.model, cell.dataset, cell.property
