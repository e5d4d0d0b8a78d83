"""What a report section is given: a finished run, read from its folder, with images and a place for figures."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stabilitykit.base.decisions import Decisions
from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import PropertyResult, Table
from stabilitykit.reporting.html import note, pair_heading, tag
from stabilitykit.reporting.standalone import standalone
from stabilitykit.reporting.witness import Names
from stabilitykit.runs.folder import Cell, RunFolder, cells_by_pair, load_run

# A report stays a file one can mail: images beyond this many bytes in all are left out (and said to be).
IMAGE_BYTES = 24 << 20
MOST_VALUES = 600
"""Values of a chart that are listed below it."""
MOST_CELLS = 500
"""Cells that a report shows: each takes about 60 kB of it, with its charts and tables."""


@dataclass
class PairData:
    """All cells of one (model, dataset), and what the network decided about every image, where the run says."""

    model: str
    dataset: str
    cells: list[Cell]
    info: Mapping[str, Any] = field(default_factory=dict)
    decisions: Decisions | None = None

    @property
    def warnings(self) -> list[str]:
        """What has to be known before any number: untrained weights, chance, what loading let through."""
        said = self.info.get("warnings")
        return [str(text) for text in said] if isinstance(said, list) else []

    @property
    def record(self) -> Mapping[str, Any]:
        """What the pair's results depend on: fingerprints, sizes, readout, space."""
        found = self.info.get("record") or next((c.record for c in self.cells if c.record), {})
        return found if isinstance(found, Mapping) else {}

    @property
    def class_names(self) -> list[str]:
        dataset = self.record.get("dataset")
        names = dataset.get("class_names") if isinstance(dataset, Mapping) else None
        return [str(name) for name in names] if isinstance(names, list) else []

    def results(self, name: str) -> Iterator[tuple[Cell, PropertyResult]]:
        """Finished cells of the property ``name`` (several when it was measured with several options)."""
        for cell in self.cells:
            if cell.result is not None and cell.property_name == name:
                yield cell, cell.result


