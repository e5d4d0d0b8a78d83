"""The report: complete, harmless, readable without plugins, and unharmed by a broken section."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stabilitykit.base.files
from stabilitykit.base.errors import StabilityKitError, UsageProblem
from stabilitykit.cli import run as run_cli
from stabilitykit.plugins.component import ReportSection
from stabilitykit.plugins.loading import PluginHost, PluginRecord, load_plugins
from stabilitykit.reporting import Axis, Curve, Dot, RunData, balance, dot_chart, line_chart
from stabilitykit.reporting.balance import check_balanced
from stabilitykit.reporting.page import render, write_report, write_run
from tests.core.report_runs import CLASSES, HOSTILE, make_run


class Page(HTMLParser):
    """Elements, section ids, addresses and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.sections: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag == "section":
            self.sections.append(given["id"])
        self.addresses += [given[key] for key in ("src", "href", "xlink:href", "action") if given.get(key)]
        self.handlers += [key for key in given if key.startswith("on")]

    def handle_data(self, data):
        self.text += data


def page_of(folder: Path, host: PluginHost | None = None) -> Page:
    return Page(write_report(folder, host=host).read_text(encoding="utf-8"))


@pytest.fixture()
def run_folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_every_measurement_stands_in_the_summary_without_any_plugin(run_folder: Path) -> None:
    text = write_report(run_folder, host=PluginHost()).read_text(encoding="utf-8")
    page = Page(text)
    assert page.sections == ["words", "summary", "failures", "tables", "certificate", "provenance"]
    for name in ("expansive_constant.max", "expansive_constant.min", "expansive_constant.mean", "accuracy"):
        assert name in page.text
    for word in (
        "exact on the sample",
        "estimate",
        "500",
        "at block",
        "Definition 1",
        "0.9812",
        "bit exact",
        "6253386",
        "no orbit in 0",
        "property shadowing of other 9.9",
        "2.14.1",
        "Closest pair of every two classes",
    ):
        assert word in page.text, word
    assert all(name in page.text for name in CLASSES)


def test_sections_of_plugins_come_through_the_hook_and_leave_svg_files(run_folder: Path) -> None:
    page = page_of(run_folder)
    expected = {"most-confusable", "depth", "figures-2-3", "class-pairs", "table-3", "subsample-curve"}
    assert expected <= set(page.sections)
    assert page.sections.index("summary") < page.sections.index("depth") < page.sections.index("provenance")
    files = sorted((run_folder / "figures").glob("*.svg"))
    assert len(files) >= 8
    for path in files:
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme:dark" in path.read_text(encoding="utf-8")


def test_charts_have_labelled_axes_with_units(run_folder: Path) -> None:
    page_of(run_folder)
    words = {
        "figure-2": ("class", "mean over blocks, probability (l2)"),
        "figure-3": ("class", "min over blocks, probability (l2)"),
        "distances": ("depth t (blocks passed)", "distance, probability (l2)"),
        "accuracy": ("depth t (blocks passed)", "share of images"),
    }
    for start, labels in words.items():
        (path,) = (run_folder / "figures").glob(f"{start}-*.svg")
        shown = [e.text for e in ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}text")]
        assert set(labels) <= set(shown), (start, shown)


