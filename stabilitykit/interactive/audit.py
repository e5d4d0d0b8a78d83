"""``stabilitykit.audit``, ``evaluate`` and ``list_runs``: what the commands of those names do, for objects in hand."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from stabilitykit.base.errors import CellProblem, UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit.base.progress import no_progress
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.evaluation.evaluate import Run as Measured
from stabilitykit.evaluation.evaluate import evaluate as measure
from stabilitykit.evaluation.selection import Given, choose, without_required_options
from stabilitykit.interactive.progress import NotebookDisplay
from stabilitykit.interactive.run import Run
from stabilitykit.machine.determinism import process_put_back
from stabilitykit.plugins.registry import Registry

if TYPE_CHECKING:
    import pandas

Parameters = ParamSpec("Parameters")


def _in_hand(function: Callable[Parameters, Measured]) -> Callable[Parameters, Run]:
    """``function`` giving the run people work with, and leaving generators and torch's modes as they were."""

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Run:
        with process_put_back():
            return Run.of(function(*args, **kwargs))

    return call


evaluate = _in_hand(measure)


def audit(
    model: Any,
    data: Any,
    properties: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    name: str | None = None,
    data_name: str | None = None,
    run: str = "auto",
    mode: str | None = None,
    input: Sequence[int] | None = None,
    normalise: str | None = None,
    model_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    output: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Measure properties of any network on labelled images, block by block; the Python form of ``stabilitykit audit``.

    The network is copied: its mode, device, weights, hooks and gradients stay as they are, and so do the generators of
    random numbers. Images given in Python are the network's input as they are: nothing is scaled or normalised unless
    ``normalise`` says so.

    Arguments:
        model: an ``nn.Module``, a :class:`stabilitykit.Model`, or a name such as ``"timm:resnet50"``.
        data: (images, labels) as arrays or tensors, images float (N, C, H, W) and labels integer (N,); a torch Dataset
            of such pairs; a DataLoader in a fixed order; a :class:`stabilitykit.Dataset`; or a name such as
            ``"imagefolder:photos"``.
        properties: names, options as ``"shadowing:eps=0.1"``, :class:`stabilitykit.Property` objects, or a list of
            those; None: every installed property that needs no option.
        class_names: K names, in the order of the labels and of the network's outputs.
        num_classes: K, where labels are numbers and some classes have no image.
        name, data_name: what results call the network and the images; default: their classes.
        run: ``"auto"``, ``"whole"`` (every block), or a run of blocks of equal dimension (see :func:`list_runs`).
        mode: kind of that run: ``"closed"``, ``"open"`` or ``"plain"``.
        input: shape (C, H, W) of one input, where the images are to be resized (``model_options={"resize": True}``).
        normalise: ``"none"``, ``"imagenet"``, ``"inception"`` or ``"MEAN/STD"``; done by the model, and recorded.
        model_options: further options of the model (``stabilitykit models show module``), as ``{"classes": (3, 17)}``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        output: run folder to write; None: the run is kept in memory (:meth:`Run.save` writes it).
        progress: show bars (tqdm) and what takes long.
        settings: as of :func:`stabilitykit.evaluate`: ``limit``, ``seed``, ``batch_size``, ``readout``, ``space``...

    Returns:
        a :class:`Run`. A property that fails makes its cell fail, the others go on.

    Raises:
        UsageProblem: names, options or data that cannot be used; nothing has been written then.
        CellProblem: the network cannot be followed block by block; the message says where.
    """
    _check_settings(settings)
    registry = settings.pop("registry", None) or Registry.load(strict=bool(settings.get("strict_plugins")))
    view = {"run": None if run == "auto" else run, "mode": mode, "input": input, "normalise": normalise}
    options = {key: value for key, value in {**view, **(model_options or {})}.items() if value is not None}
    beside = {} if class_names is None else {"class_names": list(class_names)}
    if class_names is not None and isinstance(data, (str, Mapping, Dataset)):
        settings["class_names"] = list(class_names)
    about_data = {} if num_classes is None else {"num_classes": num_classes}
    with NotebookDisplay().showing(progress) as display:
        return evaluate(
            [_given(registry, "model", model, options, name, beside)],
            [_given(registry, "dataset", data, about_data, data_name, beside)],
            without_required_options(registry) if properties is None else properties,
            device=device,
            output=output,
            registry=registry,
            progress=display.bar if progress else no_progress,
            **settings,
        )


def list_runs(
    model: Any, *, input: Sequence[int] | None = None, mode: str | None = None, registry: Registry | None = None
) -> pandas.DataFrame:
    """The course of a network and its runs of equal dimension, one a row: what ``audit(run=...)`` takes.

    Arguments:
        model: an ``nn.Module`` or a name, as of :func:`audit`.
        input: shape (C, H, W) of one input; None: what the network says, else (3, 224, 224).
        mode: only runs of that kind.

    Returns:
        a frame with the columns of ``stabilitykit audit --list-runs``. What is in no run, and why, is in its ``attrs``
        under ``reasons``.

    Raises:
        UsageProblem: it brings blocks of its own, or is no network.
        CellProblem: it cannot be followed.
    """
    import pandas

    registry = registry or Registry.load()
    options = {key: value for key, value in {"input": input, "mode": mode}.items() if value is not None}
    choice = choose(registry, "model", _given(registry, "model", model, options, None, {}))
    source: Any = None if choice.component is None else choice.component.load()
    if not hasattr(source, "runs"):
        raise UsageProblem(f"model {choice.label} brings its own blocks: there are no runs to choose from")
    thing = [model] if choice.as_object else []
    with process_put_back():
        found = source.runs(*thing, **choice.options)
    if not found.rows:
        raise CellProblem(f"model {choice.label} has no run: {'; '.join(found.reasons)}")
    frame = pandas.DataFrame(found.rows, columns=list(found.columns))
    frame.attrs["reasons"] = found.reasons
    return frame


def _given(
    registry: Registry, kind: Any, what: Any, options: Mapping[str, Any], name: str | None, beside: Mapping[str, Any]
) -> Any:
    """``what`` as the core takes it: an object with its options, or a spec with them added."""
    if isinstance(what, (str, Mapping)):
        spec = registry.resolve(kind, what, options or None)
        if name is not None:
            raise UsageProblem(f"{kind} {spec.label} has a name of its own: leave out name={name!r}")
        return spec
    return Given(what, options, name, beside)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """UsageProblem for what :func:`stabilitykit.evaluate` takes no value of that name."""
    known = [key for key in inspect.signature(measure).parameters if key not in ("model", "dataset", "progress")]
    for key in settings:
        if key not in known:
            raise UsageProblem(f"audit takes no {key!r}{did_you_mean(key, known)}; it takes {', '.join(known)}")
