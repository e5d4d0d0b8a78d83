"""A run's measurements for other programs: CSV, JSON, Parquet, or a LaTeX table."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import Kind, Measurement
from stabilitykit.base.text import one_line
from stabilitykit.runs.folder import Cell, RunFolder, load_run, measurement_rows, to_csv

FORMATS = ("csv", "json", "parquet", "latex")
# Characters LaTeX reads as commands.
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}
MARKS = {Kind.EXACT: "", Kind.UPPER: r"$\leq$\,", Kind.LOWER: r"$\geq$\,", Kind.ESTIMATE: r"$\approx$\,"}


def export_images(run: Path | str, form: str) -> bytes:
    """One row per image of a run folder (the columns of ``images.csv``) as ``"csv"``, ``"json"`` or ``"parquet"``.

    Parquet and JSON hold typed values: absent ones are null.

    Raises:
        UsageProblem: no run, a run without such rows, another format, or Parquet without pyarrow.
    """
    from stabilitykit.runs.rows import images_csv, images_frame, images_records

    _, cells = load_run(run)
    decisions = RunFolder(Path(run)).read_decisions()
    if form == "latex":
        raise UsageProblem("rows per image are no table for a paper: export them as csv, json or parquet")
    if not decisions:
        raise UsageProblem(
            f"{run} holds no rows per image: no property of it used readouts, or it was made before there were any"
        )
    if form == "csv":
        return images_csv(decisions, cells).encode()
    if form == "json":
        return (json.dumps(list(images_records(decisions, cells)), indent=1, ensure_ascii=False) + "\n").encode()
    frame = images_frame(decisions, cells)
    _pyarrow()
    stream = io.BytesIO()
    frame.to_parquet(stream, engine="pyarrow", index=False)
    return bytes(stream.getvalue())


def _pyarrow() -> Any:
    """The package; UsageProblem where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageProblem(
            "Parquet needs pyarrow: pip install 'stabilitykit[parquet]', or export as csv or json"
        ) from None
    return pyarrow


def export(run: Path | str, form: str) -> bytes:
    """The measurements of a run folder in ``form``, one of :data:`FORMATS`.

    CSV and Parquet hold one row per measurement (columns of ``store.CSV_COLUMNS``) with all digits; JSON is the run
    and all its cells, tables included; LaTeX is a table for a paper (four digits, the kind as a sign).

    Raises:
        UsageProblem: no run, unknown format, or Parquet without pyarrow.
    """
    info, cells = load_run(run)
    if form == "csv":
        return to_csv(cells).encode()
    if form == "json":
        whole = {**info, "results": [c.to_json() for c in cells]}
        return (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()
    if form == "parquet":
        return to_parquet(cells)
    if form == "latex":
        return to_latex(cells).encode()
    raise UsageProblem(f"format is one of {', '.join(FORMATS)}; got {form!r}")


def to_parquet(cells: Sequence[Cell]) -> bytes:
    """Parquet with typed columns: numbers are float64 or int64, absent ones null.

    Raises:
        UsageProblem: pyarrow is not installed.
    """
    pyarrow = _pyarrow()
    numbers, whole = ("value", "lower", "upper", "recheck"), ("n",)
    columns: dict[str, list[Any]] = {}
    for row in measurement_rows(list(cells)):
        for name, value in row.items():
            columns.setdefault(name, []).append(None if value == "" and name in (*numbers, *whole) else value)
    types = {
        name: pyarrow.float64() if name in numbers else pyarrow.int64() if name in whole else pyarrow.string()
        for name in columns
    }
    table = pyarrow.table({name: pyarrow.array(values, types[name]) for name, values in columns.items()})
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def to_latex(cells: Sequence[Cell]) -> str:
    r"""A ``booktabs`` table: measurements as rows, one column per (model, dataset); text is escaped."""
    pairs = list(dict.fromkeys((c.model, c.dataset) for c in cells))
    names = list(dict.fromkeys((c.property, m.name) for c in cells if c.result for m in c.result.measurements))
    found = {(c.model, c.dataset, c.property, m.name): m for c in cells if c.result for m in c.result.measurements}
    heads = " & ".join(["property", "measurement", *(escape_latex(f"{m} on {d}") for m, d in pairs)])
    lines = [
        r"% needs \usepackage{booktabs}; \leq: upper bound, \geq: lower bound, \approx: estimate, none: exact on "
        "the sample",
        r"\begin{tabular}{ll" + "r" * len(pairs) + "}",
        r"\toprule",
        heads + r" \\",
        r"\midrule",
    ]
    before = ""
    for prop, name in names:
        values = [_latex_value(found.get((*pair, prop, name))) for pair in pairs]
        lines.append(" & ".join([escape_latex(prop) if prop != before else "", escape_latex(name), *values]) + r" \\")
        before = prop
    sizes = []
    for pair in pairs:
        n = {m.n for key, m in found.items() if key[:2] == pair}
        sizes.append(str(max(n)) if n else "")
    lines += [r"\midrule", " & ".join(["", "$N$", *sizes]) + r" \\", r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex_value(m: Measurement | None) -> str:
    if m is None:
        return "--"
    if m.value is None:
        return "undefined"
    return MARKS[m.kind] + latex_number(m.value)


def latex_number(value: float) -> str:
    r"""Four digits: ``0.9891``, ``$4.14 \times 10^{-5}$``, ``$\infty$``."""
    if math.isinf(value):
        return r"$\infty$" if value > 0 else r"$-\infty$"
    text = f"{value:.4g}"
    if "e" not in text:
        return text if value >= 0 else f"${text}$"
    mantissa, _, exponent = text.partition("e")
    return rf"${mantissa} \times 10^{{{int(exponent)}}}$"


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(LATEX.get(character, character) for character in one_line(text))
