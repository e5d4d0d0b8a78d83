"""Is there a pseudo-orbit with jumps up to delta that no image traces within eps? Yes with a witness, or a proof."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stabilitykit_shadowing.exact_sets import Distances, count, escapable_sets, is_full, largest_square, members, votes

_NONE = np.empty(0, dtype=np.int64)
# So many sets are looked at to choose a tracer that is in most of them.
_SOME = 64


class TooManyNodes(Exception):
    """The search was given up before it could decide."""


@dataclass
class Budget:
    """Nodes that searches may still look at, and how many they did."""

    left: int
    used: int = 0

    def spend(self) -> None:
        """One more node; TooManyNodes where none is left."""
        if self.left <= 0:
            raise TooManyNodes
        self.left -= 1
        self.used += 1


@dataclass
class Search:
    """Depth-first over (depth t, image i, images that still trace the orbit so far).

    An orbit goes on from i to j only where each of its tracers can still be escaped from j, by itself; the fewest
    tracers left come first. Where no step leads on, a few of the tracers are the reason: one for every image that
    cannot be stepped to, and the reasons of those where the search failed. Wherever all of these trace an orbit that is
    at i at this depth, it cannot escape either.

    Attributes:
        distances: of the sample.
        far: uint64 (T+1, N, words), of ``far_sets`` at eps.
        delta: the largest jump allowed.
        budget: shared by all searches at one eps.
        start_tracer: may the image an orbit starts from trace it.
        nearest: float64 (T+1, N), distance to the nearest other image; needed without start tracer.
    """

    distances: Distances
    far: np.ndarray
    delta: float
    budget: Budget
    start_tracer: bool = True
    nearest: np.ndarray | None = None
    _failed: dict[tuple[int, int, bool], list[np.ndarray]] = field(default_factory=dict, init=False)

    def path(self) -> np.ndarray | None:
        """Images int64 (T+1,) of an orbit that escapes; None: there is none, which is proven.

        Raises:
            TooManyNodes: undecided.
        """
        self.limit = largest_square(self.delta)
        self.escapable = escapable_sets(self.distances, self.far, self.delta)
        # Tracers of each start image that no continuation escapes; pad bits are 1 in every set, so 0 here.
        remaining = ~self.escapable[0]
        tracers = ~self.far[0]
        if not self.start_tracer:
            assert self.nearest is not None
            every = np.arange(self.distances.images)
            own = np.uint64(1) << (every % 64).astype(np.uint64)
            remaining[every, every // 64] &= ~own
            tracers[every, every // 64] &= ~own
            # A true orbit is no pseudo-orbit: there has to be an image to step to.
            starts = np.flatnonzero(is_full(~remaining) & (self.nearest[1:].min(axis=0) <= self.delta))
        else:
            starts = np.flatnonzero(is_full(~remaining))
        left = count(tracers[starts])
        for i in starts[np.argsort(left, kind="stable")].tolist():
            found, _ = self._follow(0, i, tracers[i], self.start_tracer)
            if found is not None:
                return np.array(found, dtype=np.int64)
        return None

    def _follow(self, t: int, i: int, tracers: np.ndarray, free: bool) -> tuple[list[int] | None, np.ndarray]:
        """(images from depth t on, i first, that escape ``tracers``; None: there are none), and then the reason why:
        some of the tracers that no continuation escapes together.

        Arguments:
            tracers: (words,), within eps at every depth up to t.
            free: may the orbit stay at i for ever.
        """
        if not tracers.any():
            return self._ending(t, i, free), _NONE
        if t == self.distances.depths - 1:
            return None, _one_of(tracers)
        key = (t, i, free)
        for reason in self._failed.get(key, ()):
            if _holds(tracers, reason):
                return None, reason
        self.budget.spend()
        near = np.flatnonzero(self.distances.squares(t + 1, i) <= self.limit)
        stuck = tracers & ~self.escapable[t + 1, near]
        hopeless = stuck.any(axis=1)
        reasons = [_cover(stuck[hopeless])]
        near = near[~hopeless]
        left = tracers & ~self.far[t + 1, near]
        for n in np.argsort(count(left), kind="stable"):
            found, reason = self._follow(t + 1, int(near[n]), left[n], free or int(near[n]) != i)
            if found is not None:
                return [i, *found], _NONE
            reasons.append(reason)
        reason = np.unique(np.concatenate(reasons))
        self._failed.setdefault(key, []).append(reason)
        return None, reason

    def _ending(self, t: int, i: int, free: bool) -> list[int] | None:
        """Any images from depth t on, once no tracer is left; where the orbit is not ``free``, with a step."""
        length = self.distances.depths - t
        if free:
            return [i] * length
        for s in range(t + 1, self.distances.depths):
            near = np.flatnonzero(self.distances.squares(s, i) <= self.limit)
            near = near[near != i]
            if len(near):
                return [i] * (s - t) + [int(near[0])] * (self.distances.depths - s)
        return None


def _one_of(tracers: np.ndarray) -> np.ndarray:
    """The first image of a set (words,) that is not empty, int64 (1,)."""
    return members(tracers)[:1]


def _holds(tracers: np.ndarray, some: np.ndarray) -> bool:
    """Are the images ``some`` (int64) all in the set?"""
    return bool((tracers[some // 64] >> (some % 64).astype(np.uint64) & np.uint64(1)).all())


def _cover(sets: np.ndarray) -> np.ndarray:
    """Few images that meet every one of the sets (M, words), none of them empty -> int64."""
    chosen = []
    while len(sets):
        image = int(votes(sets[:_SOME]).argmax())
        chosen.append(image)
        sets = sets[sets[:, image // 64] >> np.uint64(image % 64) & np.uint64(1) == 0]
    return np.array(chosen, dtype=np.int64)
