"""One row per image: what the network decided about it, and what every property says of it alone."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stabilitykit.base.decisions import Decisions
from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit.base.results import to_plain
from stabilitykit.base.text import safe_cell
from stabilitykit.runs.folder import Cell, cells_by_pair

if TYPE_CHECKING:
    import pandas

# Whose rows: columns in front of all others.
SUBJECT = ("model", "dataset")
# What the core knows of every image.
CORE = (
    "index",
    "label",
    "class",
    "prediction",
    "predicted",
    "confidence",
    "margin",
    "correct",
    "prediction_depth",
    "block",
)
Key = tuple[str, str]
# Rows whose texts are made at once.
ROWS_AT_ONCE = 1 << 16


def columns_of(decisions: Decisions, cells: Sequence[Cell]) -> dict[str, Sequence[Any]]:
    """The columns of one (model, dataset), each with one entry per image: :data:`CORE`, then those of its properties.

    A property's column has its own name; where that is taken by other values, LABEL.NAME.

    Arguments:
        cells: of that pair, in the order of the run; failed ones and columns of another length are passed over.
    """
    known = decisions.columns
    places = [decisions.block_name(depth) for depth in range(len(decisions.blocks) + 1)]
    found: dict[str, Sequence[Any]] = {
        **{name: known[name] for name in ("index", "label")},
        "class": [decisions.classes[label] for label in known["label"]],
        "prediction": known["prediction"],
        "predicted": [decisions.outputs[output] for output in known["prediction"]],
        **{name: known[name] for name in ("confidence", "margin")},
        "correct": decisions.correct,
        "prediction_depth": known["prediction_depth"],
        "block": [places[depth] for depth in known["prediction_depth"]],
    }
    for cell in cells:
        for name, values in (cell.result.per_image if cell.result else {}).items():
            if len(values) == len(decisions) and not (name in found and list(found[name]) == list(values)):
                found[name if name not in found and name not in SUBJECT else f"{cell.property}.{name}"] = values
    return found


def image_columns(decisions: Mapping[Key, Decisions], cells: Sequence[Cell]) -> dict[Key, dict[str, Sequence[Any]]]:
    """The columns of every (model, dataset) that has decisions, in the order of the run."""
    return {
        key: columns_of(decisions[key], members) for key, members in cells_by_pair(cells).items() if key in decisions
    }


def images_csv(decisions: Mapping[Key, Decisions], cells: Sequence[Cell]) -> str:
    """All rows as CSV (see :func:`~stabilitykit.base.text.safe_cell`): model, dataset, then the columns of any pair."""
    pairs = image_columns(decisions, cells)
    names = list(dict.fromkeys(name for columns in pairs.values() for name in columns))
    lines = [",".join(map(_quoted, (*SUBJECT, *names)))]
    for key, columns in pairs.items():
        subject = list(map(_quoted, key))
        count = len(columns["index"])
        for start in range(0, count, ROWS_AT_ONCE):
            part = range(start, min(start + ROWS_AT_ONCE, count))
            blank = [""] * len(part)
            texts = [_texts(columns[name][part.start : part.stop]) if name in columns else blank for name in names]
            beside = (itertools.repeat(text, len(part)) for text in subject)
            lines.append("\n".join(map(",".join, zip(*beside, *texts, strict=True))))
    return "\n".join(lines) + "\n"


def _texts(values: Sequence[Any]) -> list[str]:
    """A part of a column as it stands in the file: numbers with all their digits, a name looked at once."""
    kinds = set(map(type, values))
    if kinds <= {int, float, bool}:
        return list(map(str, values))
    known = {value: _quoted(value) for value in set(values) if isinstance(value, str)}
    return [known[value] if isinstance(value, str) else "" if value is None else str(value) for value in values]


def _quoted(value: str) -> str:
    """A text as one cell of a line (see :func:`~stabilitykit.base.text.safe_cell`), in quotes where it needs them."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow([safe_cell(value), ""])  # alone, an empty text would be quoted
    return stream.getvalue().removesuffix(",\n")


def images_records(decisions: Mapping[Key, Decisions], cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    """All rows as plain JSON data by column, with the columns that their (model, dataset) has."""
    for key, columns in image_columns(decisions, cells).items():
        subject = dict(zip(SUBJECT, key, strict=True))
        for row in zip(*columns.values(), strict=True):
            yield subject | to_plain(dict(zip(columns, row, strict=True)))


def images_frame(
    decisions: Mapping[Key, Decisions], cells: Sequence[Cell], model: str | None = None, dataset: str | None = None
) -> pandas.DataFrame:
    """All rows, or those of one model or dataset, with dtypes.

    Whole numbers are int64 (Int64 where some are absent), floats float64 (NaN where absent), truth values boolean,
    names categories.

    Raises:
        UsageProblem: no rows for this model or dataset.
    """
    import pandas

    for what, wanted, place in (("model", model, 0), ("dataset", dataset, 1)):
        known = list(dict.fromkeys(key[place] for key in decisions))
        if wanted is not None and wanted not in known:
            raise UsageProblem(f"no rows for {what} {wanted!r}{did_you_mean(wanted, known)}")
    chosen = {
        key: found
        for key, found in decisions.items()
        if (model is None or key[0] == model) and (dataset is None or key[1] == dataset)
    }
    pairs = image_columns(chosen, cells)
    names = list(dict.fromkeys(name for columns in pairs.values() for name in columns))
    if not pairs:
        return pandas.DataFrame({name: [] for name in (*SUBJECT, *CORE)})
    made: dict[str, Any] = {}
    for place, name in enumerate(SUBJECT):
        made[name] = pandas.Categorical([key[place] for key in pairs for _ in range(len(decisions[key]))])
    for name in names:
        values = [v for columns in pairs.values() for v in columns.get(name, [None] * len(columns["index"]))]
        made[name] = pandas.Series(values, dtype=_dtype(values))
    return pandas.DataFrame(made)


def _dtype(values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "Int64" if any(value is None for value in values) else "int64"
    if kinds <= {int, float}:  # an empty column, too
        return "float64"
    return "category"
