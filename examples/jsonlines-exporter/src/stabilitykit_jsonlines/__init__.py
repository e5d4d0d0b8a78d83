"""Appends every measurement to the file $STABILITYKIT_JSONLINES; does nothing where that is not set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stabilitykit import hookimpl

VARIABLE = "STABILITYKIT_JSONLINES"


@hookimpl
def stabilitykit_cell_finished(cell: dict[str, Any], run: dict[str, Any]) -> None:
    """One line per measurement of the cell, or one with its error."""
    if os.environ.get(VARIABLE):
        from stabilitykit_jsonlines.lines import append, lines_of

        append(Path(os.environ[VARIABLE]), lines_of(cell, run))
