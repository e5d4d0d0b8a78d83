"""The models and datasets of a finished run, built again as its run.json asks for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.progress import no_progress
from stabilitykit.evaluation.selection import choose_recorded
from stabilitykit.evaluation.settings import Settings
from stabilitykit.evaluation.subject import Subject
from stabilitykit.machine.determinism import make_deterministic
from stabilitykit.machine.device import choose_device
from stabilitykit.plugins.registry import Registry


@dataclass(frozen=True)
class RecordedRequest:
    """What a run was asked for.

    Attributes:
        settings: checked.
        device: where to run it now.
        probe: label of the dataset its probes were trained on, or None.
        schema: of run.json: what options meant that were left out.
    """

    settings: Settings
    device: torch.device
    probe: str | None
    schema: int

    @classmethod
    def read(cls, run: str | Path, info: Mapping[str, Any], device: str = "auto") -> RecordedRequest:
        """The request in ``info``, the run.json of the folder ``run``; ``device`` "auto": that of the run.

        Raises:
            UsageProblem: there is none, it is damaged, or its device is not on this machine.
        """
        request = info.get("request")
        if not isinstance(request, Mapping):
            raise UsageProblem(f"{run}: run.json holds no request; its models and data cannot be built again")
        try:
            settings = Settings.from_request(request)
            settings.check()
        except TypeError as error:
            raise UsageProblem(f"{run}: the request in run.json is damaged ({error})") from None
        probe = request.get("probe_dataset")
        target = choose_device(device if device != "auto" else str(request.get("device", "auto")))
        return cls(settings, target, str(probe) if probe else None, int(info["schema"]))

    def build(
        self,
        registry: Registry,
        model: str,
        dataset: str,
        *,
        model_options: Mapping[str, Any] | None = None,
        dataset_options: Mapping[str, Any] | None = None,
        cache: Path | None = None,
        progress: Callable[..., Iterator[Any]] = no_progress,
        trust: bool = False,
    ) -> Subject:
        """One (model, dataset) of the run, by labels; options given here replace those of the labels.

        Raises:
            UsageProblem: a label asks to run code or to download, and ``trust`` is False.
            BaseException: whatever the plugins raise.
        """
        make_deterministic(self.settings.seed)
        recorded = partial(choose_recorded, registry, schema=self.schema, trust=trust)
        with contextlib.redirect_stdout(sys.stderr):
            return Subject(
                recorded("model", model, model_options),
                recorded("dataset", dataset, dataset_options),
                self.settings,
                self.device,
                cache,
                recorded("dataset", self.probe) if self.probe else None,
                progress,
            )
