"""The headline constants of one network, for each of the three readouts."""

from __future__ import annotations

from typing import Any

from population import Member

import stabilitykit

# Of Lip only the upper bound is used: no search for a lower one.
COMMON = (
    "expansivity:curve=0,nearest=never",
    "shadowing",
    "lipschitz:search_seconds=0.01",
    "topological",
    "window",
    "outlying",
    "entropy",
)
PROPERTIES = {
    "head": (
        "expansivity:curve=0,nearest=never,extrapolate=10000",
        *COMMON[1:],
        "perturbation",
        "certified_radius:precision=none,samples=20",
        "blocks",
    ),
    "lens": COMMON,
    "probe": COMMON,
}
"""What is measured of the readouts. Radii and perturbations are those of the network's own head."""

SHARED = (
    "prediction_depth.mean",
    *(f"expansive_constant.{how}{form}" for how in ("max", "min", "mean") for form in ("", ".normalised")),
    "Sh_exact",
    "Sh_profile",
    "Sh_best",
    "smallest_jump",
    "tracers.of_another_class",
    "lipschitz",
    "T_g.lower",
    "T_g.profile",
    "window.ratio",
    "outlying.share",
    "entropy",
)
NAMES = {
    "head": (
        *SHARED,
        "expansive_constant.max.larger",
        "expansive_constant.mean.larger",
        "Sh_paper",
        "T_g.paper",
        "T_g.direct",
        "changed_decisions.gaussian",
        "changed_decisions.pruning",
        "certified_radius",
        "certified_radius.smallest",
        "weightiest_block.left_out_changes",
    ),
    "lens": SHARED,
    "probe": SHARED,
}
"""Which measurements become columns. ``.larger`` is extrapolated to 10,000 images."""


def constants(member: Member, readout: str, probe_steps: int, seed: int = 0) -> dict[str, Any]:
    """Values of one readout by name, each with ``value``, ``kind`` and ``n``; ``failed`` names what has none, and why.

    Arguments:
        readout: ``head``, ``lens`` or ``probe``. The latter two are trained on 2,000 of the training images with the
            labels the network saw, ``probe_steps`` batches of 100.
    """
    trained = {} if readout == "head" else {"probe_dataset": member.readout_dataset, "probe_steps": probe_steps}
    run = stabilitykit.evaluate(
        member.spec, member.test_spec, list(PROPERTIES[readout]), readout=readout, seed=seed, cache=False, **trained
    )
    found: dict[str, Any] = {}
    failed = {}
    for cell in run.cells:
        if cell.result is None:
            failed[cell.property] = cell.error["message"]
            continue
        for m in cell.result.measurements:
            if m.name in NAMES[readout] and m.name not in found:
                found[m.name] = {"value": m.value, "kind": str(m.kind), "n": m.n}
    return {"values": found, "failed": failed}
