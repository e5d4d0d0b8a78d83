"""Where finished cells go: into a run folder, or nowhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stabilitykit.base.decisions import Decisions
from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import SCHEMA_VERSION
from stabilitykit.runs.folder import IMAGES_FILE, Cell, RunFolder, default_run_path, remove_if_unused


class Recorder:
    """Keeps cells in memory only; the base of those that write them.

    Attributes:
        cells: finished cells, in the order they were run.
        info: run.json's content (request, provenance, subjects), without the list of cells.
        decisions: what each network decided about every image, by (model, dataset).
        path: the run folder; None: there is none.
        announces: whether whoever takes the cells tells plugins of them; else the run does.
        pictures: PNG files by (dataset, index), where they are kept in memory.
    """

    path: Path | None = None
    announces: bool = False

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.decisions: dict[tuple[str, str], Decisions] = {}
        self.info: dict[str, Any] = {}
        self.pictures: dict[tuple[str, int], bytes] = {}

    def earlier(self) -> tuple[Mapping[str, Any] | None, list[Cell]]:
        """(the request of the run to resume or None, its finished cells)."""
        return None, []

    def finish(self, cell: Cell, info: Mapping[str, Any]) -> None:
        """``cell`` is finished; ``info`` as far as it is known now, one object as long as nothing of it changes."""
        self.cells.append(cell)
        self.info = dict(info)

    def decide(self, decisions: Decisions) -> None:
        """Keep what a network decided; it is known before the first cell that used its readouts is finished."""
        self.decisions[decisions.model, decisions.dataset] = decisions

    def wants_image(self, dataset: str, index: int) -> bool:
        """Is a picture of image ``index`` worth drawing?"""
        return False

    def image(self, dataset: str, index: int, png: bytes) -> None:
        """Keep a picture."""

    def close(self, status: str, info: Mapping[str, Any] | None = None) -> None:
        """The run is over: ``"complete"`` or ``"interrupted"``."""
        self.info = {**(self.info if info is None else info), "status": status}

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is held."""

    def content(self) -> dict[str, Any]:
        """run.json's content."""
        return {**self.info, "cells": [[c.model, c.dataset, c.property] for c in self.cells]}


class KeepingRecorder(Recorder):
    """Keeps pictures, too, so that the run can be saved or reported later."""

    def wants_image(self, dataset: str, index: int) -> bool:
        return (dataset, index) not in self.pictures

    def image(self, dataset: str, index: int, png: bytes) -> None:
        self.pictures[dataset, index] = png


class FolderRecorder(Recorder):
    """Writes cells, pictures, run.json and measurements.csv into a run folder, each as soon as it is there."""

    def __init__(self, path: Path | None, resume: bool) -> None:
        """``path`` None: a new folder below ``runs``."""
        super().__init__()
        self._made = path is None
        self._folder = RunFolder(default_run_path() if path is None else path)
        self.path = self._folder.path
        self._resume = resume
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> FolderRecorder:
        """Take the folder. UsageProblem when it cannot be used; nothing has been written then."""
        try:
            self._stack.enter_context(self._folder.open(resume=self._resume))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of the folder; one that was made for this run and stayed empty is removed."""
        self._stack.close()
        if self._made and not self.cells:
            remove_if_unused(self._folder.path)

    def earlier(self) -> tuple[Mapping[str, Any] | None, list[Cell]]:
        if not self._resume or not (self._folder.path / "run.json").exists():
            return None, []
        run = self._folder.read_run()
        request = run.get("request")
        if run["schema"] != SCHEMA_VERSION:
            raise UsageProblem(
                f"--resume: {self._folder.path} was made by an earlier version, with which its options may have meant "
                "something else; choose another folder (verify, compare and report read it as it is)"
            )
        if request is not None and not isinstance(request, Mapping):
            raise UsageProblem(
                f"--resume: the request in {self._folder.path}/run.json is damaged; choose another folder"
            )

        def warn(text: str) -> None:
            print(f"warning: {text}; computed again", file=sys.stderr)

        self.decisions |= self._folder.read_decisions(warn)
        return request, self._folder.read_cells(warn)

    def decide(self, decisions: Decisions) -> None:
        super().decide(decisions)
        self._folder.write_decisions(decisions)

    def finish(self, cell: Cell, info: Mapping[str, Any]) -> None:
        super().finish(cell, info)
        if len(self.cells) == 1:
            self._folder.write_run({**self.content(), "status": "running"})
        self._folder.write_cell(cell)

    def wants_image(self, dataset: str, index: int) -> bool:
        return not self._folder.image_path(dataset, index).exists()

    def image(self, dataset: str, index: int, png: bytes) -> None:
        if self.wants_image(dataset, index):
            self._folder.write_image(dataset, index, png)

    def close(self, status: str, info: Mapping[str, Any] | None = None) -> None:
        super().close(status, info)
        # A run of which nothing is finished leaves no folder behind: its error is raised instead.
        if self.cells:
            self._folder.write_run(self.content())
            self._folder.complete(self.cells, self.decisions.values())
            self._folder.write_csv(self.cells)
            if self.decisions:
                from stabilitykit.runs.rows import images_csv

                self._folder.files.write(IMAGES_FILE, data=images_csv(self.decisions, self.cells))
