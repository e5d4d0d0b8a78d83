"""Trainings by `stabilitykit train`, and the weights of chosen epochs kept on the way."""

from __future__ import annotations

import argparse

from images import images_of, spelled
from nets import Net

from stabilitykit.cli import run as run_cli


def train(net: Net, given: argparse.Namespace) -> None:
    """Train to the end, going on where an interrupted training stopped; SystemExit where that fails."""
    images = images_of(net.name, given)
    assert images is not None
    net.weights.parent.mkdir(parents=True, exist_ok=True)
    model = net.architecture if given.width is None else f"{net.architecture}:width={given.width}"
    options = {"--epochs": given.epochs, "--limit": given.train_limit}
    # A mirrored digit is none.
    options["--augment"] = "crop" if given.recipe == "augmented" and net.name.startswith("mnist") else None
    options["--keep-epochs"] = ",".join(map(str, given.keep_epochs)) if given.dependence and given.keep_epochs else None
    command = ["train", model, "-d", spelled(images[0]), "--test", spelled(images[1]), "--recipe", given.recipe]
    command += [str(part) for option, value in options.items() if value is not None for part in (option, value)]
    command += ["--seed", str(net.seed), "--device", given.device, "-o", str(net.weights), "--resume"]
    code = run_cli(command)
    if code:
        raise SystemExit(code)
