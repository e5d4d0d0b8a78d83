"""Checkpoint files: what is read, what is refused, and that nothing inside is ever executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from stabilitykit import DataProblem, UsageProblem
from stabilitykit.training.checkpoints import fit_weights, load_weights, save_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(4)}


class Hostile:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_safetensors_keep_tensors_and_metadata(tmp_path: Path) -> None:
    metadata = {"model": {"options": {"depths": [2, 2], "final_relu": True}}, "epoch": 3, "note": "naïve"}
    save_weights(tmp_path / "a.safetensors", STATE, metadata)
    state, read = load_weights(tmp_path / "a.safetensors")
    assert same(state, STATE) and read == metadata
    first = (tmp_path / "a.safetensors").read_bytes()
    for _ in range(5):
        save_weights(tmp_path / "a.safetensors", STATE, metadata)
        assert (tmp_path / "a.safetensors").read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 1},
        lambda s: {"model": {"state_dict": s}, "args": {"lr": 0.1}},
        lambda s: {"model": s},
        lambda s: {f"module.{k}": v for k, v in s.items()},
    ],
    ids=["plain", "state_dict", "nested", "model", "parallel"],
)
def test_pickled_state_dicts(tmp_path: Path, suffix: str, zipped: bool, wrap) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=zipped)
    state, metadata = load_weights(path)
    assert same(state, STATE) and metadata == {}


@pytest.mark.parametrize("form", ["zip", "old", "bare pickle"])
def test_code_is_named_and_never_executed(tmp_path: Path, form: str) -> None:
    path, trap = tmp_path / "evil.pth", tmp_path / "executed"
    content = {"state_dict": STATE, "extra": Hostile(trap)}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(Hostile(trap), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(DataProblem, match=r"asks for .*mkdir") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value) and not trap.exists()
    torch.load(path, weights_only=False) if form != "bare pickle" else pickle.loads(path.read_bytes())
    assert trap.exists()  # the trap works: only the refusal kept it shut


def test_whole_modules_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(DataProblem, match=r"torch\.nn\.modules\.linear\.Linear"):
        load_weights(tmp_path / "module.pt")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    state = {**STATE, "b": torch.tensor([1.0, bad])}
    save_weights(tmp_path / "a.safetensors", state, {})
    with pytest.raises(DataProblem, match=r"tensor 'b' holds 1 NaN or infinite"):
        load_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("missing.pth", None),
        ("empty.pth", b""),
        ("empty.safetensors", b""),
        ("text.pth", b"hello " * 50),
        ("text.safetensors", b"hello " * 50),
        ("a.txt", b"x"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataProblem) as caught:
        load_weights(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [torch.ones(3), [1, 2], {"lr": 0.1}, {}, {"state_dict": {"epoch": 3}}])
def test_pickles_without_weights(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(DataProblem, match=r"no state_dict|no tensors"):
        load_weights(tmp_path / "a.pth")


@settings(deadline=None, max_examples=80)
@given(
    kind=st.sampled_from(["a.safetensors", "zip.pth", "old.pth"]),
    cut=st.floats(0, 0.999),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=3),
)
@example(kind="old.pth", cut=0.5, flips=[])  # torch raises AssertionError for this one
def test_damage_is_one_line_or_harmless(tmp_path_factory, kind: str, cut: float, flips: list) -> None:
    path = tmp_path_factory.mktemp("damaged") / kind
    if kind.endswith("safetensors"):
        save_weights(path, STATE, {"epoch": 1})
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip.pth")
    data = bytearray(path.read_bytes())
    for where, bits in flips:
        data[int(where * len(data))] ^= bits
    path.write_bytes(data if flips else data[: int(cut * len(data))])
    try:
        load_weights(path)
    except DataProblem as error:
        assert kind in str(error) and "\n" not in str(error)


def test_fit_weights_lists_every_kind_of_mismatch_and_changes_nothing() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = {
        "0.weight": torch.ones(2, 4),
        "1.weight": torch.ones(2),
        "extra": torch.ones(1),
        **{k: before[k] for k in ("1.bias", "1.running_mean", "1.running_var")},
    }
    with pytest.raises(UsageProblem) as caught:
        fit_weights(module, state, "small net")
    for words in ("small net", "1 missing: 0.bias", "1 unused: extra", "0.weight (checkpoint 2x4, model 2x3)"):
        assert words in str(caught.value)
    assert same(dict(module.state_dict()), before)


def test_fit_weights_accepts_old_files_without_counters() -> None:
    source, module = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(source.weight, 3.0)
    state = {k: v for k, v in source.state_dict().items() if k != "num_batches_tracked"}
    fit_weights(module, state, "net")
    assert torch.equal(module.weight, source.weight)


def test_a_public_checkpoint(shared_data: Path) -> None:
    state, _ = load_weights(shared_data / "checkpoints" / "cifar10_resnet20.th")
    assert "conv1.weight" in state and not any(name.startswith("module.") for name in state)
    assert sum(int(np.prod(t.shape)) for n, t in state.items() if "running" not in n and "num_" not in n) == 269_722
