"""Report sections of the shipped properties, over results those properties really return."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stabilitykit.base.pictures import png_bytes
from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.plugins.registry import Registry
from stabilitykit.reporting import RunData, number
from stabilitykit.reporting.page import write_report
from stabilitykit.runs.folder import Cell, RunFolder
from stabilitykit.testing.fixtures import TinyDataset, TinyModel, tiny_context

LIPSCHITZ = PropertyResult(
    [
        Measurement("lipschitz", 3.5, Kind.UPPER, 24, "logit (l2) per state (l2)", interval=(3.25, 3.5)),
        Measurement(
            "lipschitz.probabilities", 1.75, Kind.UPPER, 24, "probability (l2) per state (l2)", interval=(None, 1.75)
        ),
    ]
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run of the tiny model with every property, Lip(g) given."""
    registry = Registry.load()
    dataset = TinyDataset(count=24)
    folder = RunFolder(tmp_path_factory.mktemp("sections") / "run")
    results = {"lipschitz": LIPSCHITZ}
    labels = {"lipschitz": "lipschitz"}
    for name, options in (
        ("expansivity", {}),
        ("shadowing", {}),
        ("topological", {}),
        ("table2", {}),
        ("perturbation", {"samples": 6, "scales": "0.01+0.1"}),
        ("window", {}),
        ("outlying", {"rows": 5}),
        ("entropy", {}),
        ("certified_radius", {}),
    ):
        made = registry.create("property", {"name": name, "options": options})
        context = tiny_context(TinyModel(), dataset, options=options, results=dict(results))
        results[name], labels[name] = made.evaluate(context), name
    made = registry.create("property", {"name": "blocks", "options": {"sample": 8}})
    results["blocks"], labels["blocks"] = made.evaluate(tiny_context(TinyModel(), dataset)), "blocks"
    labels["noise"] = "shadowing:noise"
    results["noise"] = registry.create("property", "shadowing:noise").evaluate(tiny_context(TinyModel(), dataset))
    cells = []
    for name, result in results.items():
        result = PropertyResult.from_json(result.to_json())
        cells.append(
            Cell(
                "tiny",
                "images",
                labels[name],
                result=result,
                record={"n": 24, "property": {"name": labels[name].partition(":")[0]}},
            )
        )
        folder.write_cell(cells[-1])
        for index in result.images:
            folder.write_image("images", index, png_bytes(dataset.images([index])[0]))
    folder.write_run({"status": "complete", "cells": [[c.model, c.dataset, c.property] for c in cells]})
    return folder.path


@pytest.fixture(scope="module")
def page(run_folder) -> str:
    return write_report(run_folder).read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.S)
    assert found, name
    assert 'class="banner failed"' not in found.group(1), found.group(1)[:500]
    return found.group(1)


def words(html: str) -> str:
    class Text(HTMLParser):
        text = ""

        def handle_data(self, data):
            self.text += data + " "

    parser = Text()
    parser.feed(html)
    return re.sub(r"\s+", " ", parser.text)


def result(run_folder: Path, name: str) -> PropertyResult:
    return next(r for c, r in RunData.read(run_folder).results(name) if c.property == name)


def test_no_section_failed(page):
    assert "failed:" not in page


def test_best_traced_image_as_a_strip_through_the_blocks(run_folder, page):
    html = section(page, "traced")
    witness = result(run_folder, "shadowing")["Sh_paper"].witness["eps_orbit"]
    first = html[html.index('class="strip"') : html.index("<svg")]
    assert first.count('class="picture"') == len(witness["distances"]) + 1  # every depth, and the tracer
    assert first.count("data:image/png;base64,") == first.count('class="picture"')
    text = words(first)
    for depth, (index, distance) in enumerate(zip(witness["indices"], witness["distances"])):
        assert f"depth {depth}" in text
        assert f"image {index}" in first
        assert f"to tracer {number(distance, 3)}" in text
    assert "distance to the tracer" in html
    assert "states that are no image" in html  # the noise family's orbit


def test_profile_bracket_and_constants(run_folder, page):
    html = section(page, "shadowing-profile")
    assert "s(eps), probability (l2)" in html and "eps, probability (l2)" in html
    text = words(html)
    found = result(run_folder, "shadowing")
    for name in ("Sh_profile", "Sh_paper", "Sh_best", "Sh_all.lower", "Sh_all.upper"):
        assert f"{name} {number(found[name].value)}" in text
    assert "upper bound over all sample orbits" in text


