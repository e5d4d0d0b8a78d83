"""When a run was made and how long it took: times.json, the one file in which two equal runs differ.

While a run goes on, the seconds of each finished cell are a line of times.jsonl: a file that is written whole at every
cell would cost the square of their number. Line and file are one when the run is over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.files import Folder

TIMES_FILE, JOURNAL_FILE = "times.json", "times.jsonl"
# What of run.json's provenance says when and how a run was started, and nothing about its numbers.
STARTED = ("created", "command")


class Times:
    """The content of times.json: ``created``, ``command``, and ``seconds`` by the slug of a cell.

    Arguments:
        folder: the run folder. A file that is missing or damaged counts as empty: no number rests on it. Lines that a
            killed run left in times.jsonl are newer than times.json.
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
        self.seconds |= self._noted()

    def _noted(self) -> Iterator[tuple[str, float]]:
        """The lines of times.jsonl; the last one may be cut off."""
        try:
            lines = self._folder.read(JOURNAL_FILE).splitlines()
        except (OSError, UsageProblem):
            return
        for line in lines:
            try:
                slug, seconds = json.loads(line)
                yield str(slug), float(seconds)
            except (TypeError, ValueError):
                continue

    def note(self, slug: str, seconds: float) -> None:
        """Keep how long the cell ``slug`` took, as one more line of times.jsonl."""
        self.seconds[slug] = seconds
        self._folder.append(JOURNAL_FILE, data=json.dumps([slug, seconds]) + "\n")

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
        """Write times.json atomically, with what times.jsonl says, which is then removed."""
        self._folder.write_json(TIMES_FILE, data={**self.started, "seconds": self.seconds})
        self._folder.remove(JOURNAL_FILE)
