"""Networks of timm, torchvision and the Hugging Face hub by name, with their weights and preprocessing."""

from __future__ import annotations

from stabilitykit_adapters import PIXEL_OPTIONS, REFERENCE, RUN_OPTIONS, WEIGHT_OPTIONS

from stabilitykit import Command, Component, Option, hookimpl

_SIZE = Option("img_size", "int", minimum=1, help="image side, for networks that can be built for another size")
_DOWNLOAD = Option("download", "bool", default=False, help="fetch published weights (never otherwise)")

_NAMED = (*RUN_OPTIONS, *PIXEL_OPTIONS, _DOWNLOAD)


@hookimpl
def stabilitykit_models() -> list[Component]:
    """timm, hf-hub, torchvision and converted."""
    where = "stabilitykit_timm.models:"
    return [
        Component(
            "model",
            "timm",
            where + "timm_model",
            "Any timm model, seen as equal-dimension blocks",
            (Option("name", help="timm's name, e.g. resnet50", required=True), *_NAMED, _SIZE),
            primary="name",
            reference=REFERENCE,
            free="library_options",
        ),
        Component(
            "model",
            "hf-hub",
            where + "hf_hub_model",
            "A timm model of the Hugging Face hub (needs download)",
            (Option("name", help="ORG/NAME", required=True), *_NAMED, _SIZE),
            primary="name",
            reference=REFERENCE,
            free="library_options",
        ),
        Component(
            "model",
            "torchvision",
            where + "torchvision_model",
            "Any torchvision classifier",
            (Option("name", help="torchvision's name, e.g. resnet50", required=True), *_NAMED),
            primary="name",
            reference=REFERENCE,
            free="library_options",
        ),
        Component(
            "model",
            "converted",
            "stabilitykit_timm.convert:converted_model",
            "Revised, equal-dimension version of a staged network (a new model, to be trained)",
            (
                Option("name", help="timm's name of the network to convert, e.g. resnet18", required=True),
                *WEIGHT_OPTIONS,
                *PIXEL_OPTIONS,
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
def stabilitykit_commands() -> list[Command]:
    """convert."""
    return [
        Command("convert", "stabilitykit_timm.cli_convert:command", "Build the equal-dimension version of a network.")
    ]
