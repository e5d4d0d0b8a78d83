"""Trajectories: streamed equals whole, softmax in float64, bad numbers named, any row recomputed bit for bit."""

import copy
import resource
import sys
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from stabilitykit.base.errors import CellProblem, DataProblem
from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.dynamics.readout import HeadReadout, state_vector
from stabilitykit.dynamics.space import to_space, to_space_torch
from stabilitykit.dynamics.trajectory import FEW, ROUNDING, Trajectory, batch_logits, coincide, extract
from stabilitykit.evaluation.selection import Choice
from stabilitykit.evaluation.settings import Settings, choose_indices
from stabilitykit.evaluation.subject import Subject
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


def choice(kind, thing):
    return Choice(kind, thing.name, thing.name, lambda **_: thing)


def pair(model=None, dataset=None, **settings):
    return Subject(
        choice("model", model or TinyModel()),
        choice("dataset", dataset or TinyDataset()),
        Settings.from_request({"batch_size": 7} | settings),
        torch.device("cpu"),
        None,
    )


def test_extraction_matches_a_plain_loop():
    model, dataset = TinyModel(), TinyDataset(20)
    out = np.empty((model.num_blocks + 1, 20, 3), np.float32)
    extract(model, HeadReadout(model), dataset, np.arange(20), out, Extraction(batch_size=20))
    state = model.initial_state(model.preprocess(dataset.images(range(20))))
    for t in range(model.num_blocks + 1):
        assert np.array_equal(out[t], model.readout(state).numpy())
        if t < model.num_blocks:
            state = model.block(t, state)


@given(st.integers(1, 25), st.integers(1, 25))
def test_batch_size_moves_little_and_rows_stay_in_place(first, second):
    model, dataset = TinyModel(), TinyDataset(19)
    outs = []
    for size in (first, second):
        out = np.empty((4, 19, 3), np.float32)
        extract(model, HeadReadout(model), dataset, np.arange(19), out, Extraction(batch_size=size))
        outs.append(out)
    assert np.allclose(*outs, rtol=1e-5, atol=1e-5)


def test_rows_are_recomputed_bit_for_bit():
    with_limit = pair(limit=17, seed=3)
    context = with_limit.context(choice("property", type("P", (), {"name": "p"})()), {})
    values = context.trajectory.values
    rows = np.array([16, 0, 8, 3])
    assert np.array_equal(context.readouts(rows), values[:, rows])
    assert np.array_equal(context.rows_of(context.indices[rows]), rows)
    outside = next(i for i in range(24) if i not in set(context.indices))
    with pytest.raises(CellProblem, match="evaluated"):
        context.rows_of([outside])


@given(st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=1, max_size=4))
def test_softmax_agrees_with_scipy_and_with_its_torch_twin(logits):
    array = np.array(logits)
    ours = to_space(array, "probabilities")
    assert np.allclose(ours, softmax(array, axis=-1), rtol=1e-12, atol=0)
    assert np.allclose(ours, to_space_torch(torch.from_numpy(array), "probabilities").numpy(), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_softmax_of_short_floats_is_taken_in_float64(dtype):
    logits = np.random.default_rng(0).normal(scale=8, size=(20, 5)).astype(dtype)
    exact = softmax(logits.astype(np.float64), axis=-1)
    assert np.allclose(to_space(logits, "probabilities"), exact, rtol=1e-13, atol=0)
    assert np.allclose(to_space_torch(torch.from_numpy(logits), "probabilities").numpy(), exact, rtol=1e-13, atol=0)
    assert to_space(logits, "logits").dtype == np.float64


def test_saturated_softmax_keeps_distances():
    logits = np.array([[40.0, 0.0], [41.0, 0.0]], np.float32)
    assert np.abs(np.diff(to_space(logits, "probabilities")[:, 1])) > 1e-18


def test_nan_pixels_name_the_image():
    dataset = TinyDataset(10)
    dataset._images[6, 0, 0, 0] = np.nan
    with pytest.raises(DataProblem, match="image 6"):
        pair(dataset=dataset).trajectory()


def test_nan_weights_name_the_tensor():
    model = TinyModel()
    model.module.state_dict()["stem.weight"][0, 0] = float("inf")
    with pytest.raises(DataProblem, match=r"stem\.weight"):
        pair(model)


def test_overflowing_readout_names_image_and_depth():
    model = TinyModel()
    model.module.state_dict()["blocks.1.2.weight"].fill_(3e38)
    with pytest.raises(CellProblem, match="at depth 2"):
        pair(model).trajectory()


@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 5))
def test_subsets_of_one_seed_are_nested(a, b, seed):
    small, large = sorted((a, b))
    assert set(choose_indices(50, small, seed)) <= set(choose_indices(50, large, seed))
    assert np.array_equal(choose_indices(50, None, seed), np.arange(50))


def test_tuple_states_become_one_vector():
    parts = torch.arange(6.0).reshape(2, 3), torch.arange(8.0).reshape(2, 2, 2)
    assert state_vector(parts).shape == (2, 7)


