"""Towers as torch modules: ONNX Runtime's numbers, torch's gradients, weights back where they came from."""

import numpy as np
import onnx
import pytest
import tiny_towers
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.core.errors import UsageError
from compress.models.differentiable import DifferentiableTower, trainable, write_back
from compress.models.graph import array, initializers
from compress.models.onnx_towers import load_onnx
from compress.models.operators import OPERATORS
from compress.targets.graph.session import open_session


def both(tower, feed, taps=()):
    """ONNX Runtime's and torch's values."""
    wanted = [tower.output, *taps]
    model = onnx.ModelProto()
    model.CopyFrom(tower.graph)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in taps)
    expected = dict(zip(wanted, open_session(model).run(wanted, dict(feed)), strict=True))
    with torch.no_grad():
        found = DifferentiableTower(tower, taps)({name: torch.from_numpy(value) for name, value in feed.items()})
    return expected, {name: value.numpy() for name, value in found.items()}


def agree(tower, feed, taps=(), atol=1e-5):
    expected, found = both(tower, feed, taps)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=atol * max(1, np.abs(value).max()), rtol=0)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("kind", ["vision", "text"])
def test_it_says_what_onnx_runtime_says(tmp_path, kind, heads):
    tower = tiny_towers.encoder(tmp_path, heads).towers[kind]
    for feed in tiny_towers.feeds(kind):
        agree(tower, feed, ("after_attention", "after_mlp"))


def pocket_feeds(kind):
    rng = np.random.default_rng(0)
    if kind == "vision":
        return {"pixel_values": rng.normal(size=(3, 3, 64, 64)).astype(np.float32)}
    ids = rng.integers(4, 160, (3, 9))
    ids[:, 0], mask = 1, np.ones_like(ids)
    for row, end in enumerate((8, 5, 3)):
        ids[row, end:], mask[row, end + 1 :] = 2, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_the_embedded_model(pocket_clip, kind):
    agree(pocket_clip.towers[kind], pocket_feeds(kind))


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_the_gradients_are_those_of_small_steps(tmp_path, kind):
    tower = tiny_towers.encoder(tmp_path, 4).towers[kind]
    module = DifferentiableTower(tower).double()
    (feed,) = tiny_towers.feeds(kind, 1)
    given = {name: torch.from_numpy(value) for name, value in feed.items()}
    given = {name: value.double() if value.is_floating_point() else value for name, value in given.items()}
    torch.manual_seed(0)
    direction = {name: torch.randn_like(weight) for name, weight in module.weights().items()}

    def said(step):
        with torch.no_grad():
            for name, weight in module.weights().items():
                weight.add_(step * direction[name])
            return float(module(given)[tower.output][:, 0].sum())

    module(given)[tower.output][:, 0].sum().backward()
    slope = sum(float((weight.grad * direction[name]).sum()) for name, weight in module.weights().items())
    assert slope == pytest.approx((said(1e-6) - said(-2e-6)) / 2e-6, rel=1e-4)
    assert all(
        weight.grad.abs().max() > 0 for name, weight in module.weights().items() if not name.startswith("k.bias")
    )


def test_what_was_trained_is_written_back(tmp_path):
    tower = tiny_towers.encoder(tmp_path).towers["text"]
    nodes = [node.SerializeToString() for node in tower.graph.graph.node]
    before = {name: array(tensor).copy() for name, tensor in initializers(tower.graph).items()}
    module = DifferentiableTower(tower)
    with torch.no_grad():
        module.weights()["fc1.bias"] += 1.5
    write_back(tower, module)
    for name, tensor in initializers(tower.graph).items():
        np.testing.assert_array_equal(array(tensor), before[name] + 1.5 if name == "fc1.bias" else before[name])
    assert [node.SerializeToString() for node in tower.graph.graph.node] == nodes
    (feed,) = tiny_towers.feeds("text", 1)
    agree(tower, feed)


