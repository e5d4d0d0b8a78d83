"""One row per image: decisions, columns of properties, images.csv, Run.images, verify, the first screen."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn.metrics import confusion_matrix as sklearn_matrix

import stabilitykit
from stabilitykit import Kind, Measurement, PluginProblem, Property, PropertyResult, UsageProblem, evaluate
from stabilitykit.base.decisions import Decisions
from stabilitykit.base.text import safe_cell
from stabilitykit.dynamics.decisions import prediction_depth, sureness
from stabilitykit.evaluation.acceptance import stored_form
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry
from stabilitykit.reporting.confusion import confused_pairs, confusion_matrix
from stabilitykit.reporting.page import write_report
from stabilitykit.reporting.screen import sentences
from stabilitykit.reporting.terminal import MOST_CELLS, print_cells, witness_text
from stabilitykit.reporting.witness import Names
from stabilitykit.review.consistency import disagreements
from stabilitykit.review.files import RunFiles
from stabilitykit.review.verify import verify
from stabilitykit.runs.export import export_images
from stabilitykit.runs.folder import Cell
from stabilitykit.runs.rows import CORE, images_csv, images_frame
from stabilitykit.testing.fixtures import TinyDataset, TinyModel
from stabilitykit.testing.property import check_property

HOSTILE = ["=1+1", 'a,b\n"c', "ü 漢字", "-x", "<script>alert(1)</script>", "\x1b[2J"]
KEY = ("m", "d")


def made(labels, predictions, classes=None, outputs=None, comparable=True, depths=None, **other) -> Decisions:
    count = len(labels)
    classes = classes or [f"c{k}" for k in range(1 + max([*labels, *predictions]))]
    columns = {
        "index": list(range(10, 10 + count)),
        "label": list(labels),
        "prediction": list(predictions),
        "confidence": [0.5 + 0.4 / (k + 1) for k in range(count)],
        "margin": [1.0 / (k + 1) for k in range(count)],
        "prediction_depth": list(depths or [k % 3 for k in range(count)]),
    }
    blocks = other.pop("blocks", ["layer1.0", "layer1.1"])
    return Decisions(*KEY, classes, outputs or classes, comparable, blocks, "logit", columns)


def cell(name="p", **per_image) -> Cell:
    number = Measurement("x", 1.0, Kind.EXACT, 3, reference="here")
    return Cell(*KEY, name, result=PropertyResult([number], per_image=per_image))


class Counting(Property):
    """Gives columns per image of every kind."""

    name = "counting"

    def evaluate(self, context):
        count = len(context.indices)
        values = context.trajectory.values[-1, :, 0]
        columns = {
            "first_output": values,
            "twice": 2 * context.indices,
            "odd": (context.indices % 2 == 1).tolist(),
            "seldom": [None if i % 2 else float(i) for i in range(count)],
            "word": [f"w{i % 2}" for i in range(count)],
        }
        return PropertyResult([Measurement("n", count, Kind.EXACT, count, reference="a count")], per_image=columns)


def test_decisions_are_those_of_the_final_readout() -> None:
    logits = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    confidence, margin = sureness(logits)
    for row, wide in enumerate(logits.astype(np.float64)):
        shares = np.exp(wide) / np.exp(wide).sum()
        assert confidence[row] == pytest.approx(shares.max(), rel=1e-12)
        assert margin[row] == np.sort(wide)[-1] - np.sort(wide)[-2]
    assert sureness(logits[:, :1])[1].tolist() == [0.0] * 40


def test_prediction_depth_is_the_first_from_which_nothing_changes() -> None:
    chosen = np.random.default_rng(1).integers(0, 2, (6, 200))
    for image, depth in enumerate(prediction_depth(chosen)):
        steady = [t for t in range(6) if (chosen[t:, image] == chosen[-1, image]).all()]
        assert depth == steady[0]


def test_a_run_has_a_row_for_every_image_with_dtypes(tmp_path: Path) -> None:
    data, model = TinyDataset(count=30), TinyModel()
    run = evaluate(model, data, [Counting()], output=tmp_path / "run", cache=False, registry=Registry(PluginHost()))
    frame = run.images()
    assert list(frame.columns) == ["model", "dataset", *CORE, "first_output", "twice", "odd", "seldom", "word"]
    assert frame["index"].tolist() == list(range(30)) and frame["label"].tolist() == data.labels.tolist()
    import torch

    with torch.inference_mode():
        logits = model.logits(model.preprocess(data.images(range(30)))).double().numpy()
    assert frame["prediction"].tolist() == logits.argmax(axis=1).tolist()
    assert frame["correct"].tolist() == (logits.argmax(axis=1) == data.labels).tolist()
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        **dict.fromkeys(["model", "dataset", "class", "predicted", "block", "word"], "category"),
        **dict.fromkeys(["index", "label", "prediction", "prediction_depth", "twice"], "int64"),
        **dict.fromkeys(["confidence", "margin", "first_output", "seldom"], "float64"),
        **dict.fromkeys(["correct", "odd"], "boolean"),
    }
    again = stabilitykit.Run.read(tmp_path / "run")
    pandas.testing.assert_frame_equal(again.images(), frame)
    pandas.testing.assert_frame_equal(again.images("tiny-model", "tiny-dataset"), frame)
    with pytest.raises(UsageProblem, match=r"no rows for model .tiny-modle.*tiny-model"):
        again.images("tiny-modle")
    text = (tmp_path / "run" / "images.csv").read_text()
    assert text == images_csv(again.decisions, again.cells)
    back = pandas.read_csv(io.StringIO(text))
    assert back["first_output"].tolist() == frame["first_output"].tolist()


def test_several_subjects_stand_below_each_other_and_resume_writes_them_once(tmp_path: Path) -> None:
    one, two = TinyModel(seed=1), TinyModel(seed=2)
    one.name, two.name = "one", "two"
    given = {"output": tmp_path / "run", "cache": False, "registry": Registry(PluginHost())}
    evaluate([one, two], TinyDataset(count=12), [Counting()], **given)
    files = {path.name: path.read_bytes() for path in [*tmp_path.glob("run/decisions/*"), tmp_path / "run/images.csv"]}
    run = evaluate([one, two], TinyDataset(count=12), [Counting()], resume=True, **given)
    assert len(files) == 3
    assert all(next(tmp_path.glob(f"run/**/{name}")).read_bytes() == data for name, data in files.items())
    assert run.images()["model"].tolist() == ["one"] * 12 + ["two"] * 12
    assert set(run.images("two")["model"]) == {"two"}
    damaged = next(tmp_path.glob("run/decisions/one*"))
    damaged.write_text("{}")
    with pytest.raises(UsageProblem, match="holds no decisions"):
        stabilitykit.Run.read(tmp_path / "run")


def test_csv_and_parquet_keep_hostile_names_and_every_digit(tmp_path: Path) -> None:
    found = made([0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 5, 5], HOSTILE)
    cells = [cell(third=[0.1 + 0.2, float("inf"), None, 1e-300, -0.0, 2.0], text=HOSTILE)]
    cells = [replace(c, result=PropertyResult.from_json(json.loads(json.dumps(c.result.to_json())))) for c in cells]
    rows = list(csv.DictReader(io.StringIO(images_csv({KEY: found}, cells))))
    assert len(rows) == 6
    for name, row in zip(HOSTILE, rows, strict=True):
        assert row["class"] == row["text"] == safe_cell(name) and row["class"][0] not in "=+-@"
    assert [row["third"] for row in rows] == ["0.30000000000000004", "inf", "", "1e-300", "-0.0", "2.0"]
    frame = images_frame({KEY: found}, cells)
    assert frame["class"].tolist() == HOSTILE and frame["third"][1] == float("inf") and np.isnan(frame["third"][2])


def test_csv_is_what_the_csv_module_writes_whatever_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of two rows, two subjects of different length and columns, every kind of value."""
    import stabilitykit.runs.rows as rows

    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 2)
    long = replace(made([0, 1, 2, 0, 1], [0, 1, 1, 0, 1], classes=HOSTILE), dataset="=d,2")
    decisions = {KEY: made([0, 1, 1], [0, 0, 1]), (long.model, long.dataset): long}
    values = {
        "number": [1, -0.1, math.inf],
        "gaps": [None, 1e-300, 3],
        "truth": [True, False, None],
        "name": HOSTILE[:3],
    }
    texts = ["", "-1.5", None, "=a", 'q"']
    cells = [cell(**values), replace(cell(texts=texts, number=[0.1] * 5), dataset=long.dataset)]
    columns = {key: rows.columns_of(decisions[key], [c]) for key, c in zip(decisions, cells, strict=True)}
    names = list(dict.fromkeys(name for found in columns.values() for name in found))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", "dataset", *names])
    for key, found in columns.items():
        for row in range(len(found["index"])):
            own = [found[name][row] if name in found else "" for name in names]
            writer.writerow([safe_cell(value) for value in (*key, *own)])
    assert images_csv(decisions, cells) == stream.getvalue()


