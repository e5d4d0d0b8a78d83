"""How the cells of a run are evaluated, and which images that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from stabilitykit.base.errors import UsageProblem
from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.dynamics.renamed import check_class_names

LATER = ("class_names", "probe_steps")
"""Settings that are younger than run.json: runs without them look as they did before."""


@dataclass(frozen=True)
class Settings:
    """How pairs are evaluated; the same for all cells of a run.

    Attributes:
        extraction: how readouts along depth are computed.
        seed: of the subset, the training of readouts, and whatever a property draws.
        limit: evaluate a seeded random subset of that many images; None: all.
        probe_epochs: passes over the images that probes or a lens are trained on.
        probe_steps: batches that they are trained on, in place of those passes; None: the passes.
        any_classes: accept a dataset whose classes are not the model's.
        uncertified: measure models whose certificate fails, every number marked.
        class_names: K names in place of those the datasets bring; None: theirs.
    """

    extraction: Extraction = field(default_factory=Extraction)
    seed: int = 0
    limit: int | None = None
    probe_epochs: int = 10
    probe_steps: int | None = None
    any_classes: bool = False
    uncertified: bool = False
    class_names: Sequence[str] | None = None

    def check(self) -> None:
        """UsageProblem for a value out of range."""
        self.extraction.check()
        if not isinstance(self.probe_epochs, int) or self.probe_epochs < 1:
            raise UsageProblem(f"probe epochs is a whole number >= 1; got {self.probe_epochs!r}")
        if self.probe_steps is not None and (not isinstance(self.probe_steps, int) or self.probe_steps < 1):
            raise UsageProblem(f"probe steps is a whole number >= 1; got {self.probe_steps!r}")
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit < 2):
            raise UsageProblem(f"limit is a whole number >= 2; got {self.limit!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise UsageProblem(f"seed is a whole number in 0..2^63-1; got {self.seed!r}")
        if self.class_names is not None:
            check_class_names(self.class_names)

    def request(self) -> dict[str, Any]:
        """Plain data by the names of options, as run.json keeps it."""
        own = {name: getattr(self, name) for name in _own_names()}
        for name in LATER:
            if own[name] is None:
                del own[name]
        return {**self.extraction.record(), **own}

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Settings:
        """The settings that ``request`` (of a run.json) names, unchecked; what it does not mention is the default."""
        own = {name: request[name] for name in _own_names() if name in request}
        return cls(Extraction.from_record(request), **own)


def _own_names() -> list[str]:
    return [entry.name for entry in fields(Settings) if entry.name != "extraction"]


def choose_indices(count: int, limit: int | None, seed: int) -> np.ndarray:
    """int64 (n,): all of 0..count-1, or a seeded random ``limit`` of them, ascending. Subsets of one seed are nested.

    Examples:
        >>> choose_indices(4, None, seed=0).tolist()
        [0, 1, 2, 3]
        >>> set(choose_indices(100, 5, seed=1)) <= set(choose_indices(100, 9, seed=1))
        True
    """
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])
