"""Plugins that are told when a cell or a run is finished, and what they are told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

CELL_FINISHED, RUN_FINISHED = "stabilitykit_cell_finished", "stabilitykit_run_finished"
# Seconds for one call of a hook, and for importing a plugin.
TIMEOUT_VARIABLE, LOADING_VARIABLE = "STABILITYKIT_HOOK_TIMEOUT", "STABILITYKIT_PLUGIN_TIMEOUT"
DEFAULT_TIMEOUT = 60.0


@dataclass(frozen=True)
class Event:
    """Something finished: plain data, so that it can cross to another process.

    Attributes:
        hook: name of the hook to call.
        arguments: its keyword arguments.
    """

    hook: str
    arguments: Mapping[str, Any]

    @classmethod
    def of_cell(cls, cell: Mapping[str, Any], info: Mapping[str, Any], folder: Path | None) -> Event:
        """The cell with the JSON ``cell`` is finished; ``info`` is run.json's content so far."""
        return cls(CELL_FINISHED, {"cell": dict(cell), "run": _run(info, folder)})

    @classmethod
    def of_run(cls, cells: Iterable[Mapping[str, Any]], info: Mapping[str, Any], folder: Path | None) -> Event:
        """The run with the cells ``cells``, as JSON, and run.json's content ``info`` is finished."""
        return cls(RUN_FINISHED, {"run": _run(info, folder), "cells": [dict(cell) for cell in cells]})


def _run(info: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    return {"folder": None if folder is None else str(folder.absolute()), **info}


@dataclass(frozen=True)
class Listener:
    """One plugin that implements a hook for finished cells or runs.

    Attributes:
        key: of its entry point (:func:`stabilitykit.plugins.loading.key_of`).
        culprit: the plugin with its distribution and version, for messages.
        hooks: names of the hooks it implements.
        manager: holds this plugin alone.
    """

    key: str
    culprit: str
    hooks: tuple[str, ...]
    manager: pluggy.PluginManager

    def tell(self, event: Event) -> None:
        """Call the plugin's hook with copies of the event's arguments. Whatever the plugin raises passes."""
        if event.hook in self.hooks:
            getattr(self.manager.hook, event.hook)(**json.loads(json.dumps(event.arguments)))


def hook_timeout() -> float:
    """Seconds that one call of a hook may take where the process is supervised."""
    try:
        return max(float(os.environ.get(TIMEOUT_VARIABLE, "")), 0.1)
    except ValueError:
        return DEFAULT_TIMEOUT
