"""Every tensor of a file is used as it is, or the load is refused with the list; what is let through is recorded."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stabilitykit import DataProblem, UsageProblem
from stabilitykit.training.checkpoints import Loading, load_into, read_checkpoint, remarks
from stabilitykit.training.conversion import changes


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    net = Net()
    nn.init.normal_(net.norm.running_mean)
    return dict(net.state_dict())


def put(tmp_path: Path, content: object, name: str = "net.pth") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


def holds(net: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def with_prefix(state: dict, prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


# Wrappers and nests


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3, "best_acc1": torch.tensor(93.0), "optimizer": {"state": {0: s}}},
        lambda s: {"state_dict_ema": with_prefix(s, "module.")},
        lambda s: with_prefix(s, "module._orig_mod."),
        lambda s: with_prefix(s, "_orig_mod.module."),
        lambda s: {"state_dict": with_prefix(s, "net.")},
        lambda s: with_prefix(s, "base_model.model."),
        lambda s: {n.replace("stem", "stem._orig_mod"): t for n, t in s.items()},
        lambda s: {"n_averaged": torch.tensor(5), **with_prefix(s, "module.")},
        lambda s: {n: t for n, t in s.items() if "num_batches" not in n},
        lambda s: {"anything": {"of": {"mine": s}}},
    ],
)
def test_wrappers_are_seen_through(tmp_path: Path, wrap) -> None:
    state, net = weights(), Net()
    load_into(net, put(tmp_path, wrap(state)), "net")
    assert holds(net, state)


def test_what_stands_outside_the_prefix_is_refused_by_name(tmp_path: Path) -> None:
    """A layer that normalises in front of the network: keys 0.mean and 0.std."""
    content = {**with_prefix(weights(), "1."), "0.mean": torch.zeros(3), "0.std": torch.ones(3)}
    path, net = put(tmp_path, content), Net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UsageProblem, match=r"2 unused: 0\.mean, 0\.std\. .*--allow-unused"):
        load_into(net, path, "net")
    assert holds(net, before)
    with pytest.raises(UsageProblem, match=r"1 unused: 0\.std"):
        load_into(net, path, "net", Loading(("0.mean",)))
    record = load_into(net, path, "net", Loading(("0.*",)))
    assert holds(net, weights()) and record["unused_allowed"] == ["0.mean", "0.std"]
    assert any("0.mean, 0.std" in text for text in remarks(record))


@pytest.mark.parametrize("extra", [{"mean": torch.zeros(3)}, {"teacher_head": {"w": torch.zeros(2, 4)}}])
def test_tensors_beside_the_state_dict_are_not_dropped(tmp_path: Path, extra: dict) -> None:
    with pytest.raises(UsageProblem, match="1 unused"):
        load_into(Net(), put(tmp_path, {"state_dict": weights(), **extra}), "net")


def test_what_only_training_reads_is_left_out_and_said(tmp_path: Path) -> None:
    state = {"state_dict": {**with_prefix(weights(), "net."), "loss.weight": torch.ones(10)}, "hyper_parameters": {}}
    record = load_into(Net(), put(tmp_path, state), "net")
    assert record["left_out"] == ["state_dict.loss.weight"]
    assert any("loss.weight" in text for text in remarks(record))


@pytest.mark.parametrize("names", [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("model", "ema")])
@pytest.mark.parametrize("flat", [True, False])
def test_several_sets_are_asked_for(tmp_path: Path, names: tuple[str, str], flat: bool) -> None:
    one, two = weights(1), weights(2)
    nested = {names[0]: one, names[1]: two}
    flattened = {**with_prefix(one, f"{names[0]}."), **with_prefix(two, f"{names[1]}.")}
    path = put(tmp_path, flattened if flat else nested)
    with pytest.raises(UsageProblem, match=f"2 sets of weights that fit: {names[0]}, {names[1]}.*--weights"):
        load_into(Net(), path, "net")
    for name, state in zip(names, (one, two)):
        net = Net()
        record = load_into(net, path, "net", Loading(weights=name))
        assert holds(net, state) and record["set"] == name
        assert any(f"{name} is used" in text for text in remarks(record))
    with pytest.raises(UsageProblem, match=r"no weights called teacher; it holds"):
        load_into(Net(), path, "net", Loading(weights="teacher"))


def test_plain_names_beside_a_prefixed_set(tmp_path: Path) -> None:
    path, net = put(tmp_path, {**weights(1), **with_prefix(weights(2), "ema.")}), Net()
    with pytest.raises(UsageProblem, match="2 sets"):
        load_into(net, path, "net")
    load_into(net, path, "net", Loading(weights="."))
    assert holds(net, weights(1))


def test_an_average_without_buffers_is_not_dropped_in_silence(tmp_path: Path) -> None:
    shadow = {name: tensor for name, tensor in weights(2).items() if "running" not in name}
    path = put(tmp_path, {"model": weights(1), "ema": shadow})
    with pytest.raises(UsageProblem, match=r"unused: .*ema\.stem\.weight"):
        load_into(Net(), path, "net")
    with pytest.raises(UsageProblem, match=r"missing: norm\.running_mean"):
        load_into(Net(), path, "net", Loading(weights="ema"))


def test_the_refusal_lists_every_category(tmp_path: Path) -> None:
    state = weights()
    del state["stem.bias"]
    state |= {
        "head.weight": torch.zeros(5, 4),
        "norm.weight": torch.ones(4, dtype=torch.int8),
        "more.x": torch.zeros(1),
    }
    with pytest.raises(UsageProblem) as caught:
        load_into(Net(), put(tmp_path, state), "net")
    for words in (
        "1 missing: stem.bias",
        "1 unused: more.x",
        "1 mis-shaped: head.weight (checkpoint 5x4, model 2x4)",
        "1 of another number kind: norm.weight (int8 for float32)",
    ):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "epoch": 2}])
def test_an_optimizer_is_no_network(tmp_path: Path, content: dict) -> None:
    with pytest.raises(UsageProblem, match="none of the network's tensors, the state of a training"):
        load_into(Net(), put(tmp_path, content), "net")
    with pytest.raises(UsageProblem, match=r"none of the network's tensors; it holds generator\.w, critic\.w"):
        two = {"generator": {"w": torch.ones(3)}, "critic": {"w": torch.ones(3)}}
        load_into(Net(), put(tmp_path, two), "net")


# Numbers


@pytest.mark.parametrize(
    "kind", [torch.int8, torch.uint8, torch.int32, torch.bool, torch.float8_e4m3fn, torch.complex64]
)
def test_other_number_kinds_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    state = {**weights(), "head.weight": torch.ones(2, 4).to(kind)}
    with pytest.raises(UsageProblem, match=r"of another number kind: head\.weight \(.* for float32\).*scales"):
        load_into(Net(), put(tmp_path, state), "net")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_shorter_floats_are_widened_exactly_and_recorded(tmp_path: Path, kind: torch.dtype) -> None:
    state = {n: t.to(kind) if t.is_floating_point() else t for n, t in weights().items()}
    net = Net()
    record = load_into(net, put(tmp_path, state), "net")
    assert record["stored_as"] == str(kind).removeprefix("torch.") and "rounded" not in record
    assert all(torch.equal(t.to(state[n].dtype), state[n]) for n, t in net.state_dict().items())


def test_rounding_from_float64_is_said(tmp_path: Path) -> None:
    state = {n: t.double() for n, t in weights().items() if t.is_floating_point()}
    exact = load_into(Net(), put(tmp_path, state), "net")
    assert "rounded" not in exact
    state["head.bias"] = state["head.bias"] + 1e-12
    record = load_into(Net(), put(tmp_path, state), "net")
    assert record["rounded"] == ["head.bias"] and any("rounded" in text for text in remarks(record))


def test_nan_in_what_is_used_only(tmp_path: Path) -> None:
    bad = torch.tensor([float("nan"), 0.0])
    with pytest.raises(DataProblem, match=r"'head\.bias' holds 1 NaN"):
        load_into(Net(), put(tmp_path, {**weights(), "head.bias": bad}), "net")
    load_into(Net(), put(tmp_path, {"state_dict": weights(), "optimizer": {"m": bad}}), "net")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight


@pytest.mark.parametrize("kept", ["a.weight", "b.weight"])
def test_tied_weights_of_which_a_file_keeps_one(tmp_path: Path, kept: str) -> None:
    save_file({kept: torch.full((3, 3), 7.0)}, tmp_path / "t.safetensors")
    net = Tied()
    record = load_into(net, tmp_path / "t.safetensors", "net")
    assert bool((net.a.weight == 7).all()) and net.b.weight is net.a.weight and len(record["tied"]) == 1


def test_tied_weights_that_differ_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="tied in the network but different in the file"):
        load_into(Tied(), put(tmp_path, {"a.weight": torch.ones(3, 3), "b.weight": torch.zeros(3, 3)}), "net")


class Extra(Net):
    def get_extra_state(self) -> dict:
        return {"scale": 1}

    def set_extra_state(self, state: dict) -> None:
        self.state = state


def test_what_a_module_keeps_beside_tensors(tmp_path: Path) -> None:
    net = Extra()
    load_into(net, put(tmp_path, {**weights(), "_extra_state": {"scale": 3}}), "net")
    assert net.state == {"scale": 3} and holds(nn.Sequential(), {})
    with pytest.raises(UsageProblem, match=r"1 unused: inner\._extra_state"):
        load_into(Net(), put(tmp_path, {**weights(), "inner._extra_state": {"scale": 3}}), "net")
    record = load_into(Extra(), put(tmp_path, weights()), "net")
    assert record["not_in_file"] == ["_extra_state"]


class Constant(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(4), persistent=False)


def test_a_table_the_network_computes_itself(tmp_path: Path) -> None:
    load_into(Constant(), put(tmp_path, {**weights(), "index": torch.arange(4)}), "net")
    with pytest.raises(UsageProblem, match="1 unused: index"):
        load_into(Constant(), put(tmp_path, {**weights(), "index": torch.zeros(4, dtype=torch.int64)}), "net")


# Converters


def test_renaming_is_no_change_of_numbers() -> None:
    before = {"qkv": torch.randn(6, 4), "w": torch.randn(3, 5), "a": torch.randn(2), "b": torch.randn(2)}
    after = {
        "q": before["qkv"][:2],
        "k": before["qkv"][2:4],
        "v": before["qkv"][4:],
        "conv": before["w"].T.contiguous().reshape(5, 3, 1, 1),
        "ab": torch.cat([before["a"], before["b"]]),
    }
    assert changes(before, after) == ([], [])
    lost, fresh = changes(before, {**after, "conv": before["w"].T.contiguous() * 2})
    assert "w" in lost and fresh[0].startswith("conv")
    assert "qkv" in changes(before, {n: t for n, t in after.items() if n != "k"})[0]


def test_a_converter_that_renames_and_one_that_resizes(tmp_path: Path) -> None:
    state = {name.replace("stem", "patch"): tensor for name, tensor in weights().items()}
    path = put(tmp_path, state)

    def rename(module: nn.Module, given: dict) -> dict:
        return {name.replace("patch", "stem"): tensor for name, tensor in given.items()}

    net = Net()
    assert load_into(net, path, "net", convert=rename)["converted"] and holds(net, weights())

    def resize(module: nn.Module, given: dict) -> dict:
        return {n: t[:2].clone() if n.startswith("head") else t for n, t in given.items()}

    larger = {**weights(), "head.weight": torch.randn(6, 4), "head.bias": torch.randn(6)}
    path = put(tmp_path, larger)
    with pytest.raises(UsageProblem, match=r"2 to be resampled: head\.weight \(6x4 -> 2x4\), head\.bias.*--resample"):
        load_into(Net(), path, "net", convert=resize)
    record = load_into(net, path, "net", Loading(resample=True), convert=resize)
    assert record["resampled"] and torch.equal(net.head.bias, larger["head.bias"][:2])
    assert any("resampled" in text for text in remarks(record))


# Containers


def shards(folder: Path, state: dict) -> None:
    names = sorted(state)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    files = [f"model-0000{n + 1}-of-00002.safetensors" for n in range(2)]
    for file, part in zip(files, parts):
        save_file({name: state[name] for name in part}, folder / file)
    where = {name: file for file, part in zip(files, parts) for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def test_shards_by_index_and_by_folder(tmp_path: Path) -> None:
    shards(tmp_path, weights())
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        net = Net()
        load_into(net, path, "net")
        assert holds(net, weights())
    with pytest.raises(DataProblem, match="one of 2 shards"):
        read_checkpoint(tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DataProblem, match=r"shard model-00002-of-00002.safetensors is missing"):
        read_checkpoint(tmp_path)


def test_an_index_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "secret.safetensors")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(DataProblem, match="does not lie beside its index"):
        read_checkpoint(inner)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 3}}'])
def test_indices_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(DataProblem):
        read_checkpoint(tmp_path)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match=r"folder without model.safetensors"):
        read_checkpoint(tmp_path)
    save_file(weights(), tmp_path / "model.safetensors")
    torch.save(weights(1), tmp_path / "pytorch_model.bin")
    assert read_checkpoint(tmp_path).path.name == "model.safetensors"
    save_file(weights(2), tmp_path / "ema.safetensors")
    with pytest.raises(UsageProblem, match=r"2 files of weights \(ema\.safetensors, model\.safetensors\)"):
        read_checkpoint(tmp_path)


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "weights")
    put(tmp_path, weights(), "best.pth.tar")
    for name in ("weights", "best.pth.tar"):
        net = Net()
        load_into(net, tmp_path / name, "net")
        assert holds(net, weights())


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net.pth", b"x")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("net.pth"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped(), "zip archive that torch.save did not write"),
        (tarred(), "tar archive"),
        (b"\x1f\x8b\x08\x00" + b"x" * 20, "compressed"),
        (b"\x89HDF\r\n\x1a\n" + b"x" * 20, "HDF5"),
        (b"\x93NUMPY\x01\x00" + b"x" * 20, "NumPy"),
        (b"0123456789", "no file of weights"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(DataProblem, match=message) as caught:
        read_checkpoint(tmp_path / "net.pt")
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_programs_are_not_executed(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(DataProblem, match=r"TorchScript program.*state_dict"):
        read_checkpoint(tmp_path / "script.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(DataProblem, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "whole.pt")


def test_metadata_of_brackets(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "a.safetensors", {"stabilitykit": "[" * 100_000})
    with pytest.raises(DataProblem, match=r"metadata is not JSON \(too deeply nested\)"):
        read_checkpoint(tmp_path / "a.safetensors")
