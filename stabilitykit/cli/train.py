"""``stabilitykit train``: the paper's recipe on any trainable model."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.text import one_line, printable_streams

if TYPE_CHECKING:
    from stabilitykit.dynamics.dataset import Dataset
    from stabilitykit.plugins.registry import Registry, Spec
    from stabilitykit.training.training import Epoch, Recipe

LOG_SECONDS = 15.0


@click.command("train")
@click.argument("model")
@click.option("-d", "--dataset", required=True, help="Training images: NAME[:option=value,...].")
@click.option("--validation", help="Images to watch, to stop early on, and to report on at the end.")
@click.option("--epochs", type=click.IntRange(1), default=100, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=400, show_default=True)
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), default=1e-4, show_default=True, help="Learning rate of Adam."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of initial weights, order of images and dropout.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--patience",
    type=click.IntRange(1),
    help="Stop after this many epochs without a lower validation loss; keep the best epoch.",
)
@click.option("--limit", type=click.IntRange(2), help="Train on a seeded random subset of N images.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Weights to write, FILE.safetensors "
    "(default: MODEL-DATASET.safetensors). Beside it, FILE.state.pt holds what --resume needs.",
)
@click.option(
    "--any-classes",
    is_flag=True,
    help="Go on where the validation images have as many classes of other names (recorded).",
)
@click.option("--resume", is_flag=True, help="Go on from the last finished epoch of --output, if there is one.")
@click.option("--download", is_flag=True, help="Let torchvision datasets download (never otherwise).")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(model: str, dataset: str, validation: str | None, output: Path | None, resume: bool, **given: Any) -> int:
    """Train MODEL on a dataset: Adam, cross-entropy, the paper's recipe by default.

    Ends with the paper's Table 1: macro precision, recall and F1, mean loss, accuracy.

    \b
    Examples:
      stabilitykit train resnet18 -d mnist:root=data,split=train --validation mnist:root=data -o mnist.safetensors
      stabilitykit train resnet18:width=16,stem=conv -d digits:train --validation digits --epochs 30 --lr 1e-3
    """
    from stabilitykit.plugins.registry import Registry, warn_failures

    registry = Registry.load()
    warn_failures(registry.host)
    data_spec = _with_download(registry, dataset, given["download"])
    output = output or Path(f"{model.partition(':')[0]}-{dataset.partition(':')[0]}.safetensors")
    if output.suffix != ".safetensors":
        raise UsageProblem(f"--output is a .safetensors file; got {output}")

    from stabilitykit.base.files import remove_leftovers
    from stabilitykit.base.locks import lock
    from stabilitykit.training.training import state_path

    with lock(output.with_name(f".{output.name}.lock"), wait=False, what=f"checkpoint {output}"):
        _refuse_overwriting(output, resume)
        remove_leftovers(output.parent, output.name, state_path(output).name)
        result = _train(registry, model, data_spec, validation, output, resume, given)
    if given["output_format"] == "json":
        print(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        _print_table(result)
    return 0


def _train(
    registry: Registry,
    model: str,
    data_spec: Spec,
    validation: str | None,
    output: Path,
    resume: bool,
    given: dict[str, Any],
) -> dict[str, Any]:
    from stabilitykit.cli.progress import make_progress
    from stabilitykit.dynamics.classes import datasets_differ
    from stabilitykit.evaluation.building import warn_of_data
    from stabilitykit.evaluation.settings import choose_indices
    from stabilitykit.machine.determinism import make_deterministic
    from stabilitykit.machine.device import choose_device
    from stabilitykit.runs.provenance import package_versions
    from stabilitykit.training.metrics import classification_metrics, predict
    from stabilitykit.training.training import Recipe, train

    recipe = Recipe(given["epochs"], given["batch_size"], given["lr"], given["seed"], given["patience"])
    device = choose_device(given["device"])
    make_deterministic(recipe.seed)
    data: Dataset = data_spec.build()
    data.check()
    warn_of_data(data)
    watched: Dataset | None = None
    if validation is not None:
        watched = _with_download(registry, validation, given["download"]).build()
        watched.check()
        warn_of_data(watched)
        problem = datasets_differ(data, watched)
        if problem and not (given["any_classes"] and len(watched.class_names) == len(data.class_names)):
            raise UsageProblem(f"--validation {validation}: {problem} (--any-classes goes on where the numbers fit)")
    model_spec = _fitting(registry.resolve("model", model), len(data.class_names), recipe.seed)
    built = model_spec.build()
    indices = choose_indices(len(data), given["limit"], recipe.seed)
    described = {key: value for key, value in built.describe().items() if key != "checkpoint"}
    start = built.fingerprint()
    identity = {"model": described, "initial_weights": start, "dataset": data.fingerprint(), "images": len(indices)}
    metadata = {
        "model": described,
        "initial_weights": start,
        "dataset": {
            "name": data_spec.label,
            "fingerprint": identity["dataset"],
            "images": len(indices),
            "transforms": list(data.transforms),
        },
        "class_names": [str(name) for name in data.class_names] if data.class_names_given else None,
        "any_classes": given["any_classes"],
        "versions": package_versions(),
    }
    every = None if watched is None else choose_indices(len(watched), None, 0)
    watcher = None if given["quiet"] else _Watcher(recipe)
    try:
        done = train(
            built,
            data,
            indices,
            recipe,
            device=device,
            output=output,
            resume=resume,
            identity=identity,
            validation=None if watched is None or every is None else (watched, every),
            metadata=metadata,
            watcher=watcher,
        )
    except KeyboardInterrupt:
        print(f"interrupted; the finished epochs are in {output}, --resume goes on from there", file=sys.stderr)
        raise click.exceptions.Exit(130) from None
    finally:
        if watcher is not None:
            watcher.close()
    on, rows, label = (
        (data, indices, data_spec.label) if watched is None or every is None else (watched, every, str(validation))
    )
    metrics = classification_metrics(
        *predict(built, on, rows, batch_size=recipe.batch_size, device=device, progress=make_progress(given["quiet"]))
    )
    from dataclasses import asdict

    return {
        "output": str(output),
        "model": model_spec.label,
        "dataset": data_spec.label,
        "evaluated_on": label,
        "training_images_again": watched is None,
        "metrics": metrics,
        "epochs": len(done.history),
        "kept_epoch": done.kept,
        "stopped_early": done.stopped_early,
        "recipe": asdict(recipe),
        "device": str(device),
        "history": [asdict(epoch) for epoch in done.history],
    }


def _with_download(registry: Registry, text: str, download: bool) -> Spec:
    spec = registry.resolve("dataset", text)
    if download and any(option.name == "download" for option in spec.component.options):
        return registry.resolve("dataset", text, {"download": True})
    return spec


def _fitting(spec: Spec, classes: int, seed: int) -> Spec:
    """``spec`` with the dataset's number of classes and the seed, where it has such options not given."""
    from stabilitykit.plugins.registry import Spec

    known = {option.name for option in spec.component.options} - set(spec.given)
    extra = {
        name: value
        for name, value in (("num_classes", classes), ("seed", seed))
        if name in known and spec.options[name] != value
    }
    return Spec(spec.component, dict(spec.given) | extra)


