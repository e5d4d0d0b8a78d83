"""A run in the hands of somebody who works in Python."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit.base.progress import no_progress
from stabilitykit.base.results import Table
from stabilitykit.evaluation.evaluate import Run as Measured
from stabilitykit.evaluation.selection import Given
from stabilitykit.interactive.charts import Chart, Charts
from stabilitykit.interactive.progress import NotebookDisplay
from stabilitykit.interactive.shown import ShownComparison, ShownTable, run_html
from stabilitykit.machine.determinism import process_put_back

if TYPE_CHECKING:
    from stabilitykit.review.verdicts import Verification


class Run(Measured):
    """What was measured: numbers as frames, tables and charts; the last line of a notebook's cell shows it.

    ``run["expansivity"]["expansive_constant.max"]`` is one measurement with its kind, N and witness.
    """

    @classmethod
    def of(cls, run: Measured) -> Self:
        """The same run."""
        return cls(**{entry.name: getattr(run, entry.name) for entry in fields(Measured)})

    def table(self, name: str, *, property: str | None = None) -> ShownTable:
        """A table of a property (``closest``, ``curve``...); its ``frame()`` is a pandas frame.

        Arguments:
            name: of the table.
            property: label or name of the property; needed where several have a table of that name.

        Raises:
            UsageProblem: there is none, or there are several.
        """
        found: dict[str, Table] = {}
        names: list[str] = []
        for cell in self.cells:
            if cell.result is None or property not in (None, cell.property, cell.property.partition(":")[0]):
                continue
            names += cell.result.tables
            if name in cell.result.tables:
                found[f"{cell.property} of {cell.model} on {cell.dataset}"] = cell.result.tables[name]
        if len(found) > 1:
            raise UsageProblem(f"several have a table {name}: {', '.join(found)}; say which, as property=...")
        if not found:
            known = list(dict.fromkeys(names))
            raise UsageProblem(f"no table {name!r}{did_you_mean(name, known)}; there are {', '.join(known) or 'none'}")
        made = next(iter(found.values()))
        return ShownTable(made.columns, made.rows, made.title)

    def plot(self, name: str | None = None) -> Chart | Charts:
        """The charts of the report, or the first one whose name begins with ``name``; each shows itself in a notebook.

        Raises:
            UsageProblem: there is no chart, or none of that name.
        """
        from stabilitykit.reporting.page import render
        from stabilitykit.reporting.rundata import RunData

        with self._in_folder() as folder:
            data = RunData.read(folder)
            render(data)
        charts = Charts({key: Chart(key, svg) for key, svg in data.figures.items()})
        if not charts:
            raise UsageProblem("this run has no chart: no finished property draws one")
        return charts if name is None else charts.named(name)

    def report(self, path: str | Path | None = None) -> Path:
        """Write one offline HTML file about the run; ``path`` None: ``report.html`` in its folder.

        Raises:
            UsageProblem: no path for a run that is in memory, or ``path`` is a folder.
        """
        from stabilitykit.reporting.page import write_report

        if path is None and self.folder is None:
            raise UsageProblem("the run is in memory: say where the report goes, as run.report('report.html')")
        with self._in_folder() as folder:
            return write_report(folder, None if path is None else Path(path))

    def compare(self, *others: Measured | str | Path) -> ShownComparison:
        """This run beside ``others`` (runs or run folders), the first column being this one's.

        Raises:
            UsageProblem: no other run, or a folder that is none.
        """
        from contextlib import ExitStack

        from stabilitykit.review.compare import compare

        with ExitStack() as stack:
            folders: list[Path | str] = []
            for number, one in enumerate([self, *others]):
                if isinstance(one, Measured):
                    folders.append(stack.enter_context(Run.of(one)._in_folder(f"run {number + 1}")))
                else:
                    folders.append(one)
            return ShownComparison.of(compare(folders))

    def verify(self, *objects: Any, progress: bool = True, **options: Any) -> Verification:
        """Measure the run again and compare every number; see :func:`stabilitykit.review.verify.verify`.

        Arguments:
            objects: the network and the data that were handed over as objects, in that order (models, then datasets,
                then properties of the run's request); nothing for a run of named ones. A mapping gives them by label.
            options: as of ``verify``: ``relative``, ``witnesses_only``, ``trust``...

        Raises:
            UsageProblem: too few or too many objects, or what cannot be built.
        """
        from stabilitykit.review.verify import verify

        given = self._objects(objects)
        with process_put_back(), NotebookDisplay().showing(progress) as display, self._in_folder() as folder:
            bars = display.bar if progress else no_progress
            return verify(folder, objects=given, progress=bars, **options)

    def _objects(self, objects: tuple[Any, ...]) -> dict[str, Given]:
        """The objects by label, class names as they were."""
        labels = [str(label) for label in self.info.get("request", {}).get("objects", [])]
        if len(objects) == 1 and isinstance(objects[0], Mapping) and set(objects[0]) <= set(labels):
            by_label = dict(objects[0])
        elif len(objects) == len(labels):
            by_label = dict(zip(labels, objects))
        else:
            wanted = f"give {', '.join(labels)}, in this order" if labels else "its models and data have names"
            raise UsageProblem(f"verify was given {len(objects)} objects; {wanted}")
        return {label: Given(thing, beside=self._beside(label)) for label, thing in by_label.items()}

    def _beside(self, label: str) -> dict[str, Any]:
        """What the adapter of the object ``label`` was told beside its options."""
        for pair in self.info.get("pairs", []):
            record = pair.get("record", {})
            details = record.get("model", {}).get("details", {})
            data = record.get("dataset", {})
            if pair.get("model") == label and "class_names" in details:
                return {"class_names": details["class_names"]}
            if pair.get("dataset") == label and data.get("details", {}).get("class_names_given"):
                return {"class_names": data["class_names"]}
        return {}

    @contextmanager
    def _in_folder(self, name: str = "run") -> Iterator[Path]:
        """The run's folder; of a run in memory a temporary copy."""
        if self.folder is not None:
            yield self.folder
            return
        with tempfile.TemporaryDirectory(prefix="stabilitykit-") as temporary:
            copy = type(self).of(self)
            yield copy.save(Path(temporary) / name)

    def __repr__(self) -> str:
        pairs = dict.fromkeys(f"{cell.model} on {cell.dataset}" for cell in self.cells)
        failed = sum(not cell.ok for cell in self.cells)
        where = "in memory" if self.folder is None else str(self.folder)
        return (
            f"<Run of {'; '.join(pairs) or 'nothing'}: {len(self.cells)} cells"
            f"{f', {failed} failed' if failed else ''}, {where}>"
        )

    def _repr_html_(self) -> str:
        return run_html(self.cells, self.info, self.decisions)
