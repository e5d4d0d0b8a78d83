"""Exported networks: the modules they were, the numbers they give, and what onnxruntime makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stabilitykit
from stabilitykit import CellProblem, DataProblem, UsageProblem
from tests.plugins.onnx.graphs import Small, Tokens, exported, node, onnx, quantised, saved

pytest.importorskip("onnxruntime")
from stabilitykit_adapters.adapting import adapt
from stabilitykit_adapters.equivalence import certify
from stabilitykit_adapters.pixels import Pixels, plain_preprocess
from stabilitykit_onnx.runtime import OnnxRuntime
from stabilitykit_onnx.source import onnx_model

SHAPE = (3, 8, 8)


class Noise(stabilitykit.Dataset):
    """Twelve images of noise, five classes."""

    name = "noise"

    def __len__(self):
        return 12

    @property
    def labels(self):
        return np.arange(12) % 5

    @property
    def class_names(self):
        return list("abcde")

    def images(self, indices):
        return [np.random.default_rng(int(i)).random(SHAPE, dtype=np.float32) for i in indices]

    def fingerprint(self):
        return "noise"


def _inputs(count=4):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def networks():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {"small": Small().eval(), "tokens": Tokens().eval()}


@pytest.fixture(scope="module")
def files(tmp_path_factory, networks):
    folder = tmp_path_factory.mktemp("onnx")
    found = {name: exported(network, folder / f"{name}.onnx") for name, network in networks.items()}
    found |= {f"{name}-one": exported(net, folder / f"{name}1.onnx", batch=1) for name, net in networks.items()}
    return found | {"int8": quantised(found["small"], folder / "int8.onnx")}


@pytest.mark.parametrize("name", ["small", "tokens"])
@pytest.mark.parametrize("form", ["", "-one"])
def test_an_export_is_the_network_block_by_block(networks, files, name, form):
    preprocess, described = plain_preprocess(SHAPE, Pixels(), False, name)
    original = adapt(networks[name], SHAPE, name=name, preprocess=preprocess, preprocessing=described)
    model = onnx_model(str(files[name + form]))
    assert list(model.block_names) == list(original.block_names) and model.steps == original.steps
    assert certify(model, _inputs())["bit_exact"]
    state, other = model.initial_state(_inputs()), original.initial_state(_inputs())
    for t in range(model.num_blocks + 1):
        torch.testing.assert_close(model.readout_at(t, state), original.readout_at(t, other), rtol=1e-4, atol=1e-5)
        if t < model.num_blocks:
            state, other = model.block(t, state), original.block(t, other)


def test_a_run_states_what_onnxruntime_says_and_gives_the_networks_numbers(networks, files):
    preprocess, described = plain_preprocess(SHAPE, Pixels(), False, "torch")
    original = adapt(networks["small"], SHAPE, name="torch", preprocess=preprocess, preprocessing=described)
    runs = [
        stabilitykit.evaluate(model, Noise(), "expansivity", cache=False)
        for model in (original, f"onnx:{files['small']}")
    ]
    found = runs[1].info["pairs"][0]["certificate"]["onnxruntime"]
    assert found["images"] == 12 and found["changed"] == [] and found["largest_difference"] <= found["allowed"] < 1e-4
    assert "onnxruntime" not in runs[0].info["pairs"][0]["certificate"]
    for one, two in zip(runs[0]["expansivity"].measurements, runs[1]["expansivity"].measurements):
        assert one.name == two.name and one.value == pytest.approx(two.value, rel=1e-3, abs=1e-6)


def test_int8_is_run_as_it_is(files):
    model = onnx_model(str(files["int8"]))
    assert "residual" in model.steps and certify(model, _inputs())["bit_exact"]
    report = model.certify_images([(range(4), _inputs())])["onnxruntime"]
    assert report["largest_difference"] <= report["allowed"] and report["images"] == 4
    # The weights are the whole numbers of the file times their scales.
    weight = next(p for p in model.module.parameters() if p.shape == (4, 4, 3, 3))
    scales = weight.detach().abs().amax((1, 2, 3), keepdim=True) / 127
    assert torch.allclose(weight / scales, torch.round(weight / scales), atol=1e-3)


def test_a_difference_beyond_rounding_is_an_error(files):
    model = onnx_model(str(files["small"]))
    with torch.no_grad():
        model.module.get_parameter("fc.bias")[2] += 0.01
    with pytest.raises(CellProblem, match="not the one onnxruntime runs"):
        model.certify_images([(range(4), _inputs())])


def test_images_whose_decision_changes_are_listed(files):
    model = onnx_model(str(files["small"]))
    runtime = model.elsewhere
    assert isinstance(runtime, OnnxRuntime)
    plain = runtime.outputs

    def other(inputs, *, optimised):
        found = plain(inputs, optimised=optimised)
        return {"y": found["y"][:, ::-1].copy()} if optimised else found

    runtime.outputs = other
    report = model.certify_images([([7, 9], _inputs(2))])
    assert report["onnxruntime"]["optimised"]["changed"] and report["onnxruntime"]["changed"] == []
    assert "decisions differ (images" in report["remarks"][0]


def test_fingerprint_is_of_weights_and_graph(tmp_path, files):
    made = [
        saved(
            tmp_path / f"{slope}.onnx",
            [node("Flatten", ["x"], ["f"]), node("LeakyRelu", ["f"], ["a"], alpha=slope),
             node("Gemm", ["a", "w"], ["b"], transB=1), node("Relu", ["b"], ["r"]), node("Add", ["r", "b"], ["c"]),
             node("Sigmoid", ["c"], ["d"]), node("Add", ["d", "c"], ["y"])],
            {"w": np.eye(12, dtype=np.float32)}, ["batch", 3, 2, 2],
        )
        for slope in (0.1, 0.2)
    ]  # fmt: skip
    prints = [onnx_model(str(file), compare="none").fingerprint() for file in (*made, made[0])]
    assert prints[0] == prints[2] != prints[1]


def test_class_names_come_from_the_metadata(tmp_path):
    nodes = [node("ReduceMean", ["x", "axes"], ["m"], keepdims=0), node("Gemm", ["m", "w"], ["h"]),
             node("Tanh", ["h"], ["t"]), node("Add", ["t", "h"], ["u"]), node("Tanh", ["u"], ["v"]),
             node("Add", ["v", "u"], ["y"])]  # fmt: skip
    constants = {"axes": np.array([2, 3]), "w": np.eye(3, dtype=np.float32)}
    file = saved(
        tmp_path / "n.onnx", nodes, constants, ["n", 3, 8, 8], metadata={"id2label": '{"0": "a", "1": "b", "2": "c"}'}
    )
    assert onnx_model(str(file), compare="none").class_names == ["a", "b", "c"]


# Files that cannot be read


def _reason(path, **options):
    with pytest.raises(UsageProblem) as caught:
        onnx_model(str(path), **options)
    return str(caught.value)


def test_files_that_are_none(tmp_path, files):
    assert "does not exist" in _reason(tmp_path / "none.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert "is empty" in _reason(tmp_path / "empty.onnx")
    whole = files["small"].read_bytes()
    for cut in (len(whole) // 2, 40):
        (tmp_path / "cut.onnx").write_bytes(whole[:cut])
        assert "onnx: " in _reason(tmp_path / "cut.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    assert "corrupt" in _reason(tmp_path / "text.onnx")


def test_all_operators_without_a_counterpart_are_named(tmp_path):
    nodes = [node("NonZero", ["x"], ["a"]), node("Cast", ["a"], ["b"], to=1), node("Det", ["b"], ["y"])]
    text = _reason(saved(tmp_path / "u.onnx", nodes, {}, ["n", 3, 8, 8]))
    assert "NonZero" in text and "Det" in text
    nodes = [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    assert "quantise statically" in _reason(saved(tmp_path / "d.onnx", nodes, {}, ["n", 3, 8, 8]))


def test_operators_of_other_domains_are_not_loaded(tmp_path):
    path = saved(tmp_path / "c.onnx", [node("Relu", ["x"], ["y"])], {}, ["n", 3, 8, 8])
    model = onnx.load(path)
    model.graph.node[0].domain = "com.example"
    model.opset_import.add(domain="com.example", version=1)
    onnx.save(model, path)
    assert "com.example.Relu" in _reason(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin"])
def test_weights_outside_the_folder_are_not_read(tmp_path, location):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = saved(folder / "e.onnx", [node("Add", ["x", "w"], ["y"])], {"w": np.ones(4, np.float32)}, ["n", 4])
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    assert "outside its own folder" in _reason(path)


def test_weights_beside_the_file_are_read(tmp_path, networks):
    path = exported(networks["small"], tmp_path / "m.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx_model(str(path))
    torch.testing.assert_close(model.logits(_inputs()), networks["small"](_inputs()), rtol=1e-5, atol=1e-6)
    (tmp_path / "w.bin").unlink()
    assert "put it there" in _reason(path)


def test_sizes_that_do_not_fit(tmp_path, networks, files):
    assert "takes images of 3x8x8" in _reason(files["small"], input=(3, 16, 16))
    assert "batches of 4" in _reason(exported(networks["small"], tmp_path / "four.onnx", batch=4))
    path = saved(tmp_path / "two.onnx", [node("Add", ["x", "x"], ["y"])], {}, ["n", 4])
    model = onnx.load(path)
    model.graph.node[0].input[1] = "z"
    model.graph.input.append(onnx.helper.make_tensor_value_info("z", 1, ["n", 4]))
    onnx.save(model, path)
    assert "takes 2 inputs (x, z)" in _reason(path)


def test_missing_packages_are_named(monkeypatch, files):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'stabilitykit[onnx]'" in _reason(files["small"])
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'stabilitykit[onnx]'" in _reason(files["small"], compare="none")


def test_corrupt_weights_are_data_problems(tmp_path, files):
    model = onnx.load(files["small"])
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    (tmp_path / "short.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DataProblem):
        onnx_model(str(tmp_path / "short.onnx"))
