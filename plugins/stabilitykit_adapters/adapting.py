"""Bring a network, its preprocessing and its course, or one of its runs, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.base.errors import describe
from stabilitykit.dynamics.space import kind_of_outputs
from stabilitykit.training.checkpoints import Loading, load_into, read_checkpoint, remarks
from stabilitykit.training.containers import EXTRA_STATE, Checkpoint
from stabilitykit.training.fitting import Convert
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.choosing import choose_run, output_columns
from stabilitykit_adapters.course_model import CourseModel
from stabilitykit_adapters.discovery import discover
from stabilitykit_adapters.outputs import text_of
from stabilitykit_adapters.pixels import Preprocess
from stabilitykit_adapters.runs import Course, Run
from stabilitykit_adapters.tracing import TraceProblem, Wanted


@dataclass(frozen=True)
class View:
    """Which part of a network is looked at.

    Attributes:
        run, mode: the course or which run of blocks, see :func:`stabilitykit_adapters.choosing.choose_run`.
        classes: columns of the output that stand for the dataset's classes, in their order; None: all.
        output: name or position of the output that holds the logits.
        output_kind: ``auto``, ``logits``, ``probabilities`` or ``log-probabilities``.
        expected_classes: how many columns the output should have: tells several outputs apart.
    """

    run: str = "auto"
    mode: str | None = None
    classes: Sequence[int] | None = None
    output: str | None = None
    output_kind: str = "auto"
    expected_classes: int | None = None

    @classmethod
    def taken(cls, options: dict[str, Any]) -> View:
        """From a component's options, which are taken out of ``options``."""
        return cls(**{name: options.pop(name) for name in cls.__dataclass_fields__ if name in options})

    def wanted(self, num_classes: int | None = None) -> Wanted:
        """What tells the network's outputs apart."""
        return Wanted(self.output, num_classes or (None if self.classes else self.expected_classes))


def adapt(
    module: nn.Module,
    shape: Sequence[int],
    *,
    name: str,
    preprocess: Preprocess,
    preprocessing: dict[str, Any],
    view: View | None = None,
    num_classes: int | None = None,
    record: dict[str, Any] | None = None,
    hint: str = "",
) -> AdaptedModel:
    """``module``, unmodified, as a stabilitykit Model: prefix, blocks and tail of one of its runs.

    Arguments:
        module: a network in eval mode.
        shape: (C, H, W) of one input.
        view: which run, which outputs.
        num_classes: classes of the head, where they were chosen.
        record: where architecture and weights come from, as plain data.
        hint: what to try when the network cannot be recorded.

    Raises:
        UsageProblem: unknown run or outputs.
        CellProblem: no run of that mode, with the reason for every candidate; a network that cannot be recorded.
    """
    view = view or View()
    try:
        found = discover(module, tuple(shape), view.wanted(num_classes))
    except TraceProblem as problem:
        raise CellProblem(f"model {name}: {problem}{hint}") from None
    except UsageProblem as problem:
        raise UsageProblem(f"model {name}: {problem}") from None
    run = choose_run(found, view.run, view.mode, name)
    model = model_class(run)(
        module,
        found.program,
        run,
        name=name,
        preprocess=preprocess,
        preprocessing=preprocessing,
        columns=output_columns(view.classes, found, name),
        record=record,
    )
    model.output_stated = view.output_kind != "auto"
    model.output_kind = _kind(model, tuple(shape), view.output_kind, name)
    said = model.record.setdefault("warnings", [])
    if len(found.program.outputs) > 1 and view.output is None:
        others = [key for key in found.program.outputs if key != text_of(found.program.output_path)]
        said.append(
            f"output {text_of(found.program.output_path)} is taken for the logits, not {', '.join(others)} "
            "(output=NAME chooses)"
        )
    if model.output_kind != "logits":
        said.append(
            f"the network returns {model.output_kind}"
            + ("; their logarithms are the logits measured" if model.output_kind == "probabilities" else "")
        )
    return model


def model_class(run: Run) -> type[AdaptedModel]:
    """What executes a run."""
    return CourseModel if isinstance(run, Course) else AdaptedModel


def _kind(model: AdaptedModel, shape: tuple[int, ...], given: str, name: str) -> str:
    """Whether the network returns logits or probabilities: seen on four random inputs, whatever the data."""
    parameter = next((p for p in model.module.parameters() if p.is_floating_point()), torch.empty(0))
    noise = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)).to(parameter.device, parameter.dtype)
    before, model.columns = model.columns, None
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            seen = kind_of_outputs(model.logits(noise))
    except Exception:  # what cannot be run on noise is judged on the first batch, by the certificate
        seen = "logits" if given == "auto" else given
    finally:
        model.columns = before
    if given in ("auto", seen):
        return seen
    if given == "probabilities":
        raise UsageProblem(f"model {name}: output_kind=probabilities, but rows of its output do not sum to 1")
    return given


def read_weights(
    module: nn.Module,
    checkpoint: Checkpoint | str | None,
    owner: str,
    untrained: str,
    how: Loading | None = None,
    convert: Convert | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """``module`` in eval mode with the weights of a local file, or as it is -> (module, where they came from).

    Arguments:
        untrained: what to call the weights where there is no file.

    Raises:
        UsageProblem: a network of quantised weights, a file that does not fit.
    """
    _require_floats(module, owner)
    record: dict[str, Any] = {"architecture": owner, "weights": untrained}
    low = {p.dtype for p in module.parameters() if p.dtype in (torch.float16, torch.bfloat16)}
    if low:
        # Exact in float32; the images come in that precision, and the constants need it.
        module.float()
        record["stored_as"] = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in low))
    if checkpoint is not None:
        found = checkpoint if isinstance(checkpoint, Checkpoint) else read_checkpoint(checkpoint)
        record["weights"] = load_into(module, found, owner, how, convert)
        record["warnings"] = remarks(record["weights"])
        if "class_names" in found.metadata:
            record["class_names"] = found.metadata["class_names"]
    return module.eval(), record


def materialised(module: nn.Module, shape: Sequence[int], owner: str) -> nn.Module:
    """``module``, whose lazy layers (``nn.LazyLinear``...) get their shapes from one pass of zeros (1, *shape)."""
    lazy = [n for n, t in (*module.named_parameters(), *module.named_buffers()) if is_lazy(t)]
    if lazy:
        try:
            with torch.no_grad():
                module.eval()(torch.zeros(1, *shape))
        except Exception as error:
            raise CellProblem(
                f"model {owner}: the shapes of its lazy layers ({lazy[0]}...) could not be found by running it on "
                f"inputs of {'x'.join(map(str, shape))}: {describe(error, 200)}; give its input size as input=CxHxW"
            ) from None
    return module


def _require_floats(module: nn.Module, owner: str) -> None:
    """UsageProblem for networks whose state is not made of plain tensors: packed, quantised weights."""
    packed = [
        key
        for key, value in module.state_dict().items()
        if (value.is_quantized if isinstance(value, torch.Tensor) else key.rpartition(".")[2] != EXTRA_STATE)
    ]
    if packed:
        part = packed[0].partition("._packed_params")[0]
        kinds = sorted({type(m).__module__ for n, m in module.named_modules() if packed[0].startswith(f"{n}.") and n})
        raise UsageProblem(
            f"model {owner}: {part} holds quantised weights ({kinds[-1] if kinds else packed[0]}), which "
            "are no tensors of floats; give the float network, the property precision says what quantising changes"
        )
