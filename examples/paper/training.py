"""Trainings by `stabilitykit train`, and the weights of chosen epochs kept on the way."""

from __future__ import annotations

import argparse
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images import images_of, spelled
from nets import Net, trained_epochs

from stabilitykit.cli import run as run_cli

KEPT_EPOCHS = (1, 2, 4, 8, 12, 17, 24, 30, 50, 100)
LOOK_SECONDS = 0.5


def train(net: Net, given: argparse.Namespace) -> None:
    """Train to the end, going on where an interrupted training stopped; SystemExit where that fails."""
    images = images_of(net.name, given)
    assert images is not None
    net.weights.parent.mkdir(parents=True, exist_ok=True)
    model = net.architecture if given.width is None else f"{net.architecture}:width={given.width}"
    options = {"--epochs": given.epochs, "--limit": given.train_limit}
    # A mirrored digit is none.
    options["--augment"] = "crop" if given.recipe == "augmented" and net.name.startswith("mnist") else None
    command = ["train", model, "-d", spelled(images[0]), "--test", spelled(images[1]), "--recipe", given.recipe]
    command += [str(part) for option, value in options.items() if value is not None for part in (option, value)]
    command += ["--seed", str(net.seed), "--device", given.device, "-o", str(net.weights), "--resume"]
    with keeping(net, given.snapshots):
        code = run_cli(command)
    if code:
        raise SystemExit(code)


@contextmanager
def keeping(net: Net, folder: Path | None) -> Iterator[None]:
    """While the body trains, copy the weights of KEPT_EPOCHS into ``folder`` (None: keep nothing)."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            keep(net, folder)

    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        keep(net, folder)


def keep(net: Net, folder: Path | None) -> None:
    """Copy the weights as they are now, if they are of an epoch to keep that is not kept yet."""
    if folder is None or not net.weights.exists():
        return
    epoch = trained_epochs(net.weights)
    copy = folder / f"{net.key}_e{epoch}.safetensors"
    if epoch in KEPT_EPOCHS and not copy.exists():
        part = copy.with_suffix(".part")
        shutil.copyfile(net.weights, part)
        if trained_epochs(part) == epoch:  # not replaced meanwhile
            part.replace(copy)
