"""What `lipschitz` returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class LipschitzInterval:
    """The Lipschitz constant lies in [lower, upper].

    lower: largest ||J(x)|| realised, at `witness_input` (n,). upper: proven upper bound; certified: True when it rests
    on a checked certificate (of the matrix inequality, or of the norm product where method says so). It is False of
    "layerwise" on a region, where rounding is covered by a margin and not proven: a note says so.
    sdp_dual: value of a dual-feasible point; the SDP's optimum lies between it and upper (nan if no SDP was solved).
    multipliers: one float64 array per hidden layer in the network's own neuron order; inf marks a neuron of fixed
    slope or constant input (its difference variable is pinned), 0 one that reaches no output. input_multipliers: mu
    per input coordinate for the l-infinity norm, else None. rank: columns of the dual solution (0 if none).
    rho: the level that makes the matrix inequality hold with these multipliers (upper is its root, plus what rounding
    while folding may have cost, times 1/2 after a softmax); nan for the norm product.
    method: what produced `upper`; "unbounded" where an activation jumps or grows ever steeper and upper is inf.
    norm, norm_out: of the input and of the output (1, 2 or inf). witness_other: method "layerwise" realises ``lower``
    between witness_input and this input.
    exact: lower and upper agree to the tolerance asked for by method="exact".
    """

    lower: float
    upper: float
    sdp_dual: float
    certified: bool
    multipliers: list[np.ndarray] = field(repr=False)
    witness_input: np.ndarray | None = field(repr=False)
    rank: int
    method: str = "sdp"
    norm: float = 2.0
    exact: bool = False
    input_multipliers: np.ndarray | None = field(default=None, repr=False)
    solver_status: str = ""
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rho: float = float("nan")
    norm_out: float = 2.0
    witness_other: np.ndarray | None = field(default=None, repr=False)

    @property
    def gap(self) -> float:
        """Relative distance of upper from the dual value: an upper bound on the solver's suboptimality."""
        return self.upper / self.sdp_dual - 1.0 if self.sdp_dual > 0 else (0.0 if self.upper == 0 else float("nan"))

    @property
    def probabilities(self) -> tuple[float, float]:
        """(0, upper / 2): the interval for softmax of the same logits (softmax is 1/2-Lipschitz)."""
        return 0.0, 0.5 * self.upper