def test_the_page_loads_nothing_and_runs_nothing(run_folder: Path) -> None:
    page = page_of(run_folder)
    assert page.tags["script"] == 1 and "link" not in page.tags and "iframe" not in page.tags
    assert page.handlers == []
    assert page.tags["img"] > 10
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in page.addresses), page.addresses[:3]
    text = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in text  # the policy lets this text run, and no other
    assert len(script.encode()) < 30_000 and not re.search(r"fetch|XMLHttp|import\(|eval|innerHTML|http", script)
    assert not re.search(r"url\(|@import", text)


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", classes=HOSTILE, dataset="<img src=x onerror=alert(2)>", models=("<script>m",))
    page = page_of(folder)
    assert page.tags["script"] == 1 and page.handlers == []
    assert "<script>alert(1)</script>" in page.text and "{{ 7*7 }}" in page.text and "漢字" in page.text
    assert "<img src=x onerror=alert(2)>" in page.text
    for path in (folder / "figures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
        assert path.parent == folder / "figures"


def _host(*targets: str) -> PluginHost:
    sections = [
        ReportSection(f"section{k}", f"Section {k}", target, 20 + k, "rotten-wheel") for k, target in enumerate(targets)
    ]
    return PluginHost([PluginRecord("rotten", "rotten", "rotten-wheel", "6.6.6")], sections=sections)


def section_raises(run):
    raise RuntimeError("boom <b>")


def section_exits(run):
    raise SystemExit(3)


def section_returns_number(run):
    return 17


def section_unbalanced(run):
    return "<div><p>swallows the rest"


def section_says_nothing(run):
    return None


def section_prints(run):
    print("noise on stdout")
    return "<p>fine section</p>"


def test_a_broken_section_is_shown_with_its_distribution_and_the_rest_stands(run_folder, capsys) -> None:
    here = __name__ + ":"
    names = (
        "section_raises",
        "section_exits",
        "section_returns_number",
        "section_unbalanced",
        "section_says_nothing",
        "section_prints",
        "absent",
    )
    page = page_of(run_folder, _host(*(here + name for name in names), "no_such_module_at_all:render"))
    for k in (0, 1, 2, 3, 6, 7):
        assert f"section section{k} of rotten-wheel 6.6.6 failed" in page.text
    assert "boom <b>" in page.text
    assert "section4" not in page.sections
    assert "fine section" in page.text and "expansive_constant.min" in page.text
    assert "swallows the rest" not in page.text
    assert capsys.readouterr().out == ""


def test_balance_is_judged_by_elements_not_by_text() -> None:
    check_balanced("<div><br><img src='x'><p>a &lt;b&gt; c</p></div>")
    for bad in ("<div>", "</div>", "<p><b></p></b>"):
        with pytest.raises(ValueError):
            check_balanced(bad)


PIECES = r"""<div>|</div>|<b>|</b>|<br>|<p class="a">|</p>|<svg>|</svg>|<title>|</title>|<script>|</script>|<B>|</B >
|text|a<b|<!--x-->|<img/>|<p/>|<a title='<b>'>|</a>|&lt;|<path d="M0>1">|</path>|<style>|</style>|<a b c="d">"""


@given(st.lists(st.sampled_from(PIECES.split("|")), max_size=8))
def test_balance_of_plain_tags_is_that_of_the_parser(parts) -> None:
    html = " ".join(parts)
    parser = balance._Parser()
    try:
        parser.feed(html)
        parser.close()
        balanced = not parser.balance.open
    except ValueError:
        balanced = False
    try:
        check_balanced(html)
    except ValueError:
        assert not balanced
    else:
        assert balanced


def test_a_run_of_many_cells_is_shown_in_part_and_says_so(run_folder, tmp_path) -> None:
    data = RunData.read(run_folder)
    good = next(cell for cell in data.cells if cell.ok)
    bad = replace(good, property="broken", status="failed", result=None, error={"message": "why", "culprit": "who"})
    whole = replace(data, cells=[good, good, good, good, bad])
    text = write_run(whole, tmp_path / "page.html", host=PluginHost(), most=2).read_text()
    assert "3 cells are shown and 2 are not" in text and "1 failed cell<" in text
    assert "are not: <code>" not in write_run(whole, tmp_path / "page.html", host=PluginHost(), most=5).read_text()
    assert run_cli(["report", str(run_folder), "--cells", "1"]) == 0
    assert run_cli(["report", str(run_folder), "--cells", "0"]) == 2


def test_written_atomically_or_not_at_all(run_folder, monkeypatch, tmp_path) -> None:
    first = write_report(run_folder).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stabilitykit.base.files.os, "fsync", full)
    with pytest.raises(StabilityKitError, match="No space left"):
        write_report(run_folder)
    assert (run_folder / "report.html").read_bytes() == first
    assert not list(run_folder.glob("*.tmp"))


