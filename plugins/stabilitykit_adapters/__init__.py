"""Adapters: any network seen as equal-dimension blocks, and the audit of one. Nothing here knows timm."""

from __future__ import annotations

from stabilitykit import Adapter, Command, Component, Option, ReportSection, hookimpl
from stabilitykit_adapters.statistics import NORMALISE_HELP, NORMALISE_PATTERN, NUMBERS_HELP, NUMBERS_PATTERN

REFERENCE = "sections 2.1 and 3: F = g o phi_{T-1} o ... o phi_0 with blocks R^n -> R^n"

WEIGHT_OPTIONS = (
    Option(
        "checkpoint",
        "path",
        help="weights: .safetensors, what torch.save wrote (read with weights_only), shards by their index, or a "
        "folder of a hub; untrained without",
    ),
    Option("allow_unused", help="patterns of tensors of the file that may be left out, as 0.mean or teacher.*"),
    Option("resample", "bool", default=False, help="let timm's converters resize weights (patches, positions)"),
    Option("weights", help="which of several sets of weights in the file, e.g. model_ema"),
)
VIEW_OPTIONS = (
    Option(
        "run",
        default="auto",
        formerly=(2, "longest"),
        help="whole: every block; longest, cheapest or its name: a run of equal-dimension blocks; auto: that run "
        "where it is the whole network, else whole",
    ),
    Option(
        "mode",
        choices=("closed", "open", "plain"),
        help="kind of run: states are cuts; with a side state held constant; without skips (default: the first)",
    ),
    Option("classes", "ints", help="outputs that stand for the dataset's classes, in their order, e.g. 3-17-250"),
    Option("output", help="which of several outputs holds the logits: its name or position"),
    Option(
        "output_kind",
        choices=("auto", "logits", "probabilities", "log-probabilities"),
        default="auto",
        help="what the output is; auto: rows that sum to 1 are probabilities",
    ),
    Option("expected_classes", "int", minimum=2, help="columns of the output, to tell several apart (the dataset's)"),
)
RUN_OPTIONS = (
    *WEIGHT_OPTIONS,
    Option("num_classes", "int", minimum=2, help="classes of the head (default: the checkpoint's, else the dataset's)"),
    *VIEW_OPTIONS,
    Option("seed", "int", default=0, minimum=0, help="seed of untrained weights"),
)
PIXEL_OPTIONS = (
    Option("normalise", pattern=NORMALISE_PATTERN, help=NORMALISE_HELP),
    Option("mean", pattern=NUMBERS_PATTERN, help=f"mean per channel: {NUMBERS_HELP}"),
    Option("std", pattern=NUMBERS_PATTERN, help=f"standard deviation per channel: {NUMBERS_HELP}"),
    Option("size", "int", minimum=1, help="side of the square input"),
    Option("crop_pct", "float", minimum=0.01, maximum=1, help="input side over the side images are resized to first"),
    Option("interpolation", choices=("nearest", "bilinear", "bicubic"), help="how images are resized"),
)
IMAGE_OPTIONS = (
    Option(
        "input", "ints", help="what one input looks like, as 3x32x32 (default: what the network says, else 3x224x224)"
    ),
    Option("resize", "bool", default=False, help="resize images of another size"),
)


@hookimpl
def stabilitykit_models() -> list[Component]:
    """module."""
    return [
        Component(
            "model",
            "module",
            "stabilitykit_adapters.modules:module_model",
            "Any nn.Module: PACKAGE.MODULE:BUILDER (runs that code)",
            (
                Option("builder", help="PACKAGE.MODULE:BUILDER", required=True),
                *RUN_OPTIONS,
                *PIXEL_OPTIONS,
                *IMAGE_OPTIONS,
            ),
            primary="builder",
            reference=REFERENCE,
            runs_code=True,
        )
    ]


@hookimpl
def stabilitykit_adapters() -> list[Adapter]:
    """Any nn.Module given in Python."""
    return [
        Adapter(
            "torch.nn.modules.module.Module",
            Component(
                "model",
                "network",
                "stabilitykit_adapters.objects:network",
                "An nn.Module given in Python, as it is",
                (
                    *VIEW_OPTIONS,
                    *PIXEL_OPTIONS,
                    *IMAGE_OPTIONS,
                    Option("expected_shape", "ints", help="shape of one input (the dataset's)"),
                ),
                reference=REFERENCE,
            ),
        )
    ]


@hookimpl
def stabilitykit_properties() -> list[Component]:
    """What each block contributes."""
    return [
        Component(
            "property",
            "blocks",
            "stabilitykit_adapters.blocks:Blocks",
            "Per block: accuracy of g, prediction depth, expansivity, step size, response to leaving it out",
            (
                Option(
                    "sample",
                    "int",
                    minimum=2,
                    help="images on which blocks are left out one at a time (default: a tenth, 20 to 100)",
                ),
                Option("images", "int", default=10_000, minimum=0, help="rows of the table of prediction depths"),
            ),
            reference="Definition 1 per depth; prediction depth: Baldock, Maennel and Neyshabur 2021",
        )
    ]


@hookimpl
def stabilitykit_commands() -> list[Command]:
    """audit."""
    return [Command("audit", "stabilitykit_adapters.cli_audit:command", "Measure every property of any network.")]


@hookimpl
def stabilitykit_report_sections() -> list[ReportSection]:
    """Which blocks matter."""
    return [ReportSection("blocks", "Which blocks matter", "stabilitykit_adapters.sections:blocks", 25)]
