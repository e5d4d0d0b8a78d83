"""Recorded readouts as a dynamical system: trajectories from any framework, measured like a model's own."""

from __future__ import annotations

from stabilitykit import Component, Option, hookimpl

_PATH = Option("path", "path", required=True, help=".npz with values (T+1, N, K) and labels (N,); optional class_names")


@hookimpl
def stabilitykit_models() -> list[Component]:
    return [
        Component(
            "model",
            "recorded",
            "stabilitykit_recorded.model:RecordedModel",
            "Readouts recorded elsewhere, replayed by the shift map",
            (_PATH,),
            primary="path",
            reference="section 1 of the paper with phi the cyclic shift",
        )
    ]


@hookimpl
def stabilitykit_datasets() -> list[Component]:
    return [
        Component(
            "dataset",
            "recorded",
            "stabilitykit_recorded.dataset:RecordedDataset",
            "The images of a file of recorded readouts",
            (_PATH,),
            primary="path",
        )
    ]
