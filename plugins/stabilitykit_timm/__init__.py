"""Adapters: any timm or torchvision network, and any nn.Module, seen as equal-dimension blocks."""

from __future__ import annotations

from stabilitykit import Command, Component, Option, ReportSection, hookimpl

REFERENCE = "sections 2.1 and 3: F = g o phi_{T-1} o ... o phi_0 with blocks R^n -> R^n"

_RUN = (
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
_SIZE = Option("img_size", "int", minimum=1, help="image side, for networks that can be built for another size")
_DOWNLOAD = Option("download", "bool", default=False, help="fetch published weights (never otherwise)")
_MODULE = (
    Option("input", "ints", help="what one input looks like, as 3x32x32 (default: what the module says, 3x224x224)"),
    Option("normalise", default="none", help="none, imagenet, inception, or MEAN/STD as in 0.5/0.25"),
    Option("resize", "bool", default=False, help="resize images of another size"),
)


@hookimpl
def stabilitykit_models() -> list[Component]:
    """timm, hf-hub, torchvision and module."""
    where = "stabilitykit_timm.models:"
    return [
        Component(
            "model",
            "timm",
            where + "timm_model",
            "Any timm model, seen as equal-dimension blocks",
            (Option("name", help="timm's name, e.g. resnet50", required=True), *_RUN, _SIZE, _DOWNLOAD),
            primary="name",
            reference=REFERENCE,
        ),
        Component(
            "model",
            "hf-hub",
            where + "hf_hub_model",
            "A timm model of the Hugging Face hub (needs download)",
            (Option("name", help="ORG/NAME", required=True), *_RUN, _SIZE, _DOWNLOAD),
            primary="name",
            reference=REFERENCE,
        ),
        Component(
            "model",
            "torchvision",
            where + "torchvision_model",
            "Any torchvision classifier",
            (Option("name", help="torchvision's name, e.g. resnet50", required=True), *_RUN, _DOWNLOAD),
            primary="name",
            reference=REFERENCE,
        ),
        Component(
            "model",
            "module",
            where + "module_model",
            "Any nn.Module: PACKAGE.MODULE:BUILDER (runs that code)",
            (Option("builder", help="PACKAGE.MODULE:BUILDER", required=True), *_RUN, *_MODULE),
            primary="builder",
            reference=REFERENCE,
            runs_code=True,
        ),
        Component(
            "model",
            "converted",
            "stabilitykit_timm.convert:converted_model",
            "Revised, equal-dimension version of a staged network (a new model, to be trained)",
            (
                Option("name", help="timm's name of the network to convert, e.g. resnet18", required=True),
                Option("checkpoint", "path", help="weights of the converted network; untrained without"),
                Option("num_classes", "int", minimum=2, help="classes of the head"),
                Option(
                    "patch",
                    choices=("tiles", "phases"),
                    default="tiles",
                    help="how maps are cut between stages: contiguous tiles (the paper) or pixel phases",
                ),
                Option("input", "ints", default=(3, 32, 32), help="what one input looks like"),
                Option("width", "int", minimum=1, help="channels of the first stage (default: the network's)"),
                Option("seed", "int", default=0, minimum=0, help="seed of untrained weights"),
            ),
            primary="name",
            reference="section 3, Figure 1",
        ),
    ]


@hookimpl
def stabilitykit_properties() -> list[Component]:
    """What each block contributes."""
    return [
        Component(
            "property",
            "blocks",
            "stabilitykit_timm.blocks:Blocks",
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
    """audit and convert."""
    return [
        Command("audit", "stabilitykit_timm.cli_audit:command", "Measure every property of any timm model or module."),
        Command("convert", "stabilitykit_timm.cli_convert:command", "Build the equal-dimension version of a network."),
    ]


@hookimpl
def stabilitykit_report_sections() -> list[ReportSection]:
    """Which blocks matter."""
    return [ReportSection("blocks", "Which blocks matter", "stabilitykit_timm.sections:blocks", 25)]
