"""Run cells one after the other: each fails on its own, and is recorded as soon as it is finished."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import CellProblem, PluginProblem, StabilityKitError, UsageProblem, catching, describe
from stabilitykit.base.results import PropertyResult, to_plain
from stabilitykit.base.watch import task, watch
from stabilitykit.evaluation.acceptance import rechecked, stored_form
from stabilitykit.evaluation.announcing import Announcing
from stabilitykit.evaluation.blame import blaming, culprit_of, describe_failure, pass_on
from stabilitykit.evaluation.cautions import cautions_after, cautions_before
from stabilitykit.evaluation.chain_check import certify, marked, require, warn_of
from stabilitykit.evaluation.decided import decided
from stabilitykit.evaluation.extraction_effect import ExtractionEffect
from stabilitykit.evaluation.property import Property
from stabilitykit.evaluation.readout_fit import stated
from stabilitykit.evaluation.selection import Choice
from stabilitykit.evaluation.settings import Settings
from stabilitykit.evaluation.subject import Subject
from stabilitykit.machine.determinism import make_deterministic
from stabilitykit.machine.distributed import World
from stabilitykit.machine.process_state import Functions, ProcessState
from stabilitykit.plugins.listening import Event
from stabilitykit.plugins.registry import Registry
from stabilitykit.runs.folder import Cell
from stabilitykit.runs.recorder import Recorder

# In a cell's record: what the network computed on its first and last batch of images (a digest).
COMPUTES = "computes"
# Images that are taken for something else, the surest ones, of which pictures are kept.
MISTAKES_SHOWN = 24


@dataclass
class Job:
    """The cells of one :func:`~stabilitykit.evaluate`: the choices to combine, and what came of them.

    Attributes:
        properties: ordered so that each comes after those it needs.
        request: what was asked for, as run.json keeps it; ``resume`` goes on only with an equal one.
        recorder: is given each cell when it is finished, and knows those that earlier workers of this run finished.
        cell_timeout: seconds after which a worker may be killed; None: never.
        lost: cells that cost an earlier worker its life, by slug, with their error.
        announcing: tells plugins of finished cells; None: somebody else does, or nobody listens.
        subjects, provenance: as run.json keeps them.
    """

    registry: Registry
    models: list[Choice]
    datasets: list[Choice]
    properties: list[Choice]
    probe: Choice | None
    settings: Settings
    device: Any
    cache: Path | None
    request: dict[str, Any]
    recorder: Recorder
    progress: Callable[..., Iterator[Any]]
    on_cell: Callable[[Cell], None] | None
    world: World
    cell_timeout: float | None = None
    lost: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    announcing: Announcing | None = None
    subjects: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    _effect: ExtractionEffect | None = None
    _left: int = 0  # cells that are not finished
    _decided: Subject | None = None  # the subject whose decisions are recorded
    _spoiled: str = ""  # what the last cell modified although it is shared
    _known: dict[str, Any] | None = None  # what _info gave, as long as it stands

    def run(self) -> None:
        """Run all cells that are not finished yet.

        Raises:
            UsageProblem: the folder to resume holds another request.
            StabilityKitError: the only subject could not be built.
        """
        from stabilitykit.runs.provenance import provenance

        earlier = self._earlier()
        self.subjects = list(self.recorder.info.get("pairs", []))
        self.provenance = self.recorder.info.get("provenance") or provenance(
            self.registry.host, self.device, self.settings.seed
        )
        done = {cell.slug: cell for cell in self.recorder.cells}
        alone = len(self.models) * len(self.datasets) == 1
        self._left = len(self.models) * len(self.datasets) * len(self.properties) - len(done)
        status = "interrupted"
        functions = Functions()
        try:
            for model in self.models:
                for dataset in self.datasets:
                    self._run_subject(model, dataset, done, earlier, functions, alone)
            status = "complete"
        finally:
            self.recorder.close(status, self._info())

    def _run_subject(
        self,
        model: Choice,
        dataset: Choice,
        done: dict[str, Cell],
        earlier: dict[str, Cell],
        functions: Functions,
        alone: bool,
    ) -> None:
        cells = {choice.label: self._blank(model, dataset, choice) for choice in self.properties}
        waiting = [choice for choice in self.properties if cells[choice.label].slug not in done]
        if all(cells[choice.label].slug in self.lost for choice in waiting):
            for choice in waiting:
                self._finish(self._lost(cells[choice.label]))
                self._announce(cells[choice.label], functions)
            return
        before, subject = ProcessState.now(), None
        try:
            make_deterministic(self.settings.seed)
            slugs = [cell.slug for cell in cells.values()]
            with task("subject", slugs, model.culprit, self.cell_timeout):
                subject = Subject(
                    model, dataset, self.settings, self.device, self.cache, self.probe, self.progress, self.world
                )
                record = subject.record()
                subject.certificate = certify(subject)
                cautions = cautions_before(subject)
                what = subject.what_changed()
                if what:  # no property has run yet: the blocks themselves keep a state
                    with blaming(model):
                        raise PluginProblem(
                            f"model {model.label} of {model.plugin['distribution']}: running it "
                            f"changed {what}; blocks are functions of their input alone"
                        )
                replaced = functions.replaced()
                if replaced:
                    raise PluginProblem(
                        f"{model.culprit} or {dataset.culprit} replaced {replaced} when they were built"
                    )
        except BaseException as error:
            pass_on(error)
            if alone and isinstance(error, StabilityKitError):
                raise
            culprit = culprit_of(error, model, subject.parts(None, model) if subject else ())
            for choice in waiting:
                self._finish(self._failed(cells[choice.label], culprit, error))
            self._check_process(functions, before, culprit.culprit)
            for choice in waiting:
                self._announce(cells[choice.label], functions)
            return
        try:
            if not any((s["model"], s["dataset"]) == (model.label, dataset.label) for s in self.subjects):
                names = {"model": model.label, "dataset": dataset.label}
                self.subjects.append(
                    names | {"certificate": subject.certificate, "record": record, "warnings": cautions}
                )
                self._known = None
                warn_of(subject.certificate, cautions, model.label)
            self._run_cells(subject, cells, record, done, earlier, functions)
            self._caution(subject)
            # Not before its cells: a fresh process would build the same once more, and be changed by it again.
            self._check_process(functions, before, f"building {model.label} and {dataset.label}")
        finally:
            subject.close()
            if self._effect is not None:
                self._effect.close()
            self._effect = self._decided = None

    def _run_cells(
        self,
        subject: Subject,
        cells: Mapping[str, Cell],
        record: Mapping[str, Any],
        done: Mapping[str, Cell],
        earlier: Mapping[str, Cell],
        functions: Functions,
    ) -> None:
        results: dict[str, PropertyResult] = {}
        failed: dict[str, str] = {}
        for choice in self.properties:
            cell = cells[choice.label]
            finished = cell.slug in done
            state = ProcessState.now()
            if finished:
                cell = done[cell.slug]
            elif cell.slug in self.lost:
                cell = self._lost(cell)
            else:
                cell = self._run_cell(subject, cell, choice, record, results, failed, earlier, functions)
            if cell.result is not None:
                results.setdefault(choice.name, cell.result)
            else:
                failed.setdefault(choice.name, cell.error["message"])
            if not finished:
                self._decide(subject)
                self._finish(cell)
                self._save_images(subject, cell)
                self._check_process(functions, state, choice.culprit)
                if cell.slug not in earlier or earlier[cell.slug].to_json() != cell.to_json():
                    self._announce(cell, functions)

    def _run_cell(
        self,
        subject: Subject,
        cell: Cell,
        choice: Choice,
        record: Mapping[str, Any],
        results: dict[str, PropertyResult],
        failed: dict[str, str],
        earlier: Mapping[str, Cell],
        functions: Functions,
    ) -> Cell:
        cell.record = {**record, "property": choice.record()}
        for need in choice.needs:
            if need in failed:
                return self._failed(cell, choice, CellProblem(f"needs property {need}, which failed: {failed[need]}"))
        start, prop = time.perf_counter(), None
        make_deterministic(self.settings.seed)
        try:
            with task("cell", cell.slug, choice.culprit, self.cell_timeout):
                subject.require_intact()
                with blaming(subject.model_choice):
                    require(subject.certificate, self.settings, subject.model_choice.label)
                done = earlier.get(cell.slug)
                if self.world.broadcast(self._still_stands(done, cell, subject)):
                    return self._shared(done)
                prop = choice.make()
                if not isinstance(prop, Property):
                    raise PluginProblem(f"built a {type(prop).__name__}, expected a stabilitykit.Property")
                if self.world.size > 1:
                    subject.trajectory()  # its extraction is shared work: every rank must come here
                    if not prop.parallel and not self.world.leads:
                        return self._shared(None)
                context = subject.context(choice, results)
                result = stored_form(prop.evaluate(context), len(context.indices))
                cell.result = rechecked(prop, context, result, choice) if self.world.leads else result
                if self.settings.extraction.faster and self.world.leads:
                    self._effect = self._effect or ExtractionEffect(subject, self.properties)
                    cell.result = self._effect.stated(cell.result, choice)
                if self.world.leads:
                    cell.result = stated(cell.result, subject)
                cell.result = marked(cell.result, subject.certificate)
                if self.world.leads:
                    cell.record[COMPUTES] = subject.computes()
        except BaseException as error:
            pass_on(error)
            self._failed(cell, culprit_of(error, choice, subject.parts(prop, choice)), error)
        cell.seconds = time.perf_counter() - start
        what, replaced = subject.what_changed(), functions.replaced()
        if replaced:
            self._failed(cell, choice, PluginProblem(f"replaced {replaced}, which every other number passes through"))
        elif what:
            text = f"modified {what}; a property works on copies, e.g. copy.deepcopy(context.model)"
            self._failed(cell, choice, PluginProblem(text))
            if not watch().supervised:
                subject.repair(cell.error["culprit"])
        self._spoiled = replaced or (what if watch().supervised else "")
        return self._shared(cell)

    def _still_stands(self, done: Cell | None, cell: Cell, subject: Subject) -> bool:
        """Is ``done``, of the run to resume, what would be measured now? If not, stderr says why."""
        if done is None or not done.ok or not self.world.leads:
            return False
        record = {key: value for key, value in done.record.items() if key != COMPUTES}
        now = to_plain(cell.record)
        changed = [key for key in {**record, **now} if record.get(key) != now.get(key)]
        if changed:
            why = f"its record differs in {', '.join(changed)}"
        elif done.record.get(COMPUTES) and done.record[COMPUTES] == subject.computes():
            return True
        else:
            why = "the network, with these weights and images, does not compute what it did then"
        print(f"warning: {done.property} on {done.model} x {done.dataset} is computed again: {why}", file=sys.stderr)
        return False

    def _caution(self, subject: Subject) -> None:
        """Say what the readouts show, on screen and in run.json."""
        names = (subject.model_choice.label, subject.dataset_choice.label)
        entry = next(s for s in self.subjects if (s["model"], s["dataset"]) == names)
        fresh = [text for text in cautions_after(subject) if text not in entry.setdefault("warnings", [])]
        entry["warnings"] += fresh
        self._known = None
        warn_of({}, fresh, names[0])

    def _check_process(self, functions: Functions, before: ProcessState, culprit: str) -> None:
        """A process that plugin code left changed is no place for the cells that are still to come."""
        changed = ProcessState.now().changed_since(before)
        changed = [self._spoiled, *changed] if self._spoiled else changed
        self._spoiled = ""
        if changed and self._left > 0:
            watch().give_up(culprit, ", ".join(changed))

    def _announce(self, cell: Cell, functions: Functions) -> None:
        """Tell plugins of a finished cell. What they change of the process is theirs, not the next property's."""
        if self.announcing is None:
            return
        before = ProcessState.now()
        self.announcing.tell(Event.of_cell(cell.to_json(), self._info(), self.recorder.path))
        replaced, changed = functions.replaced(), ProcessState.now().changed_since(before)
        if replaced or changed:
            watch().give_up(self.announcing.culprits, ", ".join(filter(None, [replaced, *changed])))

    @staticmethod
    def _blank(model: Choice, dataset: Choice, choice: Choice) -> Cell:
        return Cell(model.label, dataset.label, choice.label, plugin=choice.plugin, requested=choice.requested)

    def _lost(self, cell: Cell) -> Cell:
        cell.status, cell.error, cell.result = "failed", dict(self.lost[cell.slug]), None
        return cell

    def _shared(self, cell: Cell | None) -> Cell:
        """Rank 0's cell on every rank, so that all hold the same results."""
        if self.world.size == 1:
            assert cell is not None
            return cell
        return Cell.from_json(self.world.broadcast(cell.to_json() if cell is not None else None))

    def _failed(self, cell: Cell, choice: Choice, error: BaseException) -> Cell:
        """Mark ``cell`` as failed: one line for people, the culprit, and for plugin bugs the end of the traceback."""
        cell.status, cell.result = "failed", None
        cell.error = describe_failure(choice, error)
        return cell

    def _finish(self, cell: Cell) -> None:
        self._left -= 1
        self.recorder.finish(cell, self._info())
        if self.on_cell is not None:
            self.on_cell(cell)

    def _earlier(self) -> dict[str, Cell]:
        """Finished cells of the run to resume, by slug."""
        before, cells = self.recorder.earlier()
        request = to_plain(self.request)
        if before is not None and before != request:
            changed = [k for k in request if before.get(k) != request[k]]
            raise UsageProblem(
                f"--resume: {self.recorder.path} was made with another request "
                f"({', '.join(changed)} differ); repeat its options or choose another folder"
            )
        return {cell.slug: cell for cell in cells}

    def _decide(self, subject: Subject) -> None:
        """Record what the network decided about every image, once a property has asked for its readouts."""
        if self._decided is subject or subject.known_trajectory is None or not self.world.leads:
            return
        self._decided = subject
        with catching() as caught:  # names that a model cannot give cost the rows, and no number
            found = decided(subject)
            assert found is not None
            self.recorder.decide(found)
            mistakes = found.mistakes(MISTAKES_SHOWN)
            self._draw(subject, [found.columns["index"][row] for row in mistakes])
        if caught.error is not None:
            pass_on(caught.error)
            label = subject.model_choice.label
            print(f"warning: model {label}: no rows per image ({describe(caught.error)})", file=sys.stderr)

    def _save_images(self, subject: Subject, cell: Cell) -> None:
        if cell.result is not None:
            self._draw(subject, cell.result.images[:400])

    def _draw(self, subject: Subject, indices: Sequence[int]) -> None:
        """Keep pictures of the images ``indices``."""
        from stabilitykit.base.pictures import png_bytes

        model, dataset = subject.model_choice.label, subject.dataset_choice.label
        for index in indices:
            if not self.recorder.wants_image(dataset, index):
                continue
            try:
                with task("images", [model, dataset], subject.dataset_choice.culprit):
                    if not 0 <= index < len(subject.dataset):
                        continue
                    png = png_bytes(subject.dataset.picture(index))
            except BaseException as error:  # not a picture, or not there any more: the numbers stand without it
                pass_on(error)
                print(f"warning: dataset {dataset}: image {index} cannot be drawn ({describe(error)})", file=sys.stderr)
                return
            self.recorder.image(dataset, index, png)

    def _info(self) -> dict[str, Any]:
        """run.json's content; the same object until something of it changes."""
        if self._known is None:
            self._known = {"request": to_plain(self.request), "provenance": self.provenance, "pairs": self.subjects}
        return self._known
