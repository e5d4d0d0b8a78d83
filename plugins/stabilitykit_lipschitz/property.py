"""The property `lipschitz`: Lip(g) of the readout as an interval (Table 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stabilitykit import CellProblem, Kind, Measurement, Property, PropertyResult, Table
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz import pairs
from stabilitykit_lipschitz.along_depth import along_depth, along_depth_again
from stabilitykit_lipschitz.api import lipschitz
from stabilitykit_lipschitz.interval import LipschitzInterval
from stabilitykit_lipschitz.layered_property import layered_again, layered_lipschitz
from stabilitykit_lipschitz.lower import Witness, jacobian_norm
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.norm_pairs import realised_at, search_pair
from stabilitykit_lipschitz.parts import networks_of
from stabilitykit_lipschitz.readouts import Seeds, normalises, readouts_of
from stabilitykit_lipschitz.realised import StepFunction, largest_jacobian
from stabilitykit_lipschitz.regions import Data
from stabilitykit_lipschitz.verification import verify

REFERENCE = "Table 2; LipSDP"
# Images whose Jacobians are screened where g is a whole network and every product costs a pass through it.
SCREENED = 16


@dataclass(frozen=True)
class _Bounded:
    """One readout g_t: the depths it serves, its hidden neurons, interval, and the realised bound of softmax g_t."""

    depths: tuple[int, ...]
    hidden: int
    region: Data | None
    interval: LipschitzInterval
    softmax: Witness
    everywhere: bool

    @property
    def depth(self) -> int | None:
        """The first depth it serves; None where it serves all."""
        return None if self.everywhere else self.depths[0]


@dataclass(frozen=True)
class _Unbounded:
    """A readout without a certified bound: the depths it serves, and why."""

    depths: tuple[int, ...]
    reason: str


class Lipschitz(Property):
    """Lip(g) from both sides: a realised Jacobian norm and a certified upper bound. Options as in the schema."""

    name = "lipschitz"

    def __init__(
        self,
        method: str = "auto",
        norm: str = "2",
        tol: float = 1e-4,
        solver: str = "CLARABEL",
        seconds: float = 60.0,
        search_seconds: float = 2.0,
        norm_out: str = "2",
    ) -> None:
        self.method, self.norm, self.tol, self.solver, self.seconds = method, norm, tol, solver, seconds
        self.search_seconds = search_seconds
        self.norm_out = norm_out

    @property
    def _norms(self) -> tuple[int, int]:
        """Positions of the norms of the state and of the outputs in `pairs.NORMS`."""
        return pairs.index_of(self.norm), pairs.index_of(self.norm_out)

    def _unit(self, what: str) -> str:
        """``logit (l2) per l2 of the state``, of the norms asked for."""
        norm, norm_out = (pairs.name_of(pairs.NORMS[k]) for k in self._norms)
        return f"{what} ({norm_out}) per {norm} of the state"

    def evaluate(self, context: Context) -> PropertyResult:
        """``lipschitz`` (logits) and ``lipschitz.probabilities`` (softmax of g): upper bounds with their intervals,
        or, where g has no certified bound, the realised norm as a lower bound with the reason.

        Where depths have readouts of their own these are the largest over depths 1..T, those that Theorem 1 asks for;
        the table has depth 0, too. Where some of them have no certified bound, ``lipschitz.certified`` is the largest
        of the others, and no bound of all.
        """
        if context.model.replayed:
            return _undefined(context, "recorded readouts hold no network; give the model itself")
        if self.method == "layerwise":
            return layered_lipschitz(context, *self._norms, (self._unit("logit"), self._unit("probability")))
        bounded: list[_Bounded] = []
        unbounded: list[_Unbounded] = []
        groups = readouts_of(context)
        done = iter(context.progress(range(len(groups)), "Lip(g)", len(groups)))
        for networks in networks_of(context, groups, lambda *found: unbounded.append(_Unbounded(*found))):
            seeds = Seeds(context, networks)
            for number, (depths, _) in enumerate(networks):
                next(done, None)
                try:
                    bounded.append(self._bound(context, seeds, number, len(groups) == 1))
                except ValueError as error:
                    unbounded.append(_Unbounded(depths, str(error)))
        return self._result(context, bounded, unbounded)

    def _bound(self, context: Context, seeds: Seeds, number: int, everywhere: bool) -> _Bounded:
        depths, network = seeds.networks[number]
        region, states = None, np.zeros((0, network.inputs))
        if normalises(network):
            states, powers, count = seeds.of(number)
            region = Data(states, powers, count)
        elif network.layers:
            states = seeds.of(number)[0]
        interval = lipschitz(
            network,
            self.norm,
            self.method,
            region,
            self.tol,
            solver=self.solver,
            seconds=self.seconds,
            search_seconds=self.search_seconds,
            data=states if len(states) else None,
            seed=context.seed,
            norm_out=self.norm_out,
        )
        if np.isinf(interval.upper):
            raise ValueError("; ".join(interval.notes))
        if not len(states):
            states = seeds.of(number)[0]
        # softmax has no pieces to climb through: what there is to find is found soon
        soon = 0.125 * self.search_seconds
        softmax = search_pair(replace(network, factor=0.5), region, states, *self._norms, context.seed, soon)
        return _Bounded(depths, network.hidden, region, interval, softmax, everywhere)

    def _result(self, context: Context, bounded: list[_Bounded], unbounded: list[_Unbounded]) -> PropertyResult:
        """Bounds over depths 1..T, as far as they are certified, and the table of all readouts."""
        names = context.depth_names
        missing = {t: u.reason for u in unbounded for t in u.depths}
        later = [b for b in bounded if b.depths[-1] > 0]
        if not any(t > 0 for t in missing) and later:
            result = self._certified(context, later, "lipschitz")
            if missing:
                result.notes.append(_not_certified(missing, names))
        else:
            result = self._realised(context, _not_certified(missing, names))
            if later:
                result.measurements += self._certified(context, later, "lipschitz.certified").measurements[:1]
        result.tables["readouts"] = _readouts_table(bounded, unbounded, names)
        return result

    def _certified(self, context: Context, bounded: list[_Bounded], name: str) -> PropertyResult:
        """Measurement ``name`` and its companions: the largest of the bounds, and where."""
        names = context.depth_names
        top = max(bounded, key=lambda b: b.interval.upper)
        low = max(bounded, key=lambda b: b.interval.lower)
        soft = max(bounded, key=lambda b: b.softmax.value)
        n = len(context.indices)
        found = top.interval
        about = [
            f"certified by {found.method}" if found.method != "product" else "norm product",
            *found.assumptions,
            *found.notes,
        ]
        if top.depth is not None:
            served = [t for b in bounded for t in b.depths if t > 0]
            whole = len(served) == context.model.num_blocks
            over = "depths 1 and later" if whole else f"depths {_listed(sorted(served), names)} only, no bound of all"
            about.append(f"largest over {over}, at {_listed([t for t in top.depths if t > 0], names, 'depth ')}")
        note = "; ".join(about)
        unit = self._unit("logit")
        out = pairs.name_of(pairs.NORMS[self._norms[1]])
        return PropertyResult(
            [
                Measurement(
                    name,
                    found.upper,
                    Kind.UPPER,
                    n,
                    unit,
                    _certificate(top) | _at(top, names),
                    REFERENCE,
                    (low.interval.lower, found.upper),
                    note=note,
                ),
                Measurement(
                    f"{name}.probabilities",
                    0.5 * found.upper,
                    Kind.UPPER,
                    n,
                    self._unit("probability"),
                    _half(top, soft, names),
                    REFERENCE,
                    (soft.softmax.value, 0.5 * found.upper),
                    note=f"half of Lip(g): softmax is 1/2-Lipschitz in {out}; " + note,
                ),
                Measurement(
                    f"{name}.realised",
                    low.interval.lower,
                    Kind.LOWER,
                    n,
                    unit,
                    _witness(low) | _at(low, names),
                    REFERENCE,
                    (low.interval.lower, None),
                    note=f"||J(x)||{'' if self.norm_out != '2' else '_2'} at the state stored as witness, in float64",
                ),
                *along_depth(context, bounded, name, unit),
            ]
        )

    def _realised(self, context: Context, note: str) -> PropertyResult:
        """Only a lower bound: the largest Jacobian norm of the model's own readout at states of some images."""
        if (self.norm, self.norm_out) != ("2", "2"):
            raise CellProblem(
                f"lipschitz: {note} and norm={self.norm}, norm_out={self.norm_out}; use norm=2 and norm_out=2"
            )
        try:
            values = largest_jacobian(context, SCREENED)
        except StepFunction as problem:
            return _undefined(context, str(problem))
        n = len(context.indices)
        measurements = []
        for name, unit, value in (
            ("lipschitz", "logit (l2) per l2 of the state", values.logits),
            ("lipschitz.probabilities", "probability (l2) per l2 of the state", values.probabilities),
        ):
            witness = {**context.describe_images([value.index]), **context.at(value.depth)}
            measurements.append(
                Measurement(name, value.norm, Kind.LOWER, n, unit, witness, REFERENCE, (value.norm, None), note=note)
            )
        return PropertyResult(measurements, notes=[note])

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """The certificate checked again from model and multipliers, the realised norm at its stored state."""
        from stabilitykit_lipschitz.extract import extract

        if self.method == "layerwise":
            return layered_again(context, result, *self._norms)
        again: dict[str, float | str | None] = {}
        for measurement in result.measurements:
            witness = measurement.witness
            if "upper" in witness:
                again[measurement.name] = along_depth_again(measurement)
                continue
            if "multipliers" not in witness and "input" not in witness:
                continue
            depth = int(witness.get("depth") or 0)
            head = context.readout.head(depth)
            if head is None:
                continue
            network = extract(head, tuple(context.model.shape_at(depth)))
            if "input" in witness:
                x = np.asarray(witness["input"], dtype=np.float64)
                again[measurement.name] = self._realised_at(network, x)
                continue
            region = None
            if witness["powers"] is not None:
                region = Data(np.zeros((0, network.inputs)), tuple(witness["powers"]), int(witness["count"]))
            mu = witness.get("input_multipliers")
            again[measurement.name] = verify(
                network,
                [np.asarray(t, dtype=np.float64) for t in witness["multipliers"]],
                witness["rho"],
                norm=self.norm,
                region=region,
                input_multipliers=None if mu is None else np.asarray(mu),
            )
        certified = again.get("lipschitz")
        if isinstance(certified, float) and any(
            m.name == "lipschitz.probabilities" and m.kind == Kind.UPPER for m in result.measurements
        ):
            again["lipschitz.probabilities"] = 0.5 * certified
        return again

    def _realised_at(self, network: Network, x: np.ndarray) -> float:
        p, q = self._norms
        return jacobian_norm(network, x, p == 2) if p and q == 1 else realised_at(network, x, p, q)


