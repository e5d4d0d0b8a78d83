"""What low precision does to the decisions of the whole network, and which block alone changes most."""

from stabilitykit import Component, Option, ReportSection, hookimpl

FORMATS = ("bf16", "fp16", "int8-weights", "int8")


@hookimpl
def stabilitykit_properties() -> list[Component]:
    return [
        Component(
            kind="property",
            name="precision",
            target="stabilitykit_precision.property:Precision",
            summary="decisions that bf16, fp16 and int8 change, image by image, and which block alone changes most",
            reference="decisions of the network that is deployed",
            primary="formats",
            options=(
                Option(
                    "formats",
                    "str",
                    "+".join(FORMATS),
                    "number formats, separated by + or spaces: " + ", ".join(FORMATS),
                    words=FORMATS,
                ),
                Option(
                    "scales",
                    "str",
                    "per-channel",
                    "int8 weights: one scale per output channel, or per weight tensor",
                    choices=("per-channel", "per-tensor"),
                ),
                Option(
                    "ranges",
                    "str",
                    "static",
                    "int8 inputs of layers: range from calibration images, or (dynamic) of every image itself",
                    choices=("static", "dynamic"),
                ),
                Option("calibration", "int", 64, "images that static ranges are read from (seeded choice)", minimum=1),
                Option(
                    "samples",
                    "int",
                    None,
                    "images run part by part (seeded choice), and as many of those whose decision changes; 0 for all "
                    "(default: as many as cost 1 forward pass an image, and at least 4)",
                    minimum=0,
                ),
            ),
        )
    ]


@hookimpl
def stabilitykit_report_sections() -> list[ReportSection]:
    return [
        ReportSection("precision", "Decisions under low precision", "stabilitykit_precision.sections:decisions", 105)
    ]