def test_masks_shapes_and_statistics_are_no_weights():
    weights = {
        "scale": np.ones(3), "mask": np.array([0, -3e38]), "mean": np.ones(3), "variance": np.ones(3),
        "one": np.array([0.5]), "holes": np.array([1.0, np.nan]), "kernel": np.ones((2, 2)),
    }  # fmt: skip
    nodes = [
        helper.make_node("BatchNormalization", ["x", "scale", "kernel", "mean", "variance"], ["y"]),
        helper.make_node("Add", ["y", "mask"], ["z"]),
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph([*nodes], "g", [], [], [*tensors, numpy_helper.from_array(np.array([1, 2]), "shape")])
    assert trainable(helper.make_model(graph)) == {"scale", "kernel"}


def test_an_operator_that_nobody_knows(tmp_path):
    tower = tiny_towers.encoder(tmp_path).towers["text"]
    tower.graph.graph.node[3].op_type = "Det"
    with pytest.raises(UsageError, match="a graph with Det cannot be trained"):
        DifferentiableTower(tower)


def ran(op, inputs, outputs=1, **options):
    """What ONNX Runtime and the operator here make of the same inputs."""
    names_in = [f"i{at}" if value is not None else "" for at, value in enumerate(inputs)]
    names_out = [f"o{at}" for at in range(outputs)]
    given = {name: value for name, value in zip(names_in, inputs, strict=True) if name}
    node = helper.make_node(op, names_in, names_out, **options)
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in given.items()
    ]
    outs = [onnx.ValueInfoProto(name=name) for name in names_out]
    model = helper.make_model(helper.make_graph([node], "g", infos, outs), opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 9
    told = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    made = OPERATORS[op](told, [None if value is None else torch.from_numpy(value) for value in inputs])
    return open_session(model).run(None, given), [made] if isinstance(made, torch.Tensor) else list(made)


X = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
WIDE = np.random.default_rng(2).normal(size=(1, 4, 7, 6)).astype(np.float32)
KERNEL = np.random.default_rng(3).normal(size=(6, 2, 3, 2)).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("op", "inputs", "options"),
    [
        ("Slice", [X, ints(-1), ints(-9), ints(2), ints(-2)], {}),
        ("Slice", [X, ints(1, 0), ints(9, 2), ints(1, 2)], {}),
        ("Gather", [X, ints(-1, 0)], {"axis": 1}),
        ("Gather", [ints(5, 6, 7), np.array(1)], {}),
        ("GatherElements", [X, ints(0, -1).reshape(2, 1, 1)], {"axis": 2}),
        ("GatherND", [X, ints(0, 1, 1, -1).reshape(2, 2)], {}),
        ("Reshape", [X, ints(0, -1)], {}),
        ("Flatten", [X], {"axis": 2}),
        ("Expand", [X, ints(5, 1, 1, 1)], {}),
        ("Squeeze", [X[:1], ints(0)], {}),
        ("Unsqueeze", [X, ints(0, -1)], {}),
        ("Transpose", [X], {}),
        ("Tile", [X, ints(1, 2, 1)], {}),
        ("Trilu", [X, np.array(1)], {"upper": 0}),
        ("Pad", [X, ints(0, 1, 2, 0, 0, 1), np.array(7, np.float32)], {}),
        ("Pad", [WIDE, ints(0, 0, 2, 1, 0, 0, 1, 1)], {"mode": "reflect"}),
        ("ConstantOfShape", [ints(2, 3)], {}),
        ("Range", [np.array(1), np.array(9), np.array(3)], {}),
        ("Shape", [X], {"start": 1}),
        ("CumSum", [X, np.array(1)], {"reverse": 1, "exclusive": 1}),
        ("ArgMax", [ints(1, 3, 3, 0).reshape(2, 2)], {"axis": 1, "select_last_index": 1}),
        ("ArgMax", [ints(3, 3, 0, 0).reshape(2, 2)], {"axis": 1, "keepdims": 0}),
        ("ReduceMean", [X, ints(-1)], {"keepdims": 0}),
        ("ReduceSum", [X], {}),
        ("ReduceMax", [X, ints(0, 1)], {}),
        ("ReduceProd", [X, ints(0, 2)], {"keepdims": 0}),
        ("ReduceL2", [X, ints(-1)], {}),
        ("Div", [ints(-7, 7), ints(2, 2)], {}),
        ("Clip", [X, None, np.array(0.3, np.float32)], {}),
        ("Gelu", [X], {"approximate": "tanh"}),
        ("HardSigmoid", [X], {"alpha": 0.3}),
        ("LeakyRelu", [X], {"alpha": 0.2}),
        ("Gemm", [X[0], X[1], np.ones((3, 3), np.float32)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
        ("Einsum", [X, X], {"equation": "bij,bkj->bik"}),
        ("LpNormalization", [X], {"axis": -1, "p": 2}),
        ("Conv", [WIDE, KERNEL], {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}),
        ("Conv", [WIDE, KERNEL], {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        ("MaxPool", [WIDE], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
        ("AveragePool", [WIDE], {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
        ("GlobalAveragePool", [WIDE], {}),
        ("LayerNormalization", [X, np.ones((3, 4), np.float32) * 2], {"axis": 1}),
        ("InstanceNormalization", [WIDE, np.ones(4, np.float32), np.zeros(4, np.float32)], {}),
        ("Where", [X > 0, X, np.array(2, np.float32)], {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_operator_is_that_of_onnx_runtime(op, inputs, options):
    expected, found = ran(op, inputs, **options)
    for one, other in zip(expected, found, strict=True):
        assert other.shape == one.shape
        np.testing.assert_allclose(other.numpy(), one, atol=1e-5)


def test_splits():
    for inputs, outputs, options in (([X, ints(1, 3)], 2, {"axis": 2}), ([X], 2, {"axis": 1, "num_outputs": 2})):
        expected, found = ran("Split", inputs, outputs, **options)
        assert [each.shape for each in expected] == [tuple(each.shape) for each in found]
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other.numpy())


@pytest.mark.real
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("vision", "resnet_cifar/resnet20-12fca82f.onnx"),
        ("vision", "lprnet/lprnet.onnx"),
        ("vision", "mira_clip/image_encoder.onnx"),
        ("text", "mira_clip/text_encoder.onnx"),
    ],
)
def test_real_models(real_data, kind, file):
    tower = load_onnx({kind: real_data / "models" / file}, {}).towers[kind]
    rng, feed = np.random.default_rng(0), {}
    for each in tower.graph.graph.input:
        shape = [side.dim_value or 2 for side in each.type.tensor_type.shape.dim]
        floating = each.type.tensor_type.elem_type == TensorProto.FLOAT
        feed[each.name] = rng.normal(size=shape).astype(np.float32) if floating else rng.integers(1, 90, shape)
    agree(tower, {name: feed[name] for name in tower.inputs})
