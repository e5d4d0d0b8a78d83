"""Evaluate models x datasets x properties: every cell on its own, failures isolated, finished cells safe on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stabilitykit.base.decisions import Decisions
from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.progress import no_progress
from stabilitykit.base.results import PropertyResult
from stabilitykit.base.watch import watch
from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.evaluation.announcing import Announcing
from stabilitykit.evaluation.job import Job
from stabilitykit.evaluation.selection import Choice, choose, order_properties
from stabilitykit.evaluation.settings import Settings
from stabilitykit.machine.determinism import make_deterministic
from stabilitykit.machine.device import check_torch_pair, choose_device
from stabilitykit.machine.distributed import join_world
from stabilitykit.plugins.listening import Event
from stabilitykit.plugins.registry import Registry
from stabilitykit.runs.folder import Cell, RunFolder, load_run, measurement_rows
from stabilitykit.runs.recorder import FolderRecorder, KeepingRecorder, Recorder
from stabilitykit.search.device.where import searchable, searching_on

if TYPE_CHECKING:
    import pandas

DEFAULT_PROPERTIES = ("expansivity",)


@dataclass
class Run:
    """The outcome of :func:`evaluate`.

    Attributes:
        cells: one per (model, dataset, property), in the order they were run.
        folder: where they were written, or None.
        info: run.json's content (request, provenance, pairs).
        decisions: what each network decided about every image, by (model, dataset).
        pictures: PNG files of images that are witnesses or mistakes, by (dataset, index), of a run without a folder.
    """

    cells: list[Cell]
    folder: Path | None
    info: dict[str, Any] = field(default_factory=dict)
    decisions: dict[tuple[str, str], Decisions] = field(default_factory=dict)
    pictures: dict[tuple[str, int], bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        """A run folder, as it was written.

        Raises:
            UsageProblem: it is no run folder, or damaged.
        """
        info, cells = load_run(folder)
        return cls(cells, Path(folder), info, RunFolder(Path(folder)).read_decisions())

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
        """One row per measurement (see ``stabilitykit.runs.folder.CSV_COLUMNS``)."""
        import pandas

        return pandas.DataFrame(measurement_rows(self.cells))

    def images(self, model: str | None = None, dataset: str | None = None) -> pandas.DataFrame:
        """One row per evaluated image (the columns of ``images.csv``), of all models and datasets or of one.

        Arguments:
            model, dataset: labels as in ``info["request"]``; None: all.

        Raises:
            UsageProblem: the run has no rows for them.
        """
        from stabilitykit.runs.rows import images_frame

        return images_frame(self.decisions, self.cells, model, dataset)

    def save(self, path: str | Path) -> Path:
        """Write a run that has no folder yet into the new folder ``path``, as ``output=`` would have.

        Raises:
            UsageProblem: it has a folder, or ``path`` is not empty.
        """
        if self.folder is not None:
            raise UsageProblem(f"this run is in {self.folder} already; copy that folder")
        with FolderRecorder(Path(path), resume=False) as records:
            for decided in self.decisions.values():
                records.decide(decided)
            for cell in self.cells:
                records.finish(cell, self.info)
            for (dataset, index), png in self.pictures.items():
                records.image(dataset, index, png)
            records.close(
                str(self.info.get("status", "complete")), {k: v for k, v in self.info.items() if k != "cells"}
            )
        self.folder = records.path
        return Path(path)


def evaluate(
    model: Any,
    dataset: Any,
    properties: Any = DEFAULT_PROPERTIES,
    *,
    checkpoint: str | Sequence[str] | None = None,
    readout: str = "head",
    space: str = "probabilities",
    device: str = "auto",
    seed: int = 0,
    limit: int | None = None,
    batch_size: int = 100,
    extract_dtype: str = "float32",
    channels_last: bool = False,
    probe_dataset: Any = None,
    probe_epochs: int = 10,
    probe_steps: int | None = None,
    any_classes: bool = False,
    uncertified: bool = False,
    class_names: Sequence[str] | None = None,
    download: bool = False,
    output: str | Path | None = None,
    resume: bool = False,
    cache: str | Path | bool | None = None,
    strict_plugins: bool = False,
    cell_timeout: float | None = None,
    compile: bool = False,
    registry: Registry | None = None,
    progress: Callable[..., Iterator[Any]] = no_progress,
    on_cell: Callable[[Cell], None] | None = None,
    recorder: Callable[[], Recorder] | None = None,
) -> Run:
    """Measure properties of models on datasets; several of each give a matrix of cells.

    Arguments:
        model: a spec (``"resnet18:stem=patch"``), a :class:`Model` object, an ``nn.Module`` or whatever else a plugin
            adapts, or a list of those.
        dataset: a spec, a :class:`Dataset` object, (images, labels) as arrays, a torch Dataset or DataLoader, or a list
            of those. Images given in Python are the network's input as they are.
        properties: a spec, a :class:`Property` object, or a list of those.
        checkpoint: weights for the model (one per model, in order, if several).
        readout: ``"head"`` (the model's own classifier at every depth), ``"lens"`` (the same behind a trained
            translator of the state) or ``"probe"`` (one trained linear map per depth).
        space: where distances are taken, ``"probabilities"`` or ``"logits"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        seed: of the subset, the training of readouts, and whatever a property draws.
        limit: evaluate a seeded random subset of that many images.
        batch_size: images run together; fixed for the run, since it moves logits by about 1e-6.
        extract_dtype: precision of the network during extraction: ``"float32"``, ``"float64"``, ``"bfloat16"``,
            ``"float16"``.
        channels_last: run convolutions in NHWC layout.
        probe_dataset: what probes or a lens are trained on; None: the evaluated images.
        probe_epochs: passes over it.
        probe_steps: batches of it to train on (a step of Adam each), in place of passes.
        any_classes: accept a dataset whose classes are not the model's.
        uncertified: measure models whose certificate fails (their blocks are not the network, randomness, a course that
            depends on the data or the batch), and mark every number; else their cells fail with that reason.
        class_names: K names in place of those the datasets bring, in the order of their labels.
        download: let datasets and models be fetched.
        output: run folder to write; None writes nothing.
        resume: finish an earlier run in ``output``.
        cache: folder for trajectories; None: the user's cache folder; False: none.
        strict_plugins: raise when any plugin fails to load.
        compile: extract with torch.compile (needs a C++ compiler on CPUs); the effect on every number is measured.
        cell_timeout: seconds after which a cell fails, where the process is supervised (the command line); None: never.
        registry: components to choose from; None: all installed plugins'.
        progress: ``progress(iterable, description, total)`` wraps long loops.
        on_cell: called with every finished cell.
        recorder: makes what takes the finished cells, in place of ``output``; called when all input is checked.

    Returns:
        a :class:`Run`. A property that fails makes its cell fail, the others go on.

    Raises:
        UsageProblem: bad names, options, files, device or output folder; nothing has been written then.
        PluginProblem: a broken plugin under ``strict_plugins``, or a name two plugins claim.
    """
    extraction = Extraction(readout, space, batch_size, extract_dtype, channels_last, compile)  # type: ignore[arg-type]
    names = None if class_names is None else class_names if isinstance(class_names, str) else list(class_names)
    settings = Settings(extraction, seed, limit, probe_epochs, probe_steps, any_classes, uncertified, names)
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
    request = {
        "models": [m.label for m in models],
        "datasets": [d.label for d in datasets],
        "properties": [p.label for p in chosen],
        "probe_dataset": probe.label if probe else None,
        "device": target.type,
        **settings.request(),
    }
    objects = [c.label for c in (*models, *datasets, *chosen, *([probe] if probe else [])) if c.as_object]
    if objects:
        request["objects"] = objects
    if not world.leads or (recorder is None and output is None):
        recorder = KeepingRecorder
    with FolderRecorder(Path(output or ""), resume) if recorder is None else recorder() as records:
        told = registry.host.listeners if world.leads and not records.announces else []
        announcing = Announcing(told) if told else None
        job = Job(
            registry,
            models,
            datasets,
            ordered,
            probe,
            settings,
            target,
            _cache_root(cache),
            request,
            records,
            progress if world.leads else no_progress,
            on_cell if world.leads else None,
            world,
            cell_timeout,
            watch().lost,
            announcing,
        )
        with searching_on(searchable(target.type, target.index)):
            job.run()
    if announcing is not None:
        announcing.tell(Event.of_run([cell.to_json() for cell in records.cells], records.content(), records.path))
    return Run(records.cells, records.path, records.content(), records.decisions, records.pictures)


def _models(registry: Registry, given: list[Any], checkpoint: str | Sequence[str] | None) -> list[Choice]:
    checkpoints = (
        [] if checkpoint is None else [checkpoint] if isinstance(checkpoint, (str, Path)) else list(checkpoint)
    )
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
    """Several things, or one; (images, labels) as arrays are one dataset."""
    if isinstance(value, tuple) and len(value) == 2 and all(hasattr(part, "shape") for part in value):
        return [value]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _cache_root(cache: str | Path | bool | None) -> Path | None:
    from stabilitykit.evaluation.cache import checked_root, usable_default_root

    if cache is False:
        return None
    root = usable_default_root() if cache is None or cache is True else Path(cache)
    return None if root is None else checked_root(root)
