"""Evaluate models x datasets x properties: every cell on its own, failures isolated, finished cells safe on disk."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .context import no_progress
from .device import check_torch_pair, choose_device, make_deterministic
from .distributed import World, join_world
from .errors import CellProblem, PluginProblem, StabilityKitError, UsageProblem, describe
from .failures import blaming, culprit_of, describe_failure
from .interfaces import Property
from .pair import Pair
from .plan import Choice, choose, order_properties
from .registry import Registry
from .results import Measurement, PropertyResult, to_plain
from .settings import Settings
from .shield import shielded
from .stops import time_limit
from .store import Cell, RunFolder, measurement_rows

if TYPE_CHECKING:
    import pandas

DEFAULT_PROPERTIES = ("expansivity",)
# A result is numbers and small tables for people; more than this is a plugin writing its arrays into it.
MAX_RESULT_BYTES = 64_000_000
# A recomputation in the same process is bit-equal or nearly so; beyond this fraction something keeps a state.
SUSPICIOUS = 1e-3


class _TooLong(BaseException):
    """Raised by the alarm in a cell over its time; not an Exception, so a property's own handlers let it pass."""


@dataclass
class Run:
    """The outcome of :func:`evaluate`.

    Attributes:
        cells: one per (model, dataset, property), in the order they were run.
        folder: where they were written, or None.
        info: run.json's content (request, provenance, pairs).
    """

    cells: list[Cell]
    folder: Path | None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return all(cell.ok for cell in self.cells)

    @property
    def exit_code(self) -> int:
        """0, 1 when a cell failed."""
        return 0 if self.ok else 1

    def __getitem__(self, name: str) -> PropertyResult:
        """The result of the first finished cell of property ``name``."""
        for cell in self.cells:
            if cell.property.partition(":")[0] == name and cell.result is not None:
                return cell.result
        raise KeyError(f"no finished cell of property {name!r}")

    def frame(self) -> pandas.DataFrame:
        """One row per measurement (see ``stabilitykit.store.CSV_COLUMNS``)."""
        import pandas

        return pandas.DataFrame(measurement_rows(self.cells))


def evaluate(
    model: Any, dataset: Any, properties: Any = DEFAULT_PROPERTIES, *, checkpoint: str | Sequence[str] | None = None,
    readout: str = "head", space: str = "probabilities", device: str = "auto", seed: int = 0,
    limit: int | None = None, batch_size: int = 100, extract_dtype: str = "float32", channels_last: bool = False,
    probe_dataset: Any = None, probe_epochs: int = 10, any_classes: bool = False, download: bool = False,
    output: str | Path | None = None, resume: bool = False, cache: str | Path | bool | None = None,
    strict_plugins: bool = False, cell_timeout: float | None = None, registry: Registry | None = None,
    progress: Callable[..., Iterator[Any]] = no_progress, on_cell: Callable[[Cell], None] | None = None,
) -> Run:
    """Measure properties of models on datasets; several of each give a matrix of cells.

    Args:
        model, dataset, properties: a spec (``"resnet18:stem=patch"``), an object (:class:`Model`,
            :class:`Dataset`, :class:`Property`), or a list of those.
        checkpoint: weights for the model (one per model, in order, if several).
        readout: ``"head"`` or ``"probe"``. space: ``"probabilities"`` or ``"logits"``.
        limit: evaluate a seeded random subset of that many images.
        output: run folder to write; None writes nothing. resume: finish an earlier run in it.
        cache: folder for trajectories; None: the user's cache folder; False: none.
        cell_timeout: seconds after which a cell fails (in the main thread, on POSIX); None: never.

    Returns: a :class:`Run`. A property that fails makes its cell fail, the others go on.

    Raises:
        UsageProblem: bad names, options, files, device or output folder; nothing has been written then.
        PluginProblem: a broken plugin under ``strict_plugins``, or a name two plugins claim.
    """
    settings = Settings(readout, space, seed, limit, batch_size, extract_dtype, channels_last,  # type: ignore[arg-type]
                        probe_epochs, any_classes)
    settings.check()
    if cell_timeout is not None and not 0 < cell_timeout < float("inf"):
        raise UsageProblem(f"cell timeout is a positive number of seconds; got {cell_timeout!r}")
    registry = registry or Registry.load(strict=strict_plugins)
    models = _models(registry, _listed(model), checkpoint)
    datasets = [choose(registry, "dataset", d, _download(registry, d, download)) for d in _listed(dataset)]
    chosen = [choose(registry, "property", p) for p in _listed(properties)]
    if not (models and datasets and chosen):
        raise UsageProblem("give at least one model, one dataset and one property")
    ordered = order_properties(registry, chosen)
    probe = None if probe_dataset is None else choose(registry, "dataset", probe_dataset)
    _refuse_duplicates(models, datasets)
    target = choose_device(device)
    check_torch_pair()
    make_deterministic(seed)
    world = join_world(target.type)
    output = world.broadcast(output)
    folder = None if output is None or not world.leads else RunFolder(Path(output))
    request = {"models": [m.label for m in models], "datasets": [d.label for d in datasets],
               "properties": [p.label for p in chosen], "probe_dataset": probe.label if probe else None,
               "device": target.type, **asdict(settings)}
    job = _Job(registry, models, datasets, ordered, probe, settings, target, _cache_root(cache), folder, resume,
               request, progress if world.leads else no_progress, on_cell if world.leads else None, world,
               cell_timeout)
    if folder is None:
        return job.run()
    with folder.open(resume=resume):
        return job.run()


