"""Report sections of g-shadowing: the best-traced image through the blocks (Tables 4 and 5) and the profile s(eps)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from stabilitykit import Measurement, PropertyResult
from stabilitykit.base.text import place_text
from stabilitykit.reporting import (
    Axis,
    Curve,
    RunData,
    details,
    kind_badge,
    line_chart,
    note,
    number,
    picture,
    strip,
    table,
    tag,
)
from stabilitykit.reporting.rundata import as_float, records
from stabilitykit.runs.folder import Cell

# (measurement, role) of the orbit shown first: the smallest eps of all orbits is the image that is traced best.
SHOWN = (("Sh_paper", "eps"), ("Sh_profile", "eps"))
WHAT = {"eps": "the orbit that attains eps", "delta": "the orbit that attains delta"}


def traced(run: RunData) -> Markup | None:
    """Tables 4 and 5: pseudo-orbits as strips of images, with classes and distances at every depth."""
    parts = []
    for cell, result in run.results("shadowing"):
        orbits = list(_orbits(cell, result))
        first = next((o for wanted in SHOWN for o in orbits if o[:2] == wanted), orbits[0] if orbits else None)
        if first is None:
            continue
        parts += [run.heading(cell), _strip(run, cell, *first)]
        seen = [first[2]]
        for name, role, rows in orbits:
            if any(_same(rows, earlier) for earlier in seen):
                continue
            seen.append(rows)
            parts.append(details(f"{name}: {WHAT[role]}", _strip(run, cell, name, role, rows)))
    if not parts:
        return None
    return Markup("").join(
        [
            note(
                "As in the paper's Tables 4 and 5: a pseudo-orbit steps to another image after every "
                "block. The jump is "
                "what it cheats at that step (at most delta); the tracer is one image whose true orbit "
                "stays near it at "
                "every depth (within eps)."
            ),
            *parts,
        ]
    )


def _orbits(cell: Cell, result: PropertyResult) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """(constant, role, rows by depth) of every witness orbit."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in records(result.tables["orbits"]) if "orbits" in result.tables else ():
        groups.setdefault((str(row["constant"]), str(row["role"])), []).append(row)
    for (name, role), rows in groups.items():
        yield name, role, rows


def _same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    return [(r["image"], r["tracer"]) for r in first] == [(r["image"], r["tracer"]) for r in second]


def _strip(run: RunData, cell: Cell, name: str, role: str, rows: list[dict[str, Any]]) -> Markup:
    tracer, tracer_class = rows[0]["tracer"], str(rows[0]["tracer class"])
    off_sample = len({r["image"] for r in rows}) == 1 and any(r["jump into it"] for r in rows)
    eps = max(as_float(r["distance to tracer"]) or 0.0 for r in rows)
    delta = max(as_float(r["jump into it"]) or 0.0 for r in rows)
    told = tag(
        "p",
        tag("strong", name),
        f", {WHAT[role]}: from ",
        tag("strong", str(rows[0]["class"])),
        f" (image {rows[0]['image']}), traced by ",
        tag("strong", tracer_class),
        f" (image {tracer}) within eps = {number(eps)}; largest jump delta = {number(delta)}.",
    )
    pictures = [
        picture(
            run.image(cell.dataset, tracer),
            f"tracer: {tracer_class}, image {tracer}",
            f"tracer: {tracer_class}",
            f"image {tracer}",
            run.words(cell).taken(tracer),
        )
    ]
    for row in rows[:1] if off_sample else rows:
        jump = "" if row["jump into it"] is None else f"jump {number(as_float(row['jump into it']), 3)}"
        pictures.append(
            picture(
                run.image(cell.dataset, row["image"]),
                f"depth {row['depth']}: {row['class']}, image {row['image']}",
                row["class"],
                f"depth {place_text(row['depth'], row.get('at'))}" + (", blind" if row.get("blind") is True else ""),
                f"#{row['order']} in class",
                f"to tracer {number(as_float(row['distance to tracer']), 3)}",
                jump,
                run.words(cell).taken(row["image"]),
            )
        )
    more = (
        note(
            "This orbit runs through states that are no image's (perturbed blocks or states): only its first image "
            "is shown."
        )
        if off_sample
        else None
    )
    return Markup("").join([told, strip(pictures), more or "", _along(run, cell, name, role, rows)])


