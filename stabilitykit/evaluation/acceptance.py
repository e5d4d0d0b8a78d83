"""What a property returned, before it counts: brought to the form it is stored in, and computed a second time."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from stabilitykit.base.errors import PluginProblem
from stabilitykit.base.results import Measurement, PropertyResult, to_plain
from stabilitykit.evaluation.blame import describe_failure
from stabilitykit.evaluation.context import Context
from stabilitykit.evaluation.property import Property
from stabilitykit.evaluation.rerun import SAME_MACHINE, Rerun, witness_images
from stabilitykit.evaluation.selection import Choice

# A result is numbers and small tables for people; more than this is a plugin writing its arrays into it.
MAX_RESULT_BYTES = 64_000_000
# A recomputation in the same process is bit-equal or nearly so; beyond this fraction something keeps a state.
SUSPICIOUS = 1e-3
# Below this residual it may be the size of the batch, which moves logits by about 1e-6.
SMALLEST = 1e-6
# Share of the images that a recheck may run: with what else it does, below a tenth of the cell.
RECHECK_SHARE = 0.03
# As many may run in any case: the witness of one constant names about two for each depth.
FEWEST_IMAGES = 24


def stored_form(result: Any, images: int | None = None) -> PropertyResult:
    """``result`` through JSON and back: what is reported is what was stored. PluginProblem when it is no result.

    Arguments:
        images: N, how long its columns per image are; None: not checked.
    """
    if not isinstance(result, PropertyResult):
        raise PluginProblem(f"evaluate returned {type(result).__name__}, expected a PropertyResult")
    if not isinstance(result.measurements, list) or not all(isinstance(m, Measurement) for m in result.measurements):
        raise PluginProblem("evaluate returned a PropertyResult whose measurements are no list of Measurement")
    data = to_plain(result.to_json())
    columns = data.pop("per_image", {})
    text = json.dumps(data, allow_nan=False)
    if len(text) > MAX_RESULT_BYTES:
        raise PluginProblem(
            f"the result takes {len(text) / 1e6:.0f} MB as JSON, above the limit of "
            f"{MAX_RESULT_BYTES / 1e6:.0f} MB; report summaries, not arrays"
        )
    for name, values in columns.items():
        trouble = column_problem(values, images)
        if trouble:
            raise PluginProblem(f"evaluate returned a PropertyResult whose column per image {name!r} {trouble}")
    stored = PropertyResult.from_json({**json.loads(text), "per_image": json.loads(json.dumps(columns))})
    if not stored.measurements and not stored.tables:
        raise PluginProblem(
            "evaluate returned a PropertyResult without a measurement or a table; raise CellProblem "
            "with the reason where there is no number"
        )
    return stored


def column_problem(values: Any, images: int | None) -> str:
    """What is wrong with a column per image in its stored form; empty when nothing is.

    Arguments:
        images: N; None: any length.
    """
    if not isinstance(values, list):
        return f"is {type(values).__name__}; give a list or an array"
    if images is not None and len(values) != images:
        return (
            f"has {len(values)} entries for {images} evaluated images; give one each, in the order of context.indices"
        )
    kinds = {
        "number" if type(v) in (int, float) or v in ("inf", "-inf") else type(v).__name__
        for v in values
        if v is not None
    }
    if not kinds <= {"number"} and not kinds <= {"bool"} and not kinds <= {"str", "number"}:
        return f"holds {' and '.join(sorted(kinds))}; give numbers, texts or bools, None where there is none"
    if "str" in kinds and any(type(v) in (int, float) for v in values):
        return "holds numbers and texts; give one kind, None where there is none"
    return ""


def rechecked(prop: Property, context: Context, result: PropertyResult, choice: Choice) -> PropertyResult:
    """``result`` with the residuals of a recomputation from model and data, as `verify` does it.

    Nothing is read from the cache, and nothing is searched for. The images of the witnesses run together, at most
    :func:`allowed_images` of them: measurements are rechecked in their order, the headline constants first, as far
    as that goes. A recomputation that fails is said on stderr and costs no number: `verify` will report it.
    """
    some = replace(result, measurements=_affordable(context, result.measurements))
    if not some.measurements:
        return result
    expected = _witness_rows(context, some.measurements)
    try:
        # A whole batch is bit-equal to the extraction's, and what is compiled takes no other; a part of one is cheaper.
        compiled = context.make_forward is not None and context.make_forward() is not None
        filled = compiled or allowed_images(len(context.indices)) >= context.batch_size
        tolerance = SAME_MACHINE if filled else (SUSPICIOUS, SMALLEST)
        again = replace(context, rerun=Rerun(expected, packed=True, filled=filled, tolerance=tolerance))
        found = dict(prop.verify(again, copy.deepcopy(some)))
        for number, m in enumerate(result.measurements):
            value = found.get(m.name)
            if isinstance(value, str):
                raise PluginProblem(f"{m.name}: {value}")
            if value is None or m.value is None:
                continue
            residual = 0.0 if float(value) == m.value else abs(float(value) - m.value)
            result.measurements[number] = replace(m, recheck=residual)
            if not residual <= max(SUSPICIOUS * abs(m.value), SMALLEST):
                text = (
                    f"{m.name} is {m.value:.6g}, and {float(value):.6g} when it is computed again: model, images "
                    "and property must be functions of their input alone"
                )
                result.notes.append(text)
                print(f"warning: {choice.label}: {text}", file=sys.stderr)
    except (Exception, SystemExit) as error:
        reason = describe_failure(choice, error)
        print(f"warning: {reason['culprit']}: the recheck failed ({reason['message']})", file=sys.stderr)
    return result


def allowed_images(total: int) -> int:
    """How many images a recheck may run of ``total`` that were extracted."""
    return max(FEWEST_IMAGES, int(RECHECK_SHARE * total))


def _affordable(context: Context, measurements: list[Measurement]) -> list[Measurement]:
    """Those of ``measurements``, the first ones first, whose witnesses' images are not too many."""
    allowed = allowed_images(len(context.indices))
    taken: list[Measurement] = []
    for m in measurements:
        if len(_witness_rows(context, [*taken, m])) <= allowed:
            taken.append(m)
    return taken


def _witness_rows(context: Context, measurements: list[Measurement]) -> np.ndarray:
    """int64, rows of the evaluated images that the witnesses name; numbers that are none of those are left out."""
    images = [index for m in measurements for index in witness_images(m)]
    return np.flatnonzero(np.isin(context.indices, images))
