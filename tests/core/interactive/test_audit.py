"""``stabilitykit.audit`` of objects: their numbers, what becomes of the objects, and what is refused."""

from __future__ import annotations

import contextlib
import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

import stabilitykit
from stabilitykit import DataProblem, UsageProblem
from tests.core.interactive.nets import Net, data


def audit(model, given, properties="expansivity", **more):
    return stabilitykit.audit(model, given, properties, progress=False, cache=False, **more)


@pytest.fixture(scope="module")
def net():
    return Net()


@pytest.fixture(scope="module")
def run(net):
    return audit(net, data(), class_names=["ape", "bee", "cat"])


def by_hand(net, images, labels):
    """The constants from the definition, in float64: largest distance along depth, smallest over pairs."""
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        state, path = net.stem(torch.as_tensor(images)), []
        for block in (*net.blocks, None):
            logits = net.head(state.mean((2, 3))).double()
            path.append(torch.softmax(logits, 1).numpy())
            state = state if block is None else block(state)
    gaps = np.stack([np.linalg.norm(p[:, None] - p[None], axis=2) for p in path])
    other = labels[:, None] != labels[None]
    return gaps.max(0)[other].min(), gaps.min(0)[other].min()


def test_the_numbers_are_those_of_the_definition(net, run):
    largest, smallest = by_hand(net, *data())
    result = run["expansivity"]
    assert result["expansive_constant.max"].value == pytest.approx(largest, rel=1e-5)
    assert result["expansive_constant.min"].value == pytest.approx(smallest, rel=1e-4)
    assert result["expansive_constant.max"].n == 24


def test_one_network_and_its_images_give_the_same_numbers_however_they_are_handed_over(net, run):
    images, labels = data()
    tensors = TensorDataset(torch.as_tensor(images), torch.as_tensor(labels))
    wanted = [m.value for m in run["expansivity"].measurements]
    for given in ((torch.as_tensor(images), list(labels)), tensors, DataLoader(tensors, batch_size=7)):
        found = audit(net, given, class_names=["ape", "bee", "cat"])
        assert [m.value for m in found["expansivity"].measurements] == wanted
        digest = found.info["pairs"][0]["record"]["dataset"]["fingerprint"]
        assert digest == run.info["pairs"][0]["record"]["dataset"]["fingerprint"]
    assert [m.value for m in stabilitykit.evaluate(net, data(), cache=False)["expansivity"].measurements] == wanted


def test_the_network_and_the_process_are_afterwards_what_they_were():
    net = Net().train()
    net.head.weight.requires_grad_(False)
    seen = []
    net.blocks[0].register_forward_hook(lambda *_: None)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    pointers = [p.data_ptr() for p in net.parameters()]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    with contextlib.suppress(RuntimeError):
        torch.use_deterministic_algorithms(False)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    audit(net, data(), device="cpu")
    assert all(part.training for part in net.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert pointers == [p.data_ptr() for p in net.parameters()]
    assert [p.requires_grad for p in net.parameters()].count(False) == 1
    assert len(net.blocks[0]._forward_hooks) == 1 and not net.stem._forward_hooks and not seen
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert not torch.are_deterministic_algorithms_enabled() and torch.is_grad_enabled()


def test_what_stands_in_the_record(run, net):
    record = run.info["pairs"][0]["record"]
    assert run.info["request"]["objects"] == ["Net", "data"]
    assert record["dataset"]["class_names"] == ["ape", "bee", "cat"]
    assert record["dataset"]["transforms"] == ["as given: no scaling, no normalisation"]
    assert record["model"]["details"]["weights"] == "those of the object given in Python"
    assert len(record["model"]["details"]["code"]) == 64
    assert record["model"]["preprocessing"]["normalise"] == "none"


def test_normalisation_is_done_only_where_it_is_asked_for_and_is_recorded(net, run):
    images, labels = data()
    scaled = audit(net, (images, labels), normalise="(0.5)/(2,)")
    by_hand_scaled = audit(net, ((images - np.float32(0.5)) / np.float32(2), labels))
    assert scaled["expansivity"]["expansive_constant.max"].value == pytest.approx(
        by_hand_scaled["expansivity"]["expansive_constant.max"].value, rel=1e-6
    )
    assert scaled.info["request"]["models"] == ["Net:normalise=(0.5)/(2,)"]


def test_the_cache_is_keyed_by_content_not_by_the_object(tmp_path, monkeypatch):
    from stabilitykit.evaluation import trajectories

    extracted = []
    real = trajectories.extract
    monkeypatch.setattr(trajectories, "extract", lambda *a, **k: extracted.append(len(a[3])) or real(*a, **k))

    def whole(model, images):
        extracted.clear()
        stabilitykit.audit(
            model, images, "expansivity", progress=False, cache=tmp_path, batch_size=8, class_names="abc"
        )
        return 24 in extracted

    def abc(seed):
        return data(seed=seed)

    net = Net()
    assert whole(net, abc(0))
    assert not whole(copy.deepcopy(net), tuple(part.copy() for part in abc(0))), "equal content, another object"
    assert whole(net, abc(1)), "other images"
    with torch.no_grad():
        net.head.weight[0, 0] += 1
    assert whole(net, abc(0)), "the same object with other weights"


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        return item() if callable(item) else item


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1, 5, 5), 0


