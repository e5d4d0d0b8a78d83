"""One alteration at a time of every number and text of a run folder: does `verify` see it?"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.machine.determinism import make_deterministic
from stabilitykit.machine.device import choose_device
from stabilitykit.plugins.registry import Registry
from stabilitykit.review.circumstances import Circumstances
from stabilitykit.review.files import RunFiles
from stabilitykit.review.judging import judged
from stabilitykit.review.plan import plan_of
from stabilitykit.review.verify import measured_pairs
from stabilitykit.runs.folder import CSV_FILE, DECISIONS, IMAGES_FILE, RUN_FILE
from stabilitykit.runs.provenance import provenance

# Fields of images.csv that are altered, about.
FIELDS = 500


@dataclass(frozen=True)
class Mutation:
    """One leaf of a run folder, altered.

    Attributes:
        file: name in the run folder. path: of the leaf, as verdicts name it.
        files: the run with that leaf altered.
        was, now: the leaf before and after.
    """

    file: str
    path: str
    files: RunFiles
    was: Any
    now: Any

    @property
    def is_number(self) -> bool:
        """Was the leaf a number?"""
        return isinstance(self.was, (int, float)) and not isinstance(self.was, bool)


class Mutated:
    """Judges alterations of a run without measuring it again for each.

    Arguments:
        run: a run folder; it is measured again once, here.
        registry: components to choose from; None: all installed plugins'.
    """

    def __init__(self, run: Path, registry: Registry | None = None) -> None:
        self.registry = registry or Registry.load()
        self.files = RunFiles.read(run)
        plan = self._plan(self.files)
        device = choose_device(plan.device)
        make_deterministic(plan.settings.seed)
        self._today = provenance(self.registry.host, device, plan.settings.seed)
        circumstances = Circumstances.of(self.files.schema, self.files.provenance, self._today)
        self._pairs = measured_pairs(plan, self.files.parsed, device, circumstances)

    def _plan(self, files: RunFiles) -> Any:
        request, schema = files.info.get("request"), files.info.get("schema")
        return plan_of(
            request, self.registry, schema=schema if isinstance(schema, int) else 0, checkpoint={}, data={}, trust=False
        )

    def verdict(self, files: RunFiles, file: str = "", path: str = "") -> str:
        """What `verify` makes of ``files``: ``"stands"``, ``"fails"``, ``"refused"`` (exit 2), or ``"listed"``: it
        stands, and ``path`` of ``file`` is named among what was not recomputed."""
        try:
            plan, cells, _ = self._plan(files), files.parsed, files.decided
            if not isinstance(files.info.get("schema"), int):
                return "refused"
        except UsageProblem:
            return "refused"
        circumstances = Circumstances.of(files.schema, files.provenance, self._today)
        found = judged(files, cells, plan, self._pairs, circumstances, self._today)
        if not found.ok:
            return "fails"
        return "listed" if any(u.covers(file, path) for u in found.uncovered) else "stands"


def mutations(files: RunFiles) -> Iterator[Mutation]:
    """Every leaf of run.json, cells, decisions and measurements.csv, and about :data:`FIELDS` fields of images.csv,
    altered as little as it can be."""
    for keys, leaf in _walk(files.info):
        altered = replace(files, info=_with(files.info, keys, alter(leaf)))
        yield Mutation(RUN_FILE, _path(files.info, keys, leaf), altered, leaf, alter(leaf))
    for name, data in files.cells.items():
        for keys, leaf in _walk(data):
            cells = {**files.cells, name: _with(data, keys, alter(leaf))}
            yield Mutation(f"cells/{name}", _path(data, keys, leaf), replace(files, cells=cells), leaf, alter(leaf))
    for name, data in files.decisions.items():
        for keys, leaf in _walk(data):
            decisions = {**files.decisions, name: _with(data, keys, alter(leaf))}
            altered = replace(files, decisions=decisions)
            yield Mutation(f"{DECISIONS}/{name}", _path(data, keys, leaf), altered, leaf, alter(leaf))
    for path, text, field, now in _fields(files.csv or "", 1):
        yield Mutation(CSV_FILE, path, replace(files, csv=text), _number(field), now)
    images = files.images or ""
    # Every mutation holds the whole text.
    for path, text, field, now in _fields(images, 1 + images.count(",") // FIELDS):
        yield Mutation(IMAGES_FILE, path, replace(files, images=text), _number(field), now)


def _fields(text: str, step: int) -> Iterator[tuple[str, str, str, str]]:
    """(path, the CSV file with that field altered, the field, what stands there) of every ``step``-th field."""
    rows = list(csv.reader(io.StringIO(text)))
    places = [(number, column) for number, row in enumerate(rows) for column in range(len(row))]
    for number, column in places[::step]:
        row, field = rows[number], rows[number][column]
        stream = io.StringIO()
        now = _altered_text(field)
        changed = [*row[:column], now, *row[column + 1 :]]
        csv.writer(stream, lineterminator="\n").writerows([*rows[:number], changed, *rows[number + 1 :]])
        yield (
            f"rows[{number - 1}].{rows[0][column]}" if number else f"columns[{column}]",
            stream.getvalue(),
            field,
            now,
        )


def alter(leaf: Any) -> Any:
    """The nearest other value: the next float, the next whole number, a text with a letter more."""
    if isinstance(leaf, bool):
        return not leaf
    if isinstance(leaf, int):
        return leaf + 1
    if isinstance(leaf, float):
        return math.nextafter(leaf, math.inf)
    if isinstance(leaf, str):
        return leaf + "x"
    return 0 if leaf is None else [0] if isinstance(leaf, list) else {"x": 0}


def _altered_text(field: str) -> str:
    number = _number(field)
    return repr(alter(number)) if isinstance(number, (int, float)) else field + "x"


def _number(field: str) -> Any:
    for kind in (int, float):
        try:
            return kind(field)
        except ValueError:
            continue
    return field


def _walk(tree: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(keys, leaf) of every leaf; empty dicts and lists are leaves."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    if not tree or not isinstance(tree, (dict, list)):
        yield keys, tree
    for key, value in items:
        yield from _walk(value, (*keys, key))


def _with(tree: Any, keys: tuple[Any, ...], leaf: Any) -> Any:
    """``tree`` with another leaf at ``keys``; what is not on the way to it is shared."""
    if not keys:
        return leaf
    changed: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    changed[keys[0]] = _with(tree[keys[0]], keys[1:], leaf)
    return changed


def _path(tree: Any, keys: tuple[Any, ...], leaf: Any) -> str:
    """Path of an altered leaf with measurements by name and rows by column, as verdicts name it.

    An empty list or dict is altered by what is added to it.
    """
    path, here = "", tree
    for place, key in enumerate(keys):
        above = keys[:place]
        if above == ("result", "measurements"):
            path += f".{here[key].get('name')}"
        elif above[:2] == ("result", "tables") and len(above) == 5 and above[3] == "rows":
            path += f".{tree['result']['tables'][above[2]]['columns'][key]}"
        else:
            path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
        here = here[key]
    return path + ("[0]" if isinstance(leaf, list) else ".x" if isinstance(leaf, dict) else "")
