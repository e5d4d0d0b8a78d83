"""Recorded readouts come back bit for bit, and known answers are found in them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_recorded.dataset import RecordedDataset
from stabilitykit_recorded.model import RecordedModel
from stabilitykit_recorded.reading import read_recording, read_shape

import stabilitykit
from stabilitykit.base.errors import DataProblem
from stabilitykit.cli import run
from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.trajectory import depth_logits, extract


def write(path, values, labels, **more):
    np.savez(path, values=values, labels=labels, **more)
    return str(path)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(3, 12), st.integers(2, 4))
def test_constants_equal_brute_force(tmp_path_factory, seed, depths, count, classes):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(depths, count, classes)) * 10.0 ** generator.integers(-9, 3)
    labels = np.arange(count) % classes
    path = write(tmp_path_factory.mktemp("r") / "t.npz", values, labels)
    outcome = stabilitykit.evaluate(
        f"recorded:{path}", f"recorded:{path}", space="logits", cache=False, any_classes=True
    )
    distances = np.sqrt(((values[:, :, None] - values[:, None]) ** 2).sum(-1))
    cross = labels[:, None] != labels
    for name, reduced in (("max", distances.max(0)), ("min", distances.min(0)), ("mean", distances.mean(0))):
        found = outcome["expansivity"][f"expansive_constant.{name}"].value
        assert found == pytest.approx(reduced[cross].min(), rel=1e-12)


def test_near_ties_survive(tmp_path, capsys):
    values = np.zeros((2, 4, 2))
    values[:, 1] = 1.0
    values[:, 2] = 1.0 + 1e-13
    values[:, 3] = 2.0
    path = write(tmp_path / "t.npz", values, [0, 0, 1, 1])
    assert run(["evaluate", "-t", path, "-q", "--no-cache", "-o", str(tmp_path / "run"), "--format", "csv"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "expansive_constant.max," in line)
    assert 1e-13 < float(row.split("expansive_constant.max,")[1].split(",")[0]) < 2e-13
    assert run(["verify", "-q", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    "values, labels",
    [
        (np.zeros((2, 3)), [0, 1, 0]),
        (np.zeros((2, 3, 2)), [0, 1]),
        (np.zeros((2, 2, 2)), [0.5, 1.0]),
        (np.full((2, 2, 2), np.nan), [0, 1]),
        (np.array([[["a"]]]), [0]),
        (np.zeros((2, 0, 2)), np.zeros(0, int)),
    ],
)
def test_bad_files(tmp_path, values, labels):
    with pytest.raises(DataProblem):
        read_recording(write(tmp_path / "t.npz", values, labels))


@pytest.mark.parametrize("dtype", ["float16", ">f4", "float64", "int8", "uint64", "longdouble"])
def test_every_type_of_number_is_read_as_float64(tmp_path, dtype):
    """Values, fingerprint and inputs are those of the same numbers in float64, whatever the file holds."""
    values = np.arange(24).reshape(2, 4, 3).astype(dtype)
    wide = np.asfortranarray(values.astype(np.float64))
    paths = [write(tmp_path / f"{n}.npz", v, [0, 1, 0, 1]) for n, v in enumerate((values, wide))]
    first, second = map(RecordedDataset, paths)
    assert first.fingerprint() == second.fingerprint()
    images = first.images([2, 0])
    assert images.dtype == np.float64 and np.array_equal(images[..., 0], wide[:, [2, 0]].transpose(1, 0, 2))
    model = RecordedModel(paths[0])
    assert (model.num_blocks, model.num_classes, read_shape(paths[1])) == (1, 3, (2, 4, 3))
    one_by_one = model.preprocess([first.images([i])[0] for i in (2, 0)])
    assert one_by_one.equal(model.preprocess(images)) and one_by_one.shape == (2, 2, 3, 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 9), st.sampled_from([2, 4, 100]))
def test_replayed_at_once_are_the_readouts_block_by_block(tmp_path_factory, seed, depths, count, size):
    values = np.random.default_rng(seed).normal(size=(depths, count, 3))
    path = write(tmp_path_factory.mktemp("r") / "t.npz", values, np.zeros(count, int))
    model, dataset = RecordedModel(path), RecordedDataset(path)
    inputs = model.preprocess(dataset.images(range(count)))
    blocks = torch.stack(list(depth_logits(model, HeadReadout(model), inputs)))
    replayed = model.replay(inputs)
    assert replayed is not None and torch.equal(blocks, replayed)
    out = np.empty((depths, count, 3))
    extract(model, HeadReadout(model), dataset, np.arange(count), out, Extraction(batch_size=size))
    assert np.array_equal(out, values)


def test_log_probabilities_are_said_to_be_taken_as_they_are(tmp_path, capsys):
    values = np.log(np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 6)))
    path = write(tmp_path / "t.npz", values, np.arange(6) % 3)
    for space, warned in (("logits", True), ("probabilities", False)):
        assert run(["evaluate", "-t", path, "-q", "--no-cache", "--space", space, "-o", str(tmp_path / space)]) == 0
        assert ("log-probabilities" in capsys.readouterr().err) == warned


def test_damaged_and_missing_files(tmp_path, capsys):
    path = tmp_path / "t.npz"
    write(path, np.ones((2, 4, 2)), [0, 0, 1, 1])
    raw = path.read_bytes()
    for cut in (0, 10, len(raw) // 2, len(raw) - 5):
        path.write_bytes(raw[:cut])
        for read in (read_recording, read_shape):
            with pytest.raises(DataProblem):
                read(str(path))
    with pytest.raises(DataProblem, match="does not exist"):
        read_recording(str(tmp_path / "none.npz"))
    assert run(["evaluate", "-t", "none.npz", "-m", "resnet18"]) == 2
    assert "alone" in capsys.readouterr().err


def test_a_recording_has_distances_but_no_network(tmp_path):
    """Lip(g) of the replay would be 1 whatever network made the record, so it is undefined, and so is T_g."""
    rng = np.random.default_rng(0)
    spec = f"recorded:path={write(tmp_path / 't.npz', rng.normal(size=(3, 8, 2)), np.arange(8) % 2)}"
    outcome = stabilitykit.evaluate(spec, spec, ["table2", "perturbation"], space="logits", cache=False)
    values = {m.name: m.value for m in outcome["table2"].measurements}
    assert values["lipschitz"] is None and values["T_g.paper"] is None
    assert values["Sh_paper"] > 0 and values["expansive_constant.min"] > 0
    other = stabilitykit.evaluate(spec, spec, "shadowing:family=noise", space="logits", cache=False)
    failed = [cell for cell in [*outcome.cells, *other.cells] if not cell.ok]
    assert [cell.property for cell in failed] == ["perturbation", "shadowing:family=noise"]
    assert all("the model itself" in cell.error["message"] for cell in failed)
