"""What a gate is asked, from the command line and a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit.review.gate.change import TOLERANCE
from stabilitykit.review.gate.condition import parse
from stabilitykit.review.gate.judge import Rule, Terms
from stabilitykit.review.gate.likeness import WHATS, What

KEYS = ("fail-if", "baseline", "tolerance", "accept")
RULE_KEYS = ("if", "model", "dataset")


def read_terms(
    config: Path | None,
    baseline: Path | None,
    conditions: Sequence[str],
    tolerance: float | None,
    accept: Sequence[str],
) -> tuple[Path | None, Terms]:
    """(baseline, terms) of the command line, and of a file where one is given; paths are as typed, from here.

    Raises:
        UsageProblem: a file that cannot be read, an unknown key, a value of another type, or a condition that is none.
    """
    rules = [Rule(parse(text)) for text in conditions]
    data: Mapping[str, Any] = {}
    if config is not None:
        from stabilitykit.cli.config import read_config

        data = {str(key).replace("_", "-"): value for key, value in read_config(config).items()}
        for key in data:
            if key not in KEYS:
                raise UsageProblem(
                    f"{config}: unknown key {key!r}{did_you_mean(key, KEYS)}; there are {', '.join(KEYS)}"
                )
        rules += _rules(config, data.get("fail-if", []))
        if baseline is None and "baseline" in data:
            baseline = Path(_text(config, "baseline", data["baseline"]))
        if tolerance is None and "tolerance" in data:
            tolerance = _share(config, data["tolerance"])
        accept = accept or _accepted(config, data.get("accept", []))
    return baseline, Terms(
        rules, TOLERANCE if tolerance is None else tolerance, frozenset(cast(Sequence[What], accept))
    )


def _rules(config: Path, value: Any) -> Iterator[Rule]:
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, Mapping):
            yield Rule(parse(_text(config, "fail-if", entry)))
            continue
        for key in entry:
            if key not in RULE_KEYS:
                raise UsageProblem(f"{config}: fail-if: unknown key {key!r}{did_you_mean(str(key), RULE_KEYS)}")
        if "if" not in entry:
            raise UsageProblem(f"{config}: an entry of fail-if has no condition: if = 'PROPERTY.NAME < 0.5'")
        given = {key: _text(config, f"fail-if: {key}", text) for key, text in entry.items()}
        yield Rule(parse(given["if"]), given.get("model", "*"), given.get("dataset", "*"))


def _accepted(config: Path, value: Any) -> list[str]:
    words = value if isinstance(value, list) else [value]
    for word in words:
        if word not in WHATS:
            raise UsageProblem(f"{config}: accept is made of {', '.join(WHATS)}; got {word!r}")
    return words


def _share(config: Path, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise UsageProblem(f"{config}: tolerance is a number >= 0, a share of the baseline's value; got {value!r}")
    return float(value)


def _text(config: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageProblem(f"{config}: {key} is a text; got {value!r}")
    return value