def test_export_gives_rows_as_csv_json_and_parquet(tmp_path: Path) -> None:
    run = evaluate(
        TinyModel(), TinyDataset(count=9), [Counting()], output=tmp_path / "run", cache=False,
        registry=Registry(PluginHost()),
    )  # fmt: skip
    assert export_images(tmp_path / "run", "csv") == (tmp_path / "run" / "images.csv").read_bytes()
    records = json.loads(export_images(tmp_path / "run", "json"))
    assert [r["first_output"] for r in records] == run.images()["first_output"].tolist() and len(records) == 9
    with pytest.raises(UsageProblem, match="csv, json or parquet"):
        export_images(tmp_path / "run", "latex")
    pytest.importorskip("pyarrow")
    frame = pandas.read_parquet(io.BytesIO(export_images(tmp_path / "run", "parquet")))
    pandas.testing.assert_frame_equal(frame, run.images(), check_categorical=False)


def test_columns_of_one_name_stand_once_or_under_their_property() -> None:
    found = made([0, 1], [0, 1])
    cells = [cell("a", x=[1, 2]), cell("b", x=[1, 2], label=[5, 5]), cell("c", x=[3, 4]), cell("d", x=[1])]
    frame = images_frame({KEY: found}, cells)
    assert list(frame.columns)[12:] == ["x", "b.label", "c.x"]
    assert frame["c.x"].tolist() == [3, 4]