def test_probes_learn_and_are_reproducible():
    dataset = TinyDataset(60)
    first, second = (pair(dataset=dataset, readout="probe", probe_epochs=60, batch_size=30) for _ in range(2))
    a, b = first.trajectory(), second.trajectory()
    assert np.array_equal(a.logits, b.logits)
    for t in range(a.depth + 1):
        accuracy = float((a.logits[t].argmax(1) == a.labels).mean())
        assert accuracy > 0.6, (t, accuracy)  # chance is 1/3


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, torch.nn.utils.spectral_norm])
def test_a_model_with_computed_weights_can_be_copied(norm):
    """weight_norm of old keeps its last weight as a tensor with a history, which deepcopy alone refuses."""
    model = TinyModel()
    first = next(part for part in model.module.modules() if isinstance(part, (torch.nn.Linear, torch.nn.Conv2d)))
    norm(first)
    model.module.eval()
    inputs = model.preprocess(TinyDataset(4).images([0, 1, 2]))
    before = model.logits(inputs)
    twin = copy.deepcopy(model)
    assert torch.equal(twin.logits(inputs), before)
    with torch.no_grad():
        for parameter in twin.module.parameters():
            parameter.add_(1.0)
    assert torch.equal(model.logits(inputs), before) and not torch.equal(twin.logits(inputs), before)


def test_readouts_that_are_views_keep_no_state():
    """500 depths of long states would else be held at once, for the sake of a few numbers of each."""
    held, alive = [], []

    class Viewed(TinyModel):
        def block(self, t, state):
            held.append(weakref.ref(state.untyped_storage()))
            alive.append(sum(storage() is not None for storage in held))
            return super().block(t, state)

        def readout(self, state):
            return state.flatten(1)[:, : self.num_classes]

    model = Viewed()
    inputs = model.preprocess(TinyDataset(4).images([0, 1, 2]))
    logits = batch_logits(model, HeadReadout(model), inputs)
    assert logits.shape == (model.num_blocks + 1, 3, model.num_classes)
    assert len(alive) == model.num_blocks > 2 and max(alive) <= 2


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_many_depths_take_the_memory_of_a_few_states():
    """Small arrays kept between states of a few MB kept each state's room from being used again: T states at once."""
    size, depths = 500_000, 300
    resident = []

    class Long(TinyModel):
        num_blocks = property(lambda self: depths)
        block_names = tuple(f"b{t}" for t in range(depths))
        steps = ("block",) * depths

        def initial_state(self, inputs):
            return torch.zeros(1, size)

        def block(self, t, state):
            with open("/proc/self/statm") as pages:
                resident.append(int(pages.read().split()[1]) * resource.getpagesize())
            return state + 1.0

        def readout(self, state):
            return state[:, : self.num_classes]

    model = Long(classes=2000)
    torch.empty(6_000_000)  # freed at once: from now on such arrays are taken from the heap
    found = batch_logits(model, HeadReadout(model), model.preprocess(TinyDataset(4).images([0])))
    assert found[:, 0, 0].tolist() == list(range(depths + 1))
    assert max(resident) - resident[0] < 0.1 * depths * size * 4


def test_blind_depths_coincide_up_to_what_the_batch_size_moves():
    from stabilitykit.runs.provenance import LOGIT_BOUND

    assert ROUNDING["float32"] == LOGIT_BOUND
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(6, 9, 3)).astype(np.float32)
    logits[0] = logits[0, 0]  # one class token for all
    logits[1] = logits[1, 0] * (1 + 1e-6 * generator.random((9, 3)))
    logits[2] = 0  # a head of zeros
    logits[3] = logits[3, 0] * (1 + 1e-3 * generator.random((9, 3)))
    labels = np.zeros(9, np.int64)
    trajectory = Trajectory(logits, labels, np.arange(9), "logits", ["a", "b", "c"])
    assert trajectory.blind == (0, 1, 2) and trajectory.seeing.tolist() == [3, 4, 5]
    np.testing.assert_array_equal(trajectory.seen, trajectory.values[3:])
    assert trajectory.left_out(list("stuvwx")).startswith("left out: depths 0 (s), 1 (t), 2 (u), where")
    clear = Trajectory(logits[3:], labels, np.arange(9), "logits", ["a", "b", "c"])
    assert clear.blind == () and clear.seen is clear.values and clear.left_out(list("stu")) == ""
    assert Trajectory(logits[:3], labels, np.arange(9), "logits", ["a", "b", "c"]).seen.shape == (0, 9, 3)


@given(st.integers(0, 2**32 - 1), st.integers(-8, 0), st.sampled_from(["float32", "float64", "bfloat16"]))
def test_blindness_does_not_depend_on_looking_at_a_few_images_first(seed, exponent, dtype):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=4) + 10.0**exponent * generator.random((FEW + 9, 4))
    logits[FEW + 1] += generator.choice([0.0, 1.0, 1e3, 1e7])  # the size of all, which the few do not show
    spread = (logits.max(axis=0) - logits.min(axis=0)).max()
    assert coincide(logits, dtype=dtype) == (spread <= ROUNDING[dtype] * np.abs(logits).max())


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_blind_depths_are_those_of_the_precision_of_extraction(name):
    """Neighbours in 16 bits are one number; what lies some of their steps apart is not."""
    one = torch.tensor([3.9, 1.0, -2.0]).to(getattr(torch, name))
    near = one.clone()
    near.view(torch.int16)[1:] += 1
    far = one.clone()
    far.view(torch.int16)[0] -= 4
    logits = np.stack([torch.stack([one, other]).float().numpy() for other in (near, far)])
    held = np.zeros(2, np.int64), np.arange(2), "logits", ["a", "b", "c"]
    assert Trajectory(logits, *held).blind == ()
    assert Trajectory(logits, *held, dtype=name).blind == (0,)
    assert Trajectory(logits, *held, dtype=name).starting_at(1).blind == (0,)


def test_an_extraction_in_16_bits_knows_its_precision():
    assert pair(extract_dtype="bfloat16").trajectory().dtype == "bfloat16"
    assert pair().trajectory().dtype is None
