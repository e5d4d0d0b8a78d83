"""Logs every finished run to the MLflow server or folder $MLFLOW_TRACKING_URI; does nothing where that is not set."""

from __future__ import annotations

import os
from typing import Any

from stabilitykit import hookimpl

VARIABLE = "MLFLOW_TRACKING_URI"


@hookimpl
def stabilitykit_run_finished(run: dict[str, Any], cells: list[dict[str, Any]]) -> None:
    """One MLflow run for each model on each dataset."""
    if os.environ.get(VARIABLE):
        from stabilitykit_mlflow.logging import log_run  # imports mlflow, which takes seconds

        log_run(run, cells, os.environ[VARIABLE])
