"""Adapters: any network seen as equal-dimension blocks, and the audit of one. Nothing here knows timm."""

from __future__ import annotations

from stabilitykit import Command, Component, Option, ReportSection, hookimpl

REFERENCE = "sections 2.1 and 3: F = g o phi_{T-1} o ... o phi_0 with blocks R^n -> R^n"

RUN_OPTIONS = (
    Option("checkpoint", "path", help="weights (.safetensors, or .pth read with weights_only); untrained without"),
    Option("num_classes", "int", minimum=2, help="classes of the head (default: the checkpoint's, else the dataset's)"),
    Option("run", default="longest", help="which run of equal-dimension blocks: longest, cheapest or its name"),
    Option(
        "mode",
        choices=("closed", "open", "plain"),
        help="kind of run: states are cuts; with a side state held constant; without skips (default: the first)",
    ),
    Option("classes", "ints", help="outputs that stand for the dataset's classes, in their order, e.g. 3-17-250"),
    Option("seed", "int", default=0, minimum=0, help="seed of untrained weights"),
)
_MODULE = (
    Option("input", "ints", help="what one input looks like, as 3x32x32 (default: what the module says, 3x224x224)"),
    Option("normalise", default="none", help="none, imagenet, inception, or MEAN/STD as in 0.5/0.25"),
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
            (Option("builder", help="PACKAGE.MODULE:BUILDER", required=True), *RUN_OPTIONS, *_MODULE),
            primary="builder",
            reference=REFERENCE,
            runs_code=True,
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
                    "sample", "int", default=256, minimum=2, help="images on which blocks are left out one at a time"
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
