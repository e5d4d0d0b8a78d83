"""Bounds on many regions of one network: read and reduced once, monotone in the region by construction.

Every answer is kept. A new region's bound is the least of what is proven for it and of the answers for all regions that
contain it, and then at least the answer for every region that it contains: raising an upper bound keeps it one. By
induction an answer is never above that of a region around it, in whatever order they are asked for and whatever the
solver's tolerance; the global bound is the answer for the region that contains all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from stabilitykit_lipschitz import api
from stabilitykit_lipschitz.answers import Answers
from stabilitykit_lipschitz.centred import centred_bound, centred_bounds
from stabilitykit_lipschitz.inclusion import extent, measured
from stabilitykit_lipschitz.interval import LipschitzInterval
from stabilitykit_lipschitz.lower import Witness, search
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.norms import Norms
from stabilitykit_lipschitz.propagation import at_once
from stabilitykit_lipschitz.regions import Ball, Box, Data, Region, slopes_of, tighten
from stabilitykit_lipschitz.rounding import times
from stabilitykit_lipschitz.upper import Upper, product_of, upper, with_layers

METHODS = ("auto", "centred", "sdp", "layer", "product", "cvxpy")


class LocalBounds:
    """Answers `at(region)` for one network.

    Arguments:
        model, norm, tol, input_shape, seconds, seed: as for `lipschitz`; seconds are per region.
        method: "auto" solves the matrix inequality only where the closed form ("centred") is more than ``tol`` above
            the largest slope found; "centred" never does; "sdp", "layer", "product" and "cvxpy" are those of
            `lipschitz`.
        search_seconds: work allowed for the lower bound per region; 0: Jacobians at the centre and some samples.
        solver: for method="cvxpy".

    Raises:
        ValueError: an unknown method or norm. UnsupportedModule (a ValueError): a module without a rule.
    """

    def __init__(
        self,
        model: Any,
        norm: float | str = 2,
        method: str = "auto",
        tol: float = 1e-4,
        *,
        input_shape: tuple[int, ...] | None = None,
        seconds: float = 60.0,
        search_seconds: float = 0.0,
        seed: int = 0,
        solver: str = "CLARABEL",
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r} for local bounds; expected one of {', '.join(METHODS)}")
        if not tol > 0:
            raise ValueError(f"tol = {tol}; expected a positive relative tolerance")
        self.per_input = api.is_infinity(norm)
        self.reading = None if isinstance(model, Network) else api.read(model, input_shape)
        self.network: Network = model if self.reading is None else self.reading.network
        api.check_finite(self.network)
        self.method, self.tol, self.seconds, self.solver = method, tol, seconds, solver
        self.search_seconds, self.seed = search_seconds, seed
        self.norms = Norms()
        self._answers = Answers(self.network.inputs)
        self._everywhere: Upper | None = None
        self._largest = 0.0  # the largest slope realised anywhere: no global bound is below it

    def at(self, region: Region) -> LipschitzInterval:
        """The interval of one region.

        Raises:
            ValueError: a region of another size than an input, or on which a normalisation layer is not bounded.
        """
        region = measured(self.network, region)
        ((local, centred),) = self._prepared([region])
        return self._answered(region, local, centred)

    def _prepared(self, regions: Sequence[Region]) -> Iterator[tuple[Network, float]]:
        """(the network with the slopes of the region, the closed form's bound) of every region: of balls or boxes in a
        row for many at once."""
        start = 0
        while start < len(regions):
            first = regions[start]
            if isinstance(first, Data):
                local = tighten(self.network, first, self.norms)
                yield local, centred_bound(local, self.per_input, self.norms)
                start += 1
                continue
            together: list[Ball | Box] = []
            for region in regions[start : start + at_once(self.network)]:
                if isinstance(region, Data) or type(region) is not type(first):
                    break
                together.append(region)
            slopes = slopes_of(self.network, together, self.norms)
            bounds = centred_bounds(self.network, slopes.bounds, self.per_input, self.norms)
            # of a network without layers there is one bound for all
            for row, bound in enumerate(np.broadcast_to(bounds, len(together))):
                yield slopes.network(self.network, row), float(bound)
            start += len(together)

    def _answered(self, region: Region, local: Network, centred: float) -> LipschitzInterval:
        points = np.asarray(region.inputs, dtype=np.float64) if isinstance(region, Data) else None
        with np.errstate(over="ignore", invalid="ignore"):
            witness = self._search(local, region, points)
        if self.reading is not None and not self._answers:
            self.reading.compare(api.seen(witness, region, points))
        factor = self.network.factor
        self._largest = max(self._largest, witness.value)
        found = self._found(local, centred, witness.value / factor)
        found = self._monotone(region, found, witness.value / factor)
        self._answers.add(region, found)
        return api.assemble(local, found, witness, self.per_input)

    def all(
        self, regions: Iterable[Region], progress: Callable[[int, int], None] | None = None
    ) -> list[LipschitzInterval]:
        """The intervals of many regions, in their order. Large regions are worked on first, so that small ones profit.

        Arguments:
            progress: called with (done, total) after every region.
        """
        regions = [measured(self.network, region) for region in regions]
        order = sorted(range(len(regions)), key=lambda i: -extent(regions[i]))
        results: dict[int, LipschitzInterval] = {}
        for i, (local, centred) in zip(order, self._prepared([regions[i] for i in order]), strict=True):
            results[i] = self._answered(regions[i], local, centred)
            if progress is not None:
                progress(len(results), len(regions))
        return [results[i] for i in range(len(regions))]

    def everywhere(self) -> float:
        """The global bound, inf where a normalisation layer has none; worked out when first needed."""
        return times(self._global().bound, self.network.factor)

    def _global(self) -> Upper:
        if self._everywhere is None:
            try:
                whole = tighten(self.network, None)
            except ValueError as error:
                self._everywhere = Upper(math.inf, "unbounded", notes=(str(error),))
            else:
                self._everywhere = self._solved(whole, "sdp" if self.method in ("auto", "centred") else self.method)
        return self._everywhere

    def _search(self, local: Network, region: Region, points: np.ndarray | None) -> Witness:
        found = search(local, region, points, self.per_input, self.seed, self.search_seconds)
        if not isinstance(region, Ball):
            return found
        # a small ball's samples do not contain its centre, whose Jacobian the bound tends to
        near = search(local, Data(np.ravel(region.center)[None]), None, self.per_input, self.seed, 0.0)
        return near if near.value > found.value and region.contains(near.x) else found

    def _solved(self, network: Network, method: str) -> Upper:
        how = (self.tol, self.solver, self.seconds, self.seed)
        found = upper(network, self.per_input, method, *how, self.norms)
        return with_layers(found, network, self.per_input, method, *how)

    def _found(self, local: Network, centred: float, realised: float) -> Upper:
        """What is proven for these slopes; centred: by the closed form; realised: the largest slope found there."""
        candidates = [Upper(centred, "centred")]
        if self.method == "auto" and candidates[0].bound > realised * (1.0 + self.tol):
            candidates.append(self._solved(local, "sdp"))
        elif self.method not in ("auto", "centred"):
            # the method asked for goes first: equal bounds are its own
            candidates.insert(0, self._solved(local, self.method))
        candidates.append(product_of(local, self.per_input, self.norms))
        return min(candidates, key=lambda found: found.bound)

    def _monotone(self, region: Region, found: Upper, realised: float) -> Upper:
        least = self._answers.least_around(region, found.bound)
        if found.bound > self._largest / self.network.factor:
            everywhere = self._global()
            if everywhere.bound < (found if least is None else least).bound:
                least = everywhere
        if least is not None:
            found = least.noting("the bound of a region around this one, which is below its own")
        inside = self._answers.largest_inside(region, found.bound)
        if inside is not None:
            found = found.raised(inside.bound, "raised to the bound of a region inside this one")
        return found


def lipschitz_local(
    model: Any, centers: Any, radius: Any, *, progress: Callable[[int, int], None] | None = None, **options: Any
) -> list[LipschitzInterval]:
    """The intervals of the l2 balls about ``centers``: `LocalBounds` for the most frequent kind of region.

    Arguments:
        model: as for `lipschitz`.
        centers: (B, ...) inputs, array or tensor.
        radius: a number, or (B,) numbers.
        progress: called with (done, total).
        options: those of `LocalBounds`.

    Returns:
        One LipschitzInterval per centre, in their order.

    Raises:
        ValueError: as for `LocalBounds`; a number of radii that is not the number of centres.
    """
    return LocalBounds(model, **options).all(balls(centers, radius), progress)


def balls(centers: Any, radius: Any) -> list[Ball]:
    """One ball per row of ``centers`` (B, ...), radius a number or (B,)."""
    rows = api.as_array(centers)
    radii = np.asarray(radius, dtype=np.float64)
    if radii.ndim and radii.shape != (len(rows),):
        raise ValueError(f"expected one radius, or one per centre ({len(rows)}); got shape {radii.shape}")
    return [Ball(c, float(r)) for c, r in zip(rows, np.broadcast_to(radii, (len(rows),)))]
