"""``stabilitykit evaluate``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit.cli.completion import subjects

DEFAULT_MODEL, DEFAULT_DATASET, DEFAULT_PROPERTY = "resnet18-digits", "digits", "expansivity"


def evaluation_options(function: Any) -> Any:
    """The options `evaluate` shares with commands of plugins that end in an evaluation (``audit``)."""
    options = [
        click.option(
            "--readout",
            type=click.Choice(["head", "lens", "probe"]),
            default="head",
            show_default=True,
            help="head: the model's own classifier at every depth; lens: the same behind a translator of the state, "
            "trained to say what the network will say; probe: one trained linear map per depth.",
        ),
        click.option(
            "--space",
            type=click.Choice(["probabilities", "logits"]),
            default="probabilities",
            show_default=True,
            help="Where distances are taken.",
        ),
        click.option(
            "--probe-dataset", help="Dataset that probes or a lens are trained on (default: the evaluated images)."
        ),
        click.option(
            "--probe-epochs",
            type=click.IntRange(1),
            default=10,
            show_default=True,
            help="Passes over the images that probes or a lens are trained on.",
        ),
        click.option(
            "--probe-steps",
            type=click.IntRange(1),
            metavar="N",
            help="Train them on N batches of --batch-size images, one step each, instead of --probe-epochs passes.",
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
        click.option("--limit", type=click.IntRange(2), help="Evaluate a seeded random subset of N images."),
        click.option(
            "--batch-size",
            type=click.IntRange(1),
            default=100,
            show_default=True,
            help="Fixed for the whole run: it moves logits by about 1e-6.",
        ),
        click.option(
            "--extract-dtype",
            type=click.Choice(["float32", "float64", "bfloat16", "float16"]),
            default="float32",
            show_default=True,
            help="Precision of the network while trajectories are extracted (recorded). The low ones move "
            "logits by about 1 percent: for screening only; the effect on every number is measured on 200 "
            "images and stated. float64 shows what float32 rounding does.",
        ),
        click.option(
            "--channels-last", is_flag=True, help="Run convolutions in NHWC layout (recorded, its effect stated)."
        ),
        click.option(
            "--compile",
            is_flag=True,
            help="Extract with torch.compile (recorded, its effect stated; on "
            "CPUs it needs a C++ compiler and up to a minute).",
        ),
        click.option(
            "--any-classes",
            is_flag=True,
            help="Accept a dataset whose classes are not the model's; labels then only group images.",
        ),
        click.option(
            "--uncertified",
            is_flag=True,
            help="Measure models whose certificate fails as well, every number marked (else their cells fail).",
        ),
        click.option(
            "--class-names",
            metavar="LIST|FILE",
            help="Names of the classes in the order of the labels: a comma list, or a file with one name a line.",
        ),
        click.option("--download", is_flag=True, help="Let torchvision datasets download (never otherwise)."),
        click.option(
            "-o", "--output", type=click.Path(path_type=Path), help="Run folder to write (default: runs/<time>)."
        ),
        click.option("--resume", is_flag=True, help="Finish an earlier run in --output."),
        click.option(
            "--cache",
            type=click.Path(path_type=Path),
            help="Folder for trajectories (default: $STABILITYKIT_CACHE or ~/.cache/stabilitykit).",
        ),
        click.option("--no-cache", is_flag=True, help="Keep no trajectories."),
        click.option(
            "--cell-timeout",
            type=click.FloatRange(0, min_open=True),
            metavar="SECONDS",
            help="A cell that takes longer fails, and the next one begins (default: no limit).",
        ),
        click.option("--strict-plugins", is_flag=True, help="Exit 3 when any plugin fails to load."),
        click.option(
            "--format",
            "output_format",
            type=click.Choice(["table", "json", "csv"]),
            default="table",
            show_default=True,
            help="What is printed on stdout.",
        ),
        click.option("--report", is_flag=True, help="Also write report.html into the run folder."),
        click.option("-q", "--quiet", is_flag=True, help="No progress bars."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command("evaluate")
@subjects("model", ". See `stabilitykit models list`")
@subjects("dataset")
@subjects("property")
@click.option(
    "-t",
    "--trajectories",
    type=click.Path(),
    help="Measure recorded readouts instead of a model: .npz with "
    "values (T+1, N, K) and labels (N,); distances are of the values as they are (--space logits): of "
    "log-probabilities --space probabilities measures the probabilities.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(),
    help="Weights (.safetensors, or .pth read with weights_only); one per model, in order.",
)
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    help="YAML or TOML file with these options by name "
    "(models, datasets, properties, readout, ...); the command line wins.",
)
@evaluation_options
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int:
    """Measure properties of models on datasets.

    Without options: g-expansivity of the embedded revised ResNet on the embedded digits. Every combination of
    model, dataset and property is a cell; a cell that fails does not stop the others (exit 1 at the end).

    \b
    Examples:
      stabilitykit evaluate
      stabilitykit evaluate -p table2
      stabilitykit evaluate -m resnet18 --checkpoint r18.safetensors -d mnist:root=data -p expansivity -p shadowing
      stabilitykit evaluate --trajectories readouts.npz -p expansivity -p shadowing
      stabilitykit evaluate -c run.yaml --limit 1000
    """
    given = merge_config(ctx, given)
    recorded = given.pop("trajectories")
    if recorded is not None:
        if given["models"] or given["datasets"] or given["checkpoints"]:
            raise UsageProblem("--trajectories takes the place of --model, --dataset and --checkpoint; give it alone")
        source = {"name": "recorded", "options": {"path": recorded}}
        given |= {"models": [source], "datasets": [source], "any_classes": True}
        if ctx.get_parameter_source("space") == ParameterSource.DEFAULT:
            given["space"] = "logits"
    return run_evaluation(
        given,
        models=list(given["models"]) or [DEFAULT_MODEL],
        datasets=list(given["datasets"]) or [DEFAULT_DATASET],
        properties=list(given["properties"]) or [DEFAULT_PROPERTY],
        checkpoint=list(given["checkpoints"]) or None,
    )


def run_evaluation(
    given: dict[str, Any],
    *,
    models: list[Any],
    datasets: list[Any],
    properties: list[Any],
    checkpoint: Any = None,
    registry: Any = None,
) -> int:
    """Evaluate with the options of :func:`evaluation_options` in ``given``, print, and return the exit code.

    Raises:
        UsageProblem: options that contradict each other, or a value that cannot be used.
    """
    from stabilitykit.base.progress import display
    from stabilitykit.base.watch import watch
    from stabilitykit.cli.class_names import read_class_names
    from stabilitykit.cli.printing import show_run
    from stabilitykit.cli.progress import make_progress

    progress = make_progress(given["quiet"])
    class_names = read_class_names(given["class_names"])
    with display().waiting("loading torch"):
        from stabilitykit.evaluation.evaluate import evaluate
    from stabilitykit.machine.distributed import leave_world
    from stabilitykit.plugins.registry import Registry, warn_failures
    from stabilitykit.runs.recorder import FolderRecorder, Recorder
    from stabilitykit.supervision.worker import Worker

    if given["resume"] and given["output"] is None:
        raise UsageProblem("--resume needs the run folder to finish: --output DIR")
    registry = registry or Registry.load(strict=given["strict_plugins"])
    warn_failures(registry.host)
    printing = {"format": given["output_format"], "report": given["report"]}
    output, resume, worker = given["output"], given["resume"], watch()
    records: list[Recorder] = []

    def recorder() -> Recorder:
        listeners = {listener.key: listener.culprit for listener in registry.host.listeners}
        made = worker.recorder(output, resume, printing, listeners) if isinstance(worker, Worker) else None
        records.append(made or FolderRecorder(output, resume))
        return records[0]

    run = evaluate(
        models,
        datasets,
        properties,
        checkpoint=checkpoint,
        readout=given["readout"],
        space=given["space"],
        device=given["device"],
        seed=given["seed"],
        limit=given["limit"],
        batch_size=given["batch_size"],
        extract_dtype=given["extract_dtype"],
        channels_last=given["channels_last"],
        compile=given["compile"],
        probe_dataset=given["probe_dataset"],
        probe_epochs=given["probe_epochs"],
        probe_steps=given["probe_steps"],
        any_classes=given["any_classes"],
        uncertified=given["uncertified"],
        class_names=class_names,
        download=given["download"],
        cache=False if given["no_cache"] else given["cache"],
        cell_timeout=given["cell_timeout"],
        registry=registry,
        progress=progress,
        recorder=recorder,
    )
    leave_world()
    if records and not isinstance(worker, Worker):  # under torchrun only rank 0 speaks; a worker's supervisor does
        write_report = show_run(records[0], printing)
        if write_report is not None:
            write_report()
    return run.exit_code


def merge_config(ctx: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """Options of the ``--config`` file under those typed on the command line; UsageProblem for unknown keys."""
    path = given.pop("config", None)
    if path is None:
        return given
    from stabilitykit.cli.config import read_config

    config = read_config(path)
    names = {
        "model": "models",
        "dataset": "datasets",
        "property": "properties",
        "checkpoint": "checkpoints",
        "format": "output_format",
    }
    merged = dict(given)
    parameters = {p.name: p for p in ctx.command.params}
    for key, value in config.items():
        name = names.get(str(key).replace("-", "_"), str(key).replace("-", "_"))
        if name not in given:
            raise UsageProblem(f"{path}: unknown key {key!r}{did_you_mean(name, given)}")
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            continue
        if name in ("models", "datasets", "properties", "checkpoints"):
            merged[name] = list(value) if isinstance(value, list) else [value]
            continue
        try:
            merged[name] = parameters[name].type_cast_value(ctx, value) if value is not None else None
        except click.BadParameter as error:
            raise UsageProblem(f"{path}: {key}: {error.message}") from None
        except (TypeError, ValueError, AttributeError):  # click's converters expect text or their own type
            raise UsageProblem(f"{path}: {key}: cannot use {value!r}") from None
    return merged
