"""`plugins check` with the author's own options, model, dataset and run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from stabilitykit import Component, Option, PropertyResult, ReportSection
from stabilitykit.base.errors import UsageProblem
from stabilitykit.cli.listing import plugins
from stabilitykit.plugins.loading import PluginHost, PluginRecord
from stabilitykit.plugins.registry import Registry
from stabilitykit.testing import Inputs, TinyDataset, TinyModel, check_plugin, failures, tiny_run
from stabilitykit.testing.inputs import spread
from tests.core.testing.test_check_sections import good
from tests.core.testing.test_checks import Good

SEEN = []


class Own(Good):
    """Notes what it is given."""

    def __init__(self, first=0):
        self.first = first

    def evaluate(self, context) -> PropertyResult:
        SEEN.append((context.model.num_blocks, context.indices.tolist(), self.first, len(set(context.labels.tolist()))))
        return super().evaluate(context)


class Sorted(TinyDataset):
    """Sorted by class, as files are."""

    @property
    def labels(self):
        return np.sort(super().labels)


def of(name):
    return f"{__name__}:{name}"


def five_blocks(seed=0):
    SEEN.append(("seed", seed))
    return TinyModel(blocks=5, seed=seed)


def forty():
    return Sorted(count=40)


@pytest.fixture
def registry():
    SEEN.clear()
    components = [
        Component("property", "own", of("Own"), "x", (Option("first", "int", 0, "first"),), reference="here"),
        Component("model", "five", of("five_blocks"), "x", (Option("seed", "int", 0, "seed"),)),
        Component("dataset", "forty", of("forty"), "x"),
    ]
    components = [c.owned_by("d", "1") for c in components]
    sections = [ReportSection("shown", "Shown", "tests.core.testing.test_check_sections:good", distribution="d")]
    provides = ["property own", "model five", "dataset forty", "report section shown"]
    record = PluginRecord("mine", "stabilitykit", "d", "1", provides=provides)
    assert callable(good)
    return Registry(PluginHost([record], components, sections=sections))


def test_a_property_measures_the_authors_model_on_images_of_the_authors_dataset(registry):
    checks = check_plugin("own", registry, Inputs(("first=3",), "five", "forty", limit=10))
    assert not failures(checks)
    measured = [seen for seen in SEEN if seen[0] != "seed"]
    assert {seen[0] for seen in measured} == {5} and {seen[2] for seen in measured} == {3}
    assert [seen[1] for seen in measured if seen[3] > 1] == [spread(40, 10)] * 2
    assert [seen[1] for seen in measured if seen[3] == 1] == [[0, 1, 2, 3]]  # the check of a single class
    assert {check.name.partition(":")[0] for check in checks} == {"plugin mine", "property own"}


def test_options_reach_the_component_they_are_for(registry, tmp_path):
    assert not failures(check_plugin("mine", registry, Inputs(("five:seed=7",), run=tiny_run(tmp_path / "run"))))
    assert ("seed", 7) in SEEN and {seen[2] for seen in SEEN if seen[0] != "seed"} == {0}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (Inputs(("frist=3",)), "did you mean first"),
        (Inputs(("fiev:seed=3",)), "did you mean five"),
        (Inputs(("first",)), "NAME=VALUE"),
        (Inputs(model="five"), "both --model and --dataset"),
        (Inputs(model="fiev", dataset="forty"), "did you mean five"),
        (Inputs(run="nowhere"), "not a run folder"),
    ],
)
def test_bad_inputs_are_one_line_and_nothing_is_checked(registry, inputs, message):
    with pytest.raises(UsageProblem, match=message) as raised:
        check_plugin("mine", registry, inputs)
    assert "\n" not in str(raised.value) and not [seen for seen in SEEN if seen[0] != "seed"]


def test_an_option_that_does_not_fit_is_a_failed_check(registry):
    (failed,) = (check for check in check_plugin("five", registry, Inputs(("seed=x",))) if not check.ok)
    assert failed.name == "model five: builds, or says in one line what is missing" and "'x'" in failed.message


def test_the_sample_is_spread():
    assert spread(5, 24) == [0, 1, 2, 3, 4] and spread(100, 3) == [0, 49, 99] and spread(1, 2) == [0]


def test_the_command_hands_the_inputs_on(registry, monkeypatch):
    monkeypatch.setattr(Registry, "load", lambda: registry)
    words = ["check", "-o", "first=2", "-m", "five", "-d", "forty", "--limit", "6", "--format", "json"]
    done = CliRunner().invoke(plugins, words, standalone_mode=False)  # no NAME: all plugins of others
    assert done.return_value == 0, done.output
    names = {check["name"].partition(":")[0] for check in json.loads(done.stdout)}
    assert names == {"plugin mine", "property own", "model five", "dataset forty", "report section shown"}
    assert (5, spread(40, 6), 2, 3) in SEEN
    done = CliRunner().invoke(plugins, ["check", "own", "-o", "first=x", "--format", "json"], standalone_mode=False)
    assert done.return_value == 1


def test_without_plugins_of_others_a_name_is_asked_for(monkeypatch):
    monkeypatch.setattr(Registry, "load", lambda: Registry(PluginHost([PluginRecord("x", "x", "stabilitykit", "1")])))
    done = CliRunner().invoke(plugins, ["check"])
    assert isinstance(done.exception, UsageProblem) and "NAME" in str(done.exception)
