"""One offline HTML file about a run: sections of the core and of the plugins, each isolated from the others."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markupsafe import Markup

from stabilitykit import __version__
from stabilitykit.base.errors import StabilityKitError, UsageProblem, describe
from stabilitykit.base.files import Folder, remove_leftovers, write_atomic
from stabilitykit.base.names import imported
from stabilitykit.plugins.loading import PluginHost, load_plugins
from stabilitykit.reporting import core_sections
from stabilitykit.reporting.balance import check_balanced
from stabilitykit.reporting.html import short
from stabilitykit.reporting.rundata import MOST_CELLS, RunData
from stabilitykit.reporting.standalone import CHART_CSS, DARK_VARIABLES, LIGHT_VARIABLES
from stabilitykit.runs.folder import RunFolder

TEMPLATES = Path(__file__).resolve().parent / "templates"
REPORT_FILE = "report.html"
SCRIPT_FILE = TEMPLATES / "report.js"
Render = Callable[[RunData], str | None]


@dataclass(frozen=True)
class Rendered:
    """One section of the page: ``error`` names what went wrong and who ships the section."""

    identifier: str
    title: str
    html: Markup
    error: str = ""


def write_report(
    run_folder: Path, output: Path | None = None, *, host: PluginHost | None = None, most: int = MOST_CELLS
) -> Path:
    """Write the report of a run and its charts as SVG files.

    Arguments:
        run_folder: a folder written by ``evaluate``.
        output: the HTML file; default ``report.html`` in the run folder. Charts go to ``figures`` in the run folder.
        host: loaded plugins; default :func:`stabilitykit.plugins.loading.load_plugins`.
        most: cells that are shown at most, and failed ones beside them; the page says how many are left out.

    Returns:
        the path of the HTML file. Both kinds of files are written atomically.

    Raises:
        UsageProblem: ``run_folder`` is no run, or ``output`` is a folder.
    """
    return write_run(RunData.read(Path(run_folder)), output, host=host, most=most)


def write_run(
    run: RunData, output: Path | None = None, *, host: PluginHost | None = None, most: int = MOST_CELLS
) -> Path:
    """:func:`write_report` of a run that has been read; UsageProblem when ``output`` is a folder."""
    run = run.first(most)
    path = run.path / REPORT_FILE if output is None else Path(output)
    if path.is_dir():
        raise UsageProblem(f"{path} is a folder; give the name of an HTML file")
    files = RunFolder(run.path).files
    for part in (REPORT_FILE, "figures") if output is None else ("figures",):
        files.check(part)
    page = render(run, host)
    remove_leftovers(path.parent, path.name)
    write_atomic(path, page)
    try:
        _write_figures(files, ("figures",), run)
    except StabilityKitError as error:
        if output is None:
            raise
        print(f"warning: the report is written, its figures are not: {error}", file=sys.stderr)
    return path


def write_figures(run_folder: Path, output: Path | None = None, *, host: PluginHost | None = None) -> list[Path]:
    """Write the charts of a run's report as SVG files into ``output`` (default: ``figures`` in the run folder).

    Raises:
        UsageProblem: ``output`` is a file.
    """
    run = RunData.read(Path(run_folder)).first(MOST_CELLS)
    folder = run.path / "figures" if output is None else Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageProblem(f"{folder} is a file; give the name of a folder")
    render(run, host)
    return (
        _write_figures(RunFolder(run.path).files, ("figures",), run)
        if output is None
        else _write_figures(Folder(folder), (), run)
    )


def _write_figures(files: Folder, names: tuple[str, ...], run: RunData) -> list[Path]:
    """The charts of ``run`` below ``files``; what a killed report left there is removed."""
    files.remove_leftovers(*names, of=() if names else tuple(f"{name}.svg" for name in run.figures))
    return [files.write(*names, f"{name}.svg", data=svg) for name, svg in run.figures.items()]


def render(run: RunData, host: PluginHost | None = None) -> str:
    """The whole page. A section that raises is shown as failed, with its distribution and version."""
    host = load_plugins() if host is None else host
    return filled(
        "report.html.j2",
        run=run,
        title=_title(run),
        question=question(run),
        sections=_sections(run, host),
        version=__version__,
        status=run.info.get("status", "unknown"),
        created=run.info.get("provenance", {}).get("created", ""),
        failed=[c for c in run.cells if not c.ok],
        broken=host.failures,
    )


@dataclass(frozen=True)
class Script:
    """The page's only script, and the digest by which its policy lets this text run and no other."""

    text: Markup
    integrity: str

    @classmethod
    def read(cls) -> Script:
        text = SCRIPT_FILE.read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        return cls(Markup(text), f"sha256-{digest}")


def filled(template: str, **values: object) -> str:
    """A page of this package: ``template`` with its style, its script and ``values``, all text escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = f":root{{{LIGHT_VARIABLES}}}@media (prefers-color-scheme:dark){{:root{{{DARK_VARIABLES}}}}}" + CHART_CSS
    return environment.get_template(template).render(style=Markup(style), script=Script.read(), **values)


def _sections(run: RunData, host: PluginHost) -> list[Rendered]:
    known = {r.distribution: r.owner for r in host.records}
    planned = [
        (s.order, s.name, s.title, f"stabilitykit {__version__}", partial(_same, s.render))
        for s in core_sections.SECTIONS
    ]
    for offered in host.sections:
        owner = known.get(offered.distribution, offered.distribution or "unknown distribution")
        planned.append((offered.order, offered.name, offered.title, owner, partial(imported, offered.target)))
    done: list[Rendered] = []
    used: set[str] = set()
    for _, name, title, owner, load in sorted(planned, key=lambda p: p[0]):
        identifier = _identifier(name, used)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                html = load()(run)
            if html is None or html == "":
                continue
            if not isinstance(html, str):
                raise TypeError(f"render returned {type(html).__name__}, expected HTML text or None")
            check_balanced(html)
        except (Exception, SystemExit) as error:
            reason = describe(error, 300)
            done.append(Rendered(identifier, title, Markup(""), f"section {name} of {owner} failed: {reason}"))
            print(f"warning: report section {name} of {owner} failed: {reason}", file=sys.stderr)
            continue
        done.append(Rendered(identifier, title, Markup(html)))
    return done


def _same(render: Render) -> Render:
    return render


def _identifier(name: str, used: set[str]) -> str:
    base = re.sub(r"[^a-z0-9-]+", "-", str(name).lower()).strip("-") or "section"
    identifier, counter = base, 1
    while identifier in used:
        counter += 1
        identifier = f"{base}-{counter}"
    used.add(identifier)
    return identifier


def _title(run: RunData) -> str:
    pairs = [f"{short(p.model)} on {short(p.dataset)}" for p in run.pairs]
    return "; ".join(pairs[:2]) + (f" and {len(pairs) - 2} more" if len(pairs) > 2 else "") or "an empty run"


def question(run: RunData) -> str:
    """The title in words: what the run was asked."""
    models = list(dict.fromkeys(short(p.model) for p in run.pairs))
    datasets = list(dict.fromkeys(short(p.dataset) for p in run.pairs))
    if not models:
        return "A run without results"
    who = models[0] if len(models) == 1 else f"{len(models)} networks"
    where = datasets[0] if len(datasets) == 1 else f"{len(datasets)} datasets"
    return f"How stable {'is' if len(models) == 1 else 'are'} {who} on {where}, block by block?"
