"""The property ``perturbation``: topological g-stability measured directly (Definition 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabilitykit import CellProblem, Kind, Measurement, Property, PropertyResult, Table, UsageProblem
from stabilitykit.base.text import place_text
from stabilitykit.dynamics.lowprecision import FORMATS
from stabilitykit.evaluation.context import Context
from stabilitykit_topological import FAMILIES
from stabilitykit_topological.families import Perturbation, plan
from stabilitykit_topological.measure import Response, responses

CURVE = [
    "family",
    "scale",
    "delta",
    "relative delta",
    "eps",
    "eps median",
    "eps by own orbit",
    "largest jump",
    "changed decisions",
    "delta/eps",
    "note",
    "at",
]


class BlockPerturbation(Property):
    """Perturb the blocks, take delta in state space and the tracing error eps of the perturbed orbits."""

    name = "perturbation"

    def __init__(
        self,
        families: str = "gaussian+bf16+int8+pruning+reset",
        scales: str = "0.01+0.1",
        fractions: str = "0.3",
        samples: int | None = None,
    ) -> None:
        words = _words(families)
        self.families = list(FAMILIES) if words == ["all"] else words
        self.scales = _numbers(scales, "scales")
        self.fractions = _numbers(fractions, "fractions")
        self.samples = samples

    def evaluate(self, context: Context) -> PropertyResult:
        """``T_g.direct`` (smallest delta/eps of any perturbation, an estimate), ``T_g.direct.FAMILY`` and
        ``changed_decisions.FAMILY`` (largest share in the family); tables ``curve`` and ``blocks``."""
        if context.model.replayed:
            raise CellProblem("recorded readouts hold no blocks to perturb: give the model itself")
        perturbations, notes = plan(context.model, self.families, self.scales, self.fractions)
        rows = self._rows(context)
        curve: list[list[Any]] = []
        blocks: list[list[Any]] = []
        found: list[tuple[Perturbation, Response]] = []
        names = list(context.model.block_names)
        for perturbation, response in zip(perturbations, responses(context, perturbations, rows), strict=True):
            at = None if perturbation.block is None else names[perturbation.block]
            if isinstance(response, CellProblem):
                notes.append(f"{perturbation.label}: {response}")
                curve.append([perturbation.family, perturbation.scale, *[None] * 8, str(response), at])
                continue
            found.append((perturbation, response))
            curve.append([*_curve_row(perturbation, response), at])
            blocks += [
                [
                    perturbation.family,
                    perturbation.scale,
                    t,
                    float(response.change[:, t].max()),
                    float(response.relative[:, t].max()),
                    names[t],
                ]
                for t in range(response.change.shape[1])
            ]
        if not found:
            raise CellProblem("no perturbation could be measured: " + "; ".join(notes))
        if all(response.delta == 0 for _, response in found):
            raise CellProblem(
                f"model {context.model.name}: the perturbed copies compute the very same blocks; they "
                "have no parameters, or copy.deepcopy(model) does not rebind its blocks to the copy"
            )
        measurements = [self._direct("T_g.direct", context, found, rows)]
        for family in dict.fromkeys(p.family for p, _ in found):
            own = [(p, r) for p, r in found if p.family == family]
            measurements.append(self._direct(f"T_g.direct.{family}", context, own, rows))
            worst, response = max(own, key=lambda item: item[1].changed.mean())
            measurements.append(
                Measurement(
                    f"changed_decisions.{family}",
                    float(response.changed.mean()),
                    Kind.EXACT,
                    len(rows),
                    "share",
                    {"perturbation": worst.label, "delta": response.delta} | _place(worst.block, names),
                    "Definition 3",
                    note=f"largest share of the family, by {_told(worst, names)}",
                )
            )
        tables = {
            "curve": Table(
                CURVE,
                curve,
                f"Tracing error eps ({context.trajectory.unit}) against the perturbation's "
                f"size delta (l2 in state space), {len(rows)} orbits each",
            ),
            "blocks": Table(
                ["family", "scale", "block", "delta", "relative delta", "at"],
                blocks,
                "sup over samples of ||phi_t(h) - phi^_t(h)||_2 in the space after the block, block by block",
            ),
        }
        images = list(dict.fromkeys(i for m in measurements for i in m.witness.get("indices", ())))
        return PropertyResult(measurements, tables, images, notes)

    def _rows(self, context: Context) -> np.ndarray:
        """The images whose orbits are perturbed: a seeded choice, ascending."""
        count, wanted = len(context.indices), context.sample_size(self.samples)
        if wanted == count:
            return np.arange(count)
        return np.sort(np.random.default_rng(context.seed).choice(count, wanted, replace=False))

    def _direct(
        self, name: str, context: Context, found: Sequence[tuple[Perturbation, Response]], rows: np.ndarray
    ) -> Measurement:
        """The smallest delta/eps: with s(eps) = min{delta : eps(phi^) > eps} over these perturbations, it is the
        infimum of s(eps)/eps below the largest eps."""
        unit = f"l2 of the state per {context.trajectory.unit}"
        traced = [(p, r) for p, r in found if r.eps.max() > 0]
        if not traced:
            return Measurement(
                name,
                None,
                Kind.ESTIMATE,
                len(rows),
                unit,
                reference="Definition 3",
                note="undefined: every perturbed orbit is traced exactly (eps = 0)",
            )
        perturbation, response = min(traced, key=lambda item: item[1].delta / item[1].eps.max())
        image, block = np.unravel_index(int(response.change.argmax()), response.change.shape)
        orbit = int(response.eps.argmax())
        indices = [int(context.indices[row]) for row in (rows[orbit], response.tracer[orbit])]
        witness = {
            "perturbation": perturbation.label,
            "delta": response.delta,
            "eps": float(response.eps[orbit]),
            **_place(int(block), context.model.block_names),
            "delta_image": int(context.indices[rows[image]]),
            "distances": response.distances[orbit].tolist(),
            **context.describe_images(indices),
        }
        return Measurement(
            name,
            response.delta / float(response.eps[orbit]),
            Kind.ESTIMATE,
            len(rows),
            unit,
            witness,
            "Definition 3",
            note=f"smallest delta/eps, by {_told(perturbation, context.model.block_names)}; delta over {len(rows)} "
            f"orbits, tracers from {len(context.indices)} images",
        )

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | None]:
        """Every quotient at its witness: the perturbation made again from the seed, delta at the image named for it,
        eps of the orbit and the tracer named. Shares of changed decisions rest on all orbits and are left open."""
        perturbations, _ = plan(context.model, self.families, self.scales, self.fractions)
        by_label = {p.label: p for p in perturbations}
        found: dict[str, float | None] = {}
        for measurement in result.measurements:
            perturbation = by_label.get(str(measurement.witness.get("perturbation")))
            if perturbation is not None and "delta_image" in measurement.witness:
                found[measurement.name] = self._at_witness(context, perturbation, measurement.witness)
        return found

    def _at_witness(self, context: Context, perturbation: Perturbation, witness: Mapping[str, Any]) -> float | None:
        """delta / eps of the two orbits that a witness names, run in batches of the size they had when measured.

        None where they are not and the perturbation rounds: what another batch size moves in the last bits falls on
        another side of a rounding, which is a change as large as those measured.
        """
        if not context.rerun.whole and perturbation.family in FORMATS:
            return None
        rows = self._rows(context)
        orbit, tracer = witness["indices"]
        wanted = context.rows_of([witness["delta_image"], orbit])
        if not np.isin(wanted, rows).all():
            raise CellProblem(f"the orbits of images {witness['delta_image']} and {orbit} were not perturbed")
        places = context.rerun.batches(np.searchsorted(rows, wanted), len(rows), context.batch_size)
        members = rows[np.concatenate(places)]
        (response,) = responses(context, [perturbation], members, context.readouts(context.rows_of([tracer])))
        if isinstance(response, CellProblem):
            raise response
        delta = float(response.change[members == wanted[0]].max())
        eps = float(response.eps[members == wanted[1]].max())
        return delta / eps if eps > 0 else None


def _curve_row(perturbation: Perturbation, response: Response) -> list[Any]:
    eps = float(response.eps.max())
    return [
        perturbation.family,
        perturbation.scale,
        response.delta,
        float(response.relative.max()),
        eps,
        float(np.median(response.eps)),
        float(response.own.max()),
        float(response.jumps.max()),
        float(response.changed.mean()),
        response.delta / eps if eps > 0 else None,
        "",
    ]


def _place(block: int | None, names: Sequence[str]) -> dict[str, Any]:
    """Witness fields of the block t in 0..T-1 that is meant, not of a depth: its number and its name."""
    return {} if block is None else {"block": block, "at": names[block]}


def _told(perturbation: Perturbation, names: Sequence[str]) -> str:
    """``reset 7 (layer3.2)``."""
    return (
        perturbation.label
        if perturbation.block is None
        else (f"{perturbation.family} {place_text(perturbation.block, names[perturbation.block])}")
    )


def _words(text: str) -> list[str]:
    return str(text).replace("+", " ").split()


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError:
        raise UsageProblem(
            f"perturbation: option {option} takes numbers separated by + or spaces; got {text!r}"
        ) from None
