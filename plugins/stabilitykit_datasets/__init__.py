"""Data sets of the package datasets: folders that ``save_to_disk`` wrote, and folders of Parquet files."""

from __future__ import annotations

from stabilitykit import Component, Option, hookimpl


@hookimpl
def stabilitykit_datasets() -> list[Component]:
    """hf."""
    return [
        Component(
            "dataset",
            "hf",
            "stabilitykit_datasets.dataset:huggingface",
            "Images of a Hugging Face data set on disk: save_to_disk or Parquet files",
            (
                Option("path", "path", help="the folder; ORG/NAME of the hub with download", required=True),
                Option("split", help="train, test... (default: the only one)"),
                Option("image", help="column of the images (default: the only one of images)"),
                Option("label", help="column of the labels (default: the only one of classes)"),
                Option("size", "int", minimum=1, help="side to which images are resized (default: as stored)"),
                Option("channels", choices=("3", "1", "keep"), default="keep", help="RGB, grey, or as stored"),
                Option("download", "bool", default=False, help="fetch ORG/NAME from the hub (never otherwise)"),
            ),
            primary="path",
        )
    ]
