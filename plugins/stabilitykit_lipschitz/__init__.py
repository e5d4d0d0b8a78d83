"""Lip(g): certified Lipschitz constants of fully connected heads (mathematics, section 5)."""

from __future__ import annotations

from typing import Any

from stabilitykit import Component, Option, ReportSection, hookimpl

_PUBLIC = {
    "lipschitz": "api",
    "verify": "verification",
    "LocalBounds": "local",
    "lipschitz_local": "local",
    "LipschitzInterval": "interval",
    "MarginBounds": "margins",
    "Ball": "regions",
    "Box": "regions",
    "Data": "regions",
    "Network": "network",
    "dense": "network",
    "Penalty": "penalty",
}
__all__ = [
    "Ball",
    "Box",
    "Data",
    "LipschitzInterval",
    "LocalBounds",
    "MarginBounds",
    "Network",
    "Penalty",
    "dense",
    "lipschitz",
    "lipschitz_local",
    "verify",
]

MOVED_BY = ("bf16", "fp16", "int8", "none")


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
                    choices=("auto", "sdp", "cvxpy", "layer", "product", "exact", "layerwise"),
                ),
                Option("norm", "str", "2", "norm of the state", choices=("1", "2", "inf")),
                Option("norm_out", "str", "2", "norm of the outputs", choices=("1", "2", "inf")),
                Option("tol", "float", 1e-4, "relative accuracy asked of the bound", minimum=1e-9, maximum=1.0),
                Option("solver", "str", "CLARABEL", "for method=cvxpy", choices=("CLARABEL", "SCS")),
                Option("seconds", "float", 60.0, "work for the upper bound, in nominal processor seconds", minimum=0.1),
                Option("search_seconds", "float", 2.0, "work for the lower bound (more: never lower)", minimum=0.01),
            ),
        ),
        Component(
            kind="property",
            name="certified_radius",
            target="stabilitykit_lipschitz.radius_property:CertifiedRadius",
            summary="how far a state may move, at every depth, before its decision can change; beside it bf16 and int8",
            reference="Lipschitz margin",
            primary="precision",
            options=(
                Option(
                    "precision",
                    "str",
                    "bf16+int8",
                    f"formats whose moves are held against the radii, separated by +: {', '.join(MOVED_BY)}",
                    words=MOVED_BY,
                ),
                Option("at", "float", None, "state error r of the measured share (default: none)", minimum=0.0),
                Option(
                    "samples",
                    "int",
                    None,
                    "images run in every format, 0 for all (default: a tenth, 20 to 100 of them)",
                    minimum=0,
                ),
                Option(
                    "local", "int", 0, "images whose radius is sought by local constants, too, where g bends", minimum=0
                ),
                Option(
                    "local_by",
                    "str",
                    "sdp",
                    "how: closed: many images at once, milliseconds each; sdp: from there on by certificates",
                    choices=("sdp", "closed"),
                ),
                Option("rows", "int", 50, "images of smallest radius kept in the table", minimum=1, maximum=1000),
                Option("tol", "float", 1e-4, "relative accuracy asked of a bound", minimum=1e-9, maximum=1.0),
                Option("seconds", "float", 60.0, "time allowed for the bounds of one readout", minimum=0.1),
            ),
        ),
    ]


@hookimpl
def stabilitykit_report_sections() -> list[ReportSection]:
    where = "stabilitykit_lipschitz."
    return [
        ReportSection("lipschitz", "Lipschitz constants", where + "sections:intervals", 90),
        ReportSection("certified_radius", "Certified radii", where + "radius_sections:radii", 92),
    ]
