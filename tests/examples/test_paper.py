"""The reproduction of the paper's tables, over runs made by hand: right numbers in the right places."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stabilitykit.base.results import READOUT_FIT, Kind, Measurement, PropertyResult, Table
from stabilitykit.plugins.registry import Registry
from stabilitykit.runs.folder import load_run
from tests.core.report_runs import make_run
from tests.examples.modules import modules_of

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "paper"


@pytest.fixture()
def paper():
    """The modules of the example by name."""
    with modules_of(EXAMPLE) as modules:
        yield modules


def shadowing(**constants: float) -> PropertyResult:
    orbit = [["Sh_paper", "eps", t, t, str(t), 3 * t, None if t == 0 else 0.1 * t, 7, "7", 0.01 * t] for t in range(4)]
    columns = ["constant", "role", "depth", "image", "class", "order", "jump into it"]
    columns += ["tracer", "tracer class", "distance to tracer"]
    witness = {"eps": 0.1, "delta": 0.25}
    return PropertyResult(
        [Measurement(name, value, Kind.ESTIMATE, 500, "ratio", witness) for name, value in constants.items()],
        {"orbits": Table(columns, orbit)},
        images=[0, 1, 2, 3, 7],
    )


def lipschitz(*bounds: float) -> PropertyResult:
    rows = [[str(t), bound] for t, bound in enumerate(bounds)] if len(bounds) > 1 else [["0-8", bounds[0]]]
    fits = [[t, 0.5 + 0.1 * t, 1000] for t in range(len(bounds))]
    return PropertyResult(
        [Measurement("lipschitz", max(bounds[1:] or bounds), Kind.UPPER, 500)],
        {
            "readouts": Table(["depth", "certified upper"], rows),
            READOUT_FIT: Table(["depth", "accuracy held out", "N in sample"], fits),
        },
    )


def test_a_ratio_agrees_only_where_eps_and_delta_do(paper):
    reading = next(r for r in paper.readings.READINGS if r.column == "g-shadowing")
    value = paper.readings.Value
    assert paper.constants.near("mnist_r18", reading, value(2.0, "estimate", 10, 0.1, 0.2))
    assert not paper.constants.near("mnist_r18", reading, value(2.0, "estimate", 10, 1e-11, 2e-11))
    assert not paper.constants.near("mnist_r18", reading, value(0.5, "estimate", 10, 0.1, 0.2))


@pytest.fixture()
def runs(paper, tmp_path):
    """Head and probes of one training, with their run folders."""
    weights = tmp_path / "mnist_r18_s0.safetensors"
    save_file({}, weights, metadata={"stabilitykit": json.dumps({"epoch": 7})})
    net = paper.nets.Net("mnist_r18", 0, weights)
    head = make_run(
        tmp_path / "head",
        failed=False,
        extra={"shadowing": shadowing(Sh_paper=2.5, Sh_exact=0.5), "lipschitz": lipschitz(0.625)},
    )
    extra = {"shadowing": shadowing(Sh_paper=1.5), "lipschitz": lipschitz(4.0, 3.0, 2.0)}
    probe = make_run(tmp_path / "probe", failed=False, extra=extra)
    wanted = paper.measure.Wanted
    return {wanted(net, (), None): head, wanted(net, (), None, 2500): probe}


def by_reading(rows):
    return {(row["column"], row["reading"], row["readout"]): row for row in rows}


def test_the_goals_of_table_1_are_decided_seed_by_seed(paper, tmp_path):
    nets = paper.nets.nets(tmp_path, ["mnist_r18"], [0, 1])
    found = {"precision": 0.98, "recall": 0.97, "f1": 0.985, "loss": 0.045, "n": 10, "epochs": 3}
    rows = paper.classification.table_1({nets[0]: found, nets[1]: found | {"f1": 0.875, "loss": 0.035}})
    f1 = {row["seed"]: row for row in rows if row["measure"] == "f1"}
    assert (f1["0"]["met"], f1["1"]["met"]) == ("yes", "no")  # 0.9891 - 0.01
    assert f1["mean of 2"]["ours"] == pytest.approx(0.93)
    assert (f1["mean of 2"]["lowest"], f1["mean of 2"]["highest"]) == (0.875, 0.985)
    assert f1["0"]["difference"] == pytest.approx(0.985 - 0.9891)
    loss = {row["seed"]: row["met"] for row in rows if row["measure"] == "loss"}
    assert (loss["0"], loss["1"]) == ("no", "yes")  # 0.0363 * 1.1 = 0.03993


def test_table_2_has_each_reading_through_head_and_probe(paper, runs):
    rows = by_reading(paper.constants.table_2(runs, {"mnist_r18": 0.61}))
    result = load_run(next(iter(runs.values())))[1][0].result
    probe = "probe, 2,500 steps"
    assert rows["g-expansive", "labels, min", "head"]["ours"] == result["expansive_constant.min"].value
    assert rows["g-expansive", "labels, max (Definition 1)", "head"]["ours"] == result["expansive_constant.max"].value
    two = rows["g-shadowing", "two orbits", "head"]
    assert (two["ours"], two["paper"], two["eps"], two["paper eps"]) == (2.5, 2.3583, 0.1, 0.1025)
    assert two["within 3 times"] == "yes" and rows["g-shadowing", "two orbits", probe]["within 3 times"] == "yes"
    assert rows["g-shadowing", "exact", "head"]["within 3 times"] == "no"
    assert rows["Lip(g)", "largest over blocks", probe]["ours"] == 3.0
    assert rows["Lip(g)", "largest, depth 0 too", probe]["ours"] == 4.0
    assert ("Lip(g)", "largest, depth 0 too", "head") not in rows
    quotient = rows["topological", "two orbits / Lip(g)", probe]
    assert (quotient["ours"], quotient["product (the prose)"]) == (1.5 / 3.0, 1.5 * 3.0)
    assert rows["Lip(g)", "measured, seed 0", "untrained head"]["ours"] == 0.61
    assert pytest.approx(0.6059, abs=1e-4) == paper.readings.UNTRAINED
    depths = paper.constants.probes_by_depth(runs)
    assert [(row["depth"], row["Lip(g_t)"]) for row in depths] == [(0, 4.0), (1, 3.0), (2, 2.0)]


def test_the_range_over_seeds_stands_beside_the_first_seed(paper, runs, tmp_path):
    other = paper.nets.Net("mnist_r18", 1, tmp_path / "mnist_r18_s1.safetensors")
    run = make_run(tmp_path / "s1", failed=False, extra={"lipschitz": lipschitz(0.75)})
    both = {paper.measure.Wanted(other, (), None): run, **runs}
    row = by_reading(paper.constants.table_2(both, {"mnist_r18": 0.6}))["Lip(g)", "largest over blocks", "head"]
    assert (row["ours"], row["lowest"], row["highest"], row["seeds"]) == (0.625, 0.625, 0.75, 2)


def test_the_norm_of_an_untrained_head_is_measured(paper, tmp_path):
    net = paper.nets.Net("mnist_r18", 0, tmp_path / "none.safetensors")
    model = Registry.load().create("model", {"name": "resnet18", "options": {"width": 8}})
    weight = next(p for p in model.head.parameters() if p.ndim == 2).detach().numpy()
    expected = np.linalg.svd(weight.astype(np.float64), compute_uv=False)[0]
    assert paper.classification.untrained_norm(net, 8) == pytest.approx(expected, rel=1e-12)


def test_agreement_is_counted_from_the_tables(paper, runs):
    told = paper.agreement.lines([], paper.constants.table_2(runs, {"mnist_r18": 0.6}))
    assert len(told) == 10
    (line,) = [line for line in told if line.startswith("**g-shadowing**")]
    assert "two orbits (head) 1 of 1" in line and "never: exact (head)" in line
    assert told[-1].startswith("**All four") and "head: none" in told[-1]  # Lip(g) of the head is far from 3.38


def test_dependence_names_what_varies(paper, runs):
    rows = paper.dependence.dependence(runs)
    assert [(row["readout"], row["probe steps"]) for row in rows] == [("head", None), ("probe", 2500)]
    assert [rows[1][key] for key in ("Lip(g), largest", "Lip(g_0)", "Lip(g_T/2)", "Lip(g_T)")] == [3.0, 4.0, 3.0, 2.0]
    assert [row["epoch"] for row in rows] == [7, 7]
    assert rows[0]["Lip(g_0)"] is None and rows[0]["Sh, two orbits"] == 2.5
    assert set(paper.dependence.paper_row("mnist_r18")) <= set(rows[0])


def test_all_steps_are_measured_of_the_first_seed_and_some_of_the_others(paper, tmp_path):
    nets = paper.nets.nets(tmp_path, ["cifar_r18"], [0, 1])
    given = argparse.Namespace(steps=[125, 500, 2500], dependence_limit=10, dependence_images=20)
    wanted = paper.dependence.runs_wanted(nets, [], given)
    steps = [(one.net.seed, one.steps, one.images) for one in wanted]
    assert steps[:4] == [(0, None, None), (0, 125, 20), (0, 500, 20), (0, 2500, 20)]
    assert steps[4:] == [(1, None, None), (1, 500, 20)]


def test_snapshots_are_read_off_their_names(paper, tmp_path):
    for name in ("mnist_r18_s0.epoch-2", "mnist_r18_s0.epoch-10", "mnist_r18_s3.epoch-1", "cifar_r18_s0.epoch-1"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "mnist_r18_s0.safetensors").touch()
    (tmp_path / "other_s0.epoch-1.safetensors").touch()
    found = paper.nets.snapshots(tmp_path, ["mnist_r18", "mnist_r50"], [0, 1])
    assert [(net.name, net.seed, net.epoch) for net in found] == [("mnist_r18", 0, 2), ("mnist_r18", 0, 10)]
    assert [net.key for net in found] == ["mnist_r18_s0_e2", "mnist_r18_s0_e10"]


def test_the_lines_say_how_a_constant_moved_where_one_thing_varies(paper):
    row = {"model": "m", "seed": 0, "epoch": 9, "readout": "probe", "N": 10, "probe images": 5, "Lip(g), largest": 1.5}
    rows = [row | {"probe steps": 500, "Lip(g), largest": 2.5}, row | {"probe steps": 20}]
    rows += [row | {"probe steps": 20, "N": 99, "seed": 1, "Lip(g), largest": 7.0}, {"model": "m", "readout": "paper"}]
    assert paper.agreement.moved("Lip(g)", rows) == "Measured: probe steps 20, 500 (m, probe, N = 10): 1.5, 2.5."
    assert paper.agreement.moved("topological", rows) == paper.agreement.moved("Lip(g)", []) == ""


def test_some_of_the_images_are_the_same_pixels(paper, tmp_path):
    spec = {"name": "digits", "options": {"split": "train"}}
    registry = Registry.load()
    whole = registry.create("dataset", spec)
    part = registry.create("dataset", paper.images.some_of(spec, 30, "digits", tmp_path))
    chosen = paper.images.choose_indices(len(whole), 30, seed=0).tolist()
    assert list(part.labels) == list(np.asarray(whole.labels)[chosen]) and list(part.class_names) == list(
        whole.class_names
    )
    for one, other in zip(part.images(range(30)), whole.images(chosen)):
        np.testing.assert_allclose(one, other, atol=0.5 / 255)
    assert paper.images.some_of(spec, None, "digits", tmp_path) == spec


def test_table_3_finds_the_papers_class_pairs(paper, runs):
    digits = [str(d) for d in range(10)]
    run = next(iter(runs.values()))
    rows = paper.pictures.table_3({"mnist_r50": run}, {"mnist_r50": digits})
    shown = [r for r in rows if r["shown because"] == "in the paper"]
    assert [r["classes"] for r in shown] == ["2 - 1", "2 - 5", "2 - 6", "2 - 7"]
    table = load_run(run)[1][0].result.tables["class_pairs"]
    for row in shown:
        a, b = row["classes"].split(" - ")
        (expected,) = [r for r in table.rows if r[2] == "min" and {r[0], r[1]} == {a, b}]
        assert row["our distance"] == expected[3] and row["our block"] == expected[8]
    assert rows[-1]["shown because"] == "our closest pair"
    assert rows[-1]["our distance"] == min(r[3] for r in table.rows if r[2] == "min")


def test_everything_is_written_and_reads_back(paper, runs, tmp_path):
    out = tmp_path / "out"
    heads = paper.constants.first_seed(runs)
    made = {
        "table_2": paper.constants.table_2(runs, {"mnist_r18": 0.6}),
        "table_3": [],
        "tables_4_5": paper.pictures.tables_4_5(heads, out),
    }
    drawn = paper.pictures.figures(heads, out)
    assert drawn == ["figure-2-mnist_r18.svg", "figure-3-mnist_r18.svg"]
    assert (out / "figures" / "strip-mnist_r18.png").stat().st_size > 100
    paper.writing.write(out, made, {"figures": drawn}, ["**One** line."])
    rows = list(csv.DictReader((out / "table_2.csv").open()))
    assert [float(r["ours"]) for r in rows] == [r["ours"] for r in made["table_2"]]
    assert [r["depth"] for r in json.loads((out / "results.json").read_text())["tables"]["tables_4_5"]] == [0, 1, 2, 3]
    text = (out / "results.md").read_text()
    assert "Tables 4 and 5" in text and "figures/figure-3-mnist_r18.svg" in text and str(tmp_path) not in text
    assert "- **One** line." in text


def test_a_failed_cell_leaves_its_rows_out(paper, tmp_path):
    net = paper.nets.Net("mnist_r18", 0, tmp_path / "none")
    run = make_run(tmp_path / "failed")  # its shadowing cell failed
    assert paper.pictures.tables_4_5({"mnist_r18": run}, tmp_path) == []
    rows = paper.constants.table_2({paper.measure.Wanted(net, (), None): run}, {"mnist_r18": 0.6})
    assert "g-shadowing" not in {row["column"] for row in rows}


@pytest.mark.slow
def test_quick_goes_from_nothing_to_results_and_finds_them_again(tmp_path):
    command = [sys.executable, str(EXAMPLE / "reproduce.py"), "--quick", "--checkpoints", "w"]
    outputs = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stderr)
    assert "[1/" in outputs[0] and "[1/" not in outputs[1]  # nothing was measured again
    results = tmp_path / "runs" / "paper" / "results"
    text = (results / "results.md").read_text()
    assert "Written by `--quick`" in text and "(not measured)" not in text and str(tmp_path) not in text
    rows = list(csv.DictReader((results / "dependence.csv").open()))
    assert {(row["model"], row["readout"]) for row in rows} == {
        (model, readout)
        for model in ("MNIST, ResNet-18", "CIFAR-10, ResNet-18")
        for readout in ("head", "probe", "the paper")
    }
    assert {row["epoch"] for row in rows} == {"1", "2", ""}
    assert {row["reading"] for row in csv.DictReader((results / "table_2.csv").open())} >= {
        "authors' chains, mean",
        "exact",
        "distinct, min",
    }
