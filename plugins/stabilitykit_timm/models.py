"""The model components ``timm``, ``torchvision``, ``hf-hub`` and ``module``: a network by name, one run of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stabilitykit import CellProblem, UsageProblem
from stabilitykit_timm.adapter import AdaptedModel
from stabilitykit_timm.discovery import discover
from stabilitykit_timm.loading import input_shape_of, skeleton
from stabilitykit_timm.preprocess import Preprocess, plain_preprocess, timm_preprocess, torchvision_preprocess
from stabilitykit_timm.runs import Discovery, Run
from stabilitykit_timm.tracing import TraceProblem
from stabilitykit_timm.weights import classes_in, load


def timm_model(name: str, **options: Any) -> AdaptedModel:
    """A timm network, with timm's own preprocessing. Options as listed in the plugin's schema."""
    return build(f"timm:{name}", **options)


def hf_hub_model(name: str, **options: Any) -> AdaptedModel:
    """A timm network from the Hugging Face hub, fetched only with ``download``."""
    return build(f"hf-hub:{name}", **options)


def torchvision_model(name: str, **options: Any) -> AdaptedModel:
    """A torchvision classifier, with torchvision's preprocessing."""
    return build(f"torchvision:{name}", **options)


def module_model(
    builder: str, *, input: Sequence[int] | None = None, normalise: str = "none", resize: bool = False, **options: Any
) -> AdaptedModel:
    """A network made by the user's own code (imports and runs it)."""
    return build(f"module:{builder}", input=input, normalise=normalise, resize=resize, **options)


def build(
    spec: str,
    *,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    run: str = "longest",
    mode: str | None = None,
    classes: Sequence[int] | None = None,
    img_size: int | None = None,
    input: Sequence[int] | None = None,
    normalise: str = "none",
    resize: bool = False,
    download: bool = False,
    seed: int = 0,
) -> AdaptedModel:
    """Build a network and adapt one of its runs.

    Raises:
        UsageProblem: unknown name or run, missing package, a checkpoint that does not fit.
        CellProblem: no run of that mode, with the reason for every candidate; a network that cannot be recorded.
    """
    if classes and num_classes == len(classes) and max(classes) >= num_classes:
        num_classes = None  # the number of the dataset's classes, which are some of the outputs
    module, record = network(
        spec, checkpoint=checkpoint, num_classes=num_classes, img_size=img_size, download=download, seed=seed
    )
    shape = tuple(input) if input else input_shape_of(module, img_size)
    preprocess, preprocessing = preprocessing_of(spec, module, shape, normalise, resize)
    try:
        found = discover(module, shape)
    except TraceProblem as problem:
        hint = "; give its input size as input=CxHxW" if spec.startswith("module:") and not input else ""
        raise CellProblem(f"model {spec}: {problem}{hint}") from None
    chosen = choose_run(found, run, mode, spec)
    model = AdaptedModel(
        module,
        found.program,
        chosen,
        name=spec,
        preprocess=preprocess,
        preprocessing=preprocessing,
        columns=_columns(classes, found, spec),
        record=record,
    )
    return model


def network(
    spec: str,
    *,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    img_size: int | None = None,
    download: bool = False,
    seed: int = 0,
) -> tuple[nn.Module, dict[str, Any]]:
    """A network with weights: from a local file, the hub (only with ``download``), or untrained from ``seed``.

    Returns: (network in eval mode, where it came from as plain data).
    """
    record: dict[str, Any] = {"architecture": spec, "weights": f"untrained (seed {seed})"}
    if checkpoint is not None and num_classes is None:
        num_classes = classes_in(checkpoint, spec)
    if download:
        # Published weights come with their classes; a new head would be untrained.
        num_classes, record["weights"] = None, "downloaded"
    options = {"num_classes": num_classes, "img_size": img_size, "download": download or None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = skeleton(spec, device="cpu", **options)
    if checkpoint is not None:
        load(module, checkpoint, spec)
        record["weights"] = {"file": Path(checkpoint).name}
    low = {p.dtype for p in module.parameters() if p.dtype in (torch.float16, torch.bfloat16)}
    if low:
        # Exact in float32; the images come in that precision, and the constants need it.
        module.float()
        record["stored_as"] = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in low))
    return module.eval(), record


def preprocessing_of(
    spec: str, module: nn.Module, shape: Sequence[int], normalise: str, resize: bool
) -> tuple[Preprocess, dict[str, Any]]:
    """(images -> network input, the same as plain data) for a network of that origin."""
    if spec.startswith(("timm:", "hf-hub:")):
        return timm_preprocess(module, shape)
    if spec.startswith("torchvision:"):
        return torchvision_preprocess(shape)
    return plain_preprocess(shape, normalise, resize, spec)


def choose_run(found: Discovery, which: str, mode: str | None, owner: str) -> Run:
    """``longest``, ``cheapest`` or the run of that name, among runs of ``mode``.

    Without a mode: closed ones, else open ones, else plain ones.

    Raises:
        CellProblem: there is none of that mode; the message gives every candidate's reason.
        UsageProblem: no run of that name.
    """
    runs = [run for run in found.runs if mode is None or run.mode == mode]
    if not runs:
        others = sorted({run.mode for run in found.runs})
        hint = f" It has {' and '.join(others)} runs: add --mode {others[0]} (or mode={others[0]})." if others else ""
        reasons = "; ".join(map(str, found.reasons)) or "no candidate"
        raise CellProblem(
            f"model {owner} has no {mode or 'closed, open or plain'} run of at least two equal-dimension "
            f"blocks.{hint} Candidates: {reasons}"
        )
    if mode is None and which in ("longest", "cheapest"):
        runs = [run for run in runs if run.mode == runs[0].mode]
    if which == "longest":
        return max(runs, key=lambda run: (run.depth, run.share))
    if which == "cheapest":
        return min(runs, key=lambda run: (run.cost, -run.depth))
    for run in runs:
        if run.name == which:
            return run
    names = [run.name for run in runs]
    close = difflib.get_close_matches(which, names, n=1)
    raise UsageProblem(
        f"model {owner} has no run {which!r}{f' (did you mean {close[0]}?)' if close else ''}; runs: "
        f"longest, cheapest, {', '.join(names)}"
    )


def _columns(classes: Sequence[int] | None, found: Discovery, owner: str) -> tuple[int, ...] | None:
    if classes is None:
        return None
    count = found.program.shapes[found.program.output_vertex].offsets[-1]
    bad = [c for c in classes if not 0 <= c < count]
    if bad or len(set(classes)) < len(classes) or len(classes) < 2:
        raise UsageProblem(
            f"{owner}: classes lists at least two different outputs of 0..{count - 1}, one per class of "
            f"the dataset in its order; got {list(classes)}"
        )
    return tuple(classes)


def describe_options(options: Mapping[str, Any]) -> str:
    """``,key=value`` text of the options that are set, for a model spec."""
    return "".join(f",{key}={value}" for key, value in options.items() if value is not None)
