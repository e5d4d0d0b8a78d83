"""Report sections of topological g-stability: Theorem 1's quotients, perturbation curves, Table 2."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from stabilitykit.reporting import Axis, Curve, RunData, kind_badge, line_chart, note, number, table, tag
from stabilitykit.reporting.html import short
from stabilitykit.reporting.rundata import as_float, records
from stabilitykit.runs.folder import Cell
from stabilitykit_topological.contradictions import contradictions
from stabilitykit_topological.theorem import HYPOTHESES

# The family whose scale is the number of the block that is reset, not a size.
RESET = "reset"


def table2(run: RunData) -> Markup | None:
    """The paper's Table 2: one column per model and dataset."""
    rows: list[list[Any]] = []
    columns: dict[str, None] = {}
    found = []
    for cell, result in run.results("table2"):
        if "table2" in result.tables:
            values = {str(r["column"]): r for r in records(result.tables["table2"])}
            columns.update(dict.fromkeys(values))
            found.append((cell, values))
    if not found:
        return None
    for column in columns:
        entries = [values.get(column) for _, values in found]
        rows.append(
            [
                column,
                *(
                    ""
                    if entry is None
                    else Markup("{} {}").format(number(as_float(entry["value"])), kind_badge(entry["kind"]))
                    for entry in entries
                ),
            ]
        )
    heads = [f"{short(cell.model)} on {short(cell.dataset)}" for cell, _ in found]
    return Markup("").join(
        [
            note(
                "The four columns of the paper's Table 2 and our stricter readings beside them. The "
                "topological constant "
                "is the g-shadowing constant divided by Lip(g), as Theorem 1 says and as the paper's numbers do (its "
                "prose says “multiplying”)."
            ),
            table(["constant", *heads], rows, stacked=True),
        ]
    )


def quotients(run: RunData) -> Markup | None:
    """T_g >= Sh_g / Lip(g) with the kinds of both sides, and a warning where a measured T_g is below a lower bound."""
    parts = []
    for cell, result in run.results("topological"):
        rows = [(m.name, m.value, kind_badge(m.kind), m.n, m.note) for m in result.measurements]
        parts += [run.heading(cell), table(["constant", "value", "kind", "N", "note"], rows, stacked=True)]
        for other, direct in run.results("perturbation"):
            if (other.model, other.dataset) == (cell.model, cell.dataset):
                parts += [tag("p", tag("strong", "Warning: "), text) for text in contradictions(result, direct)]
    if not parts:
        return None
    return Markup("").join(
        [
            note(
                "Theorem 1: T_g ≥ Sh_g / Lip(g). T_g.lower divides the exact s(eps)/eps over all pseudo-orbits of the "
                "sample by a certified Lip(g): a lower bound for the system restricted to the sample, at that eps. The "
                "others are the paper's reading, from one family of pseudo-orbits; they are larger by the factor that "
                "their notes give. " + HYPOTHESES
            ),
            *parts,
        ]
    )


def perturbation(run: RunData) -> Markup | None:
    """Tracing error and changed decisions against the size of the perturbation."""
    parts = []
    for cell, result in run.results("perturbation"):
        if "curve" not in result.tables:
            continue
        rows = [r for r in records(result.tables["curve"]) if r["delta"] is not None]
        if not rows:
            continue
        unit = result.tables["curve"].title
        parts += [
            run.heading(cell),
            _curve(run, cell, rows, "eps", "tracing error eps (readout l2)", unit + "."),
            _curve(
                run,
                cell,
                rows,
                "changed decisions",
                "share of changed decisions",
                "Share of decisions the perturbation changes.",
            ),
        ]
        parts += [_resets(run, cell, rows)] if any(r["family"] == RESET for r in rows) else []
        if "blocks" in result.tables:
            parts.append(_blocks(run, cell, records(result.tables["blocks"])))
    if not parts:
        return None
    return Markup("").join(
        [
            note(
                "Definition 3 measured directly: the blocks are perturbed, delta is the largest change of a block's "
                "output over the sample (l2 in state space), eps how far the perturbed orbits are from the "
                "nearest true "
                "one."
            ),
            *parts,
        ]
    )


def _curve(run: RunData, cell: Cell, rows: list[dict[str, Any]], key: str, label: str, caption: str) -> Markup:
    families = dict.fromkeys(str(r["family"]) for r in rows)
    curves = []
    for family in families:
        own = sorted((r for r in rows if r["family"] == family), key=lambda r: as_float(r["delta"]) or 0.0)
        curves.append(
            Curve(
                family,
                [(as_float(r["delta"]) or 0.0, as_float(r[key])) for r in own],
                titles=[
                    f"{family} {'' if r['scale'] is None else r['scale']}: delta {number(as_float(r['delta']))}, "
                    f"{key} {number(as_float(r[key]))}"
                    for r in own
                ],
                line=family != RESET,
            )
        )
    deltas = [v for c in curves for v, _ in c.points if v > 0]
    svg = line_chart(
        curves,
        x=Axis.over("delta, state space (l2)", deltas or [1.0]),
        y=Axis.over(
            label,
            [v for c in curves for _, v in c.points],
            zero=True,
            log=False if key == "changed decisions" else None,
        ),
        title=caption[:80],
    )
    return run.figure(f"perturbation-{key.replace(' ', '-')}-{cell.slug}", svg, caption)


def _resets(run: RunData, cell: Cell, rows: list[dict[str, Any]]) -> Markup:
    """Which block matters: what happens when one block is replaced."""
    own = sorted((r for r in rows if r["family"] == RESET), key=lambda r: as_float(r["scale"]) or 0.0)
    curves = [
        Curve(name, [(as_float(r["scale"]) or 0.0, as_float(r[key])) for r in own])
        for name, key in (("changed decisions", "changed decisions"), ("tracing error eps", "eps"))
    ]
    svg = line_chart(
        curves,
        x=Axis.along(own, "scale", "block reset"),
        y=Axis.over("share, or readout (l2)", [v for c in curves for _, v in c.points], zero=True, log=False),
        title="Effect of resetting one block",
    )
    return run.figure(
        f"perturbation-reset-{cell.slug}",
        svg,
        "One block at a time with untrained weights: share of changed decisions and tracing error.",
    )


def _blocks(run: RunData, cell: Cell, rows: list[dict[str, Any]]) -> Markup:
    groups: dict[str, list[tuple[float, float | None]]] = {}
    for row in rows:
        if row["family"] == RESET:
            continue  # has a chart of its own
        name = str(row["family"]) + ("" if row["scale"] is None else f" {number(as_float(row['scale']), 3)}")
        groups.setdefault(name, []).append((row["block"], _positive(row["relative delta"])))
    curves = [Curve(name, points) for name, points in groups.items()][:10]
    values = [v for c in curves for _, v in c.points]
    last = max((row["block"] for row in rows), default=1)
    one = [row for row in rows if row["family"] != RESET][: last + 1]
    svg = line_chart(
        curves,
        x=Axis.along(one, label="block t") if one else Axis.depths(last, "block t"),
        y=Axis.over("relative change of the block (l2)", values),
        title="Change per block",
    )
    return run.figure(
        f"perturbation-blocks-{cell.slug}", svg, "Largest relative change of each block's output; zeros are left out."
    )


def _positive(value: Any) -> float | None:
    found = as_float(value)
    return found if found is not None and found > 0 and math.isfinite(found) else None