@dataclass
class _Job:
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

    def run(self) -> Run:
        from .provenance import provenance

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
        return Run(self.cells, self.folder.path if self.folder else None, self._info(status))

    def _run_pair(self, model: Choice, dataset: Choice, earlier: dict[str, Cell], alone: bool) -> None:
        pair = None
        try:
            with shielded(self.settings.seed), self._limited(model):
                pair = Pair(model, dataset, self.settings, self.device, self.cache, self.probe, self.progress,
                            self.world)
                record = pair.record()
                certificate = self._certify(pair)
                _warn_of(certificate, model.label)
                what = pair.damage()
                if what:  # no property has run yet: the blocks themselves keep a state
                    with blaming(model):
                        raise PluginProblem(f"model {model.label} of {model.plugin['distribution']}: running it "
                                            f"changed {what}; blocks are functions of their input alone")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin's SystemExit or own BaseException is no reason to stop the others
            if alone and isinstance(error, StabilityKitError):
                raise
            culprit = culprit_of(error, model, pair.parts(None, model) if pair else ())
            if isinstance(error, _TooLong):
                error = self._overtime()
            for choice in self.properties:
                self._finish(self._failed(Cell(model.label, dataset.label, choice.label,
                                               requested=choice.requested), culprit, error))
            return
        try:
            self.pairs.append({"model": model.label, "dataset": dataset.label, "certificate": certificate,
                               "record": record})
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

    def _run_cell(self, pair: Pair, choice: Choice, record: Mapping[str, Any], results: dict[str, PropertyResult],
                  failed: dict[str, str], earlier: dict[str, Cell]) -> Cell:
        cell = Cell(pair.model_choice.label, pair.dataset_choice.label, choice.label, plugin=choice.plugin,
                    requested=choice.requested)
        cell.record = {**record, "property": {"name": choice.name, "options": to_plain(dict(choice.options)),
                                              "plugin": choice.plugin}}
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
                # Copies: a property that writes into what it needs must not change what another one measured.
                needed = {name: copy.deepcopy(results[name]) for name in (*choice.needs, *choice.wants)
                          if name in results}
                context = pair.context(choice, needed)
                result = _stored_form(prop.evaluate(context))
                cell.result = _rechecked(prop, context, result, choice) if self.world.leads else result
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin's SystemExit or own BaseException is no reason to stop the others
            culprit = culprit_of(error, choice, pair.parts(prop, choice))
            self._failed(cell, culprit, self._overtime() if isinstance(error, _TooLong) else error)
        cell.seconds = time.perf_counter() - start
        with shielded(self.settings.seed):
            what = pair.damage()
            if what:
                cell.result = None
                self._failed(cell, choice, PluginProblem(f"modified {what}; a property works on copies, e.g. "
                                                         "copy.deepcopy(context.model)"))
                pair.repair(cell.error["culprit"])
        return self._shared(cell)

    def _overtime(self) -> CellProblem:
        return CellProblem(f"took longer than {self.cell_timeout:g} s (--cell-timeout)")

    def _limited(self, choice: Choice) -> Any:
        who = f"{choice.kind} {choice.name} of {choice.plugin['distribution']} {choice.plugin['version']}".strip()
        return time_limit(self.cell_timeout, _TooLong, who)

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
                raise UsageProblem(f"--resume: the request in {self.folder.path}/run.json is damaged; choose another "
                                   "folder")
            changed = [k for k in self.request if before.get(k) != to_plain(self.request)[k]]
            raise UsageProblem(f"--resume: {self.folder.path} was made with another request "
                               f"({', '.join(changed)} differ); repeat its options or choose another folder")
        return {cell.slug: cell for cell in self.folder.read_cells(
            lambda text: print(f"warning: {text}; computed again", file=sys.stderr))}

    def _certify(self, pair: Pair) -> dict[str, Any]:
        from .trajectory import batches

        try:
            _, inputs = next(batches(pair.model, pair.dataset, pair.indices[:pair.settings.batch_size],
                                     pair.settings.batch_size, pair.device))
            return to_plain(dict(pair.model.certify(inputs)))
        except (KeyboardInterrupt, _TooLong):
            raise
        except BaseException as error:
            return {"error": describe_failure(pair.model_choice, error)["message"]}

    def _save_images(self, pair: Pair, cell: Cell) -> None:
        if self.folder is None or cell.result is None:
            return
        from .pictures import png_bytes

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
                print(f"warning: dataset {cell.dataset}: image {index} cannot be drawn ({describe(error)})",
                      file=sys.stderr)
                return
            self.folder.write_image(cell.dataset, index, png)

    def _info(self, status: str) -> dict[str, Any]:
        return {"status": status, "request": to_plain(self.request), "provenance": self.provenance,
                "pairs": self.pairs, "cells": [[c.model, c.dataset, c.property] for c in self.cells]}

    def _write(self, status: str) -> None:
        assert self.folder is not None
        self.folder.write_run(self._info(status))


