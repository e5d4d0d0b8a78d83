"""The right one of a network's outputs is measured, as what it is; or one clear line says what there is."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stabilitykit_adapters.adapting import View, adapt, materialised, read_weights
from stabilitykit_adapters.modules import declared_shape
from stabilitykit_adapters.outputs import as_logits, choose_output, pick, tensors_in, text_of
from stabilitykit_adapters.program import trace
from stabilitykit_adapters.replay import ReplayProblem
from stabilitykit_adapters.tracing import TraceProblem
from torch import nn

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.dynamics.space import kind_of_outputs, to_space_torch
from tests.plugins.adapters.nets import Modular, images, make

SHAPE = (3, 12, 12)


@dataclass
class Answer:
    logits: torch.Tensor
    features: torch.Tensor


class Attributes(OrderedDict):
    def __getattr__(self, name: str) -> Any:
        return self[name]


Pair = namedtuple("Pair", ["scores", "features"])


class Returning(Modular):
    """Modular, its logits (B, 5) and features (B, 8) put together by ``put``."""

    put = staticmethod(lambda logits, features: logits)

    def forward(self, x):
        features = self.blocks(self.stem(x)).mean((2, 3))
        return self.put(self.head(features), features)


def returning(put) -> nn.Module:
    return make(type("Net", (Returning,), {"put": staticmethod(put)})).eval()


def adapted(net: nn.Module, **view):
    options = {"preprocess": lambda batch: torch.from_numpy(np.stack(batch)), "preprocessing": {}}
    return adapt(net, SHAPE, name="net", view=View(**view), **options)


FORMS = {
    "tensor": lambda a, b: a,
    "dict by name": lambda a, b: {"features": b, "logits": a},
    "ordered, unregistered": lambda a, b: Attributes(loss=None, logits=a, hidden_states=b),
    "dataclass": Answer,
    "object": lambda a, b: SimpleNamespace(hidden=b, logits=a),
    "features first": lambda a, b: (b, a),
    "logits first": lambda a, b: [a, b],
    "named tuple": Pair,
    "other names": lambda a, b: {"embedding": b, "class_scores": a},
    "nested": lambda a, b: {"out": {"main": (b, a)}},
    "map": lambda a, b: a[:, :, None, None],
    "map in a dict": lambda a, b: {"embedding": b, "maps": a[:, :, None, None]},
}


@pytest.mark.parametrize("put", FORMS.values(), ids=FORMS)
def test_forms(put) -> None:
    plain, net = returning(FORMS["tensor"]), returning(put)
    model = adapted(net, expected_classes=5)
    x = images(3, SHAPE)
    with torch.no_grad():
        assert torch.equal(model.logits(x), plain(x)) and model.num_classes == 5
    report = model.certify(x)
    assert report["bit_exact"] and report["vacuous"] == []


@pytest.mark.parametrize("put", [lambda a, b: (torch.tanh(a), a), lambda a, b: {"x": b[:, :5], "y": a}])
def test_what_cannot_be_told_apart_is_asked_for(put) -> None:
    net = returning(put)
    names = [text_of(path) for path, _ in tensors_in(net(images(2, SHAPE)))]
    with pytest.raises(UsageProblem, match=rf"{names[0]} \(B, 5\), {names[1]} \(B, 5\).*--model-output {names[1]}"):
        adapted(net, expected_classes=5)
    x = images(3, SHAPE)
    with torch.no_grad():
        for wished, position in ((names[0], 0), (names[1], 1), ("1", 1)):
            model = adapted(net, output=wished)
            assert torch.equal(model.logits(x), tensors_in(net(x))[position][1])
            assert model.certify(x)["bit_exact"]


def test_outputs_are_part_of_what_a_model_is() -> None:
    net = returning(lambda a, b: (torch.tanh(a), a))
    assert adapted(net, output="0").fingerprint() != adapted(net, output="1").fingerprint()
    model = adapted(returning(FORMS["features first"]), expected_classes=5)
    assert model.describe()["output"]["of"] == {"0": [8], "1": [5]}
    assert any("output 1 is taken for the logits, not 0" in text for text in model.describe()["warnings"])


@pytest.mark.parametrize(
    ("put", "view", "message"),
    [
        (lambda a, b: (b, a), {}, r"0 \(B, 8\), 1 \(B, 5\): say which"),
        (lambda a, b: (b, a), {"output": "2"}, r"no output '2'; it returns 0 \(B, 8\)"),
        (lambda a, b: a[:, :, None, None].expand(-1, -1, 4, 4), {}, r"\(B, 5, 4, 4\): no classifier's logits"),
        (lambda a, b: a[:, :1], {}, r"\(B, 1\): no classifier's logits"),
        (lambda a, b: a.sum(1), {}, r"\(B\): no classifier's logits"),
        (lambda a, b: [], {}, "a list with no tensor in it"),
        (lambda a, b: (a, b[:, :, None]), {"output": "nothing"}, "no output 'nothing'"),
    ],
)
def test_what_is_refused(put, view, message) -> None:
    with pytest.raises(UsageProblem, match=message) as caught:
        adapted(returning(put), **view)
    assert "\n" not in str(caught.value)


def test_a_name_beats_a_number_of_columns() -> None:
    output = {"logits": torch.zeros(2, 7), "aux": torch.zeros(2, 5)}
    assert choose_output(output, None, 5) == ("logits",)
    assert pick(output, ("logits",)).shape == (2, 7)


# Probabilities


SOFT = {
    "probabilities": lambda a, b: a.softmax(1),
    "log-probabilities": lambda a, b: a.log_softmax(1),
    "logits": lambda a, b: a,
}


@pytest.mark.parametrize("kind", SOFT)
def test_kinds_are_seen_and_the_softmax_is_taken_once(kind: str) -> None:
    model, plain = adapted(returning(SOFT[kind])), returning(SOFT["logits"])
    assert model.output_kind == kind and model.describe()["output"]["kind"] == kind
    x = images(4, SHAPE)
    with torch.no_grad():
        found = to_space_torch(model.logits(x), "probabilities")
        torch.testing.assert_close(found, plain(x).double().softmax(1), atol=1e-6, rtol=1e-5)
    assert model.certify(x)["bit_exact"]
    assert any(kind in text for text in model.describe()["warnings"]) == (kind != "logits")


def test_kinds_that_are_stated() -> None:
    soft = returning(SOFT["probabilities"])
    model = adapted(soft, output_kind="logits")
    x = images(2, SHAPE)
    with torch.no_grad():
        assert torch.equal(model.logits(x), soft(x))
    assert model.describe()["output"]["stated"]
    with pytest.raises(UsageProblem, match="do not sum to 1"):
        adapted(returning(SOFT["logits"]), output_kind="probabilities")


def test_a_probability_of_zero_stays_finite() -> None:
    model = adapted(returning(lambda a, b: (1e4 * a).softmax(1)))
    with torch.no_grad():
        assert bool(torch.isfinite(model.logits(images(4, SHAPE))).all())


def test_a_head_of_probabilities_is_no_chain_of_layers() -> None:
    assert adapted(returning(SOFT["probabilities"])).head is None
    assert adapted(returning(SOFT["logits"])).head is not None


def test_rows_are_judged_all_together() -> None:
    rows = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    assert kind_of_outputs(rows) == "probabilities"
    assert kind_of_outputs(rows.log()) == "log-probabilities"
    for other in (rows + 0.01, torch.cat([rows, torch.zeros(1, 2)]), torch.tensor([[1.5, -0.5]]), rows[:, :1]):
        assert kind_of_outputs(other) == "logits"


# Courses, lazy layers, calls


class ByValue(Modular):
    """A factor that Python takes out of the data."""

    def forward(self, x):
        factor = float(x.max() > 0.5) + 1.0
        return factor * super().forward(x)


def test_values_that_python_takes_out_of_the_data_are_noted() -> None:
    assert trace(make(ByValue), SHAPE)[0].reads == ("ByValue: float",)
    assert trace(make(Modular), SHAPE)[0].reads == ()


class EarlyExit(Modular):
    def forward(self, x):
        bright = x.detach().mean()
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number == 1 and bright > 0.5:
                x = x * 0.5
                break
        return self.head(x.mean((2, 3)))


def test_another_course_is_one_clear_line() -> None:
    model = adapted(make(EarlyExit))
    with pytest.raises(ReplayProblem, match="its course depends on the data") as caught:
        model.certify(torch.ones(2, *SHAPE))
    assert isinstance(caught.value, CellProblem)


class Checkpointed(Modular):
    reentrant = True

    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_nothing(reentrant: bool) -> None:
    import torch.utils.checkpoint

    before = torch.utils.checkpoint.CheckpointFunction
    net = make(Checkpointed).eval()
    net.reentrant = reentrant
    model = adapted(net)
    assert model.num_blocks == 3 and model.certify(images(2, SHAPE))["bit_exact"]
    assert torch.utils.checkpoint.CheckpointFunction is before


class Fixed(Modular):
    def forward(self, x):
        return super().forward(x).view(20, 5)


class TwoInputs(Modular):
    def forward(self, x, context):
        return super().forward(x + context)


class Mapped(Modular):
    def forward(self, batch):
        return super().forward(batch["image"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Fixed, "it works for B = 20: a batch size is written into its code"),
        (TwoInputs, "forward takes x, context: wrap the network"),
        (Mapped, "forward takes one tensor of images"),
    ],
)
def test_calls_that_fail_say_what_to_do(kind, message) -> None:
    with pytest.raises(TraceProblem, match=message):
        trace(make(kind), SHAPE)


def test_lazy_layers_get_their_shapes() -> None:
    net = make(Modular)
    net.head = nn.LazyLinear(5)
    assert materialised(net, SHAPE, "net").head.in_features == 8
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.Linear(400, 2))
    with pytest.raises(CellProblem, match=r"lazy layers.*give its input size as input=CxHxW"):
        materialised(net, declared_shape(net), "net")


def test_quantised_networks_are_refused_by_layer() -> None:
    net = torch.ao.quantization.quantize_dynamic(make(Modular).eval(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(UsageProblem, match="head holds quantised weights"):
        read_weights(net, None, "net", "untrained")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_probabilities_in_16_bits_keep_their_order_as_logits(dtype):
    close = torch.linspace(0.01, 0.3, 200).to(dtype).unique()
    assert len(as_logits(close[None], "probabilities").unique()) == len(close)
    zero = torch.tensor([[0.0, 1.0]], dtype=dtype)
    assert torch.equal(as_logits(zero, "probabilities"), as_logits(zero.float(), "probabilities"))
