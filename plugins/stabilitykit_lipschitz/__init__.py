"""Lip(g): certified Lipschitz constants of fully connected heads (mathematics, section 5)."""

from __future__ import annotations

from typing import Any

from stabilitykit import Component, Option, ReportSection, hookimpl

_PUBLIC = {
    "lipschitz": "api",
    "verify": "api",
    "LipschitzInterval": "interval",
    "Ball": "regions",
    "Box": "regions",
    "Data": "regions",
    "Network": "network",
    "dense": "network",
}
__all__ = ["Ball", "Box", "Data", "LipschitzInterval", "Network", "dense", "lipschitz", "verify"]


def __getattr__(name: str) -> Any:
    # numpy and scipy load only when something is used, so that listing plugins stays cheap
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@hookimpl
def stabilitykit_properties() -> list[Component]:
    return [
        Component(
            kind="property",
            name="lipschitz",
            target="stabilitykit_lipschitz.property:Lipschitz",
            summary="Lip(g) of the readout: realised Jacobian norm and certified upper bound (LipSDP)",
            reference="Table 2",
            primary="method",
            options=(
                Option(
                    "method",
                    "str",
                    "auto",
                    "how the upper bound is found",
                    choices=("auto", "sdp", "cvxpy", "layer", "product", "exact"),
                ),
                Option("norm", "str", "2", "norm of the state", choices=("1", "2", "inf")),
                Option("norm_out", "str", "2", "norm of the outputs", choices=("1", "2", "inf")),
                Option("tol", "float", 1e-4, "relative accuracy asked of the bound", minimum=1e-9, maximum=1.0),
                Option("solver", "str", "CLARABEL", "for method=cvxpy", choices=("CLARABEL", "SCS")),
                Option("seconds", "float", 60.0, "time allowed per readout", minimum=0.1),
            ),
        )
    ]


@hookimpl
def stabilitykit_report_sections() -> list[ReportSection]:
    return [ReportSection("lipschitz", "Lipschitz constants", "stabilitykit_lipschitz.sections:intervals", 90)]
