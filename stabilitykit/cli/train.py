"""``stabilitykit train``: the paper's recipe on any trainable model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.text import one_line
from stabilitykit.cli.train_progress import TrainingProgress
from stabilitykit.training.recipe import PRECISIONS, RECIPES, SCHEDULES, Recipe, held_out

if TYPE_CHECKING:
    import numpy as np

    from stabilitykit.dynamics.dataset import Dataset
    from stabilitykit.plugins.registry import Registry, Spec


@click.command("train")
@click.argument("model")
@click.option("-d", "--dataset", required=True, help="Training images: NAME[:option=value,...].")
@click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(sorted(RECIPES)),
    default="paper",
    show_default=True,
    help="Defaults of the options below. paper: as its text has it. augmented: our inference of how its CIFAR-10 "
    "accuracy was reached (30 epochs, --augment flip,crop, --schedule onecycle up to 1e-3, --amp bfloat16).",
)
@click.option("--validation", help="Images to watch after every epoch, and to stop early on: never the test images.")
@click.option("--hold-out", type=click.IntRange(0), help="Take N random training images out, and watch these. [0]")
@click.option("--test", "tested", help="Images to report on at the end; nothing is chosen by them.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the images. [100]")
@click.option("--batch-size", type=click.IntRange(1), help="Images per step. [400]")
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), help="Learning rate of Adam, the highest of a schedule. [1e-4]"
)
@click.option("--schedule", type=click.Choice(SCHEDULES), help="Of the learning rate. [constant]")
@click.option(
    "--augment",
    metavar="LIST",
    help="flip, crop or both, as flip,crop: changes of the training images, drawn anew every epoch; none. [none]",
)
@click.option("--amp", type=click.Choice(PRECISIONS), help="Dtype of the network's products in training. [float32]")
@click.option("--weight-decay", type=click.FloatRange(0), help="Decoupled, as of AdamW. [0]")
@click.option(
    "--average",
    type=click.FloatRange(0, 1, max_open=True),
    help="Keep a moving average of the weights; 0.99 is over about 100 steps. [0: the last weights]",
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
    help="Stop after this many epochs without a lower loss on the watched images; keep the best epoch.",
)
@click.option(
    "--limit",
    type=click.IntRange(2),
    help="Train on a seeded random subset of N images. [all; 50000 in recipe paper, which is its split of MNIST]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Weights to write, FILE.safetensors "
    "(default: MODEL-DATASET.safetensors). Beside it, FILE.state.pt holds what --resume needs.",
)
@click.option(
    "--keep-epochs",
    metavar="LIST",
    help="Numbers of epochs, as 1,4,8: their weights stay, in FILE.epoch-N.safetensors beside --output.",
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
def command(model: str, dataset: str, output: Path | None, resume: bool, **given: Any) -> int:
    """Train MODEL on a dataset: Adam, cross-entropy, the paper's recipe by default.

    Ends with the paper's Table 1: macro precision, recall and F1, mean loss, accuracy. An option that is not given
    has the value of --recipe; every choice is recorded in the checkpoint.

    \b
    Examples:
      stabilitykit train resnet18 -d mnist:root=data,split=train --test mnist:root=data -o mnist.safetensors
      stabilitykit train resnet18 -d cifar10:root=data,split=train --test cifar10:root=data --recipe augmented \\
        --hold-out 5000 --patience 10 -o cifar.safetensors
      stabilitykit train resnet18:width=16,stem=conv -d digits:train --validation digits --epochs 30 --lr 1e-3
    """
    from stabilitykit.plugins.registry import Registry, warn_failures

    recipe = _recipe(given)
    given["keep"] = _epochs(given["keep_epochs"])
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
        _refuse_overwriting(output, resume, given["keep"])
        remove_leftovers(output.parent, output.name, state_path(output).name)
        result = _train(registry, model, data_spec, recipe, output, resume, given)
    if given["output_format"] == "json":
        print(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        _print_table(result)
    return 0


def _recipe(given: dict[str, Any]) -> Recipe:
    """The named recipe with what was given on the command line."""
    chosen = {key: given[key] for key in Recipe.__dataclass_fields__ if given.get(key) is not None}
    if given["augment"] is not None:
        words = [word.strip() for word in given["augment"].split(",")]
        chosen["augment"] = () if words == ["none"] else tuple(sorted(set(words), key=words.index))
    recipe = Recipe(**{**RECIPES[given["recipe_name"]], **chosen})
    recipe.check(watched=bool(recipe.hold_out) or given["validation"] is not None)
    if recipe.hold_out and given["validation"] is not None:
        raise UsageProblem(
            "--hold-out and --validation both give the images to watch; give one (--test takes others to report on)"
        )
    return recipe


def _epochs(text: str | None) -> frozenset[int]:
    """The numbers of ``--keep-epochs``."""
    words = [word.strip() for word in text.split(",")] if text is not None else []
    if not all(word.isdecimal() and int(word) for word in words):
        raise UsageProblem(f"--keep-epochs takes numbers from 1, as 1,4,8; got {text}")
    return frozenset(map(int, words))


def _train(
    registry: Registry, model: str, data_spec: Spec, recipe: Recipe, output: Path, resume: bool, given: dict[str, Any]
) -> dict[str, Any]:
    from stabilitykit.cli.progress import make_progress
    from stabilitykit.evaluation.building import warn_of_data
    from stabilitykit.evaluation.settings import choose_indices
    from stabilitykit.machine.determinism import make_deterministic
    from stabilitykit.machine.device import choose_device
    from stabilitykit.runs.provenance import package_versions
    from stabilitykit.training.metrics import classification_metrics, predict
    from stabilitykit.training.training import train

    device = choose_device(given["device"])
    make_deterministic(recipe.seed)
    data: Dataset = data_spec.build()
    data.check()
    warn_of_data(data)
    watched = _other(registry, given, "validation", data)
    tested = _other(registry, given, "tested", data)
    model_spec = _fitting(registry.resolve("model", model), len(data.class_names), recipe.seed)
    built = model_spec.build()
    indices, held = held_out(choose_indices(len(data), recipe.limit, recipe.seed), recipe)
    watching: tuple[Dataset, np.ndarray] | None = (data, held) if len(held) else None
    if watched is not None:
        watching = watched, choose_indices(len(watched), None, 0)
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
    watcher = None if given["quiet"] else TrainingProgress(recipe.epochs, len(indices))
    try:
        done = train(
            built,
            data,
            indices,
            recipe,
            device=device,
            output=output,
            keep=given["keep"],
            resume=resume,
            identity=identity,
            validation=watching,
            metadata=metadata,
            watcher=watcher,
        )
    except KeyboardInterrupt:
        print(f"interrupted; the finished epochs are in {output}, --resume goes on from there", file=sys.stderr)
        raise click.exceptions.Exit(130) from None
    finally:
        if watcher is not None:
            watcher.close()
    on, rows, label = data, indices, data_spec.label
    if tested is not None:
        on, rows, label = tested, choose_indices(len(tested), None, 0), str(given["tested"])
    elif watching is not None:
        on, rows = watching
        label = str(given["validation"]) if watched is not None else f"{len(rows)} held-out images of {label}"
    metrics = classification_metrics(
        *predict(built, on, rows, batch_size=recipe.batch_size, device=device, progress=make_progress(given["quiet"]))
    )
    from dataclasses import asdict

    return {
        "output": str(output),
        "model": model_spec.label,
        "dataset": data_spec.label,
        "evaluated_on": label,
        "training_images_again": on is data and rows is indices,
        "metrics": metrics,
        "epochs": len(done.history),
        "kept_epoch": done.kept,
        "stopped_early": done.stopped_early,
        "recipe": asdict(recipe),
        "device": str(device),
        "history": [asdict(epoch) for epoch in done.history],
    }


def _other(registry: Registry, given: dict[str, Any], option: str, data: Dataset) -> Dataset | None:
    """The images of ``--validation`` or ``--test``, whose classes are those of the training images."""
    from stabilitykit.dynamics.classes import datasets_differ
    from stabilitykit.evaluation.building import warn_of_data

    text = given[option]
    if text is None:
        return None
    other: Dataset = _with_download(registry, text, given["download"]).build()
    other.check()
    warn_of_data(other)
    problem = datasets_differ(data, other)
    if problem and not (given["any_classes"] and len(other.class_names) == len(data.class_names)):
        shown = "--test" if option == "tested" else f"--{option}"
        raise UsageProblem(f"{shown} {text}: {problem} (--any-classes goes on where the numbers fit)")
    return other


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


def _refuse_overwriting(output: Path, resume: bool, keep: frozenset[int]) -> None:
    from stabilitykit.training.training import epoch_path, state_path

    state = state_path(output)
    written = [output, state, *(epoch_path(output, number) for number in sorted(keep))]
    there = next((path for path in written if path.exists()), None)
    if not resume and there is not None:
        raise UsageProblem(f"{there} exists; add --resume to go on with it, or give another --output")
    if resume and output.exists() and not state.exists():
        raise UsageProblem(
            f"cannot resume {output}: {state} is missing; start from its weights with "
            f"MODEL:checkpoint={output} and another --output"
        )


def _print_table(result: dict[str, Any]) -> None:
    from rich.table import Table

    from stabilitykit.reporting.console import Console

    metrics = result["metrics"]
    where = (
        "on the training images (give --test or --hold-out to see others)"
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
