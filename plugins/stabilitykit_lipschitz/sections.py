"""Report section of Lip(g): each certified upper bound beside what was realised."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from stabilitykit import Kind, PropertyResult
from stabilitykit.base.text import place_text
from stabilitykit.reporting import Axis, Curve, RunData, interval_chart, kind_badge, line_chart, note, number, table
from stabilitykit.reporting.rundata import records
from stabilitykit.runs.folder import Cell


def intervals(run: RunData) -> Markup | None:
    """Intervals [realised, certified] of the Lipschitz constants."""
    parts = []
    for cell, result in run.results("lipschitz"):
        rows, listed = [], []
        for m in result.measurements:
            low, high = m.interval or (None, None)
            if m.kind == Kind.UPPER and high is None:
                high = m.value
            if m.kind == Kind.LOWER and low is None:
                low = m.value
            if m.value is None or (low is None and high is None) or "ipschitz" not in m.name:
                continue
            rows.append((m.name, low, m.value, high))
            width = "" if low is None or high is None or low <= 0 or math.isinf(high) else number(high / low - 1, 2)
            listed.append(
                (
                    m.name,
                    m.value,
                    kind_badge(m.kind),
                    "" if low is None else low,
                    "" if high is None else high,
                    width,
                    m.unit,
                    m.note,
                )
            )
        # A bound from below alone says nothing beside an interval that starts with it.
        starts = {low for _, low, _, high in rows if high is not None}
        rows = [r for r in rows if r[3] is not None or r[1] not in starts]
        if not rows:
            continue
        ends = [v for r in rows for v in r[1:] if v is not None]
        svg = interval_chart(
            rows,
            x=Axis.over("Lipschitz constant (l2 to l2)", [0.0, *ends], zero=True, log=False),
            title="Lipschitz constants of the readout",
        )
        caption = "From the largest slope realised to the certified upper bound; the dot is the number reported."
        columns = ["constant", "value", "kind", "realised from", "certified to", "relative width", "unit", "note"]
        parts += [
            run.heading(cell),
            run.figure(f"lipschitz-{cell.slug}", svg, caption),
            table(columns, listed, stacked=True),
            _per_depth(run, cell, result),
        ]
    if not parts:
        return None
    return Markup("").join(
        [
            note(
                "Lip(g) lies between the largest Jacobian norm found at an actual input and a bound proven by a "
                "certificate that is checked independently of the solver."
            ),
            *parts,
        ]
    )


def _per_depth(run: RunData, cell: Cell, result: PropertyResult) -> Markup:
    """With one readout per depth (probes): the interval at every depth."""
    rows = records(result.tables["readouts"]) if "readouts" in result.tables else []
    rows = [r for r in rows if isinstance(r["depth"], int)]
    if len(rows) < 2:
        return Markup("")
    curves = [
        Curve(name, [(r["depth"], None if r[key] is None else float(r[key])) for r in rows], dashed=dashed)
        for name, key, dashed in (("certified upper bound", "certified upper", False), ("realised", "realised", True))
    ]
    svg = line_chart(
        curves,
        x=Axis.along(rows, "depth"),
        y=Axis.over("Lip(g_t)", [v for c in curves for _, v in c.points], zero=True, log=False),
        title="Lipschitz constant of the readout at every depth",
    )
    over = {m.name.rpartition(".")[2]: m.value for m in result.measurements if m.name.startswith("lipschitz.")}
    told = [f"{name} {number(over[name])}" for name in ("mean", "spread") if over.get(name) is not None]
    more = f" Certified bounds over depths 1 and later: {', '.join(told)}." if told else ""
    return run.figure(
        f"lipschitz-depth-{cell.slug}", svg, "One readout per depth: each interval." + _missing(rows) + more
    )


def _missing(rows: list[dict[str, Any]]) -> str:
    """Words for the depths whose readout has no certified bound; empty where all have one."""
    bare = [place_text(r["depth"], r.get("at")) for r in rows if r["certified upper"] is None]
    return f" No certified bound at depth {', '.join(bare)}." if bare else ""