def _refuse_overwriting(output: Path, resume: bool) -> None:
    from stabilitykit.training.training import state_path

    state = state_path(output)
    if not resume and (output.exists() or state.exists()):
        there = output if output.exists() else state
        raise UsageProblem(f"{there} exists; add --resume to go on with it, or give another --output")
    if resume and output.exists() and not state.exists():
        raise UsageProblem(
            f"cannot resume {output}: {state} is missing; start from its weights with "
            f"MODEL:checkpoint={output} and another --output"
        )


class _Watcher:
    """Progress on stderr: a bar with loss and accuracy on a terminal, a line now and then elsewhere."""

    def __init__(self, recipe: Recipe) -> None:
        self.epochs, self._last, self._bar = recipe.epochs, time.monotonic(), None
        self._task: Any = None
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            from stabilitykit.reporting.console import Console

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.4f}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            # What is printed meanwhile goes through the bar, which would obey escape sequences.
            self._streams = printable_streams()
            self._streams.__enter__()

    def batch(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        text = f"epoch {epoch}/{self.epochs}"
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(text, total=steps, loss=loss, accuracy=accuracy)
            self._bar.update(self._task, description=text, completed=step, total=steps, loss=loss, accuracy=accuracy)
        elif time.monotonic() - self._last >= LOG_SECONDS:
            self._last = time.monotonic()
            print(f"{text} step {step}/{steps}: loss {loss:.4f} accuracy {accuracy:.4f}", file=sys.stderr, flush=True)

    def epoch(self, record: Epoch, seconds: float) -> None:
        text = f"epoch {record.number}/{self.epochs}: loss {record.loss:.4f} accuracy {record.accuracy:.4f}"
        if record.validation_loss is not None:
            text += f" | validation loss {record.validation_loss:.4f} accuracy {record.validation_accuracy:.4f}"
        text += f" | {seconds:.1f} s"
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._streams.__exit__(None, None, None)
            self._bar.stop()


def _print_table(result: dict[str, Any]) -> None:
    from rich.table import Table

    from stabilitykit.reporting.console import Console

    metrics = result["metrics"]
    where = (
        "on the training images (no --validation given)"
        if result["training_images_again"]
        else f"on {result['evaluated_on']}"
    )
    print(one_line(f"{result['model']}, epoch {result['kept_epoch']}, {where}"))
    table = Table()
    for name in ("precision", "recall", "F1", "loss", "accuracy", "N"):
        table.add_column(name, justify="right")
    table.add_row(
        *(f"{metrics[name]:.4f}" for name in ("precision", "recall", "f1", "loss", "accuracy")), str(metrics["n"])
    )
    Console(width=100).print(table)
    print(f"weights: {result['output']}", file=sys.stderr)
