"""A folder as hubs keep them: config.json in timm's form beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stabilitykit import UsageProblem
from stabilitykit.training.containers import read_json

_PREPROCESSING = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


@dataclass(frozen=True)
class HubConfig:
    """What config.json says of a timm network; empty where there is none.

    Attributes:
        architecture: timm's name.
        num_classes: of the head.
        arguments: keywords of the builder (``model_args``).
        preprocessing: the part of ``pretrained_cfg`` that says how images are prepared.
    """

    architecture: str = ""
    num_classes: int | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)


def hub_config(checkpoint: str | Path | None, name: str) -> HubConfig:
    """The config of the folder ``checkpoint`` names, or holds the file it names.

    Raises:
        DataProblem: it is no JSON.
        UsageProblem: it is of another architecture than ``name``.
    """
    if checkpoint is None:
        return HubConfig()
    path = Path(checkpoint)
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file() or not (path.is_dir() or path.name.startswith(("model.", "pytorch_model."))):
        return HubConfig()
    content = read_json(file)
    if not isinstance(content, Mapping) or not isinstance(content.get("architecture"), str):
        return HubConfig()
    architecture = content["architecture"]
    if architecture.partition(".")[0] != name.rpartition("/")[2].partition(".")[0]:
        raise UsageProblem(f"timm:{name}: {file} is of another architecture: use timm:{architecture}")
    nested = content.get("pretrained_cfg")
    config = {**content, **(nested if isinstance(nested, Mapping) else {})}
    classes = content.get("num_classes", config.get("num_classes"))
    arguments = content.get("model_args")
    return HubConfig(
        architecture,
        classes if isinstance(classes, int) and not isinstance(classes, bool) else None,
        dict(arguments) if isinstance(arguments, Mapping) else {},
        {key: config[key] for key in _PREPROCESSING if config.get(key) is not None},
    )
