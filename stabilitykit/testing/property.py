"""Contract checks of a Property, run on the tiny model and dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from stabilitykit.base.errors import StabilityKitError
from stabilitykit.base.results import Kind, PropertyResult
from stabilitykit.evaluation.acceptance import column_problem
from stabilitykit.evaluation.context import Context
from stabilitykit.evaluation.property import Property
from stabilitykit.runs.rows import CORE, SUBJECT
from stabilitykit.testing.checks import Check, Checklist, require
from stabilitykit.testing.fixtures import TinyDataset, tiny_context

# Witnesses are stored in full precision and recomputed by the same arithmetic.
VERIFY_TOLERANCE = 1e-9


def check_property(
    build: Callable[[], Property],
    *,
    options: Mapping[str, Any] | None = None,
    results: Mapping[str, PropertyResult] | None = None,
    make_context: Callable[..., Context] = tiny_context,
) -> list[Check]:
    """Contract checks of the property that ``build()`` returns.

    Arguments:
        build: called anew for every run.
        options: parsed options, offered to the property as ``context.options``.
        results: results of the properties it needs, by name.
        make_context: ``make_context(dataset=None, *, seed, options, results)`` -> Context; default the tiny one.
    """
    with _global_random_state(0):
        return _checks(build, {"options": options or {}, "results": results or {}}, make_context)


def _checks(
    build: Callable[[], Property], given: Mapping[str, Any], make_context: Callable[..., Context]
) -> list[Check]:
    found = Checklist()
    with found.check("is a stabilitykit.Property"):
        thing = build()
        require(isinstance(thing, Property), f"it is {type(thing).__name__}; derive from stabilitykit.Property")
    if found.failed:
        return found.checks
    result: PropertyResult | None = None
    context = make_context(seed=0, **given)
    before = _model_state(context)
    with found.check("measures a small model and dataset"):
        with _global_random_state(1):
            result = build().evaluate(context)
        require(isinstance(result, PropertyResult), f"evaluate returned {type(result).__name__}")
        require(len(result.measurements) > 0, "evaluate returned no measurement; raise CellProblem if none exists")
    if result is None or found.failed:
        return found.checks
    with found.check("leaves the model as it was"):
        require(
            _model_state(context) == before,
            "weights, training mode or requires_grad changed; work on copy.deepcopy(context.model)",
        )
    _check_measurements(result, context, found)
    _check_per_image(result, context, found)
    with found.check("result survives JSON"):
        text = json.dumps(result.to_json(), allow_nan=False)
        require(
            PropertyResult.from_json(json.loads(text)).to_json() == json.loads(text),
            "reading the JSON back gives another result; keep witnesses plain (numbers, strings, lists)",
        )
    with found.check("the same seed gives the same result"):
        with _global_random_state(2):
            again = build().evaluate(make_context(seed=0, **given))
        require(
            _dump(again) == _dump(result),
            "two runs with one seed differ; draw only from generators made from context.seed",
        )
    with found.check("verify recomputes what it says it recomputes"):
        stored = PropertyResult.from_json(json.loads(json.dumps(result.to_json())))
        verified = build().verify(make_context(seed=0, **given), stored)
        for name, value in verified.items():
            recorded = stored[name].value
            require(not isinstance(value, str), f"{name}: verify says {value!r} of a result just measured")
            if value is not None and recorded is not None:
                require(
                    bool(np.isclose(value, recorded, rtol=VERIFY_TOLERANCE, atol=VERIFY_TOLERANCE)),
                    f"{name}: recorded {recorded!r}, verify gives {value!r}",
                )
    with found.check("a single class gives a result or one clear line"):
        try:
            build().evaluate(make_context(dataset=TinyDataset(count=4, classes=1), seed=0, **given))
        except StabilityKitError as problem:
            require(bool(str(problem)) and "\n" not in str(problem), "the error message is not one line")
    return found.checks


def _check_measurements(result: PropertyResult, context: Context, found: Checklist) -> None:
    with found.check("every measurement says what it is"):
        names = [m.name for m in result.measurements]
        require(len(set(names)) == len(names), f"measurement names repeat: {sorted(names)}")
        for m in result.measurements:
            require(bool(m.name), "a measurement has no name")
            require(isinstance(m.kind, Kind), f"{m.name}: kind is {m.kind!r}; use stabilitykit.Kind")
            require(m.n > 0, f"{m.name}: n = {m.n}; give the number of images (or samples) behind it")
            require(bool(m.reference), f"{m.name}: no reference; say where the quantity is defined")
            require(m.value is not None or bool(m.note), f"{m.name}: no value; say why in note")
            if m.value is not None and m.interval is not None:
                low, high = m.interval
                require(
                    (low is None or low <= m.value) and (high is None or m.value <= high),
                    f"{m.name}: value {m.value} lies outside its interval {m.interval}",
                )
    with found.check("witnesses and images are evaluated images"):
        known = {int(i) for i in context.indices}
        for m in result.measurements:
            seen = m.witness.get("indices", ())
            require(
                set(seen) <= known,
                f"{m.name}: witness indices {list(seen)[:4]} are not all dataset indices; "
                "rows of the trajectory become dataset indices by context.indices[rows]",
            )
        require(set(result.images) <= known, "result.images holds numbers that are no evaluated dataset indices")
    with found.check("tables have as many cells as columns"):
        for name, table in result.tables.items():
            short = [row for row in table.rows if len(row) != len(table.columns)]
            require(
                not short,
                f"table {name}: a row has {len(short[0]) if short else 0} cells for {len(table.columns)} columns",
            )


def _check_per_image(result: PropertyResult, context: Context, found: Checklist) -> None:
    with found.check("columns per image have one entry for each image"):
        for name, values in result.to_json().get("per_image", {}).items():
            problem = column_problem(values, len(context.indices))
            require(not problem, f"per_image[{name!r}] {problem}")
            require(bool(name.strip()), "a column of per_image has no name")
            require(name not in (*SUBJECT, *CORE), f"per_image[{name!r}]: the core has a column of that name")


def _dump(result: PropertyResult) -> str:
    """The result as text, without table columns called ``seconds``: a wall time differs from run to run."""
    data = result.to_json()
    for table in data["tables"].values():
        timed = {k for k, column in enumerate(table["columns"]) if column == "seconds"}
        table["rows"] = [[cell for k, cell in enumerate(row) if k not in timed] for row in table["rows"]]
    return json.dumps(data, sort_keys=True)


def _model_state(context: Context) -> tuple[Any, ...]:
    module = context.model.module
    return (
        context.model.fingerprint(),
        [part.training for part in module.modules()],
        [(p.requires_grad, p.grad is None) for p in module.parameters()],
    )


@contextmanager
def _global_random_state(seed: int) -> Iterator[None]:
    """Global generators seeded with ``seed`` in the body and restored afterwards."""
    import random

    import torch

    kept_python, kept_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(kept_python)
        np.random.set_state(kept_numpy)
