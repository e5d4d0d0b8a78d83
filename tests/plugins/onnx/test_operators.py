"""Every operator against onnxruntime, alone in a graph, on random inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.plugins.onnx.graphs import node, onnx, saved

onnxruntime = pytest.importorskip("onnxruntime")
from stabilitykit_onnx.building import build  # noqa: E402
from stabilitykit_onnx.operators import OPERATORS  # noqa: E402
from stabilitykit_onnx.reading import read  # noqa: E402


def _rng(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def _whole(*values):
    return np.array(values, dtype=np.int64)


MAP, ROWS = (2, 4, 6, 7), (2, 5, 8)
W, B = _rng(6, 2, 3, 3), _rng(6)
# (operator, shape of x, constants after it, attributes); inputs that are left out are "".
CASES = [
    *[(op, ROWS, [], {}) for op in ("Abs", "Neg", "Exp", "Erf", "Floor", "Ceil", "Round", "Relu", "Sigmoid", "Sign")],
    *[(op, ROWS, [], {}) for op in ("Sin", "Cos", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "Identity")],
    *[(op, ROWS, [_rng(8)], {}) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "PRelu")],
    ("Elu", ROWS, [], {"alpha": 0.7}),
    ("Celu", ROWS, [], {"alpha": 0.7}),
    ("Selu", ROWS, [], {}),
    ("LeakyRelu", ROWS, [], {"alpha": 0.2}),
    ("ThresholdedRelu", ROWS, [], {"alpha": 0.3}),
    ("HardSigmoid", ROWS, [], {"alpha": 0.25}),
    ("Gelu", ROWS, [], {}),
    ("Gelu", ROWS, [], {"approximate": "tanh"}),
    ("Pow", ROWS, [np.float32(2.0)], {}),
    ("Pow", ROWS, [np.float32(3.0)], {}),
    ("Clip", ROWS, [np.float32(-0.5), np.float32(0.25)], {}),
    ("Clip", ROWS, ["", np.float32(0.25)], {}),
    ("Softmax", ROWS, [], {"axis": 1}),
    ("LogSoftmax", ROWS, [], {}),
    ("MatMul", ROWS, [_rng(8, 3)], {}),
    ("MatMul", ROWS, [_rng(2, 8, 3)], {}),
    ("Gemm", (5, 8), [_rng(3, 8), _rng(3)], {"transB": 1}),
    ("Gemm", (5, 8), [_rng(8, 3), _rng(5, 1)], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", (8, 5), [_rng(8, 3)], {"transA": 1}),
    ("Einsum", ROWS, [_rng(8, 3)], {"equation": "abc,cd->adb"}),
    ("Conv", MAP, [W, B], {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 1]}),
    ("Conv", MAP, [W], {"group": 2, "pads": [0, 1, 2, 0], "dilations": [2, 1]}),
    ("Conv", MAP, [W, B], {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", MAP, [W, B], {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("ConvTranspose", MAP, [_rng(4, 3, 3, 3), _rng(3)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", MAP, [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", MAP, [], {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 0}),
    ("AveragePool", MAP, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", MAP, [], {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1]}),
    ("GlobalAveragePool", MAP, [], {}),
    ("GlobalMaxPool", MAP, [], {}),
    ("BatchNormalization", MAP, [_rng(4), _rng(4), _rng(4), np.abs(_rng(4)) + 1], {"epsilon": 1e-3}),
    ("InstanceNormalization", MAP, [_rng(4), _rng(4)], {}),
    ("GroupNormalization", MAP, [_rng(4), _rng(4)], {"num_groups": 2}),
    ("LayerNormalization", ROWS, [_rng(8), _rng(8)], {"epsilon": 1e-3}),
    ("LayerNormalization", ROWS, [_rng(5, 8)], {"axis": 1}),
    ("LpNormalization", ROWS, [], {"axis": 1}),
    ("LRN", MAP, [], {"size": 3}),
    *[(op, MAP, [_whole(-1, 2)], {}) for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2")],
    *[(op, MAP, [_whole(1)], {"keepdims": 0}) for op in ("ReduceL1", "ReduceProd", "ReduceSumSquare")],
    ("ReduceLogSumExp", MAP, [], {}),
    ("ReduceMean", MAP, [], {"noop_with_empty_axes": 1}),
    ("Transpose", MAP, [], {"perm": [0, 2, 3, 1]}),
    ("Transpose", ROWS, [], {}),
    ("Flatten", MAP, [], {}),
    ("Flatten", MAP, [], {"axis": 2}),
    ("Reshape", MAP, [_whole(0, -1, 6)], {}),
    ("Squeeze", (2, 1, 3, 1), [_whole(1)], {}),
    ("Unsqueeze", ROWS, [_whole(-1, 0)], {}),
    ("Expand", (2, 1, 3), [_whole(2, 4, 1)], {}),
    ("Tile", ROWS, [_whole(1, 2, 3)], {}),
    ("Concat", ROWS, [_rng(2, 3, 8)], {"axis": 1}),
    ("Slice", MAP, [_whole(1, -3), _whole(100, -1), _whole(1, 3)], {}),
    ("Slice", MAP, [_whole(-1, 5), _whole(-100, 1), _whole(2, 3), _whole(-2, -1)], {}),
    ("Gather", MAP, [np.array(2)], {"axis": 1}),
    ("Gather", MAP, [np.array([[0, -1], [1, 2]])], {"axis": 3}),
    ("GatherElements", (3, 4), [np.array([[0, 1, -1, 2], [1, 1, 0, 0]])], {"axis": 0}),
    ("Pad", MAP, [_whole(0, 0, 1, 2, 0, 0, 0, 1), np.float32(0.5)], {}),
    ("Pad", MAP, [_whole(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "reflect"}),
    ("Pad", MAP, [_whole(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "edge"}),
    ("DepthToSpace", MAP, [], {"blocksize": 2}),
    ("DepthToSpace", MAP, [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", (2, 3, 4, 6), [], {"blocksize": 2}),
    ("Trilu", ROWS, [np.array(1)], {"upper": 0}),
    ("Resize", MAP, ["", "", _whole(2, 4, 12, 21)], {"mode": "nearest", "nearest_mode": "floor",
                                                    "coordinate_transformation_mode": "asymmetric"}),
    ("Resize", MAP, ["", np.float32([1, 1, 2, 1.5])], {"mode": "linear"}),
    ("Resize", MAP, ["", "", _whole(2, 4, 12, 20)],
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("Resize", MAP, ["", "", _whole(2, 4, 12, 21)], {"mode": "cubic"}),
    ("QuantizeLinear", ROWS, [np.float32(0.25), np.uint8(100)], {}),
    ("QuantizeLinear", ROWS, [np.abs(_rng(5)) / 9, np.arange(5).astype(np.int8)], {"axis": 1}),
]  # fmt: skip


def _file(folder, op, shape, constants, attributes, **more):
    names = [f"c{n}" if not isinstance(value, str) else "" for n, value in enumerate(constants)]
    nodes = [node(op, ["x", *names], ["q" if op == "QuantizeLinear" else "y"], **attributes)]
    if op == "QuantizeLinear":  # whole numbers inside; what they stand for comes out
        nodes.append(node("DequantizeLinear", ["q", *names], ["y"], **attributes))
    held = {name: np.asarray(value) for name, value in zip(names, constants) if name}
    return saved(folder / "op.onnx", nodes, held, list(shape), **more)


def _both(file, x):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    with torch.no_grad():
        found = build(read(file))(torch.from_numpy(x))
    return np.asarray(found), expected


@pytest.mark.parametrize(
    "op, shape, constants, attributes", CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_operator_is_onnxruntimes(tmp_path, op, shape, constants, attributes):
    x = _rng(*shape)
    found, expected = _both(_file(tmp_path, op, shape, constants, attributes, opset=21), x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_most_operators_have_a_case():
    named = {case[0] for case in CASES} | {"DequantizeLinear"}
    # Computed from sizes or compared as truths: they stand in the exported networks of test_networks.py.
    beside = {
        "And",
        "Or",
        "Not",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Where",
        "IsNaN",
        "IsInf",
    }
    beside |= {
        "Cast",
        "CastLike",
        "Shape",
        "Size",
        "Range",
        "ConstantOfShape",
        "Split",
        "Dropout",
        "Log",
        "Sqrt",
        "Mod",
    }
    beside |= {"Reciprocal", "ArgMax", "ArgMin", "RMSNormalization", "Swish", "Upsample"}
    assert set(OPERATORS) - named == beside


@pytest.mark.parametrize("op", ["Log", "Sqrt", "Reciprocal"])
def test_operators_of_positive_numbers(tmp_path, op):
    found, expected = _both(_file(tmp_path, op, ROWS, [], {}), np.abs(_rng(*ROWS)) + 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_rounding_is_to_even_and_saturates(tmp_path):
    file = _file(tmp_path, "QuantizeLinear", [9], [np.float32(2.0), np.int8(3)], {})
    x = np.float32([-1e9, -5, -3, -1, 1, 3, 5, 7, 1e9])
    found, expected = _both(file, x)
    assert found.tolist() == expected.tolist()
    assert found.tolist() == [-262.0, -4.0, -4.0, 0.0, 0.0, 4.0, 4.0, 8.0, 248.0]


def test_sizes_computed_in_the_graph_follow_the_batch(tmp_path):
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["b"], axis=0),
        node("Unsqueeze", ["b", "axis"], ["b1"]),
        node("Concat", ["b1", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["r"]),
        node("ConstantOfShape", ["shape"], ["half"], value=onnx.helper.make_tensor("v", 1, [1], [0.5])),
        node("Greater", ["r", "half"], ["c"]),
        node("Where", ["c", "r", "half"], ["w"]),
        node("Split", ["w"], ["a", "z"], axis=1, num_outputs=2),
        node("Add", ["a", "z"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axis": _whole(0), "rest": _whole(4, 6)}
    file = saved(tmp_path / "sizes.onnx", nodes, constants, ["batch", 24])
    for batch in (1, 3):
        found, expected = _both(file, _rng(batch, 24))
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("opset", [9, 12])
def test_older_opsets_keep_axes_in_attributes(tmp_path, opset):
    nodes = [
        node("Unsqueeze", ["x"], ["u"], axes=[1]),
        node("ReduceMean", ["u"], ["m"], axes=[2], keepdims=1),
        node("Softmax", ["m"], ["s"], axis=1),
        node("Squeeze", ["s"], ["y"], axes=[1]),
    ]
    found, expected = _both(saved(tmp_path / "old.onnx", nodes, {}, [2, 4, 5], opset), _rng(2, 4, 5))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