def _along(run: RunData, cell: Cell, name: str, role: str, rows: list[dict[str, Any]]) -> Markup:
    near = Curve("distance to the tracer", [(r["depth"], as_float(r["distance to tracer"])) for r in rows])
    jumps = Curve("jump into this depth", [(r["depth"], as_float(r["jump into it"])) for r in rows], dashed=True)
    values = [v for c in (near, jumps) for _, v in c.points]
    svg = line_chart(
        [near, jumps],
        x=Axis.along(rows, "depth"),
        y=Axis.over(f"distance, {_unit(cell)}", values, zero=True, log=False),
        title=f"{name}: distances along depth",
    )
    return run.figure(f"orbit-{name}-{role}-{cell.slug}", svg, "Distance to the tracer and jumps along depth.")


def _unit(cell: Cell) -> str:
    found = next((m for m in cell.result.measurements if m.name.startswith("eps")), None) if cell.result else None
    return found.unit if found else "l2"


def profile(run: RunData) -> Markup | None:
    """s(eps) of the family, bounds over all sample pseudo-orbits, and the three constants."""
    parts = []
    for cell, result in run.results("shadowing"):
        if "profile" in result.tables:
            parts += [run.heading(cell), _profile(run, cell, result), _constants(result)]
    if not parts:
        return None
    return Markup("").join(
        [
            note(
                "s(eps) is the smallest delta of a pseudo-orbit that no image traces within eps. On a "
                "finite sample the "
                "limit eps → 0 says nothing (for small delta there are no pseudo-orbits), so the whole curve is the "
                "result; every constant is one point of it or, for Sh_paper, the quotient of two different orbits."
            ),
            *parts,
        ]
    )


def _profile(run: RunData, cell: Cell, result: PropertyResult) -> Markup:
    rows = records(result.tables["profile"])
    family = Curve(
        "s(eps) of the family",
        [(as_float(r["eps from"]) or 0.0, _finite(r["s"])) for r in rows],
        step=True,
        titles=[f"from eps = {number(as_float(r['eps from']))}: s = {number(as_float(r['s']))}" for r in rows],
    )
    curves = [family]
    if "bracket" in result.tables:
        bounds = records(result.tables["bracket"])
        for colour, key, name in ((2, "upper", "upper bound over all sample orbits"), (3, "lower", "lower bound")):
            points = [(as_float(r["eps"]) or 0.0, _finite(r[key])) for r in bounds]
            if any(v is not None for _, v in points):
                curves.append(Curve(name, points, step=True, dashed=True, colour=colour, markers=False))
    unit = _unit(cell)
    eps = [v for c in curves for v, _ in c.points if v > 0]
    x = Axis.over(f"eps, {unit}", eps)
    if not x.log:
        x = Axis.over(f"eps, {unit}", [0.0, *eps], zero=True)
    y = Axis.over(f"s(eps), {unit}", [v for c in curves for _, v in c.points])
    svg = line_chart(curves, x=x, y=y, title="Shadowing profile")
    return run.figure(
        f"profile-{cell.slug}",
        svg,
        "Shadowing profile. Where a curve ends, every pseudo-orbit is traced within that eps (s = ∞).",
    )


def _constants(result: PropertyResult) -> Markup:
    rows = []
    for m in result.measurements:
        if m.name.startswith("Sh_"):
            rows.append((m.name, m.value, kind_badge(m.kind), _part(m, "eps"), _part(m, "delta"), m.n))
    return table(["constant", "value = delta / eps", "kind", "eps", "delta", "N"], rows)


def _part(m: Measurement, key: str) -> Any:
    witness: Mapping[str, Any] = m.witness
    return "" if witness.get(key) is None else as_float(witness[key])


def _finite(value: Any) -> float | None:
    found = as_float(value)
    return found if found is not None and math.isfinite(found) else None
