"""One model on one dataset: built once, its readout, images and trajectory shared by all its properties."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stabilitykit.base.errors import CellProblem, DataProblem, PluginProblem, UsageProblem
from stabilitykit.base.progress import no_progress
from stabilitykit.base.results import PropertyResult, to_plain
from stabilitykit.base.watch import watch
from stabilitykit.dynamics.classes import datasets_differ
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.dynamics.readout import HeadReadout, Readout
from stabilitykit.dynamics.trajectory import Forward, Trajectory
from stabilitykit.evaluation.blame import blaming, culprit_of
from stabilitykit.evaluation.building import build_dataset, build_model
from stabilitykit.evaluation.context import Context
from stabilitykit.evaluation.selection import Choice
from stabilitykit.evaluation.settings import Settings, choose_indices
from stabilitykit.evaluation.snapshot import Snapshot
from stabilitykit.evaluation.trajectories import Request, extracted, proof_of
from stabilitykit.machine.distributed import World

# Keys of a certificate that are not the model's (see :mod:`stabilitykit.evaluation.chain_check`).
ADDED_BY_THE_CORE = ("core", "reasons", "error")


class Subject:
    """A model and a dataset brought together. Heavy parts are made on first use."""

    def __init__(
        self,
        model: Choice,
        dataset: Choice,
        settings: Settings,
        device: torch.device,
        cache: Path | None,
        probe_dataset: Choice | None = None,
        progress: Callable[..., Iterator[Any]] = no_progress,
        world: World | None = None,
    ) -> None:
        self.world = world or World()
        self.model_choice, self.dataset_choice, self.probe_choice = model, dataset, probe_dataset
        self.settings, self.device, self.cache, self.progress = settings, device, cache, progress
        self.certificate: Mapping[str, Any] = {}
        self._trajectory: Trajectory | None = None
        self._readout: Readout | None = None
        self._forward: Forward | None = None
        with blaming(dataset):
            self.dataset = build_dataset(dataset, settings.class_names)
            watch().introduce(self.dataset, dataset.culprit)
            labels = np.array(self.dataset.labels)
        self.probe_dataset: Dataset | None = None
        if probe_dataset is not None and settings.extraction.trained:
            with blaming(probe_dataset):
                self.probe_dataset = self._build_probe_dataset(probe_dataset)
        with blaming(model):
            self.model = self._build_model()
            _require_head(self.model, settings.extraction.readout)
            self._snapshot = Snapshot(self.model, labels)
        self.fingerprint = self._snapshot.fingerprint
        self.indices = choose_indices(len(self.dataset), settings.limit, settings.seed)
        self.indices.flags.writeable = False
        self._irreparable = ""
        self._computes: str | None = None

    def parts(self, prop: Any, choice: Choice) -> list[tuple[Any, Choice]]:
        """Whose code runs in a cell of property ``prop``: objects with their choices."""
        return [(prop, choice), (self.dataset, self.dataset_choice), (self.model, self.model_choice)]

    def what_changed(self) -> str:
        """What a property changed in place although it is shared: text for a message, or nothing.

        Damage that could not be repaired is no later property's doing: :meth:`require_intact` says whose it is.
        """
        return "" if self._irreparable else self._snapshot.what_changed(self.model, self.dataset)

    def answers_to(self, recorded: object) -> bool:
        """Whether ``recorded`` is the model's fingerprint, in the form of today or of a run made before."""
        return recorded == self.fingerprint or recorded in self.model.former_fingerprints()

    def repair(self, culprit: str) -> None:
        """Build model and dataset anew; where that does not bring them back, :meth:`require_intact` refuses."""
        try:
            self.dataset = build_dataset(self.dataset_choice, self.settings.class_names)
            self.model = self._build_model()
            self._forward, self._computes = None, None
            self._readout = self._readout and self._readout.bound_to(self.model)
            left = self.what_changed()
        except (Exception, SystemExit) as error:
            left = f"{type(error).__name__}: {error}"
        if left:
            self._irreparable = f"{culprit} modified what this cell needs, and building it anew did not help: {left}"

    def require_intact(self) -> None:
        """CellProblem when an earlier property spoiled the model or the dataset for good."""
        if self._irreparable:
            raise CellProblem(self._irreparable)

    def _build_model(self) -> Model:
        return build_model(self.model_choice, self.dataset, self.dataset_choice, self.settings, self.device)

    @property
    def readout(self) -> Readout:
        if self._readout is None:
            self._readout = self._trained() if self.settings.extraction.trained else HeadReadout(self.model)
        return self._readout

    @property
    def forward(self) -> Forward | None:
        """The compiled forward pass along depth under ``compile``, else None."""
        if self._forward is None and self.settings.extraction.compile:
            from stabilitykit.dynamics.compiled import CompiledForward

            self._forward = CompiledForward(self.model, self.readout, self.settings.extraction.batch_size)
        return self._forward

    def share(self, *, readout: Readout | None = None, forward: Forward | None = None) -> None:
        """Use the readout or the compiled forward pass of another subject with the same model."""
        self._readout, self._forward = readout or self._readout, forward or self._forward

    def _build_probe_dataset(self, choice: Choice) -> Dataset:
        """The images readouts are trained on; UsageProblem when their classes are not those of the dataset."""
        made = build_dataset(choice, self.settings.class_names)
        problem = datasets_differ(self.dataset, made)
        numbers_fit = len(made.class_names) == len(self.dataset.class_names)
        if problem and not (numbers_fit and self.settings.any_classes):
            advice = "; --any-classes goes on by number" if numbers_fit else ""
            raise UsageProblem(f"probe dataset {choice.label}: {problem}{advice}")
        return made

    @property
    def in_sample(self) -> bool:
        """Whether readouts are trained on the images they are evaluated on."""
        other = self.probe_dataset
        return other is None or other.fingerprint() == self.dataset.fingerprint()

    def _trained(self) -> Readout:
        from stabilitykit.evaluation.fitting import fitted

        other = self.probe_dataset
        dataset, indices = (self.dataset, self.indices) if other is None else (other, np.arange(len(other)))
        try:
            return fitted(
                self.model,
                dataset,
                indices,
                self.settings,
                num_classes=len(self.dataset.class_names),
                held_out=self.in_sample,
                device=self.device,
                folder=self.cache,
                progress=self.progress,
            )
        except BaseException as error:
            source = self.probe_choice or self.dataset_choice
            parts = [(dataset, source), (self.model, self.model_choice)]
            with blaming(source if isinstance(error, DataProblem) else culprit_of(error, self.model_choice, parts)):
                raise

    def record(self) -> dict[str, Any]:
        """Everything a result of this subject depends on, as plain data."""
        settings = self.settings
        probe = None
        if settings.extraction.trained:
            probe = {
                "dataset": self.probe_choice.label if self.probe_choice else self.dataset_choice.label,
                "trained_on_evaluated_images": self.in_sample,
                **({"epochs": settings.probe_epochs} if settings.probe_steps is None else {}),
                **({"steps": settings.probe_steps} if settings.probe_steps is not None else {}),
            }
        record: dict[str, Any] = to_plain(
            {
                "model": {
                    "spec": self.model_choice.label,
                    "fingerprint": self.fingerprint,
                    "preprocessing": dict(self.model.preprocessing),
                    "num_blocks": self.model.num_blocks,
                    "state_shape": list(self.model.state_shape),
                    "num_classes": self.model.num_classes,
                    "plugin": self.model_choice.plugin,
                    "details": dict(self.model.describe()),
                },
                "dataset": {
                    "spec": self.dataset_choice.label,
                    "fingerprint": self.dataset.fingerprint(),
                    "transforms": list(self.dataset.transforms),
                    "size": len(self.dataset),
                    "class_names": [str(c) for c in self.dataset.class_names],
                    "warnings": list(self.dataset.warnings),
                    "plugin": self.dataset_choice.plugin,
                    "details": dict(self.dataset.describe()),
                },
                "n": len(self.indices),
                "limit": settings.limit,
                "seed": settings.seed,
                "probe": probe,
                **settings.extraction.record(),
                "device": self.device.type,
                "threads": torch.get_num_threads(),
            }
        )
        return record

    def trajectory(self) -> Trajectory:
        """Extracted or read from the cache, once.

        Raises:
            PluginProblem: a property changed the model or the dataset before it asked.
        """
        if self._trajectory is None:
            what = self.what_changed()
            if what:  # readouts of a changed model must not reach the others, let alone the cache
                raise PluginProblem(f"modified {what} before it asked for the trajectory")
            self._trajectory = extracted(self._request())
        return self._trajectory

    def _request(self) -> Request:
        return Request(
            self.model,
            self.dataset,
            self.indices,
            self.readout,
            self.settings.extraction,
            self.forward,
            self.fingerprint,
            self.device,
            self.cache,
            self.world,
            self.progress,
            self.model_choice,
            self.dataset_choice,
        )

    def computes(self) -> str:
        """Hex digest of what the network computes on the first and the last batch of images.

        Read off the trajectory where there is one already, else computed: two batches. Empty where the network has
        no finite readouts.
        """
        if self._computes is None:
            try:
                proof = proof_of(self._request(), self.indices)
                self._computes = proof.digest(None if self._trajectory is None else self._trajectory.logits)
            except CellProblem:
                self._computes = ""
        return self._computes

    @property
    def known_trajectory(self) -> Trajectory | None:
        """The trajectory if a property has asked for it."""
        return self._trajectory

    def context(self, choice: Choice, results: Mapping[str, PropertyResult]) -> Context:
        """What one property is given; of ``results`` (by property name) those it needs or wants, as copies.

        A property that writes into what it needs must not change what another one measured.
        """
        needed = {name: copy.deepcopy(results[name]) for name in (*choice.needs, *choice.wants) if name in results}
        return Context(
            self.model,
            self.dataset,
            self.indices,
            self.readout,
            self.settings.extraction,
            self.device,
            self.settings.seed,
            dict(choice.options),
            needed,
            self.progress,
            self.trajectory,
            self.world,
            lambda: self.forward,
            certificate=said_by_the_model(self.certificate),
        )

    def close(self) -> None:
        """Free what only this subject used."""
        self._trajectory = None


def said_by_the_model(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """``certificate`` without what the core adds to it: a copy of what ``Model.certify`` gave, as plain data."""
    return copy.deepcopy({key: value for key, value in certificate.items() if key not in ADDED_BY_THE_CORE})


def _require_head(model: Model, readout: str) -> None:
    """UsageProblem where the readout ``head`` is asked for and the model has none at inner depths."""
    if readout == "head" and model.without_head:
        raise UsageProblem(
            f"model {model.name} has no readout `head` at inner depths: {model.without_head}; choose --readout lens "
            "(a trained translator of the state, then the rest of the network) or --readout probe (a linear classifier "
            "per depth)"
        )
