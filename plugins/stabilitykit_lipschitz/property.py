"""The property `lipschitz`: Lip(g) of the readout as an interval (Table 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stabilitykit import CellProblem, Kind, Measurement, Property, PropertyResult, Table
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz.api import lipschitz, verify
from stabilitykit_lipschitz.interval import LipschitzInterval
from stabilitykit_lipschitz.lower import Witness, jacobian_norm, search, steepest
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.regions import Data, smallest_powers

REFERENCE = "Table 2; LipSDP"
# Images whose states seed the search for a large Jacobian.
SEEDS = 48
# Images whose Jacobians are screened where g is a whole network and every product costs a pass through it.
SCREENED = 16


@dataclass(frozen=True)
class _Bounded:
    """One readout g_t: its depth (None for all depths), network, interval, and the realised bound of softmax g_t."""

    depth: int | None
    network: Network
    region: Data | None
    interval: LipschitzInterval
    softmax: Witness


class Lipschitz(Property):
    """Lip(g) from both sides: a realised Jacobian norm and a certified upper bound. Options as in the schema."""

    name = "lipschitz"

    def __init__(
        self, method: str = "auto", norm: str = "2", tol: float = 1e-4, solver: str = "CLARABEL", seconds: float = 60.0
    ) -> None:
        self.method, self.norm, self.tol, self.solver, self.seconds = method, norm, tol, solver, seconds

    def evaluate(self, context: Context) -> PropertyResult:
        """``lipschitz`` (logits) and ``lipschitz.probabilities`` (softmax of g): upper bounds with their intervals,
        or, where g has no certified bound, the realised norm as a lower bound with the reason."""
        if context.model.replayed:
            return _undefined(context, "recorded readouts hold no network; give the model itself")
        depths = [None] if context.readout.kind == "head" else list(range(context.model.num_blocks + 1))
        bounded: list[_Bounded] = []
        for depth in context.progress(depths, "Lip(g)", len(depths)):
            head = context.readout.head(depth or 0)
            if head is None:
                return self._realised(context, "the readout is not available as one module")
            try:
                bounded.append(self._bound(context, head, depth))
            except ValueError as error:
                return self._realised(context, str(error))
        return self._result(context, bounded)

    def _bound(self, context: Context, head: Any, depth: int | None) -> _Bounded:
        from stabilitykit_lipschitz.extract import extract

        shape = tuple(context.model.state_shape)
        network = extract(head, shape)
        if network.factor != 1.0:
            raise ValueError("the readout ends in a softmax; expected logits")
        region, states = None, np.zeros((0, network.inputs))
        if any(isinstance(layer.activation, Normalisation) for layer in network.layers):
            states, powers, count = self._states(context, network, depth)
            region = Data(states, powers, count)
        elif network.layers:
            states = self._states(context, network, depth, SEEDS)[0]
        interval = lipschitz(
            network,
            self.norm,
            self.method,
            region,
            self.tol,
            solver=self.solver,
            seconds=self.seconds,
            data=states if len(states) else None,
            seed=context.seed,
        )
        if np.isinf(interval.upper):
            raise ValueError("; ".join(interval.notes))
        if not len(states):
            states = self._states(context, network, depth, 16)[0]
        softmax = search(replace(network, factor=0.5), region, states, self.norm == "inf", context.seed, 1.0)
        return _Bounded(depth, network, region, interval, softmax)

    def _states(
        self, context: Context, network: Network, depth: int | None, images: int | None = None
    ) -> tuple[np.ndarray, tuple[float, ...], int]:
        """(the steepest states (B, n) seen, smallest powers entering normalisation layers over all, how many)."""
        import torch

        from stabilitykit.dynamics.readout import state_vector

        total = len(context.indices)
        rows = np.arange(total) if images is None else np.linspace(0, total - 1, min(total, images)).astype(np.int64)
        kept: list[np.ndarray] = []
        powers: np.ndarray | None = None
        count = 0
        with torch.inference_mode():
            for _, inputs in context.batches(np.unique(rows)):
                state = context.model.initial_state(inputs)
                for t in range(context.model.num_blocks + 1):
                    if depth is None or depth == t:
                        block = state_vector(state).double().cpu().numpy()
                        count += len(block)
                        found = np.array(smallest_powers(network, block))
                        powers = found if powers is None else np.minimum(powers, found)
                        kept.append(steepest(network, block, 16))
                    if t < context.model.num_blocks:
                        state = context.model.block(t, state)
        states = steepest(network, np.concatenate(kept), 256)
        return states, tuple(float(p) for p in (powers if powers is not None else ())), count

    def _result(self, context: Context, bounded: list[_Bounded]) -> PropertyResult:
        top = max(bounded, key=lambda b: b.interval.upper)
        low = max(bounded, key=lambda b: b.interval.lower)
        soft = max(bounded, key=lambda b: b.softmax.value)
        n = len(context.indices)
        norm = "l2" if self.norm == "2" else "l-infinity"
        found = top.interval
        about = [
            f"certified by {found.method}" if found.method != "product" else "norm product",
            *found.assumptions,
            *found.notes,
        ]
        if top.depth is not None:
            about.append(f"largest over depths, at depth {top.depth}")
        note = "; ".join(about)
        unit = f"logit (l2) per {norm} of the state"
        result = PropertyResult(
            [
                Measurement(
                    "lipschitz",
                    found.upper,
                    Kind.UPPER,
                    n,
                    unit,
                    _certificate(top),
                    REFERENCE,
                    (low.interval.lower, found.upper),
                    note=note,
                ),
                Measurement(
                    "lipschitz.probabilities",
                    0.5 * found.upper,
                    Kind.UPPER,
                    n,
                    f"probability (l2) per {norm} of the state",
                    _half(top, soft),
                    REFERENCE,
                    (soft.softmax.value, 0.5 * found.upper),
                    note="half of Lip(g): softmax is 1/2-Lipschitz in l2; " + note,
                ),
                Measurement(
                    "lipschitz.realised",
                    low.interval.lower,
                    Kind.LOWER,
                    n,
                    unit,
                    _witness(low),
                    REFERENCE,
                    (low.interval.lower, None),
                    note="||J(x)||_2 at the state stored as witness, in float64",
                ),
            ]
        )
        columns = ["depth", "realised", "certified upper", "SDP dual", "method", "hidden neurons", "rank"]
        rows = [
            [
                "all" if b.depth is None else b.depth,
                b.interval.lower,
                b.interval.upper,
                b.interval.sdp_dual,
                b.interval.method,
                b.network.hidden,
                b.interval.rank,
            ]
            for b in bounded
        ]
        result.tables["readouts"] = Table(columns, rows, "Lip(g) per readout")
        return result

    def _realised(self, context: Context, reason: str) -> PropertyResult:
        """Only a lower bound: the largest Jacobian norm of the model's own readout at states of some images."""
        from stabilitykit_lipschitz.realised import largest_jacobian

        if self.norm != "2":
            raise CellProblem(f"lipschitz: no certified bound ({reason}) and norm={self.norm}; use norm=2")
        values = largest_jacobian(context, SCREENED)
        note = f"no certified upper bound: {reason}"
        n = len(context.indices)
        measurements = []
        for name, unit, value in (
            ("lipschitz", "logit (l2) per l2 of the state", values.logits),
            ("lipschitz.probabilities", "probability (l2) per l2 of the state", values.probabilities),
        ):
            witness = {**context.describe_images([value.index]), "block": value.depth}
            measurements.append(
                Measurement(name, value.norm, Kind.LOWER, n, unit, witness, REFERENCE, (value.norm, None), note=note)
            )
        return PropertyResult(measurements, notes=[note])

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """The certificate checked again from model and multipliers, the realised norm at its stored state."""
        from stabilitykit_lipschitz.extract import extract

        again: dict[str, float | str | None] = {}
        for measurement in result.measurements:
            witness = measurement.witness
            if "multipliers" not in witness and "input" not in witness:
                continue
            head = context.readout.head(int(witness.get("depth") or 0))
            if head is None:
                continue
            network = extract(head, tuple(context.model.state_shape))
            if "input" in witness:
                again[measurement.name] = jacobian_norm(
                    network, np.asarray(witness["input"], dtype=np.float64), self.norm == "inf"
                )
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


def _half(top: _Bounded, soft: _Bounded) -> dict[str, Any]:
    """The upper side is half of another measurement; the realised side has a state of its own."""
    return {
        "half of": "lipschitz",
        "depth": top.depth,
        "realised": {"depth": soft.depth, "input": [float(v) for v in soft.softmax.x]},
    }
