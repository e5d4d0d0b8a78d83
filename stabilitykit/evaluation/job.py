"""Run cells one after the other: each fails on its own, and is on disk as soon as it is finished."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import CellProblem, PluginProblem, StabilityKitError, UsageProblem, describe
from stabilitykit.base.results import PropertyResult, to_plain
from stabilitykit.evaluation.blame import blaming, culprit_of, describe_failure
from stabilitykit.evaluation.chain_check import certify, warn_of
from stabilitykit.evaluation.extraction_effect import ExtractionEffect, faster_than_plain
from stabilitykit.evaluation.outcome import rechecked, stored_form
from stabilitykit.evaluation.property import Property
from stabilitykit.evaluation.selection import Choice
from stabilitykit.evaluation.settings import Settings
from stabilitykit.evaluation.subject import Pair
from stabilitykit.machine.distributed import World
from stabilitykit.plugins.registry import Registry
from stabilitykit.runs.folder import Cell, RunFolder
from stabilitykit.supervision.shield import shielded
from stabilitykit.supervision.stops import TooLong, time_limit


@dataclass
class Job:
    """The cells of one :func:`~stabilitykit.evaluate`: the choices to combine, and what came of them.

    Attributes:
        properties: ordered so that each comes after those it needs.
        folder: where cells are written when they are finished; None writes nothing (and on ranks but the first).
        request: what was asked for, as run.json keeps it; ``resume`` goes on only with an equal one.
        cells: those finished so far, in the order they were run.
        pairs, provenance: as run.json keeps them.
    """

    registry: Registry
    models: list[Choice]
    datasets: list[Choice]
    properties: list[Choice]
    probe: Choice | None
    settings: Settings
    device: Any
    cache: Path | None
    folder: RunFolder | None
    resume: bool
    request: dict[str, Any]
    progress: Callable[..., Iterator[Any]]
    on_cell: Callable[[Cell], None] | None
    world: World
    cell_timeout: float | None = None
    cells: list[Cell] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    _effect: ExtractionEffect | None = None

    def run(self) -> dict[str, Any]:
        """Run all cells -> run.json's content.

        Raises:
            UsageProblem: the folder to resume holds another request.
            StabilityKitError: the only pair could not be built.
        """
        from stabilitykit.runs.provenance import provenance

        earlier = self._earlier()
        self.provenance = provenance(self.registry.host, self.device, self.settings.seed)
        alone = len(self.models) * len(self.datasets) == 1
        status = "interrupted"
        try:
            for model in self.models:
                for dataset in self.datasets:
                    self._run_pair(model, dataset, earlier, alone)
            status = "complete"
        finally:
            # A pair that could not even be built leaves no folder behind (its error is raised instead).
            if self.folder is not None and self.cells:
                self._write(status)
                self.folder.complete(self.cells)
                self.folder.write_csv(self.cells)
        return self._info(status)

    def _run_pair(self, model: Choice, dataset: Choice, earlier: dict[str, Cell], alone: bool) -> None:
        pair = None
        try:
            with shielded(self.settings.seed), self._limited(model):
                pair = Pair(
                    model, dataset, self.settings, self.device, self.cache, self.probe, self.progress, self.world
                )
                record = pair.record()
                certificate = certify(pair)
                warn_of(certificate, model.label)
                what = pair.damage()
                if what:  # no property has run yet: the blocks themselves keep a state
                    with blaming(model):
                        raise PluginProblem(
                            f"model {model.label} of {model.plugin['distribution']}: running it "
                            f"changed {what}; blocks are functions of their input alone"
                        )
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin's SystemExit or own BaseException is no reason to stop the others
            if alone and isinstance(error, StabilityKitError):
                raise
            culprit = culprit_of(error, model, pair.parts(None, model) if pair else ())
            if isinstance(error, TooLong):
                error = self._overtime()
            for choice in self.properties:
                self._finish(
                    self._failed(
                        Cell(model.label, dataset.label, choice.label, requested=choice.requested), culprit, error
                    )
                )
            return
        try:
            self.pairs.append(
                {"model": model.label, "dataset": dataset.label, "certificate": certificate, "record": record}
            )
            results: dict[str, PropertyResult] = {}
            failed: dict[str, str] = {}
            for choice in self.properties:
                cell = self._run_cell(pair, choice, record, results, failed, earlier)
                if cell.result is not None:
                    results.setdefault(choice.name, cell.result)
                else:
                    failed.setdefault(choice.name, cell.error["message"])
                self._finish(cell)
                self._save_images(pair, cell)
        finally:
            pair.close()
            if self._effect is not None:
                self._effect.close()
            self._effect = None

    def _run_cell(
        self,
        pair: Pair,
        choice: Choice,
        record: Mapping[str, Any],
        results: dict[str, PropertyResult],
        failed: dict[str, str],
        earlier: dict[str, Cell],
    ) -> Cell:
        cell = Cell(
            pair.model_choice.label,
            pair.dataset_choice.label,
            choice.label,
            plugin=choice.plugin,
            requested=choice.requested,
        )
        cell.record = {
            **record,
            "property": {"name": choice.name, "options": to_plain(dict(choice.options)), "plugin": choice.plugin},
        }
        done = earlier.get(cell.slug)
        if self.world.broadcast(done is not None and done.ok and done.record == to_plain(cell.record)):
            return self._shared(done)
        for need in choice.needs:
            if need in failed:
                return self._failed(cell, choice, CellProblem(f"needs property {need}, which failed: {failed[need]}"))
        start, prop = time.perf_counter(), None
        try:
            with shielded(self.settings.seed), self._limited(choice):
                pair.require_intact()
                prop = choice.make()
                if not isinstance(prop, Property):
                    raise PluginProblem(f"built a {type(prop).__name__}, expected a stabilitykit.Property")
                if self.world.size > 1:
                    pair.trajectory()  # its extraction is shared work: every rank must come here
                    if not prop.parallel and not self.world.leads:
                        return self._shared(None)
                context = pair.context(choice, results)
                result = stored_form(prop.evaluate(context))
                cell.result = rechecked(prop, context, result, choice) if self.world.leads else result
                if faster_than_plain(self.settings) and self.world.leads:
                    self._effect = self._effect or ExtractionEffect(pair, self.properties)
                    cell.result = self._effect.stated(cell.result, choice)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin's SystemExit or own BaseException is no reason to stop the others
            culprit = culprit_of(error, choice, pair.parts(prop, choice))
            self._failed(cell, culprit, self._overtime() if isinstance(error, TooLong) else error)
        cell.seconds = time.perf_counter() - start
        with shielded(self.settings.seed):
            what = pair.damage()
            if what:
                cell.result = None
                self._failed(
                    cell,
                    choice,
                    PluginProblem(f"modified {what}; a property works on copies, e.g. copy.deepcopy(context.model)"),
                )
                pair.repair(cell.error["culprit"])
        return self._shared(cell)

    def _overtime(self) -> CellProblem:
        return CellProblem(f"took longer than {self.cell_timeout:g} s (--cell-timeout)")

    def _limited(self, choice: Choice) -> Any:
        who = f"{choice.kind} {choice.name} of {choice.plugin['distribution']} {choice.plugin['version']}".strip()
        return time_limit(self.cell_timeout, TooLong, who)

    def _shared(self, cell: Cell | None) -> Cell:
        """Rank 0's cell on every rank, so that all hold the same results."""
        if self.world.size == 1:
            assert cell is not None
            return cell
        return Cell.from_json(self.world.broadcast(cell.to_json() if cell is not None else None))

    def _failed(self, cell: Cell, choice: Choice, error: BaseException) -> Cell:
        """Mark ``cell`` as failed: one line for people, the culprit, and for plugin bugs the end of the traceback."""
        cell.status = "failed"
        cell.error = describe_failure(choice, error)
        return cell

    def _finish(self, cell: Cell) -> None:
        self.cells.append(cell)
        if self.folder is not None:
            if len(self.cells) == 1:
                self._write("running")
            self.folder.write_cell(cell)
        if self.on_cell is not None:
            self.on_cell(cell)

    def _earlier(self) -> dict[str, Cell]:
        if self.folder is None or not self.resume or not (self.folder.path / "run.json").exists():
            return {}
        before = self.folder.read_run().get("request")
        if before is not None and before != to_plain(self.request):
            if not isinstance(before, Mapping):
                raise UsageProblem(
                    f"--resume: the request in {self.folder.path}/run.json is damaged; choose another folder"
                )
            changed = [k for k in self.request if before.get(k) != to_plain(self.request)[k]]
            raise UsageProblem(
                f"--resume: {self.folder.path} was made with another request "
                f"({', '.join(changed)} differ); repeat its options or choose another folder"
            )
        return {
            cell.slug: cell
            for cell in self.folder.read_cells(lambda text: print(f"warning: {text}; computed again", file=sys.stderr))
        }

    def _save_images(self, pair: Pair, cell: Cell) -> None:
        if self.folder is None or cell.result is None:
            return
        from stabilitykit.base.pictures import png_bytes

        for index in cell.result.images[:400]:
            if self.folder.image_path(cell.dataset, index).exists():
                continue
            try:
                with shielded(self.settings.seed):
                    if not 0 <= index < len(pair.dataset):
                        continue
                    png = png_bytes(pair.dataset.images([index])[0])
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # not a picture, or not there any more: the numbers stand without it
                print(
                    f"warning: dataset {cell.dataset}: image {index} cannot be drawn ({describe(error)})",
                    file=sys.stderr,
                )
                return
            self.folder.write_image(cell.dataset, index, png)

    def _info(self, status: str) -> dict[str, Any]:
        return {
            "status": status,
            "request": to_plain(self.request),
            "provenance": self.provenance,
            "pairs": self.pairs,
            "cells": [[c.model, c.dataset, c.property] for c in self.cells],
        }

    def _write(self, status: str) -> None:
        assert self.folder is not None
        self.folder.write_run(self._info(status))