@dataclass
class RunData:
    """A run as sections see it.

    Attributes:
        path: the run folder.
        info: run.json.
        cells: every cell, failed ones too.
        figures: name -> stand-alone SVG text, filled by :meth:`figure`.
        decisions: what each network decided about every image, by (model, dataset).
        left_out: how many cells of the run are not among ``cells`` (:meth:`first`).
    """

    path: Path
    info: dict[str, Any]
    cells: list[Cell]
    figures: dict[str, str] = field(default_factory=dict)
    decisions: dict[tuple[str, str], Decisions] = field(default_factory=dict)
    left_out: int = 0
    _names: dict[tuple[str, str], Names] = field(default_factory=dict, repr=False)
    _sources: dict[tuple[str, int], str] = field(default_factory=dict, repr=False)
    _bytes: int = field(default=0, repr=False)
    _alike: Counter[str] = field(default_factory=Counter, repr=False)
    _used: Counter[str] = field(default_factory=Counter, repr=False)

    @classmethod
    def read(cls, folder: Path | str, decisions: dict[tuple[str, str], Decisions] | None = None) -> RunData:
        """Read a run folder; UsageProblem when it is none.

        Arguments:
            decisions: those of the run, where they are known: files of a million images take seconds to read.
        """
        info, cells = load_run(folder)
        known = RunFolder(Path(folder)).read_decisions() if decisions is None else decisions
        return cls(Path(folder), _sound(info), cells, decisions=known)

    def first(self, most: int) -> RunData:
        """This run without the cells after the first ``most``; of those the failed ones stay, ``most`` at most."""
        if len(self.cells) <= most:
            return self
        failed = [cell for cell in self.cells[most:] if not cell.ok]
        shown = [*self.cells[:most], *failed[:most]]
        return RunData(self.path, self.info, shown, decisions=self.decisions, left_out=len(self.cells) - len(shown))

    @property
    def pairs(self) -> list[PairData]:
        """The (model, dataset) pairs in the order of the run."""
        known = {(p["model"], p["dataset"]): p for p in self.info.get("pairs") or []}
        return [
            PairData(*key, members, known.get(key, {}), self.decisions.get(key))
            for key, members in cells_by_pair(self.cells).items()
        ]

    def words(self, cell: Cell) -> Names:
        """What images of a cell's witnesses are taken for, and the names of its blocks."""
        key = (cell.model, cell.dataset)
        return self._names.setdefault(key, Names(self.decisions.get(key)))

    @staticmethod
    def pair_heading(pair: PairData) -> Markup:
        """Heading of a pair's part of a section."""
        return pair_heading(pair.model, pair.dataset)

    def results(self, name: str) -> Iterator[tuple[Cell, PropertyResult]]:
        """Finished cells of the property ``name`` over all pairs."""
        for pair in self.pairs:
            yield from pair.results(name)

    def heading(self, cell: Cell) -> Markup:
        """Heading of a cell's part of a section; empty in a run where nothing could be confused with it."""
        if self._alike.total() != len(self.cells):
            self._alike = Counter(c.property_name for c in self.cells)
        if self._alike[cell.property_name] == 1:
            return Markup("")
        return pair_heading(cell.model, cell.dataset, cell.property if cell.property != cell.property_name else "")

    def image(self, dataset: str, index: Any) -> str:
        """A stored image as a data URI; empty when the run holds none (or the report is full)."""
        if isinstance(index, bool) or not isinstance(index, int):
            return ""
        key = (dataset, index)
        if key not in self._sources:
            try:
                raw = RunFolder(self.path).image_path(dataset, index).read_bytes()
            except (OSError, UsageProblem):  # a link is not followed: the picture is left out
                raw = b""
            if not raw.startswith(b"\x89PNG") or self._bytes + len(raw) > IMAGE_BYTES:
                raw = b""
            self._bytes += len(raw)
            self._sources[key] = "data:image/png;base64," + base64.b64encode(raw).decode() if raw else ""
        return self._sources[key]

    def figure(self, name: str, svg: Markup, caption: Any) -> Markup:
        """A chart with its caption, also kept under ``name`` to be written as a file in ``figures/``."""
        plain = unique = _file_name(name)
        while unique in self.figures:
            self._used[plain] += 1
            unique = f"{plain}-{self._used[plain] + 1}"
        self.figures[unique] = standalone(svg)
        return tag(
            "figure", tag("div", svg, class_="scroll"), tag("figcaption", caption), _values(svg), class_="chart-figure"
        )


def _values(svg: Markup) -> Markup | None:
    """What a chart says when its points are pointed at, as a list: for keyboards, fingers, screen readers and paper."""
    told = list(dict.fromkeys(unescape(text) for text in re.findall(r"<title>(.*?)</title>", str(svg), re.DOTALL)))[1:]
    if not told:
        return None
    listed = tag("ul", *(tag("li", text) for text in told[:MOST_VALUES]))
    more = note(f"the first {MOST_VALUES} of {len(told)}; all are in the tables") if len(told) > MOST_VALUES else None
    return tag("details", tag("summary", f"values ({len(told)})"), listed, more, class_="values")


def _sound(info: Mapping[str, Any]) -> dict[str, Any]:
    """run.json with the parts a report reads in the form they should have; what is not is left out."""
    found: dict[str, Any] = dict(info)
    for key in ("provenance", "request"):
        found[key] = dict(info[key]) if isinstance(info.get(key), Mapping) else {}
    pairs = info.get("pairs")
    found["pairs"] = (
        [
            p
            for p in pairs
            if isinstance(p, Mapping) and isinstance(p.get("model"), str) and isinstance(p.get("dataset"), str)
        ]
        if isinstance(pairs, list)
        else []
    )
    found["status"] = str(info.get("status", "unknown"))
    return found


def records(table: Table) -> list[dict[str, Any]]:
    """Rows of a table as dictionaries by column name."""
    return [dict(zip(table.columns, row)) for row in table.rows]


def as_float(value: Any) -> float | None:
    """A table's number; the text "inf" of a file becomes infinity, an empty entry None."""
    return None if value is None or value == "" else float(value)


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:100] or "figure"