@pytest.mark.parametrize(
    "values, why",
    [([1, 2], "2 entries for 3"), ([1, "a", 2], "numbers and texts"), ([[1], 2, 3], "list"), ([True, 1, 2], "bool")],
)
def test_a_column_that_is_none_is_refused(values, why) -> None:
    with pytest.raises(PluginProblem, match=why):
        stored_form(cell(wrong=values).result, 3)


def test_many_images_pass_the_limit_for_tables() -> None:
    columns = {f"x{k}": np.random.default_rng(k).random(60_000) for k in range(6)}
    found = stored_form(cell(**columns).result, 60_000)
    assert found.per_image["x3"] == columns["x3"].tolist()


def test_the_contract_check_sees_columns_that_do_not_fit() -> None:
    assert all(check.ok for check in check_property(Counting))

    class Short(Counting):
        def evaluate(self, context):
            return replace(super().evaluate(context), per_image={"x": [1.0]})

    [wrong] = [check for check in check_property(Short) if not check.ok]
    assert "per_image['x'] has 1 entries" in wrong.message


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "run"
    evaluate("resnet18-digits", "digits", ["expansivity:curve=0"], limit=40, output=folder, cache=False)
    return folder


def test_verify_notices_a_changed_decision_and_a_changed_row(digits_run: Path) -> None:
    assert verify(digits_run).ok
    files = RunFiles.read(digits_run)
    [(name, decisions)] = files.decisions.items()
    from stabilitykit.testing.mutations import Mutated

    judge = Mutated(digits_run)
    assert judge.verdict(judge.files) == "stands"
    for column in ("index", "label", "prediction", "confidence", "margin", "prediction_depth"):
        changed = json.loads(json.dumps(decisions))
        before = decisions["columns"][column][2]
        changed["columns"][column][2] = (before + 1) % 9 if isinstance(before, int) else math.nextafter(before, 1.0)
        assert judge.verdict(replace(files, decisions={name: changed})) == "fails", column
        # Whoever alters images.csv to fit is found by measuring again.
        one = Decisions.from_json(changed)
        fitting = images_csv({(one.model, one.dataset): one}, list(files.parsed.values()))
        assert judge.verdict(replace(files, decisions={name: changed}, images=fitting)) == "fails", column
    assert files.images is not None
    lines = files.images.splitlines(keepends=True)
    for text in (
        files.images.replace("True", "False", 1),
        files.images.replace("nearest_min_distance", "nearest", 1),
        "".join(lines[:-1]),
        files.images.replace("\n", "\r\n"),
    ):
        assert judge.verdict(replace(files, images=text)) == "fails"