def test_bad_input_is_one_line_and_exit_2(tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").write_text('{"schema": 1, "ce')
    for path in (tmp_path / "absent", tmp_path / "empty", tmp_path / "half"):
        assert run_cli(["report", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("error: ")
    make_run(tmp_path / "run")
    assert run_cli(["report", str(tmp_path / "run"), "-o", str(tmp_path)]) == 2
    with pytest.raises(UsageProblem):
        write_report(tmp_path / "absent")


def test_a_run_without_cells_pairs_or_provenance_still_gives_a_page(tmp_path) -> None:
    from stabilitykit.runs.folder import RunFolder

    RunFolder(tmp_path).write_run({"status": "interrupted", "cells": []})
    page = page_of(tmp_path)
    assert "not complete" in page.text and "no finished cell" in page.text


def test_output_elsewhere_and_command(run_folder, tmp_path, capsys) -> None:
    target = tmp_path / "deep" / "r.html"
    assert run_cli(["report", str(run_folder), "-o", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert not (run_folder / "report.html").exists()


def test_a_read_only_run_can_be_reported_elsewhere(run_folder, tmp_path, monkeypatch, capsys) -> None:
    import stabilitykit.reporting.page as report

    real = report.write_atomic

    def refuse(path, data):
        if run_folder in path.parents:
            raise StabilityKitError(f"cannot write {path}: Read-only file system")
        real(path, data)

    monkeypatch.setattr(report, "write_atomic", refuse)
    monkeypatch.setattr("stabilitykit.base.files.write_atomic", refuse)
    assert write_report(run_folder, tmp_path / "r.html").exists()
    assert "Read-only" in capsys.readouterr().err
    with pytest.raises(StabilityKitError):
        write_report(run_folder)


@pytest.fixture(scope="module")
def host() -> PluginHost:
    return load_plugins()


def _mutate(data: Any, path: list[int], value: Any) -> Any:
    """``data`` with the part that ``path`` leads to replaced by ``value``."""
    if not path or not isinstance(data, (dict, list)) or not data:
        return value
    if isinstance(data, dict):
        key = list(data)[path[0] % len(data)]
        return {**data, key: _mutate(data[key], path[1:], value)}
    place = path[0] % len(data)
    return [*data[:place], _mutate(data[place], path[1:], value), *data[place + 1 :]]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.lists(st.integers(0, 50), min_size=1, max_size=7),
    which=st.integers(0, 2),
    value=st.one_of(
        st.none(),
        st.text(max_size=5),
        st.integers(-5, 5),
        st.just("nan"),
        st.just({}),
        st.just([]),
        st.just(1e308),
        st.just([[1]]),
        st.just({"a": "<b>"}),
    ),
)
def test_damaged_runs_give_a_page_or_one_clear_error(run_folder, host, path, which, value) -> None:
    files = [run_folder / "run.json", *sorted((run_folder / "cells").glob("*.json"))]
    target = files[which % len(files)]
    before = target.read_text(encoding="utf-8")
    try:
        target.write_text(json.dumps(_mutate(json.loads(before), path, value)), encoding="utf-8")
        try:
            page = Page(render(RunData.read(run_folder), host))
        except UsageProblem as error:
            assert len(str(error).splitlines()) == 1
            return
        assert "provenance" in page.sections and page.tags["script"] == 1
    finally:
        target.write_text(before, encoding="utf-8")


def test_depths_on_an_axis_have_their_names_and_blind_ones_are_marked():
    rows = [{"block": t, "at": f"layer{t}", "blind": t == 5} for t in range(17)]
    rows[0]["at"] = "before any block"
    rows[9]["at"] = "stages.2.blocks.deep"
    ticks = dict(Axis.along(rows).ticks())
    assert ticks[5.0] == "5 blind" and ticks[10.0] == "10 (layer10)" and ticks[0.0] == "0"
    assert Axis.along(rows).places[9] == "9 (…blocks.deep)"
    plain = Axis.along([{"block": t} for t in range(17)])
    assert plain.ticks() == Axis.depths(16).ticks()


def test_an_index_lists_every_run_below_a_folder_and_links_to_its_report(tmp_path, capsys) -> None:
    make_run(tmp_path / "runs" / "one")
    make_run(tmp_path / "runs" / "deep" / "er" / "<b>two", models=("resnet50", "resnet18"))
    (tmp_path / "runs" / "no-run").mkdir()
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "run.json").write_text("{")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "runs" / "one")
    assert run_cli(["report", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr()
    assert "damaged is left out" in shown.err and shown.out.strip() == str(tmp_path / "runs" / "index.html")
    text = (tmp_path / "runs" / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.addresses == ["deep/er/%3Cb%3Etwo/report.html"] * 2 + ["one/report.html"]
    assert "<b>two" in page.text and "expansive_constant.max" in page.text and page.tags["script"] == 1
    first = (tmp_path / "runs" / "one" / "report.html").stat()
    assert run_cli(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "all.html")]) == 0
    assert "runs/one/report.html" in Page((tmp_path / "all.html").read_text(encoding="utf-8")).addresses
    assert (tmp_path / "runs" / "one" / "report.html").stat().st_mtime_ns == first.st_mtime_ns
    assert run_cli(["report", str(tmp_path / "runs" / "no-run")]) == 2


def test_values_of_charts_can_be_read_without_pointing_and_curves_differ_without_colours(run_folder) -> None:
    text = write_report(run_folder).read_text(encoding="utf-8")
    figures = re.findall(r'<figure class="chart-figure">.*?</figure>', text, re.DOTALL)
    assert len(figures) > 4
    for figure in figures:
        told = re.findall(r"<title>(.*?)</title>", figure, re.DOTALL)[1:]
        listed = re.findall(r"<li>(.*?)</li>", figure, re.DOTALL)
        assert listed == list(dict.fromkeys(told))[:600]
    curves = [
        line_chart(
            [Curve(str(k), [(0, k), (1, k + 1)]) for k in range(5)], x=Axis("x", 0, 1), y=Axis("y", 0, 6), title="t"
        )
    ]
    looks = re.findall(r'class="curve s\d (\w+)"', str(curves[0]))
    assert len(set(looks)) == 5
    many = dot_chart(
        [Dot(k, k, k) for k in range(40)],
        x=Axis.categories("class", [str(k) for k in range(40)]),
        y=Axis("y", 0, 40),
        title="t",
        legend=[str(k) for k in range(40)],
    )
    shapes = re.findall(r'<(?:circle|polygon)[^>]*class="(f\d)"', str(many))
    assert len(shapes) == 80 and str(many).count("<polygon") == 60
    long = line_chart(
        [Curve("long", [(k, k) for k in range(1000)])], x=Axis("x", 0, 999), y=Axis("y", 0, 999), title="t"
    )
    assert 40 <= str(long).count("<circle") <= 61 and "long: 999, 999" in str(long)
