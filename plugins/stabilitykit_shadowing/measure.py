"""From traced pseudo-orbits to everything Definition 2 asks for; arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit_shadowing.bracket import Bracket, bracket
from stabilitykit_shadowing.constants import Constant, sh_best, sh_paper, sh_profile
from stabilitykit_shadowing.orbits import PseudoOrbits
from stabilitykit_shadowing.profile import Profile, shadowing_profile
from stabilitykit_shadowing.tracing import trace


@dataclass(frozen=True)
class Shadowed:
    """A family of pseudo-orbits with its tracers.

    Attributes:
        orbits: the P orbits that have a tracer.
        delta, eps: float64 (P,). tracer: int64 (P,), rows of the images that trace best.
    """

    orbits: PseudoOrbits
    delta: np.ndarray
    eps: np.ndarray
    tracer: np.ndarray

    @property
    def profile(self) -> Profile:
        """s(eps) of the family."""
        return shadowing_profile(self.delta, self.eps)

    def constants(self) -> dict[str, Constant]:
        """``Sh_profile``, ``Sh_paper``, ``Sh_best``; needs at least one orbit."""
        return {
            "Sh_profile": sh_profile(self.profile, self.eps),
            "Sh_paper": sh_paper(self.delta, self.eps),
            "Sh_best": sh_best(self.delta, self.eps),
        }


def shadow(
    values: np.ndarray, orbits: PseudoOrbits, *, start_tracer: bool = True, groups: np.ndarray | None = None
) -> Shadowed:
    """Trace every orbit by the images' true orbits, values (T+1, N, K); orbits without any tracer are dropped.

    Arguments:
        groups: int (N,): only images of the group an orbit starts in trace it; None: all.
    """
    tracer, eps = trace(values, orbits, start_tracer=start_tracer, groups=groups)
    traced = np.flatnonzero(tracer >= 0)
    orbits = orbits.part(traced)
    return Shadowed(orbits, orbits.delta, eps[traced], tracer[traced])


def bracket_of(
    values: np.ndarray,
    shadowed: Shadowed,
    *,
    start_tracer: bool = True,
    labels: np.ndarray | None = None,
    seeing: np.ndarray | None = None,
) -> Bracket:
    """Bounds on s(eps) over all sample pseudo-orbits, using the family's own orbits where they are sample ones.

    ``shadowed.eps`` must come from data tracers.

    Arguments:
        values: without blind depths, where a step would cost nothing whatever the image.
        seeing: int64, the depths of the family's orbits that ``values`` holds; None: all.
    """
    path = shadowed.orbits.path
    known = path is not None
    return bracket(
        values,
        start_tracer=start_tracer,
        labels=labels,
        paths=path if path is None or seeing is None else path[:, seeing],
        delta=shadowed.delta if known else None,
        eps=shadowed.eps if known else None,
    )
