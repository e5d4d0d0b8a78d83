"""Every contract check fails for the mistake it is there for, and for nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stabilitykit import CellProblem, Component, Kind, Measurement, Option, Property, PropertyResult, Table, hookimpl
from stabilitykit.base.errors import DataProblem, UsageProblem
from stabilitykit.plugins.loading import load_plugins
from stabilitykit.plugins.registry import Registry
from stabilitykit.testing import (
    TinyDataset,
    TinyModel,
    check_component,
    check_dataset,
    check_model,
    check_plugin,
    check_property,
    failures,
)


def failed(checks):
    return [check.name for check in checks if not check.ok]


# Models


class GrowingState(TinyModel):
    def block(self, t, state):
        return torch.cat([state, state], dim=1)


class WrongShape(TinyModel):
    @property
    def state_shape(self):
        return (16,)


class WrongReadout(TinyModel):
    def readout(self, state):
        return super().readout(state)[:, :2]


class InPlaceBlock(TinyModel):
    def block(self, t, state):
        state += 0.1
        return state.clone()


class InPlaceReadout(TinyModel):
    def readout(self, state):
        return super().readout(state.relu_())


class Noisy(TinyModel):
    def block(self, t, state):
        return super().block(t, state) + 0.01 * torch.rand_like(state)


class BatchStatistic(TinyModel):
    def block(self, t, state):
        return super().block(t, state) - state.mean(dim=0, keepdim=True)


class OtherLogits(TinyModel):
    def logits(self, inputs):
        return super().logits(inputs) + 1


class OtherHead(TinyModel):
    @property
    def head(self):
        return torch.nn.Sequential(super().head, torch.nn.Softmax(1))


class Training(TinyModel):
    def __init__(self):
        super().__init__()
        self.module.train()


class NanWeight(TinyModel):
    def __init__(self):
        super().__init__()
        self.module["stem"].weight[0, 0] = float("nan")

    def initial_state(self, inputs):
        return torch.nan_to_num(super().initial_state(inputs))


class Learning(TinyModel):
    def logits(self, inputs):
        self.module["head"][1].bias += 1e-6
        return super().logits(inputs)


class DoublePreprocessing(TinyModel):
    def preprocess(self, images):
        return super().preprocess(images).double()


class BlindFingerprint(TinyModel):
    def fingerprint(self):
        return "0" * 64


class ForeignBlocks(TinyModel):
    def block_modules(self, t):
        return (torch.nn.Linear(1, 1),)


class UnplainDescription(TinyModel):
    def describe(self):
        return ["not", "a", "mapping"]


MODELS = {
    GrowingState: "states keep their size, except by transitions",
    WrongShape: "states keep their size, except by transitions",
    WrongReadout: "readout gives (B, K) finite logits at every depth",
    InPlaceBlock: "blocks and readout leave their input alone",
    InPlaceReadout: "blocks and readout leave their input alone",
    Noisy: "the same input gives the same output",
    BatchStatistic: "images do not influence one another",
    OtherLogits: "the blocks are the model",
    OtherHead: "head, if given, is the readout",
    Training: "evaluation mode",
    NanWeight: "finite weights",
    Learning: "running it changes no weight",
    DoublePreprocessing: "preprocess gives one float32 batch",
    BlindFingerprint: "fingerprint changes with the weights",
    ForeignBlocks: "blocks name modules of the model",
    UnplainDescription: "describe and preprocessing are plain data",
}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_broken_model(model):
    checks = check_model(model())
    assert MODELS[model] in failed(checks)
    assert all(check.message for check in checks if not check.ok)


def test_good_model_passes_with_its_own_and_with_given_images():
    assert not failures(check_model(TinyModel()))
    assert not failures(check_model(TinyModel(), TinyDataset().images(range(4))))


def test_no_model_at_all():
    assert failed(check_model(SimpleNamespace())) == ["is a stabilitykit.Model"]


# Datasets


class Bytes(TinyDataset):
    def images(self, indices):
        return [image * 255 for image in super().images(indices)]


class Doubles(TinyDataset):
    def images(self, indices):
        return [image.astype(np.float64) for image in super().images(indices)]


class ChannelsLast(TinyDataset):
    def images(self, indices):
        return [np.moveaxis(image, 0, -1) for image in super().images(indices)]


class RandomCrop(TinyDataset):
    def images(self, indices):
        return [np.roll(image, np.random.randint(1, 4), axis=1) for image in super().images(indices)]


class Positional(TinyDataset):
    def images(self, indices):
        return [image * (0.5 + 0.01 * k) for k, image in enumerate(super().images(indices))]


class Wrapping(TinyDataset):
    def images(self, indices):
        return super().images([i % len(self) for i in indices])


class FloatLabels(TinyDataset):
    @property
    def labels(self):
        return super().labels.astype(np.float64)


class ShortLabels(TinyDataset):
    @property
    def labels(self):
        return super().labels[:-1]


class UnstableFingerprint(TinyDataset):
    calls = 0

    def fingerprint(self):
        self.calls += 1
        return super().fingerprint()[:-1] + str(self.calls % 10)


class Nameless(TinyDataset):
    @property
    def class_names(self):
        return ["class0", "", "class2"]


class OrdersFromOne(TinyDataset):
    @property
    def order_in_class(self):
        return np.arange(len(self)) // 3 + 1


DATASETS = {
    Bytes: "images are float32 (C, H, W) in [0, 1]",
    Doubles: "images are float32 (C, H, W) in [0, 1]",
    ChannelsLast: "images are float32 (C, H, W) in [0, 1]",
    RandomCrop: "images can be asked for in any order, again and again",
    Positional: "images can be asked for in any order, again and again",
    Wrapping: "an index outside is an error",
    FloatLabels: "labels and class names fit together",
    ShortLabels: "labels and class names fit together",
    UnstableFingerprint: "fingerprint is stable",
    Nameless: "classes have names",
    OrdersFromOne: "order in class counts from 0 in dataset order",
}


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.__name__)
def test_broken_dataset(dataset):
    assert failed(check_dataset(dataset())) == [DATASETS[dataset]]


def test_good_dataset_passes():
    assert not failures(check_dataset(TinyDataset()))
    assert failed(check_dataset([])) == ["is a stabilitykit.Dataset"]


# Properties


class Good(Property):
    """Share of images whose final decision is class 0."""

    def evaluate(self, context):
        share = float((context.trajectory.predictions == 0).mean())
        return PropertyResult([self.measurement(share, context)])

    def measurement(self, value, context, **fields):
        base = {
            "name": "share",
            "value": value,
            "kind": Kind.EXACT,
            "n": len(context.indices),
            "reference": "here",
            "witness": {"indices": [int(context.indices[0])]},
        }
        return Measurement(**base | fields)


class ReturnsNumber(Good):
    def evaluate(self, context):
        return 3.0


class ReturnsNothing(Good):
    def evaluate(self, context):
        return PropertyResult([])


class ChangesModel(Good):
    def evaluate(self, context):
        context.model.module["stem"].weight.mul_(1.01)
        return super().evaluate(context)


class TurnsGradientsOn(Good):
    def evaluate(self, context):
        context.model.module.requires_grad_(True)
        return super().evaluate(context)


class WithoutReference(Good):
    def evaluate(self, context):
        return PropertyResult([self.measurement(1.0, context, reference="")])


class WithoutCount(Good):
    def evaluate(self, context):
        return PropertyResult([self.measurement(1.0, context, n=0)])


class Twice(Good):
    def evaluate(self, context):
        return PropertyResult([self.measurement(1.0, context)] * 2)


class OutsideInterval(Good):
    def evaluate(self, context):
        return PropertyResult([self.measurement(1.0, context, interval=(2.0, None))])


class ForeignWitness(Good):
    def evaluate(self, context):
        return PropertyResult([self.measurement(1.0, context, witness={"indices": [10_000]})])


class RaggedTable(Good):
    def evaluate(self, context):
        return PropertyResult([self.measurement(1.0, context)], {"t": Table(["a", "b"], [[1, 2], [3]])})


class GlobalRandom(Good):
    def evaluate(self, context):
        return PropertyResult([self.measurement(float(np.random.random()), context)])


class GlobalTorchRandom(Good):
    def evaluate(self, context):
        return PropertyResult([self.measurement(float(torch.rand(())), context)])


class Timed(Good):
    def evaluate(self, context):
        result = super().evaluate(context)
        result.tables["t"] = Table(["step", "seconds"], [["all", time.perf_counter()]])
        return result


class TimedElsewhere(Good):
    def evaluate(self, context):
        result = super().evaluate(context)
        result.tables["t"] = Table(["step", "score"], [["all", time.perf_counter()]])
        return result


class FalseVerify(Good):
    def verify(self, context, result):
        return {"share": result["share"].value + 1e-3}


class CrashesOnOneClass(Good):
    def evaluate(self, context):
        1 // (len(np.unique(context.labels)) - 1)
        return super().evaluate(context)


class RefusesOneClass(Good):
    def evaluate(self, context):
        if len(np.unique(context.labels)) < 2:
            raise CellProblem("one class only")
        return super().evaluate(context)


PROPERTIES = {
    Good: [],
    RefusesOneClass: [],
    Timed: [],
    TimedElsewhere: ["the same seed gives the same result"],
    ReturnsNumber: ["measures a small model and dataset"],
    ReturnsNothing: ["measures a small model and dataset"],
    ChangesModel: ["leaves the model as it was"],
    TurnsGradientsOn: ["leaves the model as it was"],
    WithoutReference: ["every measurement says what it is"],
    WithoutCount: ["every measurement says what it is"],
    # A result with a name twice cannot be read back either.
    Twice: [
        "every measurement says what it is",
        "result survives JSON",
        "verify recomputes what it says it recomputes",
    ],
    OutsideInterval: ["every measurement says what it is"],
    ForeignWitness: ["witnesses and images are evaluated images"],
    RaggedTable: ["tables have as many cells as columns"],
    GlobalRandom: ["the same seed gives the same result"],
    GlobalTorchRandom: ["the same seed gives the same result"],
    FalseVerify: ["verify recomputes what it says it recomputes"],
    CrashesOnOneClass: ["a single class gives a result or one clear line"],
}


@pytest.mark.parametrize("thing", PROPERTIES, ids=lambda thing: thing.__name__)
def test_property(thing):
    assert failed(check_property(thing)) == PROPERTIES[thing]


def test_checking_a_property_leaves_global_generators_alone():
    np.random.seed(5)
    torch.manual_seed(5)
    expected = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    check_property(GlobalRandom)
    check_property(GlobalTorchRandom)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == expected


# Components and plugins


def component(target, **fields):
    return Component(
        "property", "p", f"{__name__}:{target}", fields.pop("summary", "a property"), **{"reference": "here"} | fields
    )


def missing_data():
    raise DataProblem("no data at data/; run with --download")


def test_component_checks():
    assert not failures(check_component(component("Good")))
    assert failed(check_component(component("Good", summary=""))) == ["says what it is"]
    needy = check_component(component("Good", needs=("other",)))
    assert failed(needy) == ["the properties it needs give results"]
    bad_default = Option("size", "int", 0, "size", minimum=1)
    assert "defaults fit their own options" in failed(check_component(component("Good", options=(bad_default,))))
    assert failed(check_component(component("Nowhere"))) == ["builds, or says in one line what is missing"]


def test_missing_data_is_no_broken_contract():
    checks = check_component(Component("dataset", "d", f"{__name__}:missing_data", "a dataset"))
    assert not failures(checks)
    assert "no data at data/" in checks[-1].message


def host_of(plugin, module=__name__):
    point = SimpleNamespace(
        name="mine", value=module, load=lambda: plugin, dist=SimpleNamespace(name="my-dist", version="1")
    )
    return Registry(load_plugins([point]))


@hookimpl
def stabilitykit_properties():
    return [component("Good")]


def test_plugin_checks_name_the_component_and_see_a_heavy_import():
    plugin = SimpleNamespace(stabilitykit_properties=stabilitykit_properties)
    for name in ("mine", "my-dist"):
        checks = check_plugin(name, host_of(plugin, "stabilitykit"))
        assert not failures(checks)
        assert {check.name.partition(":")[0] for check in checks} == {"plugin mine", "property p"}
    heavy = check_plugin("mine", host_of(plugin, "stabilitykit.dynamics.readout"))
    assert failed(heavy) == ["plugin mine: importing it imports no torch"]


def test_plugin_that_does_not_load():
    def broken():
        raise ImportError("no module named zzz")

    point = SimpleNamespace(name="mine", value="x", load=broken, dist=None)
    (check,) = check_plugin("mine", Registry(load_plugins([point])))
    assert not check.ok and "zzz" in check.message


def test_unknown_plugin_gets_a_suggestion():
    plugin = SimpleNamespace(stabilitykit_properties=stabilitykit_properties)
    with pytest.raises(UsageProblem, match="did you mean mine"):
        check_plugin("mime", host_of(plugin))


def test_importing_the_checks_imports_no_torch():
    code = "import stabilitykit.testing, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
