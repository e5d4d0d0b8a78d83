"""What a property returned, before it counts: brought to the form it is stored in, and computed a second time."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from typing import Any

from stabilitykit.base.errors import PluginProblem
from stabilitykit.base.results import Measurement, PropertyResult, to_plain
from stabilitykit.evaluation.blame import describe_failure
from stabilitykit.evaluation.property import Property
from stabilitykit.evaluation.selection import Choice

# A result is numbers and small tables for people; more than this is a plugin writing its arrays into it.
MAX_RESULT_BYTES = 64_000_000
# A recomputation in the same process is bit-equal or nearly so; beyond this fraction something keeps a state.
SUSPICIOUS = 1e-3


def stored_form(result: Any) -> PropertyResult:
    """``result`` through JSON and back: what is reported is what was stored. PluginProblem when it is no result."""
    if not isinstance(result, PropertyResult):
        raise PluginProblem(f"evaluate returned {type(result).__name__}, expected a PropertyResult")
    if not isinstance(result.measurements, list) or not all(isinstance(m, Measurement) for m in result.measurements):
        raise PluginProblem("evaluate returned a PropertyResult whose measurements are no list of Measurement")
    text = json.dumps(to_plain(result.to_json()), allow_nan=False)
    if len(text) > MAX_RESULT_BYTES:
        raise PluginProblem(
            f"the result takes {len(text) / 1e6:.0f} MB as JSON, above the limit of "
            f"{MAX_RESULT_BYTES / 1e6:.0f} MB; report summaries, not arrays"
        )
    stored = PropertyResult.from_json(json.loads(text))
    if not stored.measurements and not stored.tables:
        raise PluginProblem(
            "evaluate returned a PropertyResult without a measurement or a table; raise CellProblem "
            "with the reason where there is no number"
        )
    return stored


def rechecked(prop: Property, context: Any, result: PropertyResult, choice: Choice) -> PropertyResult:
    """``result`` with the residuals of an independent recomputation, as `verify` does it, where it has none yet.

    A recomputation that fails is said on stderr and costs no number: `verify` will report it.
    """
    if all(m.recheck is not None or m.value is None for m in result.measurements):
        return result
    try:
        found = dict(prop.verify(context, copy.deepcopy(result)))
        for number, m in enumerate(result.measurements):
            again = found.get(m.name)
            if again is None or m.value is None or m.recheck is not None:
                continue
            residual = 0.0 if float(again) == m.value else abs(float(again) - m.value)
            result.measurements[number] = replace(m, recheck=residual)
            if not residual <= SUSPICIOUS * abs(m.value):
                text = (
                    f"{m.name} is {m.value:.6g}, and {float(again):.6g} when it is computed again: model, images "
                    "and property must be functions of their input alone"
                )
                result.notes.append(text)
                print(f"warning: {choice.label}: {text}", file=sys.stderr)
    except (Exception, SystemExit) as error:
        reason = describe_failure(choice, error)
        print(f"warning: {reason['culprit']}: the recheck failed ({reason['message']})", file=sys.stderr)
    return result