def test_lipschitz_interval(page):
    text = words(section(page, "lipschitz"))
    assert "lipschitz 3.5 upper bound 3.25 3.5" in text
    assert "lipschitz.probabilities 1.75" in text and "Lipschitz constant (l2 to l2)" in text


def test_theorem_1_and_table_2_keep_their_kinds(run_folder, page):
    quotient = result(run_folder, "topological")["T_g.paper"]
    assert f"T_g.paper {number(quotient.value)} {quotient.kind}" in words(section(page, "theorem-1"))
    text = words(section(page, "table-2"))
    owners = {"expansive_constant.min": "expansivity", "Sh_paper": "shadowing", "T_g.paper": "topological"}
    for name, owner in owners.items():
        m = result(run_folder, owner)[name]
        assert f"{number(m.value)} {m.kind}" in text
    assert "3.5 upper bound" in text


def test_perturbation_curves(run_folder, page):
    html = section(page, "perturbation")
    for label in (
        "delta, state space (l2)",
        "tracing error eps (readout l2)",
        "share of changed decisions",
        "block reset",
        "relative change of the block (l2)",
    ):
        assert label in html
    table = result(run_folder, "perturbation").tables["curve"]
    first = dict(zip(table.columns, table.rows[0]))
    assert f"delta {number(first['delta'])}" in html and f"eps {number(first['eps'])}" in html


def test_closest_pairs_show_images_orders_and_blocks(run_folder, page):
    html = section(page, "table-3")
    table = result(run_folder, "expansivity").tables["class_pairs"]
    rows = [dict(zip(table.columns, r)) for r in table.rows if r[2] == "min"]
    text = words(html)
    for row in rows[:3]:
        assert f"#{row['order_a']}" in text and f"image {row['index_b']}" in text and number(row["value"]) in text
    assert html.count("data:image/png") >= 6


def test_figures_hold_every_class_pair_twice(run_folder, page):
    html = section(page, "figures-2-3")
    charts = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(charts) == 2
    for chart in charts:
        assert chart.count("at block") == 2 * 3  # three classes, three pairs, each above both of its classes


def test_heat_map_has_both_triangles(page):
    charts = re.findall(r"<svg.*?</svg>", section(page, "class-pairs"), re.S)
    assert len(charts) == 3
    assert charts[0].count("at block") == 6


def test_figures_are_exported(run_folder, page):
    names = {p.name.split("-tiny")[0] for p in (run_folder / "figures").glob("*.svg")}
    assert {
        "figure-2",
        "figure-3",
        "profile",
        "lipschitz",
        "accuracy",
        "distances",
        "perturbation-eps",
        "class-pairs-min",
        "orbit-Sh_paper-eps",
    } <= names


def test_blocks_that_matter(run_folder, page):
    text = words(section(page, "blocks"))
    found = result(run_folder, "blocks")
    assert "decisions that change without it" in text and "Images decided last" in text
    table = found.tables["blocks"]
    last = dict(zip(table.columns, table.rows[-1]))
    assert number(last["left_out_moves"]) in text and last["name"] in text


def test_lipschitz_per_depth_is_drawn_for_probes(run_folder):
    from stabilitykit_lipschitz.sections import intervals

    from stabilitykit.base.results import Table

    columns = ["depth", "realised", "certified upper", "SDP dual", "method", "hidden neurons", "rank", "seconds"]
    rows = [[t, 1.0 + t, 1.5 + t, 1.5 + t, "spectral", 0, 0, 0.1] for t in range(4)]
    several = PropertyResult(LIPSCHITZ.measurements, {"readouts": Table(columns, rows)})
    cell = Cell("m", "d", "lipschitz", result=several)
    run = RunData(run_folder, {}, [cell])
    assert "Lip(g_t)" in intervals(run)
    assert any(name.startswith("lipschitz-depth") for name in run.figures)
    one = PropertyResult(LIPSCHITZ.measurements, {"readouts": Table(columns, [["all", *rows[0][1:]]])})
    assert "Lip(g_t)" not in intervals(RunData(run_folder, {}, [Cell("m", "d", "lipschitz", result=one)]))


def test_certified_radii_have_a_curve_per_depth_and_what_formats_move(run_folder, page):
    html = section(page, "certified_radius")
    found = result(run_folder, "certified_radius")
    assert html.count("<svg") == 1 and "x % of decisions provably survive a state error of r." in html
    svg = html[html.index("<svg") : html.index("</svg>")]
    assert all(f"depth {t}" in svg for t in range(4)) and "role=" in svg
    text = words(html)
    for row in found.tables["precision"].rows:
        assert number(row[5]) in text and f"{100 * row[7]:.4g} %" in text
    assert html.count('class="picture"') == 10
