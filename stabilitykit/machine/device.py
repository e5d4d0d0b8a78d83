"""Choosing the device, and a check that torch and torchvision were built for each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stabilitykit.base.errors import UsageProblem, describe

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> torch.device:
    """``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; UsageProblem if not there."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"  # torchrun: one GPU per process
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageProblem(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UsageProblem(f"device {name}: no CUDA device on this machine; use --device cpu or auto")
        if (device.index or 0) >= count:
            raise UsageProblem(f"device {name}: this machine has {count} CUDA device(s), numbered from 0")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UsageProblem("device mps: not available on this machine; use --device cpu or auto")
    elif device.type != "cpu":
        raise UsageProblem(f"device {name} is not supported; use auto, cpu, cuda, cuda:N or mps")
    return device


def check_torch_pair() -> None:
    """UsageProblem with the cure when torchvision's compiled operators do not load with this torch.

    Its library is loaded, which takes a millisecond; importing all of torchvision takes seconds, and most networks
    do without. Only where no library is found where it usually lies is torchvision imported.
    """
    import importlib.util

    import torch

    try:
        spec = importlib.util.find_spec("torchvision")
        folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
        libraries = [file for folder in folders for file in folder.glob("_C*") if file.suffix in (".so", ".pyd")]
        for library in libraries:
            torch.ops.load_library(library)
        if not libraries:
            import torchvision  # noqa: F401
    except (RuntimeError, ImportError, OSError, AttributeError, ValueError) as error:
        import importlib.metadata as metadata

        def version(name: str) -> str:
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                return "absent"

        raise UsageProblem(
            f"torch {version('torch')} and torchvision {version('torchvision')} do not work together "
            f"({describe(error)}); install the pair that belongs together, {_cure(version('torch'))}"
        ) from error


def _cure(torch_version: str) -> str:
    """The torchvision that belongs to a torch: 0.(N + 15) to 2.N."""
    parts = torch_version.split(".")
    if parts[0] == "2" and len(parts) > 1 and parts[1].isdigit():
        return f"e.g. `pip install 'torchvision==0.{int(parts[1]) + 15}.*'` to this torch"
    return "e.g. `pip install -c constraints.txt torch torchvision`"
