"""A run is a folder: run.json, cells/*.json, measurements.csv, images/. Readable without the plugins that made it."""

from __future__ import annotations

import builtins
import contextlib
import csv
import datetime
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.files import is_leftover, lock, read_json, remove_leftovers, write_atomic, write_json
from stabilitykit.base.results import SCHEMA_VERSION, Measurement, PropertyResult

RUN_FILE, CSV_FILE = "run.json", "measurements.csv"
CSV_COLUMNS = (
    "model",
    "dataset",
    "property",
    "measurement",
    "value",
    "kind",
    "n",
    "unit",
    "lower",
    "upper",
    "recheck",
    "reference",
    "witness",
    "note",
    "status",
    "error",
)


@dataclass
class Cell:
    """One (model, dataset, property) with its outcome.

    ``status``: ``"ok"`` or ``"failed"``; a failed cell has ``error`` = {"type", "message", "culprit"} and no result.
    ``record``: what the result depends on (fingerprints, options, seed, batch size); equal records, equal results.
    """

    model: str
    dataset: str
    property: str
    status: str = "ok"
    result: PropertyResult | None = None
    error: dict[str, str] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    plugin: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    requested: bool = True

    @builtins.property  # `property` is a field here
    def ok(self) -> bool:
        return self.status == "ok"

    @builtins.property  # `property` is a field here
    def slug(self) -> str:
        """File name of the cell, unique per (model, dataset, property)."""
        import hashlib

        text = "--".join((self.model, self.dataset, self.property))
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:120]
        # Names of files may hold what UTF-8 cannot; JSON stores it as "?" too, so a cell read back has the same slug.
        return f"{safe}.{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA_VERSION,
            "model": self.model,
            "dataset": self.dataset,
            "property": self.property,
            "status": self.status,
            "error": self.error,
            "plugin": self.plugin,
            "record": self.record,
            "requested": self.requested,
            "seconds": round(self.seconds, 3),
            "result": None if self.result is None else self.result.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """Inverse of :meth:`to_json`; KeyError, TypeError, ValueError or AttributeError when ``data`` is no cell."""
        result = data.get("result")
        names = [data["model"], data["dataset"], data["property"]]
        if not all(isinstance(name, str) for name in names) or data["status"] not in ("ok", "failed"):
            raise ValueError("model, dataset and property are texts and status is ok or failed")
        error = {str(k): str(v) for k, v in dict(data.get("error") or {}).items()}
        if data["status"] == "ok" and result is None:
            raise ValueError("status is ok but there is no result")
        if data["status"] == "failed":
            error = {"type": "unknown", "message": "no reason recorded", "culprit": "unknown"} | error
        return cls(
            names[0],
            names[1],
            names[2],
            data["status"],
            None if result is None else PropertyResult.from_json(result),
            error,
            dict(data.get("record") or {}),
            dict(data.get("plugin") or {}),
            float(data.get("seconds", 0.0)),
            bool(data.get("requested", True)),
        )


