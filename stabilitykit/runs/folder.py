"""A run is a folder: run.json, cells, decisions, CSV files, times.json, images. Readable without what made it."""

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

from stabilitykit.base.decisions import Decisions
from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.files import Folder, is_leftover
from stabilitykit.base.locks import lock
from stabilitykit.base.results import SCHEMA_VERSION, Measurement, PropertyResult
from stabilitykit.base.text import csv_text, safe_cell
from stabilitykit.runs.times import JOURNAL_FILE, TIMES_FILE, Times

RUN_FILE, CSV_FILE, IMAGES_FILE, LOCK_FILE = "run.json", "measurements.csv", "images.csv", ".lock"
DECISIONS = "decisions"
# What we write in a run folder: nothing of it may be a link, pipe, socket or device.
PARTS = (
    LOCK_FILE,
    RUN_FILE,
    CSV_FILE,
    IMAGES_FILE,
    TIMES_FILE,
    JOURNAL_FILE,
    "report.html",
    "cells",
    DECISIONS,
    "images",
    "figures",
)
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


def slug_of(*names: str) -> str:
    """A file name that is unique to ``names``."""
    import hashlib

    text = "--".join(names)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:120]
    # Names of files may hold what UTF-8 cannot; JSON stores it as "?" too, so a cell read back has the same slug.
    return f"{safe}.{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


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
    def property_name(self) -> str:
        """The property's registered name, without the options of its label; a failed cell may not have recorded it."""
        recorded = self.record.get("property")
        name = recorded.get("name") if isinstance(recorded, Mapping) else None
        return str(name) if name else self.property.partition(":")[0]

    @builtins.property  # `property` is a field here
    def slug(self) -> str:
        """File name of the cell, unique per (model, dataset, property)."""
        return slug_of(self.model, self.dataset, self.property)

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
        self.files = Folder(self.path)
        self._times: Times | None = None

    @property
    def times(self) -> Times:
        """When the run was made and how long each cell took, read on first use."""
        if self._times is None:
            self._times = Times(self.files)
        return self._times

    @contextlib.contextmanager
    def open(self, *, resume: bool) -> Iterator[None]:
        """Take the folder: new or empty, or an earlier run with ``resume``. UsageProblem otherwise."""
        self._refuse_foreign(resume)
        with lock(self.files.path(LOCK_FILE), wait=False, what=f"output folder {self.path}"):
            self._refuse_foreign(resume)  # another process may have finished a run here before the lock was ours
            self.files.remove_leftovers(of=(RUN_FILE, CSV_FILE, IMAGES_FILE, TIMES_FILE))
            self.files.remove_leftovers("cells")
            self.files.remove_leftovers(DECISIONS)
            for name in self.files.names("images"):
                self.files.remove_leftovers("images", name)
            yield

    def _refuse_foreign(self, resume: bool) -> None:
        try:
            if self.path.exists() and not self.path.is_dir():
                raise UsageProblem(f"output {self.path} is a file; give a folder")
            self.check()
            # A run killed before its first file was whole leaves the lock and temporary files: still empty.
            existing = (
                [p for p in self.path.iterdir() if p.name != LOCK_FILE and not is_leftover(p)]
                if self.path.is_dir()
                else []
            )
            holds_run = self.files.holds(RUN_FILE)
        except OSError as error:
            raise UsageProblem(f"cannot use output folder {self.path}: {error.strerror or error}") from None
        if existing and not resume:
            earlier = "holds an earlier run" if holds_run else "is not empty"
            raise UsageProblem(f"output folder {self.path} {earlier}; add --resume to finish it or choose another one")
        # One that ended before its first cell, of a full disk, leaves what the network decided, and pictures.
        begun = any(p.name == DECISIONS for p in existing) and all(p.name in PARTS for p in existing)
        if existing and not holds_run and not begun:
            raise UsageProblem(f"output folder {self.path} is not empty and holds no {RUN_FILE}; choose another one")

    def check(self) -> None:
        """UsageProblem when something in the folder that is ours is a link, pipe, socket or device."""
        for name in PARTS:
            self.files.check(name)

    def write_run(self, data: Mapping[str, Any]) -> None:
        """Write run.json, and what of it says when the run was made to times.json: equal runs, equal files."""
        self.files.write_json(RUN_FILE, data={"schema": SCHEMA_VERSION, **self.times.take(data)})
        self.times.write()

    def write_cell(self, cell: Cell) -> None:
        """Note how long the cell took, then write it: a cell that is there has its time, too."""
        data = cell.to_json()
        self.times.note(cell.slug, data.pop("seconds"))
        self.files.write_json("cells", f"{cell.slug}.json", data=data)

    def write_decisions(self, decisions: Decisions) -> None:
        """Write what a network decided about every image of a dataset."""
        name = f"{slug_of(decisions.model, decisions.dataset)}.json"
        self.files.write_json(DECISIONS, name, data=decisions.to_json())

    def read_decisions(self, on_damage: Callable[[str], None] | None = None) -> dict[tuple[str, str], Decisions]:
        """(model, dataset) -> decisions, by file name; damage as in :meth:`read_cells`."""
        found = {}
        for name in self.files.names(DECISIONS):
            if not name.endswith(".json") or name.startswith("."):
                continue
            try:
                one = parsed_decisions(self.files.read_json(DECISIONS, name), f"{self.path / DECISIONS / name}")
                found[one.model, one.dataset] = one
            except UsageProblem as error:
                if on_damage is None:
                    raise
                on_damage(str(error))
        return found

    def complete(self, cells: list[Cell], decisions: Iterable[Decisions] = ()) -> None:
        """Write cells and decisions again whose file is gone: a plugin may have emptied the folder meanwhile."""
        gone = [cell for cell in cells if not self.files.holds("cells", f"{cell.slug}.json")]
        for cell in gone:
            self.write_cell(cell)
        if gone:
            self.times.write()
        for one in decisions:
            if not self.files.holds(DECISIONS, f"{slug_of(one.model, one.dataset)}.json"):
                self.write_decisions(one)

    def read_run(self) -> dict[str, Any]:
        """run.json; UsageProblem when the folder is no run, is damaged, or was written by a newer schema."""
        data = self.files.read_json(RUN_FILE)
        if not isinstance(data, dict) or "schema" not in data:
            raise UsageProblem(f"{self.path / RUN_FILE} is not a stabilitykit run")
        if not isinstance(data["schema"], int) or data["schema"] > SCHEMA_VERSION:
            raise UsageProblem(
                f"{self.path} was written with schema {data['schema']}; this version reads up to "
                f"{SCHEMA_VERSION}: update stabilitykit"
            )
        return self.times.give(data)

    def read_cells(self, on_damage: Callable[[str], None] | None = None) -> list[Cell]:
        """All finished cells, in the order of run.json (then by name).

        UsageProblem for a damaged one; with ``on_damage`` it is called with the message, and the cell left out.
        """
        cells = []
        for name in self.files.names("cells"):
            if not name.endswith(".json") or name.startswith("."):
                continue
            try:
                cell = _read_cell(self.files, name)
                cell.seconds = self.times.seconds.get(cell.slug, cell.seconds)
                cells.append(cell)
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
        self.files.write(CSV_FILE, data=to_csv(cells))

    def read_csv(self) -> list[dict[str, Any]] | None:
        """Rows of measurements.csv by column, texts as :func:`to_csv` writes them now; None when there is no such file.

        UsageProblem when it is a link, a pipe or a device.
        """
        try:
            text = self.files.read(CSV_FILE).decode()
        except (OSError, UnicodeDecodeError):
            return None
        return [{k: safe_cell(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]

    def write_image(self, dataset: str, index: int, png: bytes) -> None:
        self.files.write(*_image_names(dataset, index), data=png)

    def image_path(self, dataset: str, index: int) -> Path:
        """Where the picture of an image is; UsageProblem when something on the way is a link, pipe or device."""
        return self.files.path(*_image_names(dataset, index))


def _image_names(dataset: str, index: int) -> tuple[str, str, str]:
    # A dataset called ".." is no way out of the folder.
    folder = re.sub(r"[^A-Za-z0-9._-]+", "_", dataset)[:80]
    return "images", folder if folder.strip(".") else f"_{folder}", f"{index}.png"


def parsed_decisions(data: Any, where: str) -> Decisions:
    """Decisions from the JSON of a file; UsageProblem, naming ``where``, when it holds none."""
    try:
        return Decisions.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageProblem(f"{where} holds no decisions of a run ({type(error).__name__}: {error})") from None


def _read_cell(files: Folder, name: str) -> Cell:
    data = files.read_json("cells", name)
    try:
        return Cell.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageProblem(
            f"{files.root / 'cells' / name} is not a cell of a run ({type(error).__name__}: {error})"
        ) from None


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
        if [entry.name for entry in path.iterdir()] == [LOCK_FILE]:
            (path / LOCK_FILE).unlink()
        path.rmdir()


def warnings_by_pair(info: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """(model, dataset) -> what run.json says has to be known before any number."""
    pairs = info.get("pairs")
    return {
        (str(pair.get("model")), str(pair.get("dataset"))): [str(text) for text in pair["warnings"]]
        for pair in (pairs if isinstance(pairs, list) else [])
        if isinstance(pair, Mapping) and isinstance(pair.get("warnings"), list)
    }


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
    """Measurements as CSV text (see :func:`~stabilitykit.base.text.csv_text`); floats read back to the last digit."""
    return csv_text(CSV_COLUMNS, measurement_rows(cells))


def load_run(path: Path | str) -> tuple[dict[str, Any], list[Cell]]:
    """(run.json, cells) of a run folder; UsageProblem when it is none, or holds links, pipes, sockets or devices."""
    folder = RunFolder(Path(path))
    if not folder.path.is_dir():
        raise UsageProblem(f"{folder.path} is not a run folder; `stabilitykit evaluate --output DIR` writes one")
    folder.check()
    return folder.read_run(), folder.read_cells()


__all__ = [
    "CSV_COLUMNS",
    "DECISIONS",
    "IMAGES_FILE",
    "Cell",
    "RunFolder",
    "default_run_path",
    "load_run",
    "measurement_rows",
    "parsed_decisions",
    "remove_if_unused",
    "slug_of",
    "to_csv",
    "warnings_by_pair",
]
