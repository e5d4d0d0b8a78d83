"""The property ``precision``: which decisions of the whole network bf16, fp16 and int8 change, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from stabilitykit import CellProblem, Property, PropertyResult
from stabilitykit.base.errors import describe
from stabilitykit.evaluation.context import Context
from stabilitykit.evaluation.rerun import SAME_MACHINE, own_batches
from stabilitykit.plugins.component import words_of
from stabilitykit_precision import FORMATS, tables
from stabilitykit_precision.alone import alone, part_names
from stabilitykit_precision.decisions import Decisions, clean_logits, logits_in
from stabilitykit_precision.integers import IntegerScheme
from stabilitykit_precision.layers import Left
from stabilitykit_precision.measured import Measured, PartsAlone
from stabilitykit_precision.network import LowPrecisionNetwork, in_format

# Without --samples the parts together cost about this many forward passes an image.
BLOCKWISE_FORWARDS = 1.0
FEWEST = 4
PICTURES = 100


class Precision(Property):
    """The whole network and each of its parts in low precision. Options as in the schema."""

    name = "precision"

    def __init__(
        self,
        formats: str = "+".join(FORMATS),
        scales: str = "per-channel",
        ranges: str = "static",
        calibration: int = 64,
        samples: int | None = None,
    ) -> None:
        self.formats = words_of(formats, FORMATS, "precision: formats")
        self.per_channel, self.static = scales == "per-channel", ranges == "static"
        self.calibration, self.samples = calibration, samples

    def evaluate(self, context: Context) -> PropertyResult:
        """``flips.FORMAT`` (share of decisions that change), ``accuracy.FORMAT``, ``worst_part.FORMAT`` (the part that
        alone changes most of a sample) and ``main_part.FORMAT`` (the part that alone changes most of the changed
        decisions); tables ``formats``, ``flips`` (every image), ``parts`` and ``left_in_float``."""
        if context.model.replayed:
            raise CellProblem("recorded readouts hold no network to run in low precision: give the model itself")
        before = self._before(context)
        found: list[Measured] = []
        notes: list[str] = []
        for format in self.formats:
            try:
                measured = self._measured(context, format, before, notes)
            except CellProblem as problem:
                notes.append(f"{format}: {problem}")
                continue
            found.append(measured)
            notes += _left(measured)
        if not found:
            raise CellProblem("no format could be measured: " + "; ".join(notes))
        notes.append(self._cost(context, found))
        result = PropertyResult([], notes=notes)
        for measured in found:
            result.measurements += tables.measurements(context, measured)
            result.per_image[f"flips.{measured.format}"] = measured.after.classes != before.classes
        result.tables = {
            "formats": tables.summary(context, found),
            "flips": tables.flips(context, found),
            "parts": tables.parts(found),
        }
        if any(measured.left for measured in found):
            result.tables["left_in_float"] = tables.left_in_float(found)
        result.images = list(dict.fromkeys(int(row[1]) for row in result.tables["flips"].rows))[:PICTURES]
        return result

    def _measured(self, context: Context, format: str, before: Decisions, notes: list[str]) -> Measured:
        network = self._network(context, format)
        rows = np.arange(len(context.indices))
        after = Decisions(logits_in(context, network, rows, f"precision: {format}"), context.space)
        parts = None
        try:
            parts = self._parts(context, network, np.flatnonzero(after.classes != before.classes))
        except Exception as error:  # the whole network runs in the format: its numbers stand
            notes.append(f"{format}: its parts could not be run alone ({describe(error)})")
        return Measured(format, network.scheme, before, after, network.in_float(), parts)

    def _parts(self, context: Context, network: LowPrecisionNetwork, flipped: np.ndarray) -> PartsAlone:
        """Each part alone on the sample, and on as many of the images ``flipped``, integers (F,), in one go."""
        sampled = self._sampled(context)
        changed = _chosen(flipped, len(sampled), [context.seed, 9])
        rows = np.union1d(sampled, changed)
        found = alone(context, network, rows)
        among = [found.of(np.isin(rows, chosen)) for chosen in (sampled, changed)]
        return PartsAlone(part_names(context.model), among[0], among[1], found.forwards)

    def _before(self, context: Context) -> Decisions:
        """What the network decides as it was extracted; its own logits where readouts are others."""
        own = context.readout.kind != "probe"
        rows = np.arange(len(context.indices))
        logits = np.asarray(context.trajectory.logits[-1]) if own else clean_logits(context, rows)
        return Decisions(logits, context.space)

    def _sampled(self, context: Context) -> np.ndarray:
        """Rows of the images that are run part by part: a seeded choice, ascending."""
        count, blocks = len(context.indices), context.model.num_blocks
        wanted = self.samples
        if wanted is None:
            # A part alone costs itself twice and what follows it: about half of the network.
            forwards = len(self.formats) * (blocks / 2 + 3)
            wanted = max(FEWEST, int(BLOCKWISE_FORWARDS * count / forwards))
        return _chosen(np.arange(count), wanted or count, [context.seed, 7])

    def _cost(self, context: Context, found: Sequence[Measured]) -> str:
        """What was run, in words."""
        parts = sum(m.parts.forwards for m in found if m.parts is not None) / len(context.indices)
        return f"cost: {len(found)} forward passes an image for the whole network, {parts:.2f} for the parts alone"

    def _network(self, context: Context, format: str) -> LowPrecisionNetwork:
        scheme = IntegerScheme(self.per_channel, inputs=format == "int8", static=self.static)
        count = len(context.indices)
        rows = np.sort(np.random.default_rng([context.seed, 8]).permutation(count)[: self.calibration])
        with torch.inference_mode():
            examples = [inputs for _, inputs in context.batches(rows)]
        return in_format(context.model, format, scheme, examples)

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """Does the image that is named change its decision as reported? Shares rest on all images and are left open.

        Another batch size, or another machine, moves a rounded network by as much as separates it from the clean one.
        So the image runs in the very batch it was measured in. What another machine decides says nothing, and a recheck
        that may not run a whole batch leaves it to `verify`.
        """
        if context.rerun.tolerance != SAME_MACHINE:
            return {}
        found: dict[str, float | str | None] = {}
        for m in result.measurements:
            format = m.name.partition(".")[2]
            if not m.name.startswith("flips.") or not m.witness.get("indices") or format not in FORMATS:
                continue
            row = context.rows_of(m.witness["indices"])[:1]
            (members,) = own_batches(row, len(context.indices), context.batch_size)
            place = int(np.flatnonzero(members == row[0])[0])
            both = clean_logits(context, members), logits_in(context, self._network(context, format), members)
            classes = [int(Decisions(logits, context.space).classes[place]) for logits in both]
            names = [tables.class_name(context, number) for number in classes]
            if names != [m.witness.get("was"), m.witness.get("became")]:
                found[m.name] = (
                    f"image {m.witness['indices'][0]} is decided as {names[0]} and in {format} as {names[1]}"
                )
        return found


def _chosen(rows: np.ndarray, count: int, seed: Sequence[int]) -> np.ndarray:
    """``count`` of ``rows``, integers (n,), ascending: a seeded choice, all where there are no more."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def _left(measured: Measured) -> list[str]:
    """A note on what int8 leaves in float; the table has all of it."""
    if not measured.left:
        return []
    listed = ", ".join(map(_words, measured.left[:10]))
    more = f" and {len(measured.left) - 10} more (table left_in_float)" if len(measured.left) > 10 else ""
    return [f"{measured.format}: left in float: {listed}{more}"]


def _words(part: Left) -> str:
    return f"{part.kind} {part.name} ({part.what}: {part.why})"