def test_a_row_that_differs_is_named_by_its_place(digits_run: Path) -> None:
    from stabilitykit.review.plan import plan_of

    files = RunFiles.read(digits_run)
    plan = plan_of(files.info["request"], Registry.load(), checkpoint={}, data={}, trust=False, schema=files.schema)
    changed = replace(files, images=files.images.replace("True", "False", 1))
    [(key, place, text)] = disagreements(changed, changed.parsed, plan)
    assert key == ("resnet18-digits", "digits", "") and place.startswith("images.csv, row ")
    assert "gives correct False" in text


def test_the_nearest_columns_are_brute_force(digits_run: Path) -> None:
    run = stabilitykit.Run.read(digits_run)
    frame = run.images()
    # The overall constants are the smallest of the rows.
    for reduction in ("min", "max", "mean"):
        m = run["expansivity"][f"expansive_constant.{reduction}"]
        assert frame[f"nearest_{reduction}_distance"].min() == m.value
        row = frame.loc[frame["index"] == m.witness["indices"][0]].iloc[0]
        assert row[f"nearest_{reduction}"] == m.witness["indices"][1]
    labels = dict(zip(frame["index"], frame["label"], strict=True))
    assert all(labels[other] != label for other, label in zip(frame["nearest_min"], frame["label"], strict=True))


def test_the_confusion_matrix_is_sklearns() -> None:
    rng = np.random.default_rng(2)
    labels, outputs = rng.integers(0, 7, 300).tolist(), rng.integers(0, 7, 300).tolist()
    found = made(labels, outputs)
    assert (confusion_matrix(found) == sklearn_matrix(labels, outputs)).all()
    pairs = confused_pairs(found)
    matrix = confusion_matrix(found)
    assert sum(p.count for p in pairs) == (np.array(labels) != np.array(outputs)).sum()
    for p in pairs:
        assert (p.forth, p.back) == (matrix[p.first, p.second], matrix[p.second, p.first]) and p.forth >= p.back
    assert [p.count for p in pairs] == sorted((p.count for p in pairs), reverse=True)


def closest(value=0.25) -> Measurement:
    witness = {"indices": [10, 12], "classes": ["cat", "dog"], "block": 2}
    return Measurement("expansive_constant.min", value, Kind.EXACT, 4, "probability (l2)", witness)


def test_the_first_screen_of_a_trained_network() -> None:
    found = made([0, 0, 1, 1], [0, 1, 1, 1], ["cat", "dog"], depths=[0, 2, 1, 0])
    flips = [
        Measurement("flips.bf16", 0.5, Kind.EXACT, 4, "share"),
        Measurement("flips.int8", 1, Kind.EXACT, 4, "images"),
    ]
    cells = [Cell(*KEY, "p", result=PropertyResult([closest(), *flips]))]
    texts = [s.text for s in sentences(cells, found)]
    assert texts == [
        "3 of 4 images are recognised (75.0%; the same decisions handed out at random: 50.0%).",
        "Most often confused: cat and dog (1 image of class cat taken for dog; decided at layer1.1 (depth 2 of 2)).",
        "Closest images of different classes: image 10 (cat, recognised) and image 12 (dog, recognised), "
        "0.25 apart in probability (l2), at layer1.1 (depth 2 of 2).",
        "In bf16, 2 of 4 decisions change.",
        "In int8, 1 of 4 decision changes.",
    ]
    assert not any(s.warning for s in sentences(cells, found))


