"""Revised ResNets of the paper: residual networks whose blocks all map R^n to R^n."""

from __future__ import annotations

from stabilitykit import Component, Option, hookimpl

REFERENCE = "section 3, Figure 1"
COMMON = (
    Option("num_classes", "int", default=10, minimum=2, help="number of classes K"),
    Option("checkpoint", "path", help="weights (.safetensors, .pth); untrained without"),
    Option("allow_unused", help="patterns of tensors of the file that may be left out, as loss.*"),
    Option("weights", help="which of several sets of weights in the file, e.g. model_ema"),
    Option("mean", "floats", help="mean per channel, subtracted from pixels (default: pixels as they are)"),
    Option("std", "floats", help="standard deviation per channel, pixels are divided by"),
    Option(
        "init",
        choices=("torch", "kaiming_fan_out"),
        default="torch",
        help="untrained convolutions: torch's own, or Kaiming's normal distribution over the outputs",
    ),
    Option("seed", "int", default=0, minimum=0, help="seed of the untrained weights"),
)


def _options(depths: str) -> tuple[Option, ...]:
    return (
        Option(
            "stem",
            choices=("conv", "patch"),
            default="conv",
            help="conv: 7x7 convolution and max-pool; patch: the image itself, cut into tiles",
        ),
        Option(
            "grouping", choices=("first", "all"), default="first", help="which blocks of a stage use group convolutions"
        ),
        Option(
            "width",
            "int",
            default=64,
            minimum=4,
            maximum=1024,
            help="channels of the stem, a multiple of 4; a state has 64 * width numbers",
        ),
        Option("depths", "ints", default=tuple(map(int, depths.split("-"))), help=f"blocks per stage, as {depths}"),
        Option("final_relu", "bool", default=True, help="false: blocks are exactly x + f(x)"),
        *COMMON,
    )


@hookimpl
def stabilitykit_models() -> list[Component]:
    """resnet18, resnet50, and a small pretrained one."""
    return [
        Component(
            "model",
            "resnet18",
            "stabilitykit_resnets.model:resnet18",
            "Revised ResNet-18 (bottlenecks 2-2-2-2, 6.25 M parameters), every state 4,096 numbers",
            options=_options("2-2-2-2"),
            primary="checkpoint",
            reference=REFERENCE,
        ),
        Component(
            "model",
            "resnet50",
            "stabilitykit_resnets.model:resnet50",
            "Revised ResNet-50 (bottlenecks 3-4-6-3, 15.8 M parameters), every state 4,096 numbers",
            options=_options("3-4-6-3"),
            primary="checkpoint",
            reference=REFERENCE,
        ),
        Component(
            "model",
            "isolift",
            "stabilitykit_resnets.isolift:isolift",
            "IsoLift: 16 or 33 blocks x + f(x) joined by isometries from the image on; residual, wide or grouped",
            options=(
                Option("depth", "int", default=16, choices=(16, 33), help="T, number of blocks"),
                Option(
                    "variant",
                    choices=("residual", "wide", "grouped"),
                    default="residual",
                    help="inside a block: a quarter of the channels, half of them, half with group convolutions",
                ),
                Option(
                    "width",
                    "int",
                    default=64,
                    minimum=48,
                    maximum=1024,
                    help="channels of h_0, even; a state has 64 * width numbers, of which the image fills 3,072",
                ),
                Option(
                    "groups", "int", default=32, minimum=1, help="groups of the 3x3 convolutions of variant=grouped"
                ),
                Option(
                    "spectral",
                    "float",
                    default=0.0,
                    minimum=0.0,
                    maximum=100.0,
                    help="bound of Lip(f) of every block x + f(x), by construction; 0: none, with BatchNorm",
                ),
                *COMMON,
            ),
            primary="checkpoint",
            reference="isometric lifts between stages",
        ),
        Component(
            "model",
            "resnet18-digits",
            "stabilitykit_resnets.model:resnet18_digits",
            "Revised ResNet-18 of width 8, pretrained on digits (embedded), states of 512 numbers",
            reference=REFERENCE,
        ),
    ]
