"""Charts of a run as objects that a notebook shows: the report's own SVG, each apart from the page around it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.files import write_atomic
from stabilitykit.base.names import did_you_mean
from stabilitykit.reporting.html import tag


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: as its file in ``figures/`` of a report is called.
        svg: the text of that file.
    """

    name: str
    svg: str = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write it as an SVG file; UsageProblem for another kind of file."""
        target = Path(path)
        if target.suffix.lower() != ".svg":
            raise UsageProblem(f"{target}: charts are SVG; give a name that ends in .svg")
        write_atomic(target, self.svg)
        return target

    def _repr_html_(self) -> str:
        # As an image its styles stay inside; inline they would colour the notebook.
        source = "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()
        return str(tag("img", src=source, alt=self.name, style="max-width:100%;width:680px"))


class Charts(Mapping[str, Chart]):
    """Charts by name."""

    def __init__(self, charts: Mapping[str, Chart]) -> None:
        self._charts = dict(charts)

    def __getitem__(self, name: str) -> Chart:
        return self._charts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._charts)

    def __len__(self) -> int:
        return len(self._charts)

    def named(self, name: str) -> Chart:
        """The first chart whose name begins with ``name``; UsageProblem where there is none."""
        found = next((chart for key, chart in self._charts.items() if key.startswith(name)), None)
        if found is None:
            known = list(dict.fromkeys(key.partition("-")[0] for key in self._charts))
            raise UsageProblem(f"no chart {name!r}{did_you_mean(name, known)}; there are {', '.join(self._charts)}")
        return found

    def __repr__(self) -> str:
        return f"<Charts: {', '.join(self._charts)}>"

    def _repr_html_(self) -> str:
        return "".join(chart._repr_html_() for chart in self._charts.values())