def _stored_form(result: Any) -> PropertyResult:
    """``result`` through JSON and back: what is reported is what was stored. PluginProblem when it is no result."""
    if not isinstance(result, PropertyResult):
        raise PluginProblem(f"evaluate returned {type(result).__name__}, expected a PropertyResult")
    if not isinstance(result.measurements, list) or not all(isinstance(m, Measurement) for m in result.measurements):
        raise PluginProblem("evaluate returned a PropertyResult whose measurements are no list of Measurement")
    text = json.dumps(to_plain(result.to_json()), allow_nan=False)
    if len(text) > MAX_RESULT_BYTES:
        raise PluginProblem(f"the result takes {len(text) / 1e6:.0f} MB as JSON, above the limit of "
                            f"{MAX_RESULT_BYTES / 1e6:.0f} MB; report summaries, not arrays")
    stored = PropertyResult.from_json(json.loads(text))
    if not stored.measurements and not stored.tables:
        raise PluginProblem("evaluate returned a PropertyResult without a measurement or a table; raise CellProblem "
                            "with the reason where there is no number")
    return stored


def _rechecked(prop: Property, context: Any, result: PropertyResult, choice: Choice) -> PropertyResult:
    """``result`` with the residuals of an independent recomputation, as `verify` does it, where it has none yet.

    A recomputation that fails is said on stderr and costs no number: `verify` will report it.
    """
    if all(m.recheck is not None or m.value is None for m in result.measurements):
        return result
    try:
        found = dict(prop.verify(context, copy.deepcopy(result)))
        for number, m in enumerate(result.measurements):
            again = found.get(m.name)
            if again is None or m.value is None or m.recheck is not None:
                continue
            residual = 0.0 if float(again) == m.value else abs(float(again) - m.value)
            result.measurements[number] = replace(m, recheck=residual)
            if not residual <= SUSPICIOUS * abs(m.value):
                text = f"{m.name} is {m.value:.6g}, and {float(again):.6g} when it is computed again: model, images " \
                       "and property must be functions of their input alone"
                result.notes.append(text)
                print(f"warning: {choice.label}: {text}", file=sys.stderr)
    except (Exception, SystemExit) as error:
        reason = describe_failure(choice, error)
        print(f"warning: {reason['culprit']}: the recheck failed ({reason['message']})", file=sys.stderr)
    return result


def _models(registry: Registry, given: list[Any], checkpoint: str | Sequence[str] | None) -> list[Choice]:
    checkpoints = [] if checkpoint is None else [checkpoint] if isinstance(checkpoint, (str, Path)) else \
        list(checkpoint)
    if checkpoints and len(checkpoints) != len(given):
        raise UsageProblem(f"{len(checkpoints)} checkpoint(s) for {len(given)} model(s); give one per model, in order")
    choices = []
    for number, what in enumerate(given):
        overrides = {"checkpoint": str(checkpoints[number])} if checkpoints else None
        choices.append(choose(registry, "model", what, overrides))
    return choices


def _download(registry: Registry, dataset: Any, download: bool) -> dict[str, Any] | None:
    if not download or not isinstance(dataset, (str, Mapping)):
        return None
    choice = choose(registry, "dataset", dataset)
    return {"download": True} if choice.has_option("download") else None


def _refuse_duplicates(models: list[Choice], datasets: list[Choice]) -> None:
    for choices in (models, datasets):
        labels = [c.label for c in choices]
        for label in labels:
            if labels.count(label) > 1:
                raise UsageProblem(f"{choices[0].kind} {label} is given twice")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _warn_of(certificate: Mapping[str, Any], owner: str) -> None:
    """Say so when the blocks are not the model: numbers about them are then numbers about something else."""
    if "error" in certificate:
        text = f"could not be made: {certificate['error']}"
    elif certificate.get("bit_exact", True):
        return
    else:
        text = (f"chained blocks and readout differ from the model's own forward pass by up to "
                f"{certificate.get('max_abs_difference')}")
    print(f"warning: certificate of {owner}: {text}", file=sys.stderr)


def _cache_root(cache: str | Path | bool | None) -> Path | None:
    from .cache import usable_default_root

    if cache is False:
        return None
    return usable_default_root() if cache is None or cache is True else Path(cache)