def _undefined(context: Context, reason: str) -> PropertyResult:
    return PropertyResult(
        [
            Measurement(
                name,
                None,
                Kind.UPPER,
                len(context.indices),
                f"{what} (l2) per l2 of the state",
                {},
                REFERENCE,
                note=reason,
            )
            for name, what in (("lipschitz", "logit"), ("lipschitz.probabilities", "probability"))
        ],
        notes=[reason],
    )


def _certificate(bounded: _Bounded) -> dict[str, Any]:
    """Multipliers and level, enough for anyone to check the bound without our solver."""
    found = bounded.interval
    if found.rho != found.rho:
        return {}
    record: dict[str, Any] = {
        "depth": bounded.depth,
        "rho": found.rho,
        "multipliers": [[float(v) if np.isfinite(v) else -1.0 for v in t] for t in found.multipliers],
        "powers": None if bounded.region is None else list(bounded.region.powers or ()),
        "count": 0 if bounded.region is None else bounded.region.count,
    }
    if found.input_multipliers is not None:
        record["input_multipliers"] = [float(v) for v in found.input_multipliers]
    return record


def _witness(bounded: _Bounded) -> dict[str, Any]:
    assert bounded.interval.witness_input is not None
    return {"depth": bounded.depth, "input": [float(v) for v in np.ravel(bounded.interval.witness_input)]}


