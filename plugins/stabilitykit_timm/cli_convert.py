"""``stabilitykit convert``: the revised, equal-dimension version of a staged network, as a new model to train."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from stabilitykit.base.errors import UsageProblem


@click.command("convert")
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the untrained weights, FILE.safetensors.")
@click.option("--num-classes", type=click.IntRange(2), default=10, show_default=True)
@click.option(
    "--patch",
    type=click.Choice(["tiles", "phases"]),
    default="tiles",
    show_default=True,
    help="How maps are cut between stages: contiguous tiles (the paper) or pixel-unshuffle phases.",
)
@click.option("--input", "input_size", default="3x32x32", show_default=True, help="What one input looks like.")
@click.option("--width", type=click.IntRange(1), help="Channels of the stem (default: the network's own).")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the untrained weights.")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(
    model: str,
    output: Path | None,
    num_classes: int,
    patch: str,
    input_size: str,
    width: int | None,
    seed: int,
    output_format: str,
) -> int:
    """Build the equal-dimension version of MODEL, e.g. timm:resnet18 (section 3 of the paper).

    Strides become space-to-depth patching, convolutions work in groups, the global pooling goes. The result is a new
    model, not the same function: its weights are untrained, and `stabilitykit train` trains it.
    """
    from stabilitykit_timm.convert import converted_model

    name = model.removeprefix("timm:")
    try:
        shape = tuple(int(size) for size in input_size.split("x"))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise UsageProblem(f"--input is CxHxW, as 3x32x32; got {input_size!r}")
    built = converted_model(name, num_classes=num_classes, patch=patch, input=shape, width=width, seed=seed)
    options = "".join(
        f",{key}={value}"
        for key, value, usual in (
            ("patch", patch, "tiles"),
            ("input", input_size, "3x32x32"),
            ("width", width, None),
            ("seed", seed, 0),
        )
        if value != usual
    )
    spec = f"converted:{name}{options}"
    facts: dict[str, Any] = {
        "model": spec,
        "blocks": built.num_blocks,
        "state_shape": list(built.state_shape),
        "num_classes": num_classes,
        "dimension": built.run.dimension,
        "parameters": sum(p.numel() for p in built.module.parameters()),
        "skips": built.run.kinds,
        "next": f"stabilitykit train {spec} -d DATASET",
    }
    if output is not None:
        _write(built, output, facts)
    if output_format == "json":
        print(json.dumps(facts, indent=1))
        return 0
    print(
        f"{spec}: {facts['blocks']} blocks, every state {facts['dimension']:,} numbers "
        f"({'x'.join(map(str, built.state_shape))} after the last), {facts['parameters']:,} parameters, "
        f"{num_classes} classes"
    )
    print("a new model, not the function of the original: train it with")
    print(f"  {facts['next']}")
    return 0


def _write(built: Any, output: Path, facts: dict[str, Any]) -> None:
    from stabilitykit.training.checkpoints import save_weights

    if output.suffix != ".safetensors":
        raise UsageProblem(f"--output is a .safetensors file; got {output}")
    if output.exists():
        raise UsageProblem(f"{output} exists; give another --output")
    save_weights(output, built.module.state_dict(), {"model": dict(built.describe())})
    facts["output"] = str(output)
    print(f"weights: {output}", file=sys.stderr)
