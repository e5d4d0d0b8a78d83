"""One (model, dataset) pair: built once, its readout, images and trajectory shared by all its properties."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .cache import TrajectoryCache, scratch_array
from .context import Context, no_progress
from .distributed import World, row_bounds
from .errors import CellProblem, DataProblem, PluginProblem, StabilityKitError, UsageProblem
from .failures import blaming, culprit_of
from .interfaces import Dataset, Model
from .plan import Choice
from .readout import HeadReadout, ProbeReadout, Readout, Space
from .results import PropertyResult, to_plain
from .trajectory import Trajectory, extract

# What autocast is asked for; float64 converts the network instead.
EXTRACT_DTYPES: dict[str, torch.dtype | None] = {
    "float32": None, "float64": None, "bfloat16": torch.bfloat16, "float16": torch.float16,
}


@dataclass(frozen=True)
class Settings:
    """How pairs are evaluated; the same for all cells of a run."""

    readout: str = "head"
    space: Space = "probabilities"
    seed: int = 0
    limit: int | None = None
    batch_size: int = 100
    extract_dtype: str = "float32"
    channels_last: bool = False
    probe_epochs: int = 10
    any_classes: bool = False

    def check(self) -> None:
        """UsageProblem for a value out of range."""
        if self.readout not in ("head", "probe"):
            raise UsageProblem(f"readout is head or probe; got {self.readout!r}")
        if self.space not in ("probabilities", "logits"):
            raise UsageProblem(f"space is probabilities or logits; got {self.space!r}")
        if self.extract_dtype not in EXTRACT_DTYPES:
            raise UsageProblem(f"extract dtype is one of {', '.join(EXTRACT_DTYPES)}; got {self.extract_dtype!r}")
        for name in ("batch_size", "probe_epochs"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise UsageProblem(f"{name.replace('_', ' ')} is a whole number >= 1; got {getattr(self, name)!r}")
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit < 2):
            raise UsageProblem(f"limit is a whole number >= 2; got {self.limit!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise UsageProblem(f"seed is a whole number in 0..2^63-1; got {self.seed!r}")


def choose_indices(count: int, limit: int | None, seed: int) -> np.ndarray:
    """All of 0..count-1, or a seeded random ``limit`` of them, ascending. Subsets of one seed are nested."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


