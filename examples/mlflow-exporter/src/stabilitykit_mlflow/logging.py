"""A finished stabilitykit run as MLflow runs, one for each model on each dataset."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

EXPERIMENT = "stabilitykit"
# What one request may hold.
METRICS, PARAMETERS, LONGEST = 1000, 100, 500
ARTIFACTS = ("report.html", "measurements.csv", "run.json")


def log_run(run: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], uri: str) -> list[str]:
    """Log a finished run to the MLflow server or folder ``uri``.

    Arguments:
        run, cells: as the hook ``stabilitykit_run_finished`` is given them.

    Returns:
        ids of the MLflow runs. One that could not be logged whole is marked as failed in MLflow, and its error raised.
    """
    client = MlflowClient(tracking_uri=uri)
    experiment = _experiment(client, os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
    pairs = dict.fromkeys((cell["model"], cell["dataset"]) for cell in cells)
    made = []
    for model, dataset in pairs:
        own = [cell for cell in cells if (cell["model"], cell["dataset"]) == (model, dataset)]
        run_id = client.create_run(experiment, run_name=f"{model} on {dataset}"[:LONGEST]).info.run_id
        made.append(run_id)
        status = "FAILED"
        try:
            _log(client, run_id, run, own)
            status = "FINISHED" if all(cell["status"] == "ok" for cell in own) else "FAILED"
        finally:
            client.set_terminated(run_id, status)
    return made


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found is not None else client.create_experiment(name))


def _log(client: MlflowClient, run_id: str, run: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> None:
    now = int(time.time() * 1000)
    numbers = list(measured(cells))
    metrics = [Metric(name, value, now, 0) for name, value, _ in numbers]
    tags = [RunTag(f"kind.{name}", kind) for name, _, kind in numbers]
    tags += [RunTag(f"error.{_key(c['property'])}", c["error"]["message"][:LONGEST]) for c in cells if c["error"]]
    tags += [RunTag("stabilitykit.folder", run["folder"] or "")]
    settings = {"model": cells[0]["model"], "dataset": cells[0]["dataset"], **_settings(run)}
    parameters = [Param(_key(name), str(value)[:LONGEST]) for name, value in settings.items()]
    for start in range(0, len(metrics), METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS])
    for start in range(0, max(len(tags), len(parameters)), PARAMETERS):
        here = slice(start, start + PARAMETERS)
        client.log_batch(run_id, params=parameters[here], tags=tags[here])
    if run["folder"] is not None:
        for name in ARTIFACTS:
            if (Path(run["folder"]) / name).is_file():
                client.log_artifact(run_id, str(Path(run["folder"]) / name))


def measured(cells: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, str]]:
    """(metric, value, kind) of every measurement that has a value: ``expansivity/expansive_constant.min``."""
    for cell in cells:
        for measurement in cell["result"]["measurements"] if cell["result"] else ():
            if measurement["value"] is not None:  # infinity is the text "inf"
                name = f"{_key(cell['property'])}/{_key(measurement['name'])}"
                yield name, float(measurement["value"]), measurement["kind"]


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, but the lists of models, datasets and properties."""
    return {key: value for key, value in run["request"].items() if not isinstance(value, list)}


def _key(name: str) -> str:
    """``name`` with the characters that MLflow takes in the name of a metric, parameter or tag."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)[:200]
