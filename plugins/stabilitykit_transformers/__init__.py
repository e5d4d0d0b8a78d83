"""Image classifiers of the package transformers, from the folders that ``save_pretrained`` writes."""

from __future__ import annotations

from stabilitykit_adapters import PIXEL_OPTIONS, REFERENCE, VIEW_OPTIONS

from stabilitykit import Component, Option, hookimpl


@hookimpl
def stabilitykit_models() -> list[Component]:
    """transformers."""
    return [
        Component(
            "model",
            "transformers",
            "stabilitykit_transformers.source:transformers_model",
            "An image classifier in a folder of save_pretrained, with its image processor",
            (
                Option("folder", "path", help="the folder; ORG/NAME of the hub with download", required=True),
                *VIEW_OPTIONS,
                *PIXEL_OPTIONS,
                Option("download", "bool", default=False, help="fetch ORG/NAME from the hub (never otherwise)"),
            ),
            primary="folder",
            reference=REFERENCE,
        )
    ]