def _half(top: _Bounded, soft: _Bounded, names: Sequence[str]) -> dict[str, Any]:
    """The upper side is half of another measurement; the realised side has a state of its own."""
    realised = {"depth": soft.depth, "input": [float(v) for v in soft.softmax.x]} | _at(soft, names)
    return {"half of": "lipschitz", "depth": top.depth, "realised": realised} | _at(top, names)


def _at(bounded: _Bounded, names: Sequence[str]) -> dict[str, Any]:
    """The block after which a readout of its own begins to serve, by name; nothing where one readout serves all."""
    return {} if bounded.depth is None else {"at": names[bounded.depth]}


def _listed(depths: Sequence[int], names: Sequence[str], what: str = "") -> str:
    """``3-5 (layer1.2 to layer2.1)``: depths, runs of them in short, each end by its name."""
    runs: list[list[int]] = []
    for t in depths:
        if runs and t == runs[-1][-1] + 1:
            runs[-1].append(t)
        else:
            runs.append([t])
    shown = [
        f"{r[0]} ({names[r[0]]})" if len(r) == 1 else f"{r[0]}-{r[-1]} ({names[r[0]]} to {names[r[-1]]})" for r in runs
    ]
    return (what if len(depths) == 1 else what.replace("depth", "depths")) + ", ".join(shown)


def _not_certified(missing: Mapping[int, str], names: Sequence[str]) -> str:
    """At which depths Lip(g) has no certified bound, and why; of one reason for all depths the reason alone."""
    reasons = list(dict.fromkeys(missing.values()))
    if len(missing) == len(names) and len(reasons) == 1:
        return f"no certified upper bound: {reasons[0]}"
    told = []
    for reason in reasons:
        depths = sorted(t for t, why in missing.items() if why == reason)
        told.append(f"at {_listed(depths, names, 'depth ')}: {reason}")
    return "no certified bound of Lip(g) " + "; ".join(told)


def _readouts_table(bounded: list[_Bounded], unbounded: list[_Unbounded], names: Sequence[str]) -> Table:
    columns = ["depth", "realised", "certified upper", "SDP dual", "method", "hidden neurons", "rank", "at", "note"]
    rows: dict[int, list[Any]] = {}
    for b in bounded:
        found = b.interval
        told = [found.lower, found.upper, found.sdp_dual, found.method, b.hidden, found.rank]
        for t in b.depths[:1] if b.everywhere else b.depths:
            rows[t] = ["all" if b.everywhere else t, *told, None if b.everywhere else names[t], ""]
    for u in unbounded:
        everywhere = len(u.depths) == len(names)
        for t in u.depths[:1] if everywhere else u.depths:
            label, at = ("all", None) if everywhere else (t, names[t])
            rows[t] = [label, None, None, None, "no certified bound", None, None, at, u.reason]
    return Table(columns, [rows[t] for t in sorted(rows)], "Lip(g) per readout")
