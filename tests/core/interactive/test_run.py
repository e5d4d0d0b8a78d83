"""A run in the hands of a person: frames, charts, HTML, and the way to disk, to a report and to verification."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
import torch

import stabilitykit
from stabilitykit import UsageProblem
from stabilitykit.interactive.run import Run
from stabilitykit.reporting.balance import check_balanced
from tests.core.interactive.nets import Net, data


@pytest.fixture(scope="module")
def net():
    return Net()


@pytest.fixture(scope="module")
def run(net):
    return stabilitykit.audit(
        net, data(), "expansivity", class_names=["<b>ape", "bee", "cat"], progress=False, cache=False
    )


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "run"
    Run.of(run).save(folder)
    return folder


def test_frames(run):
    assert set(run.frame()["property"]) == {"expansivity"}
    assert len(run.images()) == 24
    pairs = run.table("class_pairs").frame()
    smallest = pairs[pairs["reduction"] == "min"]["value"].min()
    assert smallest == run["expansivity"]["expansive_constant.min"].value
    with pytest.raises(UsageProblem, match="did you mean"):
        run.table("class_pair")


def test_a_saved_run_is_the_run(run, saved):
    again = Run.read(saved)
    assert again.frame().equals(run.frame())
    assert again.images().equals(run.images())
    assert again.info["request"] == run.info["request"]
    assert len(list((saved / "images").rglob("*.png"))) == len(run.pictures) > 0
    with pytest.raises(UsageProblem, match="already"):
        again.save(saved.parent / "other")


def test_html_fits_a_cell_and_names_cannot_break_out_of_it(run):
    html = run._repr_html_()
    check_balanced(html)
    assert "&lt;b&gt;ape" in html and "<b>ape" not in html
    assert "exact on the sample" in html and "max-height" in html and len(html) < 40_000


class _Sources(HTMLParser):
    found: list

    def handle_starttag(self, tag, attrs):
        self.found.append(dict(attrs).get("src", ""))


def test_charts_are_images_of_their_own(run, tmp_path):
    chart = run.plot("curve")
    parser = _Sources()
    parser.found = []
    parser.feed(run.plot()._repr_html_())
    assert len(parser.found) == len(run.plot()) and all(s.startswith("data:image/svg+xml") for s in parser.found)
    assert chart.save(tmp_path / "curve.svg").read_text() == chart.svg
    with pytest.raises(UsageProblem, match="SVG"):
        chart.save(tmp_path / "curve.png")
    with pytest.raises(UsageProblem, match="no chart"):
        run.plot("nothing")


def test_a_report_of_a_run_in_memory_shows_its_images(run, tmp_path):
    page = run.report(tmp_path / "page.html").read_text()
    assert "data:image/png" in page and "no image stored" not in page
    with pytest.raises(UsageProblem, match="in memory"):
        run.report()


def test_compare(run, saved):
    found = run.compare(saved)
    frame = found.frame()
    assert set(frame["ratio_to_first"].dropna()) == {1.0}
    check_balanced(found._repr_html_())


def test_verify_needs_the_objects_and_tells_others_from_them(run, saved, net):
    assert run.verify(net, data(), progress=False).ok
    assert Run.read(saved).verify({"Net": net, "data": data()}, progress=False).ok
    other = Net()
    with torch.no_grad():
        other.head.bias[0] += 1e-3
    assert not run.verify(other, data(), progress=False).ok
    images, labels = data()
    images[0, 0, 0, 0] += 1e-3
    assert not run.verify(net, (images, labels), progress=False).ok
    with pytest.raises(UsageProblem, match="give Net, data"):
        run.verify(progress=False)


def test_the_command_says_that_the_objects_are_missing(saved, capsys):
    from stabilitykit.cli import run as command

    assert command(["verify", str(saved), "-q"]) == 2
    assert "handed over as objects in Python" in capsys.readouterr().err
