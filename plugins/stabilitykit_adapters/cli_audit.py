"""``stabilitykit audit``: every property of any timm model or nn.Module, as it is."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from stabilitykit.base.errors import CellProblem, UsageProblem
from stabilitykit.base.text import csv_text
from stabilitykit.cli.completion import complete, subjects
from stabilitykit.cli.evaluate import evaluation_options, run_evaluation
from stabilitykit_adapters.statistics import NORMALISE_HELP, statistics

if TYPE_CHECKING:
    from stabilitykit.plugins.registry import Registry, Spec
    from stabilitykit_adapters.listing import Listed
    from stabilitykit_adapters.runs import Discovery
    from stabilitykit_adapters.source import Outline


@click.command("audit")
@click.argument("model", shell_complete=complete("model"))
@subjects("dataset")
@subjects("property", " (default: all)")
@click.option("--checkpoint", type=click.Path(), help="Weights (.safetensors, or .pth read with weights_only).")
@click.option("--list-runs", is_flag=True, help="Show runs, shapes, kinds, T and cost, without weights; then stop.")
@click.option(
    "--run",
    "run_name",
    default="auto",
    show_default=True,
    help="whole: every block; longest, cheapest or a name: a run of equal-dimension blocks; auto: that run where it is "
    "the whole network, else whole.",
)
@click.option(
    "--mode",
    type=click.Choice(["closed", "open", "plain"]),
    help="Kind of run of equal-dimension blocks (for --list-runs default all).",
)
@click.option("--num-classes", type=click.IntRange(2), help="Classes of the head.")
@click.option("--img-size", type=click.IntRange(1), help="Image side, for networks that can be built for another size.")
@click.option("--input", "input_size", help="What one input looks like, as 3x32x32 (module: only).")
@click.option("--weights", help="Which of several sets of weights in the checkpoint, e.g. model_ema.")
@click.option(
    "--allow-unused",
    multiple=True,
    metavar="PATTERN",
    help="Tensors of the checkpoint that may be left out, as 'loss.*'; repeat for several.",
)
@click.option("--resample", is_flag=True, help="Let timm's converters resize weights (patch embeddings, positions).")
@click.option("--model-output", help="Which of several outputs holds the logits: its name or position.")
@click.option(
    "--output-kind",
    type=click.Choice(["auto", "logits", "probabilities", "log-probabilities"]),
    help="What that output is (default auto: rows that sum to 1 are probabilities).",
)
@click.option("--normalise", help=f"{NORMALISE_HELP[0].upper()}{NORMALISE_HELP[1:]} (default: the library's).")
@click.option("--mean", help="Mean per channel, as 0.5 or (0.49, 0.48, 0.45).")
@click.option("--std", help="Standard deviation per channel.")
@click.option("--size", type=click.IntRange(1), help="Side of the square input.")
@click.option(
    "--crop-pct", type=click.FloatRange(0, 1, min_open=True), help="Input side over the side images are resized to."
)
@click.option("--interpolation", type=click.Choice(["nearest", "bilinear", "bicubic"]), help="How images are resized.")
@click.option("--resize", is_flag=True, help="Resize images of another size (module: only).")
@click.option("--classes", help="Outputs that stand for the dataset's classes, in their order: 3-17-250.")
@evaluation_options
def command(
    model: str,
    datasets: tuple[str, ...],
    properties: tuple[str, ...],
    checkpoint: str | None,
    list_runs: bool,
    run_name: str,
    mode: str | None,
    **given: Any,
) -> int:
    """Audit MODEL: timm:NAME, torchvision:NAME, hf-hub:ORG/NAME (with --download), onnx:FILE, transformers:FOLDER or
    module:PACKAGE.MODULE:BUILDER.

    The network is used as it is. module: imports and runs that code, with your rights.

    \b
    Examples:
      stabilitykit audit timm:resnet50 --list-runs
      stabilitykit audit timm:resnet50 --checkpoint mine.safetensors -d imagefolder:DIR
      stabilitykit audit module:my_package.nets:build --input 3x32x32 --checkpoint net.pth -d npz:test.npz
    """
    from stabilitykit.evaluation.selection import without_required_options
    from stabilitykit.plugins.registry import Registry, Spec

    registry = Registry.load(strict=given["strict_plugins"])
    spec = _resolve(registry, model)
    names = {option.name for option in spec.component.options}
    wanted = {
        "num_classes": given.pop("num_classes"),
        "img_size": given.pop("img_size"),
        "input": given.pop("input_size"),
        "weights": given.pop("weights"),
        "allow_unused": ",".join(given.pop("allow_unused")) or None,
        "resample": given.pop("resample") or None,
        "output": given.pop("model_output"),
        **{name: given.pop(name) for name in ("output_kind", "normalise", "mean", "std", "size")},
        **{name: given.pop(name) for name in ("crop_pct", "interpolation")},
        "resize": given.pop("resize") or None,
        "classes": given.pop("classes"),
        "mode": mode,
        "run": None if run_name == "auto" else run_name,
        "checkpoint": checkpoint,
        "download": given["download"] or None,
    }
    if "download" not in names:
        wanted.pop("download")
    options = {key: value for key, value in wanted.items() if value is not None}
    for key in options:
        if key not in names:
            flag = "model-output" if key == "output" else key.replace("_", "-")
            raise UsageProblem(f"{spec.component.name}: models take no --{flag}")
    spec = Spec(spec.component, dict(spec.given) | options)
    values = spec.component.option_values(spec.given)
    if isinstance(values.get("mean"), (str, type(None))):
        statistics(values.get("normalise"), values.get("mean"), values.get("std"), spec.component.name)
    if list_runs:
        return _list_runs(spec, given["output_format"])
    if not datasets:
        raise UsageProblem(
            "audit needs images: --dataset NAME[:option=value,...] (or --list-runs to look only); see "
            "`stabilitykit datasets list`"
        )
    return run_evaluation(
        given,
        models=[spec],
        datasets=list(datasets),
        properties=list(properties) or without_required_options(registry),
        registry=registry,
    )


def _resolve(registry: Registry, text: str) -> Spec:
    try:
        return registry.resolve("model", text)
    except UsageProblem as error:
        hint = f"; did you mean timm:{text}?" if ":" not in text else ""
        raise UsageProblem(
            f"{error}; audit takes a model by name, as timm:NAME or module:PACKAGE.MODULE:BUILDER{hint}"
        ) from None


def _list_runs(spec: Spec, output_format: str) -> int:
    from stabilitykit_adapters.listing import COLUMNS

    outline = _outline(spec)
    found, lines = outline.found, outline.lines
    if output_format == "json":
        print(
            json.dumps(
                {
                    "model": spec.label,
                    "runs": [line.to_json() for line in lines],
                    "reasons": [{"code": r.code, "candidate": r.candidate, "detail": r.detail} for r in found.reasons],
                    "no_course": found.course if isinstance(found.course, str) else None,
                    "gflops": found.flops / 1e9,
                    "notes": found.notes,
                },
                indent=1,
            )
        )
    elif output_format == "csv":
        sys.stdout.write(csv_text(COLUMNS, [dict(zip(COLUMNS, line.row())) for line in lines]))
    else:
        _print_runs(spec.label, found, lines)
    if not lines:
        mode = spec.options.get("mode")
        reasons = "; ".join(map(str, found.reasons))
        course = "" if mode or not isinstance(found.course, str) else f"no course through the network: {found.course}; "
        raise CellProblem(
            f"model {spec.label} has {course}no {mode or 'closed, open or plain'} run of at least two "
            f"equal-dimension blocks: {reasons}"
        )
    return 0


def _outline(spec: Spec) -> Outline:
    from stabilitykit_adapters.source import NetworkSource

    source = spec.component.load()
    if not isinstance(source, NetworkSource):
        hint = "" if spec.given else f"; did you mean timm:{spec.label}?"
        raise UsageProblem(f"model {spec.label} brings its own blocks: there are no runs to choose from{hint}")
    try:
        return source.runs(**spec.options)
    except CellProblem as problem:
        raise CellProblem(f"model {spec.label}: {problem}") from None


def _print_runs(label: str, found: Discovery, lines: list[Listed]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from stabilitykit.reporting.console import Console
    from stabilitykit_adapters.listing import COLUMNS

    console = Console(width=160)
    rows = [line.row() for line in lines]
    if isinstance(found.course, str):
        console.print(f"[dim]no course through the whole network: {escape(found.course)}[/dim]", highlight=False)
    if rows:
        table = Table(title=f"runs of {escape(label)} (cost in forward passes)", title_justify="left")
        for column in COLUMNS:
            number = column in ("T", "dimension", "cost")
            table.add_column(column, justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row))
        console.print(table)
    if found.reasons and rows:
        console.print("[dim]not in a closed run:[/dim]")
        for reason in found.reasons:
            console.print(f"[dim]- {escape(str(reason))}[/dim]", highlight=False)
    for note in found.notes:
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False)
