"""A finished run in an MLflow folder: constants as metrics, settings as parameters, the report as artifact."""

from __future__ import annotations

import math

import pytest
from stabilitykit.testing import events_of, tiny_result, tiny_run

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (pip install mlflow-skinny)")

from stabilitykit_mlflow import VARIABLE, stabilitykit_run_finished


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A client of a folder of its own, to which the plugin logs."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv(VARIABLE, (tmp_path / "mlruns").as_uri())
    return mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())


def logged(client, name="stabilitykit"):
    return client.search_runs([client.get_experiment_by_name(name).experiment_id])


def finished(folder, results=None, **names):
    return events_of(tiny_run(folder, results, **names))[-1].arguments


def test_a_run_is_logged_whole(tmp_path, client):
    told = finished(tmp_path / "run")
    (tmp_path / "run" / "report.html").write_text("<p>report</p>")
    stabilitykit_run_finished(**told)
    (run,) = logged(client)
    expected = {f"measured/{m.name}": m for m in tiny_result().measurements if m.value is not None}
    assert run.data.metrics == {name: m.value for name, m in expected.items()}
    assert math.isinf(run.data.metrics["measured/number.infinite"])
    assert all(run.data.tags[f"kind.{name}"] == str(m.kind) for name, m in expected.items())
    assert run.data.params == {"model": "tiny-model", "dataset": "tiny-dataset", "seed": "0"}
    assert run.info.status == "FAILED" and "no pair" in run.data.tags["error.broken"]  # one of its cells failed
    assert run.data.tags["stabilitykit.folder"] == str(tmp_path / "run")
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert names == {"report.html", "measurements.csv", "run.json"}


def test_names_that_mlflow_does_not_take_are_made_to_fit(tmp_path, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    stabilitykit_run_finished(**finished(tmp_path / "run", {"own:first=1,α=2": tiny_result()}, model="m" * 900))
    (run,) = logged(client, "mine")
    assert run.info.status == "FINISHED" and "own_first_1___2/number.exact" in run.data.metrics


def test_without_the_variable_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    stabilitykit_run_finished(**finished(tmp_path / "run"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_cannot_be_logged_whole_is_marked_as_failed(tmp_path, client, monkeypatch):
    from stabilitykit_mlflow import logging

    def refuse(*given, **named):
        raise OSError("server gone")

    monkeypatch.setattr(logging.MlflowClient, "log_batch", refuse)
    with pytest.raises(OSError, match="server gone"):
        stabilitykit_run_finished(**finished(tmp_path / "run"))
    assert logged(client)[0].info.status == "FAILED"