class Pair:
    """A model and a dataset brought together. Heavy parts are made on first use."""

    def __init__(self, model: Choice, dataset: Choice, settings: Settings, device: torch.device,
                 cache: Path | None, probe_dataset: Choice | None = None,
                 progress: Callable[..., Iterator[Any]] = no_progress, world: World | None = None) -> None:
        self.world = world or World()
        self.model_choice, self.dataset_choice, self.probe_choice = model, dataset, probe_dataset
        self.settings, self.device, self.cache, self.progress = settings, device, cache, progress
        self._trajectory: Trajectory | None = None
        self._readout: Readout | None = None
        with blaming(dataset):
            self.dataset = self._build_dataset(dataset)
            self._labels = np.array(self.dataset.labels)
        with blaming(model):
            self.model = self._build_model()
            self.fingerprint = self.model.fingerprint()
            self._structure = structure(self.model)
            self._wants_gradient = [p.requires_grad for p in self.model.module.parameters()]
        self.indices = choose_indices(len(self.dataset), settings.limit, settings.seed)
        self.indices.flags.writeable = False
        self._irreparable = ""

    def parts(self, prop: Any, choice: Choice) -> list[tuple[Any, Choice]]:
        """Whose code runs in a cell of property ``prop``: objects with their choices."""
        return [(prop, choice), (self.dataset, self.dataset_choice), (self.model, self.model_choice)]

    def damage(self) -> str:
        """What a property changed in place although it is shared: text for a message, or nothing."""
        try:
            self.model.module.eval()  # modes are no damage: they are put back
            for parameter, wanted in zip(self.model.module.parameters(), self._wants_gradient):
                if parameter.requires_grad != wanted:
                    parameter.requires_grad_(wanted)
            if self.model.fingerprint() != self.fingerprint:
                return "the model (its weights or buffers changed)"
            if structure(self.model) != self._structure:
                return "the model (its modules or their hooks changed)"
        except (Exception, SystemExit) as error:
            return f"the model (it cannot be read any more: {type(error).__name__})"
        try:
            if not np.array_equal(self.dataset.labels, self._labels):
                return "the dataset (its labels changed)"
        except (Exception, SystemExit) as error:
            return f"the dataset (its labels cannot be read any more: {type(error).__name__})"
        return ""

    def repair(self, culprit: str) -> None:
        """Build model and dataset anew; where that does not bring them back, :meth:`require_intact` refuses."""
        try:
            self.dataset = self._build_dataset(self.dataset_choice)
            self.model = self._build_model()
            if isinstance(self._readout, HeadReadout):
                self._readout = HeadReadout(self.model)
            left = self.damage()
        except (Exception, SystemExit) as error:
            left = f"{type(error).__name__}: {error}"
        if left:
            self._irreparable = f"{culprit} modified what this cell needs, and building it anew did not help: {left}"

    def require_intact(self) -> None:
        """CellProblem when an earlier property spoiled the model or the dataset for good."""
        if self._irreparable:
            raise CellProblem(self._irreparable)

    def _build_dataset(self, choice: Choice) -> Dataset:
        made = choice.make()
        if not isinstance(made, Dataset):
            raise UsageProblem(f"dataset {choice.label} of {choice.plugin['distribution']} built a "
                               f"{type(made).__name__}, expected a stabilitykit.Dataset")
        made.check()
        return made

    def _build_model(self) -> Model:
        choice = self.model_choice
        extra: dict[str, Any] = {}
        classes = len(self.dataset.class_names)
        if (choice.has_option("num_classes") and choice.options.get("num_classes") is None
                and choice.options.get("checkpoint") is None):
            extra["num_classes"] = classes
        torch.manual_seed(self.settings.seed)
        made = choice.make(**extra)
        if not isinstance(made, Model):
            raise UsageProblem(f"model {choice.label} of {choice.plugin['distribution']} built a "
                               f"{type(made).__name__}, expected a stabilitykit.Model")
        check_sizes(made)
        for name, tensor in made.module.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise DataProblem(f"model {choice.label}: {name} holds NaN or infinite values")
        if made.num_classes != classes and self.settings.readout == "head" and not self.settings.any_classes:
            raise UsageProblem(f"model {choice.label} tells {made.num_classes} classes apart, dataset "
                               f"{self.dataset_choice.label} has {classes}; give a matching checkpoint or num_classes, "
                               "or --any-classes to use labels only for grouping images")
        if self.settings.extract_dtype == "float64":
            made.module.double()
        made.module.to(self.device).eval()
        return made

    @property
    def readout(self) -> Readout:
        if self._readout is None:
            self._readout = HeadReadout(self.model) if self.settings.readout == "head" else self._fit_probes()
        return self._readout

    def _fit_probes(self) -> ProbeReadout:
        from .probe import fit_probes

        if self.probe_choice is None:
            dataset, indices = self.dataset, self.indices
        else:
            dataset = self._build_dataset(self.probe_choice)
            indices = np.arange(len(dataset))
            if len(dataset.class_names) != len(self.dataset.class_names):
                raise UsageProblem(f"probe dataset {self.probe_choice.label} has {len(dataset.class_names)} classes, "
                                   f"{self.dataset_choice.label} has {len(self.dataset.class_names)}")
        return fit_probes(self.model, dataset, indices, num_classes=len(self.dataset.class_names),
                          epochs=self.settings.probe_epochs, batch_size=self.settings.batch_size,
                          seed=self.settings.seed, device=self.device, progress=self.progress)

    def record(self) -> dict[str, Any]:
        """Everything a result of this pair depends on, as plain data."""
        settings = self.settings
        probe = None
        if settings.readout == "probe":
            probe = {"dataset": self.probe_choice.label if self.probe_choice else self.dataset_choice.label,
                     "trained_on_evaluated_images": self.probe_choice is None, "epochs": settings.probe_epochs}
        return to_plain({
            "model": {"spec": self.model_choice.label, "fingerprint": self.fingerprint,
                      "preprocessing": dict(self.model.preprocessing), "num_blocks": self.model.num_blocks,
                      "state_shape": list(self.model.state_shape), "num_classes": self.model.num_classes,
                      "plugin": self.model_choice.plugin, "details": dict(self.model.describe())},
            "dataset": {"spec": self.dataset_choice.label, "fingerprint": self.dataset.fingerprint(),
                        "transforms": list(self.dataset.transforms), "size": len(self.dataset),
                        "class_names": [str(c) for c in self.dataset.class_names],
                        "plugin": self.dataset_choice.plugin, "details": dict(self.dataset.describe())},
            "n": len(self.indices), "limit": settings.limit, "seed": settings.seed, "readout": settings.readout,
            "probe": probe, "space": settings.space, "batch_size": settings.batch_size,
            "extract_dtype": settings.extract_dtype, "device": self.device.type,
            "threads": torch.get_num_threads(),
        })

    def trajectory(self) -> Trajectory:
        """Extracted or read from the cache, once."""
        if self._trajectory is None:
            self._trajectory = self._make_trajectory()
        return self._trajectory

    def _make_trajectory(self) -> Trajectory:
        model, readout, settings = self.model, self.readout, self.settings
        what = self.damage()
        if what:  # readouts of a changed model must not reach the others, let alone the cache
            raise PluginProblem(f"modified {what} before it asked for the trajectory")
        classes = model.num_classes if settings.readout == "head" else len(self.dataset.class_names)
        bounds = row_bounds(len(self.indices), settings.batch_size, self.world.size)
        mine = self.indices[bounds[self.world.rank]:bounds[self.world.rank + 1]]
        shape = (model.num_blocks + 1, len(mine), classes)
        key = self._cache_record(readout, mine)
        if settings.channels_last:
            model.module.to(memory_format=torch.channels_last)

        def fill(out: np.ndarray, start: int, on_batch: Callable[[int], None]) -> None:
            with _bar(self.progress, "trajectories", shape[1], start) as advance:
                def tick(rows: int) -> None:
                    advance(rows)
                    on_batch(rows)

                try:
                    extract(model, readout, self.dataset, mine, out, batch_size=settings.batch_size,
                            device=self.device, dtype=EXTRACT_DTYPES[settings.extract_dtype], start=start,
                            channels_last=settings.channels_last, on_batch=tick)
                except BaseException as error:  # bad images are the dataset's fault, the rest the model's
                    culprit = self.dataset_choice if isinstance(error, DataProblem) else \
                        culprit_of(error, self.model_choice, self.parts(None, self.model_choice))
                    with blaming(culprit):
                        raise

        logits, info = np.empty(shape, model.readout_dtype), {"key": ""}
        trouble: StabilityKitError | None = None
        try:
            if len(mine) and self.cache is None:
                logits = scratch_array(shape, model.readout_dtype)
                fill(logits, 0, lambda rows: None)
            elif len(mine) and self.cache is not None:
                logits, info = TrajectoryCache(self.cache).get(key, shape, fill, model.readout_dtype)
        except StabilityKitError as error:
            trouble = error
        # Every rank hears of one rank's trouble; waiting for its rows would hang the others.
        troubles = [t for t in self.world.all_gather(trouble) if t is not None]
        if troubles:
            raise troubles[0]
        if self.world.size > 1:
            whole = scratch_array((shape[0], len(self.indices), classes), model.readout_dtype)
            whole[:, bounds[self.world.rank]:bounds[self.world.rank + 1]] = logits
            self.world.share_rows(whole, bounds, self.device)
            logits = whole
        record = {"cache_key": info["key"], "shape": list(logits.shape), "batch_size": settings.batch_size,
                  "extract_dtype": settings.extract_dtype, "device": self.device.type}
        labels = np.asarray(self.dataset.labels)[self.indices].astype(np.int64)
        for array in (logits, labels):
            array.flags.writeable = False
        names = [str(c) for c in self.dataset.class_names]
        return Trajectory(logits, labels, self.indices, settings.space, names, record)

    def _cache_record(self, readout: Readout, indices: np.ndarray) -> dict[str, Any]:
        import hashlib
        import inspect

        from . import readout as readout_module
        from . import trajectory as trajectory_module

        code = hashlib.sha256()
        for thing in (trajectory_module, readout_module, type(self.model)):
            try:
                code.update(Path(inspect.getsourcefile(thing) or "").read_bytes())
            except (OSError, TypeError):
                code.update(repr(thing).encode())  # defined interactively: no source to key on
        return {"what": "logits", "model": self.fingerprint, "dataset": self.dataset.fingerprint(),
                "indices": hashlib.sha256(indices.astype(np.int64).tobytes()).hexdigest(),
                "preprocessing": to_plain(dict(self.model.preprocessing)), "readout": readout.fingerprint(),
                "batch_size": self.settings.batch_size, "dtype": self.settings.extract_dtype,
                "channels_last": self.settings.channels_last, "device": self.device.type,
                "threads": torch.get_num_threads(), "torch": torch.__version__,
                "plugin": self.model_choice.plugin, "code": code.hexdigest()}

    def context(self, choice: Choice, results: Mapping[str, PropertyResult]) -> Context:
        """What one property is given."""
        return Context(self.model, self.dataset, self.indices, self.readout, self.settings.space, self.device,
                       self.settings.batch_size, self.settings.seed, dict(choice.options), dict(results),
                       self.progress, self.trajectory, self.world, EXTRACT_DTYPES[self.settings.extract_dtype],
                       self.settings.channels_last)

    def close(self) -> None:
        """Free what only this pair used."""
        self._trajectory = None


