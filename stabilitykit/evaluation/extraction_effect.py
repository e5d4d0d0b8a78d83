"""What faster extraction does to every number: the property measured both ways on a part of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stabilitykit.base.errors import catching, describe
from stabilitykit.base.progress import no_progress
from stabilitykit.base.results import EXTRACTION_EFFECT, PropertyResult, Table
from stabilitykit.machine.determinism import make_deterministic

if TYPE_CHECKING:
    from stabilitykit.evaluation.selection import Choice
    from stabilitykit.evaluation.subject import Subject

# Images on which both are measured.
SAMPLE = 200


class ExtractionEffect:
    """Measures the properties of a subject on at most SAMPLE of its images, extracted as asked for and plainly.

    Arguments:
        subject: whose numbers are at stake.
        properties: what the run measures; those a property needs are measured on the sample, too.

    Attributes:
        how, plainly: the two extractions in words.
        n: images measured on.
        moved: the largest distance by which a readout moved, once something was measured.
    """

    def __init__(self, subject: Subject, properties: Sequence[Choice]) -> None:
        self.subject = subject
        self.how = subject.settings.extraction.faster
        self.plainly = subject.settings.extraction.plain.dtype
        self.n = min(SAMPLE, len(subject.indices))
        self.moved: float | None = None
        self._properties = {choice.name: choice for choice in reversed(properties)}
        self._twins: tuple[Subject, ...] = ()
        self._results: tuple[dict[str, PropertyResult], ...] = ({}, {})

    def _made(self) -> tuple[Subject, ...]:
        """The subject on the sample: (extracted plainly, as asked for)."""
        if not self._twins:
            subject = self.subject
            asked = replace(subject.settings, limit=self.n)
            plain = replace(asked, extraction=asked.extraction.plain)
            twins = tuple(
                type(subject)(
                    subject.model_choice,
                    subject.dataset_choice,
                    settings,
                    subject.device,
                    None,
                    subject.probe_choice,
                    no_progress,
                )
                for settings in (plain, asked)
            )
            # Both look through one readout (it is trained once), and what is compiled is not compiled anew.
            if subject.settings.extraction.trained:
                for twin in twins:
                    twin.share(readout=subject.readout.bound_to(twin.model))
            twins[1].share(forward=subject.forward)
            self._twins = twins
        return self._twins

    def measure(self, choice: Choice) -> tuple[PropertyResult, ...]:
        """The property on the sample: (plain, as asked for); what it needs and wants first."""
        for name in (*choice.needs, *choice.wants):
            if name in self._properties and name not in self._results[1]:
                try:
                    self.measure(self._properties[name])
                except Exception:
                    if name in choice.needs:
                        raise
        twins = self._made()
        if choice.name not in self._results[1]:
            for subject, results in zip(twins, self._results, strict=True):
                make_deterministic(subject.settings.seed)
                results[choice.name] = choice.make().evaluate(subject.context(choice, results))
        if self.moved is None:
            plain, asked = (subject.trajectory().values for subject in twins)
            self.moved = float(np.sqrt(((np.asarray(plain, np.float64) - asked) ** 2).sum(axis=-1)).max())
        return self._results[0][choice.name], self._results[1][choice.name]

    def stated(self, result: PropertyResult, choice: Choice) -> PropertyResult:
        """``result`` with the effect in the note of every measurement and as a table; a failure is a note, too."""
        with catching() as caught:
            plain, asked = self.measure(choice)
        if caught.error is not None:  # the numbers stand without it
            why = describe(caught.error)
            result.notes.append(f"the effect of {self.how} extraction could not be measured on {self.n} images: {why}")
            return result
        before = {m.name: m.value for m in plain.measurements}
        after = {m.name: m.value for m in asked.measurements}
        rows = []
        for number, m in enumerate(result.measurements):
            a, b = before.get(m.name), after.get(m.name)
            text = f"{self.how} extraction moved it {_change(a, b)} on {self.n} images"
            if text not in m.note:  # a number taken over from another property says so already
                result.measurements[number] = replace(m, note=f"{m.note.rstrip('. ')}. {text}" if m.note else text)
            rows.append([m.name, a, b, None if a is None or b is None else _difference(a, b)])
        unit = self._twins[0].trajectory().unit
        result.tables[EXTRACTION_EFFECT] = Table(
            ["measurement", f"plain {self.plainly}", self.how, "difference"],
            rows,
            f"Effect of {self.how} extraction on {self.n} images; it moved readouts by up to {self.moved:.3g} {unit}",
        )
        return result

    def close(self) -> None:
        """Free the two extra models."""
        for subject in self._twins:
            subject.close()


def _difference(a: float, b: float) -> float:
    return 0.0 if a == b else b - a  # also of two infinities


def _change(a: float | None, b: float | None) -> str:
    if a is None or b is None:
        return "in a way that could not be measured"
    if a == b:
        return "not at all"
    relative = f" ({(b - a) / abs(a):+.2g} of it)" if a else ""
    return f"from {a:.6g} to {b:.6g}{relative}"
