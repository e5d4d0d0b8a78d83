"""JSON Schemas (draft 2020-12) of the files that are written and read: data of the package, in ``runs/schemas``."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

# Name -> the files it describes.
SCHEMAS = {
    "run": "run.json",
    "cell": "cells/*.json",
    "decisions": "decisions/*.json",
    "times": "times.json",
    "config": "evaluate -c FILE",
    "gate": "gate -c FILE",
}


def schema_text(name: str) -> str:
    """The schema called ``name``, one of SCHEMAS, as JSON text; KeyError for another name."""
    if name not in SCHEMAS:
        raise KeyError(name)
    return files("stabilitykit.runs").joinpath("schemas", f"{name}.schema.json").read_text(encoding="utf-8")


def schema(name: str) -> dict[str, Any]:
    """The schema called ``name`` as plain data."""
    import json

    data: dict[str, Any] = json.loads(schema_text(name))
    return data
