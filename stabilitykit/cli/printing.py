"""What is printed when a run is over."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from stabilitykit.runs.recorder import Recorder


def show_run(recorder: Recorder, printing: Mapping[str, Any]) -> Callable[[], int] | None:
    """Print a finished run -> what writes its report, if one is wanted.

    Arguments:
        printing: ``format`` (``"table"``, ``"json"`` or ``"csv"``) and ``report``.
    """
    if printing["format"] == "json":
        shown = {"folder": str(recorder.path), **recorder.content(), "cells": [c.to_json() for c in recorder.cells]}
        print(json.dumps(shown, indent=1, ensure_ascii=False))
    elif printing["format"] == "csv":
        from stabilitykit.runs.folder import to_csv

        sys.stdout.write(to_csv(recorder.cells))
    else:
        from stabilitykit.reporting.terminal import print_cells
        from stabilitykit.runs.folder import warnings_by_pair

        warnings = warnings_by_pair(recorder.info)
        print_cells(recorder.cells, decisions=recorder.decisions, warnings=warnings)
    sys.stdout.flush()
    print(f"run folder: {recorder.path}", file=sys.stderr)
    for cell in recorder.cells:
        if not cell.ok:
            print(
                f"failed: {cell.property} on {cell.model} x {cell.dataset}: {cell.error['message']} "
                f"({cell.error['culprit']})",
                file=sys.stderr,
            )
    if not printing["report"]:
        return None

    def write() -> int:
        from stabilitykit.reporting.page import write_run
        from stabilitykit.reporting.rundata import RunData

        assert recorder.path is not None
        print(f"report: {write_run(RunData.read(recorder.path, recorder.decisions))}", file=sys.stderr)
        return 0

    return write
