"""When a run was made and how long it took: times.json, the one file in which two equal runs differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.files import Folder

TIMES_FILE = "times.json"
# What of run.json's provenance says when and how a run was started, and nothing about its numbers.
STARTED = ("created", "command")


class Times:
    """The content of times.json: ``created``, ``command``, and ``seconds`` by the slug of a cell.

    Arguments:
        folder: the run folder. A file that is missing or damaged counts as empty: no number rests on it.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.started: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        try:
            data = folder.read_json(TIMES_FILE)
            self.started = {key: data[key] for key in STARTED if key in data}
            self.seconds = {str(slug): float(value) for slug, value in dict(data.get("seconds", {})).items()}
        except (UsageProblem, TypeError, ValueError, AttributeError):
            pass

    def take(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what of ``run`` (run.json's content) says when it was made -> ``run`` without it."""
        provenance = dict(run.get("provenance") or {})
        self.started |= {key: provenance.pop(key) for key in STARTED if key in provenance}
        return {**run, "provenance": provenance} if "provenance" in run else dict(run)

    def give(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """``run`` with what :meth:`take` took out of it; runs made before times.json hold it themselves."""
        provenance = run.get("provenance")
        if not isinstance(provenance, Mapping):
            return dict(run)
        return {**run, "provenance": {**self.started, **provenance}}

    def write(self) -> None:
        """Write times.json atomically."""
        self._folder.write_json(TIMES_FILE, data={**self.started, "seconds": self.seconds})
