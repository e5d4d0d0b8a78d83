"""Whether the numbers of a run stand, as data."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass, field

from stabilitykit.review.circumstances import Circumstances
from stabilitykit.review.files import Key


@dataclass(frozen=True)
class Verdict:
    """Whether one number stands, or one place of a run that does not.

    Attributes:
        measurement: its name; for other places of a run their path, such as ``"tables.class_pairs.rows[3].value"``.
        status: ``"stands"``, ``"fails"`` (recomputed value differs, or model, data or files changed),
            ``"not recomputed"`` (undefined, or left out by ``witnesses_only``), ``"failed cell"``.
    """

    model: str
    dataset: str
    property: str
    measurement: str
    status: str
    reported: float | None = None
    recomputed: float | None = None
    message: str = ""

    @builtins.property  # `property` is a field here
    def difference(self) -> float | None:
        """|reported - recomputed|, None where one is missing."""
        if self.reported is None or self.recomputed is None:
            return None
        return 0.0 if self.reported == self.recomputed else abs(self.reported - self.recomputed)

    @builtins.property
    def key(self) -> Key:
        """(model, dataset, property)."""
        return self.model, self.dataset, self.property


@dataclass(frozen=True)
class Uncovered:
    """A place of a run folder that was not recomputed, and why.

    Attributes:
        file: name of a file in the run folder, ``"cells/NAME.json"`` for a cell.
        path: in the file; it stands for all that is below it. Empty: the whole file.
    """

    file: str
    path: str
    reason: str

    def covers(self, file: str, path: str) -> bool:
        """Does it stand for ``path`` of ``file``?"""
        return file == self.file and (
            not self.path or path == self.path or path.startswith((f"{self.path}.", f"{self.path}["))
        )


@dataclass
class Verification:
    """The outcome of :func:`stabilitykit.review.verify.verify`; iterating gives its verdicts.

    Attributes:
        uncovered: what of the run folder was not recomputed, by name.
    """

    circumstances: Circumstances
    verdicts: list[Verdict] = field(default_factory=list)
    uncovered: list[Uncovered] = field(default_factory=list)

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def counts(self) -> dict[str, int]:
        """How many verdicts have each status."""
        return {
            status: sum(v.status == status for v in self.verdicts)
            for status in ("stands", "fails", "not recomputed", "failed cell")
        }

    @property
    def ok(self) -> bool:
        """Something stands, nothing fails, and no cell of the run had failed."""
        counts = self.counts()
        return counts["stands"] > 0 and counts["fails"] == 0 and counts["failed cell"] == 0