def noisy():
    return Items([lambda: (torch.rand(1, 5, 5), 0)] * 6)


X, Y = data()
TENSORS = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
NAN = X.copy()
NAN[3, 0, 1, 1] = np.nan


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((X, Y[:-1]), "24 images and 23 labels"),
        ((X, Y, Y), "a tuple of 3"),
        ((NAN, Y), "image 3 holds NaN"),
        (((X * 40).astype(np.uint8), Y), "uint8, expected floats"),
        ((X, Y - 1), "labels range over -1..1"),
        ((X, Y * 0), "single class"),
        ((X, Y + 0.5), "label 0 is 0.5"),
        ((X[:, None, None], Y), r"shape \(24, 1, 1, 1, 5, 5\)"),
        (DataLoader(TENSORS, shuffle=True), "shuffles"),
        (DataLoader(TENSORS, sampler=WeightedRandomSampler([1.0] * 24, 24)), "shuffles"),
        (DataLoader(noisy(), batch_size=2), "another one at the second reading"),
        (noisy(), "another one each time"),
        (Endless(), "no length"),
        (DataLoader(Endless()), "no length"),
        (Items([{"a": 1, "b": 2}]), "mapping of a, b"),
        (Items([torch.zeros(1, 5, 5)]), "expected \\(image, label\\)"),
        (Items([(torch.zeros(1, 5, 5), 0), (torch.zeros(1, 4, 4), 1)]), r"image 1 is \(1, 4, 4\)"),
        (Items([(np.zeros((1, 5, 5), np.float32), 0), 3]), "item 1"),
        (X, "a dataset is a name"),
    ],
)
def test_data_that_cannot_be_used_are_refused_in_one_clear_line(net, given, said):
    with pytest.raises(UsageProblem, match=said) as caught:
        audit(net, given)
    assert "\n" not in str(caught.value)


def test_batches_that_are_mappings_with_usual_keys_are_taken(net, run):
    items = Items([{"pixel_values": torch.as_tensor(x), "labels": int(y)} for x, y in zip(X, Y)])
    found = audit(net, DataLoader(items, batch_size=5))
    assert found["expansivity"]["expansive_constant.max"].value == run["expansivity"]["expansive_constant.max"].value


def test_arguments_that_cannot_be_used(net):
    with pytest.raises(UsageProblem, match="did you mean batch_size"):
        audit(net, data(), batchsize=3)
    with pytest.raises(UsageProblem, match="a model is a name"):
        audit(object(), data())
    with pytest.raises(UsageProblem, match="normalise"):
        audit(net, data(), normalise="nonsense")
    with pytest.raises(UsageProblem, match="no run 'b9'"):
        audit(net, data(), run="b9")
    with pytest.raises(UsageProblem, match="classes"):
        audit(net, (X, Y % 2))
    with pytest.raises(DataProblem, match="twice"):
        audit(net, data(), class_names=["a", "a", "b"])
    with pytest.raises(UsageProblem, match="has a name of its own"):
        audit("resnet18-digits", "digits", name="mine")


def test_a_network_of_other_inputs_says_what_it_was_run_on(net):
    with pytest.raises(stabilitykit.StabilityKitError, match=r"input") as caught:
        audit(net, (X.transpose(0, 2, 3, 1), Y))
    assert "Net" in str(caught.value)


def test_a_network_that_cannot_be_copied_is_not_touched():
    import threading

    net = Net()
    net.lock = threading.Lock()
    with pytest.raises(UsageProblem, match="cannot be copied"):
        audit(net, data())


def test_vectors_are_inputs_too():
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(6, 6)

        def forward(self, x):
            return x + torch.tanh(self.lin(x))

    torch.manual_seed(0)
    model = nn.Sequential(Step(), Step(), nn.Linear(6, 2))
    found = audit(model, (np.random.default_rng(0).normal(size=(12, 6)), np.arange(12) % 2))
    assert found["expansivity"]["expansive_constant.min"].n == 12
    assert "float64 to float32" in found.info["pairs"][0]["record"]["dataset"]["transforms"]


def test_list_runs_is_the_table_of_the_command(net):
    frame = stabilitykit.list_runs(net, input=(1, 5, 5))
    assert list(frame["name"]) == ["whole", "blocks"] and list(frame["T"]) == [3, 3]
    with pytest.raises(UsageProblem, match="own blocks"):
        stabilitykit.list_runs("resnet18-digits")