class RunFolder:
    """The folder of one run. Every file is written atomically; the lock lives as long as the process."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @contextlib.contextmanager
    def open(self, *, resume: bool) -> Iterator[None]:
        """Take the folder: new or empty, or an earlier run with ``resume``. UsageProblem otherwise."""
        self._refuse_foreign(resume)
        with lock(self.path / ".lock", wait=False, what=f"output folder {self.path}"):
            self._refuse_foreign(resume)  # another process may have finished a run here before the lock was ours
            remove_leftovers(self.path, RUN_FILE, CSV_FILE)
            for folder in (self.path / "cells", *(self.path / "images").glob("*")):
                remove_leftovers(folder)
            yield

    def _refuse_foreign(self, resume: bool) -> None:
        try:
            if self.path.exists() and not self.path.is_dir():
                raise UsageProblem(f"output {self.path} is a file; give a folder")
            # A run killed before its first file was whole leaves the lock and temporary files: still empty.
            existing = (
                [p for p in self.path.iterdir() if p.name != ".lock" and not is_leftover(p)]
                if self.path.is_dir()
                else []
            )
            holds_run = (self.path / RUN_FILE).exists()
        except OSError as error:
            raise UsageProblem(f"cannot use output folder {self.path}: {error.strerror or error}") from None
        if existing and not resume:
            earlier = "holds an earlier run" if holds_run else "is not empty"
            raise UsageProblem(f"output folder {self.path} {earlier}; add --resume to finish it or choose another one")
        if existing and not holds_run:
            raise UsageProblem(f"output folder {self.path} is not empty and holds no {RUN_FILE}; choose another one")

    def write_run(self, data: Mapping[str, Any]) -> None:
        write_json(self.path / RUN_FILE, {"schema": SCHEMA_VERSION, **data})

    def write_cell(self, cell: Cell) -> None:
        write_json(self.path / "cells" / f"{cell.slug}.json", cell.to_json())

    def complete(self, cells: list[Cell]) -> None:
        """Write cells again whose file is gone: a plugin may have emptied the folder meanwhile."""
        for cell in cells:
            if not (self.path / "cells" / f"{cell.slug}.json").exists():
                self.write_cell(cell)

    def read_run(self) -> dict[str, Any]:
        """run.json; UsageProblem when the folder is no run, is damaged, or was written by a newer schema."""
        data = read_json(self.path / RUN_FILE)
        if not isinstance(data, dict) or "schema" not in data:
            raise UsageProblem(f"{self.path / RUN_FILE} is not a stabilitykit run")
        if not isinstance(data["schema"], int) or data["schema"] > SCHEMA_VERSION:
            raise UsageProblem(
                f"{self.path} was written with schema {data['schema']}; this version reads up to "
                f"{SCHEMA_VERSION}: update stabilitykit"
            )
        return data

    def read_cells(self, on_damage: Callable[[str], None] | None = None) -> list[Cell]:
        """All finished cells, in the order of run.json (then by name).

        UsageProblem for a damaged one; with ``on_damage`` it is called with the message, and the cell left out.
        """
        cells = []
        for path in sorted((self.path / "cells").glob("*.json")):
            try:
                cells.append(_read_cell(path))
            except UsageProblem as error:
                if on_damage is None:
                    raise UsageProblem(
                        f"{error}; it was damaged after it was written (writes are atomic): repeat the "
                        "run's command with --resume, which computes damaged cells again"
                    ) from None
                on_damage(str(error))
        order = self.read_run().get("cells")
        places = {
            tuple(map(str, name)): place
            for place, name in enumerate(order if isinstance(order, list) else [])
            if isinstance(name, list)
        }
        return sorted(cells, key=lambda c: (places.get((c.model, c.dataset, c.property), len(places)), c.slug))

    def write_csv(self, cells: list[Cell]) -> None:
        write_atomic(self.path / CSV_FILE, to_csv(cells))

    def write_image(self, dataset: str, index: int, png: bytes) -> None:
        folder = re.sub(r"[^A-Za-z0-9._-]+", "_", dataset)[:80]
        write_atomic(self.path / "images" / folder / f"{index}.png", png)

    def image_path(self, dataset: str, index: int) -> Path:
        return self.path / "images" / re.sub(r"[^A-Za-z0-9._-]+", "_", dataset)[:80] / f"{index}.png"


def _read_cell(path: Path) -> Cell:
    data = read_json(path)
    try:
        return Cell.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageProblem(f"{path} is not a cell of a run ({type(error).__name__}: {error})") from None


def default_run_path() -> Path:
    """runs/<UTC time>, made here: processes that start in the same second get a folder each.

    UsageProblem when the current folder cannot be written.
    """
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    path, number = Path("runs") / stamp, 1
    while True:
        try:
            path.parent.mkdir(exist_ok=True)
            path.mkdir()
            return path
        except FileExistsError as error:
            if not path.parent.is_dir():
                raise UsageProblem("runs is a file; choose a folder with --output DIR") from error
            number += 1
            path = Path("runs") / f"{stamp}-{number}"
        except OSError as error:
            raise UsageProblem(
                f"cannot make the run folder {path}: {error.strerror or error}; choose one with --output DIR"
            ) from error


def remove_if_unused(path: Path) -> None:
    """Remove a run folder that holds nothing but its lock."""
    with contextlib.suppress(OSError):
        if [entry.name for entry in path.iterdir()] == [".lock"]:
            (path / ".lock").unlink()
        path.rmdir()


def cells_by_pair(cells: Iterable[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """(model, dataset) -> its cells, in the order of the run."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.dataset), []).append(cell)
    return groups


def measurement_rows(cells: list[Cell]) -> list[dict[str, Any]]:
    """One flat row per measurement (one per failed cell too), with the columns of ``CSV_COLUMNS``."""
    import json

    rows: list[dict[str, Any]] = []
    for cell in cells:
        base: dict[str, Any] = {
            "model": cell.model,
            "dataset": cell.dataset,
            "property": cell.property,
            "status": cell.status,
            "error": cell.error.get("message", ""),
        }
        if cell.result is None:
            rows.append(dict.fromkeys(CSV_COLUMNS, "") | base)
            continue
        for m in cell.result.measurements:
            low, high = m.interval or (None, None)
            rows.append(
                base
                | {
                    "measurement": m.name,
                    "value": m.value,
                    "kind": str(m.kind),
                    "n": m.n,
                    "unit": m.unit,
                    "lower": low,
                    "upper": high,
                    "recheck": m.recheck,
                    "reference": m.reference,
                    "witness": json.dumps(Measurement.to_json(m)["witness"], ensure_ascii=False),
                    "note": m.note,
                }
            )
    return rows


def to_csv(cells: list[Cell]) -> str:
    """Measurements as CSV text; floats with repr, so they read back to the last digit."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in measurement_rows(cells):
        writer.writerow({k: "" if v is None else repr(v) if isinstance(v, float) else v for k, v in row.items()})
    return stream.getvalue()


def load_run(path: Path | str) -> tuple[dict[str, Any], list[Cell]]:
    """(run.json, cells) of a run folder; UsageProblem when it is none."""
    folder = RunFolder(Path(path))
    if not folder.path.is_dir():
        raise UsageProblem(f"{folder.path} is not a run folder; `stabilitykit evaluate --output DIR` writes one")
    return folder.read_run(), folder.read_cells()


__all__ = [
    "CSV_COLUMNS",
    "Cell",
    "RunFolder",
    "default_run_path",
    "load_run",
    "measurement_rows",
    "remove_if_unused",
    "to_csv",
]
