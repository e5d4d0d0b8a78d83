"""The files of a run folder as they lie there: plain JSON and text, before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.files import Folder
from stabilitykit.runs.folder import CSV_FILE, RUN_FILE, Cell, load_run

Key = tuple[str, str, str]


@dataclass
class RunFiles:
    """What a finished run holds.

    Attributes:
        info: run.json.
        cells: file name below cells/ -> content.
        csv: measurements.csv, None where there is none.
    """

    info: dict[str, Any]
    cells: dict[str, Any]
    csv: str | None

    @classmethod
    def read(cls, run: Path | str) -> RunFiles:
        """UsageProblem when ``run`` is no run folder or holds damaged files."""
        load_run(run)  # says what is wrong with a folder or a file, and what to do
        folder = Folder(Path(run))
        names = [name for name in folder.names("cells") if name.endswith(".json") and not name.startswith(".")]
        cells = {name: folder.read_json("cells", name) for name in sorted(names)}
        try:
            csv = folder.read(CSV_FILE).decode() if folder.holds(CSV_FILE) else None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageProblem(f"cannot read {folder.root / CSV_FILE}: {error}") from None
        return cls(folder.read_json(RUN_FILE), cells, csv)

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

    @property
    def schema(self) -> int:
        return int(self.info["schema"])

    @property
    def provenance(self) -> Mapping[str, Any]:
        found = self.info.get("provenance")
        return found if isinstance(found, Mapping) else {}


def key_of(cell: Cell) -> Key:
    """(model, dataset, property): what a cell is of."""
    return cell.model, cell.dataset, cell.property
