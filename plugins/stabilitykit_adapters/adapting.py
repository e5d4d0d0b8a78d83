"""Bring a network, its preprocessing and one of its runs together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stabilitykit import CellProblem
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.choosing import choose_run, output_columns
from stabilitykit_adapters.discovery import discover
from stabilitykit_adapters.pixels import Preprocess
from stabilitykit_adapters.tracing import TraceProblem
from stabilitykit_adapters.weights import State, load


def adapt(
    module: nn.Module,
    shape: Sequence[int],
    *,
    name: str,
    preprocess: Preprocess,
    preprocessing: dict[str, Any],
    run: str = "longest",
    mode: str | None = None,
    classes: Sequence[int] | None = None,
    record: dict[str, Any] | None = None,
    hint: str = "",
) -> AdaptedModel:
    """``module``, unmodified, as a stabilitykit Model: prefix, blocks and tail of one of its runs.

    Arguments:
        module: a network in eval mode.
        shape: (C, H, W) of one input.
        run, mode: which run, see :func:`choose_run`.
        classes: outputs that stand for the dataset's classes, in their order; None: all.
        record: where architecture and weights come from, as plain data.
        hint: what to try when the network cannot be recorded.

    Raises:
        UsageProblem: unknown run or outputs.
        CellProblem: no run of that mode, with the reason for every candidate; a network that cannot be recorded.
    """
    try:
        found = discover(module, tuple(shape))
    except TraceProblem as problem:
        raise CellProblem(f"model {name}: {problem}{hint}") from None
    return AdaptedModel(
        module,
        found.program,
        choose_run(found, run, mode, name),
        name=name,
        preprocess=preprocess,
        preprocessing=preprocessing,
        columns=output_columns(classes, found, name),
        record=record,
    )


def read_weights(
    module: nn.Module,
    checkpoint: str | None,
    owner: str,
    seed: int,
    convert: Callable[[nn.Module, State], State] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """``module`` in eval mode with the weights of a local file, or as it is -> (module, where they came from)."""
    record: dict[str, Any] = {"architecture": owner, "weights": f"untrained (seed {seed})"}
    if checkpoint is not None:
        metadata = load(module, checkpoint, owner, convert)
        record["weights"] = {"file": Path(checkpoint).name}
        if "class_names" in metadata:
            record["class_names"] = metadata["class_names"]
    low = {p.dtype for p in module.parameters() if p.dtype in (torch.float16, torch.bfloat16)}
    if low:
        # Exact in float32; the images come in that precision, and the constants need it.
        module.float()
        record["stored_as"] = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in low))
    return module.eval(), record
