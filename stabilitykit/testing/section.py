"""Contract checks of a report section."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from stabilitykit.base.names import imported
from stabilitykit.base.results import PropertyResult
from stabilitykit.plugins.component import ReportSection
from stabilitykit.reporting.balance import check_balanced
from stabilitykit.reporting.rundata import RunData
from stabilitykit.testing.checks import Check, Checklist, require
from stabilitykit.testing.run import tiny_result, tiny_run

# A name that ends an attribute in either kind of quotes, closes what it stands in, and is an element.
MARK = "x-hostile"
HOSTILE = f"\" {MARK}=\"' {MARK}='</table></section><{MARK}>&\u202e"
# Elements that run or load something; the report is one file without a script.
FORBIDDEN = {"script", "link", "iframe", "object", "embed", "base", "meta", "form"}
LOADING = {"src", "href", "xlink:href", "srcset", "action", "background", "poster"}

Render = Callable[[RunData], Any]


def check_section(
    section: ReportSection, run: Path | None = None, results: Mapping[str, PropertyResult] | None = None
) -> list[Check]:
    """Contract checks of ``section``, on small runs made for it.

    Arguments:
        run: a run folder of the author's, on which it must render something.
        results: results of the properties it shows, by name; default: one of every kind of measurement.
    """
    found = Checklist()
    with found.check("says what it is"):
        require(bool(section.title.strip()), "no title; the heading in the report")
    render: list[Render] = []
    with found.check("its target is a function"):
        render.append(imported(section.target))
        require(callable(render[0]), f"{section.target} is {type(render[0]).__name__}; name a function of a RunData")
    if found.failed:
        return found.checks
    shown: dict[str, PropertyResult | str] = {**(results or {}), "measured": tiny_result()}
    failed: dict[str, PropertyResult | str] = dict.fromkeys(shown, "nothing could be measured")
    names = {"model": HOSTILE, "dataset": HOSTILE, "class_prefix": HOSTILE}
    hostile = {**shown, f"other:{HOSTILE}": tiny_result(), "broken": HOSTILE}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        with found.check("a run without cells gives nothing or sound HTML"):
            _rendered(render[0], RunData(here, {"status": "running", "pairs": []}, []))
        with found.check("a run of failed cells gives nothing or sound HTML"):
            _rendered(render[0], RunData.read(tiny_run(here / "failed", failed)))
        with found.check("a finished run gives nothing or sound HTML"):
            _rendered(render[0], RunData.read(tiny_run(here / "done", {**shown, "broken": "no pair"})))
        with found.check("names are text, whatever they contain"):
            text = _rendered(render[0], RunData.read(tiny_run(here / "hostile", hostile, **names)))
            marked = [name for name, attributes in _elements(text) if MARK in (name, *dict(attributes))]
            require(
                not marked,
                "a model, dataset, class or error stands in the page as HTML; use the helpers of "
                "stabilitykit.reporting, or markupsafe.escape",
            )
        with found.check("the same run gives the same HTML and stays as it is"):
            one, other = (RunData.read(here / "done") for _ in range(2))
            before = [cell.to_json() for cell in one.cells]
            require(_rendered(render[0], one) == _rendered(render[0], other), "two calls give different HTML")
            require([cell.to_json() for cell in one.cells] == before, "it changes the run; other sections read it, too")
    if run is not None:
        with found.check(f"renders {run}"):
            text = _rendered(render[0], RunData.read(run))
            require(bool(text), "it shows nothing of this run")
    return found.checks


def _rendered(render: Render, run: RunData) -> str:
    """The section's HTML; Broken, or an exception of the section's, unless it is sound."""
    html = render(run)
    if html is None:
        return ""
    require(isinstance(html, str), f"it returns {type(html).__name__}; return HTML text or None")
    check_balanced(html)
    for name, attributes in _elements(html):
        require(name not in FORBIDDEN, f"it holds <{name}>; the report runs and loads nothing")
        for key, value in attributes:
            require(not key.startswith("on"), f"<{name}> has the attribute {key}; the report runs no script")
            outside = key in LOADING and not (value or "").startswith(("#", "data:image/"))
            require(not outside, f"<{name}> loads {value!r}; the report is one file, for use without a network")
            require(
                key != "style" or not re.search(r"url\s*\(|@import", value or "", re.I), f"the style of <{name}> loads"
            )
    return str(html)


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, Sequence[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def _elements(html: str) -> list[tuple[str, Sequence[tuple[str, str | None]]]]:
    """(name, attributes) of every element."""
    parser = _Elements()
    parser.feed(html)
    parser.close()
    return parser.found