def test_the_first_screen_warns_first_and_says_where_classes_differ(capsys: pytest.CaptureFixture[str]) -> None:
    found = made([0, 1], [4, 4], ["cat", "dog"], [f"o{k}" for k in range(5)], comparable=False)
    first, second = sentences([], found, ["the weights are untrained"])
    assert first.warning and first.text == "the weights are untrained"
    assert "5 outputs and the dataset 2 classes" in second.text
    print_cells([cell()], decisions={KEY: found}, warnings={KEY: ["the weights are untrained"]})
    shown = capsys.readouterr().out
    assert "WARNING: the weights are untrained" in shown and shown.index("WARNING") < shown.index("measurement")
    assert sentences([], made([0, 1], [0, 1]))[1].text == "No image is taken for another class."


def test_a_terminal_shows_the_first_cells_of_many_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_cells([cell(f"property{number}") for number in range(MOST_CELLS + 2)])
    shown = capsys.readouterr().out
    assert f"the first {MOST_CELLS} of {MOST_CELLS + 2} cells" in shown
    assert f"property{MOST_CELLS - 1} " in shown and f"property{MOST_CELLS} " not in shown


def test_a_network_that_decides_everything_alike_is_said_to_be_untrained() -> None:
    import torch

    model = TinyModel()
    with torch.no_grad():
        for part in model.head.parameters():
            part.zero_()
    run = evaluate(model, TinyDataset(count=30), [Counting()], cache=False, registry=Registry(PluginHost()))
    [warning, chance] = run.info["pairs"][0]["warnings"]
    assert "all 30 images have the same final readout" in warning and "does not look trained" in warning
    assert "is chance" in chance
    with torch.no_grad():
        model.head[1].bias[1] = 9.0
        model.head[1].weight[0, 0] = 1e-3
    run = evaluate(model, TinyDataset(count=30), [Counting()], cache=False, registry=Registry(PluginHost()))
    assert "all 30 images are taken for one class (output 1)" in run.info["pairs"][0]["warnings"][0]


def test_a_witness_says_what_its_images_are_taken_for() -> None:
    words = Names(made([0, 1, 1], [0, 0, 1], ["cat", "dog"]))
    witness = {"indices": [10, 11], "classes": ["cat", "dog"], "orders": [0, 3], "block": 1}
    assert witness_text(witness, words) == (
        "cat #0 (image 10, recognised) ~ dog #3 (image 11, taken for cat), at block 1 (layer1.0)"
    )
    assert witness_text(witness) == "cat #0 (image 10) ~ dog #3 (image 11), at block 1"
    assert words.taken(99) == "" and words.place(0) == "before the first block"
    plain = Names(made([0], [0], blocks=["block 0", "block 1"]))
    assert plain.place(2) == "at depth 2 of 2" and plain.block(2) == ""


def test_the_report_shows_matrix_mistakes_and_few_rows_of_many_classes(digits_run: Path, tmp_path: Path) -> None:
    from tests.core.report_runs import make_run

    page = write_report(digits_run, output=tmp_path / "digits.html").read_text(encoding="utf-8")
    assert "Confusion matrix" in page and "Accuracy per class" in page and "are recognised" in page
    run = make_run(tmp_path / "run")
    from stabilitykit.runs.folder import RunFolder, load_run

    first = load_run(run)[1][0]
    rng = np.random.default_rng(0)
    labels, outputs = rng.integers(0, 1000, 2000).tolist(), rng.integers(0, 1000, 2000).tolist()
    many = made(labels, outputs, [f"<b>{k}" for k in range(1000)])
    RunFolder(run).write_decisions(replace(many, model=first.model, dataset=first.dataset))
    page = write_report(run, host=PluginHost()).read_text(encoding="utf-8")
    assert "Confusion matrix" not in page and "Confused pairs of classes" in page and "<b>" not in page
    assert len(page) < 1_000_000
    other = made([0, 1, 1], [4, 3, 3], ["cat", "dog"], [f"o{k}" for k in range(5)], comparable=False)
    RunFolder(run).write_decisions(replace(other, model=first.model, dataset=first.dataset))
    page = write_report(run, host=PluginHost()).read_text(encoding="utf-8")
    assert "there is no confusion matrix" in page and "mostly taken for" in page
