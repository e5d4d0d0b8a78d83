"""What a number was seen to predict: the results of the validity study that ship, or "nothing shown yet".

`examples/validity/study.py --write-evidence` writes evidence.json and the table of docs/numbers.md; no figure is typed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from stabilitykit.reporting.glosses import glosses
from stabilitykit.runs.folder import Cell

PACKAGED = Path(__file__).with_name("evidence.json")
NOTHING = "nothing shown yet"
SCOPES = {"networks": "across networks", "images": "of single images"}
# Numbers of single images, with the columns of images.csv that they are made of.
OF_IMAGES: Mapping[str, tuple[str, ...]] = {
    "nearest_max_distance": ("nearest_max_distance",),
    "nearest_mean_distance": ("nearest_mean_distance",),
    "nearest_min_distance": ("nearest_min_distance",),
    "prediction_depth": (),  # of every run
    "tracing_error": ("tracing_error",),
    "largest_jump": ("largest_jump",),
    "certified_radius": ("certified_radius",),
    "outlying_ratio": ("own_class_distance", "other_class_distance"),
}


@dataclass(frozen=True)
class Evidence:
    """One thing that a number was seen to predict.

    Attributes:
        number: name of a measurement, or of :data:`OF_IMAGES`.
        scope: ``"networks"`` (large in one network and small in another) or ``"images"`` (of one network).
        readout: ``head``, ``lens`` or ``probe``: those it was seen with.
        target: what it goes with, in words.
        figure: how strongly, with its N, in words.
        beyond: what it says beyond the plainest baseline, in words.
    """

    number: str
    scope: str
    readout: str
    target: str
    figure: str
    beyond: str

    @property
    def text(self) -> str:
        """``across networks, accuracy under noise: Spearman 0.71 ...; not beyond accuracy``."""
        readout = "" if self.readout == "head" else f" with {self.readout} readouts"
        return f"{SCOPES[self.scope]}{readout}, {self.target}: {self.figure}; {self.beyond}"


@cache
def _shipped() -> tuple[Evidence, ...]:
    return tuple(evidence())


def evidence(path: Path = PACKAGED) -> list[Evidence]:
    """The entries of a file of evidence, by default the one that ships."""
    return [Evidence(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["entries"]]


def evidence_json(entries: Iterable[Evidence]) -> str:
    """The file that :func:`evidence` reads."""
    return json.dumps({"entries": [asdict(entry) for entry in entries]}, indent=1, ensure_ascii=False) + "\n"


def seen_to_predict(number: str, readout: str | None = None, table: Sequence[Evidence] | None = None) -> str:
    """What a number was seen to predict, in words; :data:`NOTHING` where no entry says so.

    Arguments:
        number: of a measurement or of :data:`OF_IMAGES`; no pattern: what holds of one precision format need not hold
            of another.
        readout: entries seen with other readouts are passed over; None: all.
        table: other entries than those that ship.
    """
    known = _shipped() if table is None else table
    return "; ".join(one.text for one in known if one.number == number and readout in (None, one.readout)) or NOTHING


def markdown(table: Sequence[Evidence] | None = None) -> str:
    """Every number that ships, with what it was seen to predict."""
    known = _shipped() if table is None else table
    numbers = dict.fromkeys([*glosses(), *OF_IMAGES, *(entry.number for entry in known)])
    lines = ["number | seen to predict", "---|---"]
    lines += [f"`{number}` | {seen_to_predict(number, table=known)}" for number in numbers]
    return "".join(f"| {line} |\n" for line in lines)


def numbers_of(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    """The numbers of a (model, dataset), each once, with the readout they were measured with."""
    seen = set()
    for cell in cells:
        if cell.result is None:
            continue
        columns = cell.result.per_image
        of_images = [name for name, parts in OF_IMAGES.items() if parts and all(part in columns for part in parts)]
        for name in (*(m.name for m in cell.result.measurements), *of_images):
            if name not in seen:
                seen.add(name)
                yield name, str(cell.record.get("readout"))
    if seen and "prediction_depth" not in seen:
        yield "prediction_depth", str(cells[0].record.get("readout"))
