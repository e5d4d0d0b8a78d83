"""Recompute every witness of a finished run in float64, from model and data, and say which numbers stand."""

from __future__ import annotations

import builtins
import contextlib
import copy
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .context import no_progress
from .device import choose_device, make_deterministic
from .errors import StabilityKitError, UsageProblem
from .pair import Pair, Settings
from .plan import choose, choose_recorded
from .registry import Registry
from .results import to_plain
from .shield import shielded
from .store import Cell, load_run

# A recomputation on the machine and batch size of the run is bit-equal; other hardware moves logits by about 1e-6.
RELATIVE_TOLERANCE = 1e-9
ABSOLUTE_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Verdict:
    """Whether one number stands.

    ``status``: ``"stands"``, ``"fails"`` (recomputed value differs, or model or data changed), ``"no witness"``
    (nothing to recompute: the property offers no recomputation for it), ``"failed cell"``.
    """

    model: str
    dataset: str
    property: str
    measurement: str
    status: str
    reported: float | None = None
    recomputed: float | None = None
    message: str = ""

    @builtins.property  # `property` is a field here
    def difference(self) -> float | None:
        if self.reported is None or self.recomputed is None:
            return None
        return 0.0 if self.reported == self.recomputed else abs(self.reported - self.recomputed)


def verify(
    run: str | Path, *, device: str = "auto", relative: float = RELATIVE_TOLERANCE,
    absolute: float = ABSOLUTE_TOLERANCE, checkpoint: Mapping[str, str] | None = None,
    registry: Registry | None = None, progress: Callable[..., Iterator[Any]] = no_progress, trust: bool = False,
) -> list[Verdict]:
    """Verdicts on all measurements of the run folder ``run``.

    Weights and images are compared with the fingerprints of the run first: a changed weight or pixel turns every
    number of its cells red, even where the value happens to survive.

    Args:
        trust: build also models that run code named in the run, or download (see :func:`choose_recorded`).

    Raises:
        UsageProblem: ``run`` is no run folder, or its models or data cannot be built any more.
    """
    info, cells = load_run(run)
    registry = registry or Registry.load()
    request = info.get("request")
    if not isinstance(request, Mapping):
        raise UsageProblem(f"{run}: run.json holds no request; it cannot be verified")
    target = choose_device(device if device != "auto" else str(request.get("device", "auto")))
    try:
        settings = Settings(**{k: request[k] for k in Settings.__dataclass_fields__ if k in request})
        settings.check()
    except TypeError as error:
        raise UsageProblem(f"{run}: the request in run.json is damaged ({error})") from None
    make_deterministic(settings.seed)
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.dataset), []).append(cell)
    verdicts: list[Verdict] = []
    for (model, dataset), members in groups.items():
        verdicts += _verify_pair(registry, model, dataset, members, settings, target, request, relative, absolute,
                                 checkpoint or {}, progress, trust)
    return verdicts


def _verify_pair(
    registry: Registry, model: str, dataset: str, cells: list[Cell], settings: Settings, device: Any,
    request: Mapping[str, Any], relative: float, absolute: float, checkpoint: Mapping[str, str],
    progress: Callable[..., Iterator[Any]], trust: bool,
) -> list[Verdict]:
    alive = [c for c in cells if c.ok]
    verdicts = [_verdict(c, "", "failed cell", message=c.error.get("message", "")) for c in cells if not c.ok]
    if not alive:
        return verdicts
    try:
        with contextlib.redirect_stdout(sys.stderr):
            overrides = {"checkpoint": checkpoint[model]} if model in checkpoint else None
            probe = request.get("probe_dataset")
            pair = Pair(choose_recorded(registry, "model", model, overrides, trust=trust),
                        choose_recorded(registry, "dataset", dataset, trust=trust), settings, device, None,
                        choose_recorded(registry, "dataset", probe, trust=trust) if probe else None, progress)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's code: whatever it raises, the other pairs are verified
        return verdicts + [_verdict(c, m.name, "fails", m.value, None, f"cannot be rebuilt: {_reason(error)}")
                           for c in alive for m in c.result.measurements]  # type: ignore[union-attr]
    try:
        changed = _changed(pair, alive[0])
        results = {str(_part(c, "property").get("name")): c.result for c in reversed(alive)}
        for cell in alive:
            verdicts += _verify_cell(registry, pair, cell, results, changed, relative, absolute)
    finally:
        pair.close()
    return verdicts


def _changed(pair: Pair, cell: Cell) -> str:
    """What differs between the run's record and the model and data of today; empty when nothing does."""
    parts = []
    if pair.fingerprint != _part(cell, "model").get("fingerprint"):
        parts.append("the model's weights or preprocessing changed")
    if pair.dataset.fingerprint() != _part(cell, "dataset").get("fingerprint"):
        parts.append("the dataset's images or labels changed")
    return " and ".join(parts)


def _verify_cell(registry: Registry, pair: Pair, cell: Cell, results: Mapping[str, Any], changed: str,
                 relative: float, absolute: float) -> list[Verdict]:
    assert cell.result is not None
    recomputed: dict[str, float | None] = {}
    trouble = ""
    try:
        with shielded(pair.settings.seed):
            pair.require_intact()
            choice = choose(registry, "property", cell.property)
            needed = {name: copy.deepcopy(results[name]) for name in (*choice.needs, *choice.wants)
                      if name in results}
            found = choice.make().verify(pair.context(choice, needed), copy.deepcopy(cell.result))
            recomputed = {str(k): None if v is None else float(v) for k, v in to_plain(dict(found)).items()}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        trouble = f"the recomputation raised {_reason(error)}"
    damage = pair.damage()
    if damage:
        trouble = f"the recomputation modified {damage}"
        pair.repair(f"the verification of {cell.property}")
    verdicts = []
    for m in cell.result.measurements:
        value = recomputed.get(m.name)
        if changed:
            verdicts.append(_verdict(cell, m.name, "fails", m.value, value, changed))
        elif trouble:
            verdicts.append(_verdict(cell, m.name, "fails", m.value, None, trouble))
        elif value is None or m.value is None:
            verdicts.append(_verdict(cell, m.name, "no witness", m.value, value,
                                     "nothing to recompute for this measurement"))
        elif value == m.value or math.isclose(value, m.value, rel_tol=relative, abs_tol=absolute):
            verdicts.append(_verdict(cell, m.name, "stands", m.value, value))
        else:
            verdicts.append(_verdict(cell, m.name, "fails", m.value, value, "the witness gives another value"))
    return verdicts


def _part(cell: Cell, name: str) -> Mapping[str, Any]:
    found = cell.record.get(name)
    return found if isinstance(found, Mapping) else {}


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return text if isinstance(error, StabilityKitError) else f"{type(error).__name__}: {text}"


def _verdict(cell: Cell, measurement: str, status: str, reported: float | None = None,
             recomputed: float | None = None, message: str = "") -> Verdict:
    return Verdict(cell.model, cell.dataset, cell.property, measurement, status, reported, recomputed, message)