def check_sizes(model: Model) -> None:
    """PluginProblem unless T, K and the state's shape are whole numbers that can be."""
    for what, value, least in (("num_blocks", model.num_blocks, 0), ("num_classes", model.num_classes, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise PluginProblem(f"model {model.name}: {what} is {value!r}, expected a whole number >= {least}")
    shape = model.state_shape
    if not isinstance(shape, (tuple, list)) or not all(isinstance(side, (int, np.integer)) for side in shape):
        raise PluginProblem(f"model {model.name}: state_shape is {shape!r}, expected a tuple of whole numbers")


def structure(model: Model) -> str:
    """What a fingerprint of weights does not see: which modules there are, their hooks, and methods put in place."""
    hooks = [(name, [len(getattr(part, kind)) for kind in
                     ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")], _replaced(part, ("forward",)))
             for name, part in model.module.named_modules()]
    methods = _replaced(model, ("preprocess", "initial_state", "block", "readout", "logits"))
    return f"{model.module!r} {hooks} {methods} {model.num_blocks} {model.num_classes}"


def _replaced(thing: Any, names: tuple[str, ...]) -> list[str]:
    """Methods of ``thing`` that its own dictionary hides, and by what."""
    found = [(name, vars(thing)[name]) for name in names if name in vars(thing)]
    return [f"{name}={getattr(what, '__module__', '')}.{getattr(what, '__qualname__', what)}" for name, what in found]


class _bar:
    """A progress display driven by absolute positions, on top of an iterator-style reporter."""

    def __init__(self, progress: Callable[..., Iterator[Any]], text: str, total: int, start: int) -> None:
        self.iterator = progress(range(start, total), text, total - start)
        self.position = start

    def __enter__(self) -> Callable[[int], None]:
        return self._advance

    def _advance(self, rows: int) -> None:
        while self.position < rows:
            next(self.iterator, None)
            self.position += 1

    def __exit__(self, *error: object) -> None:
        for _ in self.iterator if error[0] is None else ():
            pass
