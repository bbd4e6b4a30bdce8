"""The emitted graph computes what its treatments say: the float graph with dequantized weights, in ONNX Runtime."""

import numpy as np
import onnx
import pytest
import tiny_towers
from onnx import TensorProto, helper, numpy_helper

from compress.core.errors import UsageError
from compress.models.graph import clean, initializers, strip_nodes
from compress.models.sites import by_topology
from compress.models.tower import Site, Tower
from compress.models.treatment import BlockWeights, StaticInt8
from compress.steps.quantize._rounding import in_blocks, per_tensor
from compress.targets.graph import census
from compress.targets.graph.emitter import emit, packed, patches_apart, weight_matrix
from compress.targets.graph.session import open_session

BLOCKS = [pytest.param(bits, symmetric, id=f"{bits} bits {'sym' if symmetric else 'asym'}")
          for bits in (4, 8) for symmetric in (True, False)]  # fmt: skip


def made(nodes, given, held, output="y"):
    """A tower of one site from a few nodes; `given` is the input's shape."""
    kind = TensorProto.INT64 if nodes[0].op_type == "Gather" else TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", kind, given)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(values, name) for name, values in held.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )  # fmt: skip
    model.ir_version = 9
    graph = clean(model)
    strip_nodes(graph)
    return Tower("vision", graph, by_topology(graph), ("x",), output)


def run(model, **feed):
    return open_session(model).run(None, feed)[0]


def swapped(tower, treatment):
    """The float graph with the dequantized weight in the place of the site's."""
    model = onnx.ModelProto()
    model.CopyFrom(tower.graph)
    (site,) = tower.sites
    values = treatment.dequantized()
    values = values.T if site.op == "MatMul" else values.reshape(site.shape)
    initializers(model)[site.weight].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), site.weight))
    return model


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def treated(tower, bits, symmetric, block=32):
    (site,) = tower.sites
    treatment = in_blocks(weight_matrix(tower, site), bits, block, symmetric)
    tower.treatments[site.name] = treatment
    return treatment


def matmul(rows=70, columns=9):
    return made([helper.make_node("MatMul", ["x", "w"], ["y"])], ["n", 3, rows], {"w": random(rows, columns)})


@pytest.mark.parametrize(("bits", "symmetric"), BLOCKS)
@pytest.mark.parametrize("rows", [64, 70, 20])
def test_a_matrix_product(bits, symmetric, rows):
    tower = matmul(rows)
    treatment = treated(tower, bits, symmetric)
    emitted, x = emit(tower), random(2, 3, rows, seed=1)
    assert [node.op_type for node in emitted.graph.node] == ["MatMulNBits"]
    np.testing.assert_allclose(run(emitted, x=x), run(swapped(tower, treatment), x=x), atol=1e-5)
    np.testing.assert_allclose(run(emitted, x=x), x @ treatment.dequantized().T, atol=1e-5)


@pytest.mark.parametrize("turned", [0, 1])
def test_a_gemm(turned):
    weight = random(12, 40) if turned else random(40, 12)
    tower = made(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=turned)], ["n", 40], {"w": weight, "b": random(12)}
    )
    x = random(4, 40, seed=1)
    np.testing.assert_allclose(run(tower.graph, x=x), x @ (weight.T if turned else weight) + random(12), atol=1e-5)
    treatment = treated(tower, 4, True)
    assert treatment.dequantized().shape == (12, 40)
    np.testing.assert_allclose(run(emit(tower), x=x), x @ treatment.dequantized().T + random(12), atol=1e-5)


def test_one_scale_for_a_tensor():
    tower, x = matmul(), random(2, 3, 70, seed=1)
    (site,) = tower.sites
    treatment = per_tensor(weight_matrix(tower, site), 4, 64)
    tower.treatments[site.name] = treatment
    np.testing.assert_allclose(run(emit(tower), x=x), x @ treatment.dequantized().T, atol=1e-5)


def patches(side=(8, 12), bias=True, **options):
    held = {"w": random(10, 3, 4, 2), **({"b": random(10, seed=3)} if bias else {})}
    node = helper.make_node("Conv", ["x", *held], ["y"], **{"strides": [4, 2], **options})
    return made([node], ["n", 3, *side], held)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("bits", "symmetric"), BLOCKS)
def test_patches(bits, symmetric, bias):
    tower, x = patches(bias=bias), random(2, 3, 8, 12, seed=1)
    treatment = treated(tower, bits, symmetric)
    expected = run(swapped(tower, treatment), x=x)
    assert expected.shape == (2, 10, 2, 6)
    np.testing.assert_allclose(run(emit(tower), x=x), expected, atol=1e-5)


def test_patches_are_the_convolution_itself():
    """Small whole numbers are exact in float, in 8 bits and in every order of summation: nothing may differ."""
    tower = patches()
    (site,) = tower.sites
    whole = np.random.default_rng(0).integers(-8, 9, site.shape)
    initializers(tower.graph)[site.weight].CopyFrom(numpy_helper.from_array(whole.astype(np.float32), site.weight))
    codes = np.full((10, 1, 32), 128, np.uint8)
    codes[:, 0, :24] = whole.reshape(10, 24) + 128
    tower.treatments[site.name] = BlockWeights(codes, np.ones((10, 1), np.float32), None, 8, 24)
    initializers(tower.graph)["b"].CopyFrom(numpy_helper.from_array(np.arange(10, dtype=np.float32), "b"))
    x = np.random.default_rng(1).integers(-9, 10, (2, 3, 8, 12)).astype(np.float32)
    np.testing.assert_array_equal(run(emit(tower), x=x), run(tower.graph, x=x))


NO_PATCHES = pytest.mark.parametrize(
    "changed",
    [{"strides": [2, 2]}, {"pads": [1, 0, 1, 0]}, {"dilations": [2, 1]}, {"auto_pad": "SAME_UPPER"}, {"side": (9, 12)},
     {"side": ("h", "w")}],
    ids=str,
)  # fmt: skip


@NO_PATCHES
def test_convolutions_that_are_no_patches_take_no_integers(changed):
    tower = patches(**changed)
    (site,) = tower.sites
    tower.treatments[site.name] = StaticInt8(np.zeros((10, 24), np.int8), np.ones(10, np.float32), 0.1)
    with pytest.raises(UsageError, match=r"whole patches(.|\n)*leave patch_embed out(.|\n)*int8_rtn"):
        emit(tower)


@NO_PATCHES
@pytest.mark.parametrize(("bits", "symmetric"), BLOCKS)
def test_the_kernel_of_any_other_convolution(bits, symmetric, changed):
    tower = patches(**changed)
    treatment = treated(tower, bits, symmetric)
    emitted = emit(tower)
    assert not {node.domain for node in emitted.graph.node} - {""}
    assert site_weight(tower) not in initializers(emitted)
    side = (9, 12) if changed.get("side") == (9, 12) else (8, 12)
    x = random(2, 3, *side, seed=1)
    np.testing.assert_allclose(run(emitted, x=x), run(swapped(tower, treatment), x=x), atol=1e-5)
    assert census.planned(tower) == census.found(emitted, tower) == {f"int{bits} kernel in blocks of 32": "1"}
    assert census.found(tower.graph, tower) == {"float product": "1"}


def test_the_kernel_of_a_convolution_in_groups_and_whole_blocks():
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=3)
    tower = made([node], ["n", 24, 5, 5], {"w": random(6, 8, 2, 2)})
    treatment = treated(tower, 4, True)
    emitted, x = emit(tower), random(2, 24, 5, 5, seed=1)
    assert "Slice" not in {node.op_type for node in emitted.graph.node}
    np.testing.assert_allclose(run(emitted, x=x), run(swapped(tower, treatment), x=x), atol=1e-5)


def site_weight(tower):
    (site,) = tower.sites
    return site.weight


def test_patches_that_follow_each_other():
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[4, 4], auto_pad="VALID")
    assert patches_apart(node, [4, 4])
    assert not patches_apart(node, [4, 2])
    assert not patches_apart(helper.make_node("Conv", ["x", "w"], ["y"], strides=[4, 4], group=3), [4, 4])
    assert not patches_apart(helper.make_node("Conv", ["x", "w"], ["y"]), [4, 4])


@pytest.mark.parametrize(("bits", "symmetric"), BLOCKS)
@pytest.mark.parametrize("width", [64, 40])
def test_a_table(bits, symmetric, width):
    tower = made([helper.make_node("Gather", ["w", "x"], ["y"])], ["n", "s"], {"w": random(11, width)})
    treatment = treated(tower, bits, symmetric)
    emitted, x = emit(tower), np.array([[0, 10, 3], [5, 5, 9]])
    assert [node.op_type for node in emitted.graph.node] == ["GatherBlockQuantized"]
    got = run(emitted, x=x)
    assert got.shape == (2, 3, width)
    np.testing.assert_allclose(got, treatment.dequantized()[x], atol=1e-6)


def test_a_table_of_odd_width():
    tower = made([helper.make_node("Gather", ["w", "x"], ["y"])], ["n"], {"w": random(5, 33)})
    treatment = treated(tower, 8, True)
    np.testing.assert_allclose(run(emit(tower), x=np.array([4, 0])), treatment.dequantized()[[4, 0]], atol=1e-6)
    treated(tower, 4, True)
    with pytest.raises(UsageError, match="odd width"):
        emit(tower)


def static(rows, columns, scale, seed=0):
    """Codes of at most 63 steps: kernels without VNNI add two products in 16 bits, which larger ones can fill."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-63, 64, (columns, rows)).astype(np.int8)
    return StaticInt8(codes, rng.uniform(0.01, 0.02, columns).astype(np.float32), scale)


def u8s8(x, held):
    """The integer product, in integers: uint8 inputs around 128, int8 weights, one scale for each output."""
    codes = np.clip(np.rint(x / np.float32(held.input_scale)) + 128, 0, 255).astype(np.int64) - 128
    return (codes @ held.codes.T.astype(np.int64)) * (np.float64(held.input_scale) * held.scales)


def test_static_int8():
    tower, x = matmul(), random(2, 3, 70, seed=1)
    held = static(70, 9, 0.0199)
    tower.treatments[tower.sites[0].name] = held
    emitted = emit(tower)
    assert [node.op_type for node in emitted.graph.node] == [
        "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul"
    ]  # fmt: skip
    assert np.abs(x).max() > 127 * held.input_scale, "clipping has to be part of the test"
    np.testing.assert_allclose(run(emitted, x=x), u8s8(x, held), rtol=1e-5, atol=1e-5)


def test_static_int8_patches():
    tower, x = patches(), random(2, 3, 8, 12, seed=1)
    held = static(24, 10, 0.02)
    tower.treatments[tower.sites[0].name] = held
    cut = x.reshape(2, 3, 2, 4, 6, 2).transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, 6, 24)
    expected = (u8s8(cut, held) + random(10, seed=3)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(run(emit(tower), x=x), expected, rtol=1e-5, atol=1e-5)


def test_sites_that_read_one_value_share_its_quantization(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    for site in tower.sites:
        if site.role == "attn.qkv":
            tower.treatments[site.name] = static(*site.shape, 0.02)
    ops = [node.op_type for node in emit(tower).graph.node]
    assert ops.count("QuantizeLinear") == 1
    assert ops.count("DequantizeLinear") == 1 + 3


def test_sites_that_share_a_weight():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("MatMul", ["z", "w"], ["y"])]
    tower = made(nodes, ["n", 32], {"w": random(32, 32)})
    first, second = tower.sites
    treatment = in_blocks(weight_matrix(tower, first), 4, 32)
    tower.treatments.update({first.name: treatment, second.name: treatment})
    x, weight = random(2, 32, seed=1), treatment.dequantized().T
    np.testing.assert_allclose(run(emit(tower), x=x), x @ weight @ weight, atol=1e-4)
    tower.treatments[second.name] = static(32, 32, 0.02)
    tower.treatments[first.name] = static(32, 32, 0.03, seed=1)
    with pytest.raises(UsageError, match="share this weight"):
        emit(tower)


def test_nothing_treated_is_nothing_changed(tiny_encoder):
    for tower in tiny_encoder.towers.values():
        assert emit(tower) == tower.graph


def test_untreated_sites_stay_and_replaced_weights_go(tiny_encoder):
    tower = tiny_encoder.towers["text"]
    site = next(site for site in tower.sites if site.role == "mlp.fc2")
    tower.treatments[site.name] = in_blocks(weight_matrix(tower, site), 4, 32)
    before, after = initializers(tower.graph), initializers(emit(tower))
    assert before.keys() - after.keys() == {site.weight}
    assert after.keys() - before.keys() == {f"{site.weight}_q", f"{site.weight}_scales"}
    assert all(after[name] == before[name] for name in before.keys() & after.keys())


def test_a_table_has_no_static_product():
    tower = made([helper.make_node("Gather", ["w", "x"], ["y"])], ["n"], {"w": random(5, 32)})
    tower.treatments[tower.sites[0].name] = static(32, 5, 0.1)
    with pytest.raises(UsageError, match="cannot be applied to Gather"):
        emit(tower)


def test_the_whole_encoder_at_four_bits(tiny_encoder):
    for kind, tower in tiny_encoder.towers.items():
        model = onnx.ModelProto()
        model.CopyFrom(tower.graph)
        for site in tower.sites:
            treatment = in_blocks(weight_matrix(tower, site), 4, 32, symmetric=False)
            tower.treatments[site.name] = treatment
            values = treatment.dequantized()
            values = values.T if site.op == "MatMul" else values.reshape(site.shape)
            held = numpy_helper.from_array(np.ascontiguousarray(values), site.weight)
            initializers(model)[site.weight].CopyFrom(held)
        (feed,) = tiny_towers.feeds(kind, 1)
        np.testing.assert_allclose(run(emit(tower), **feed), run(model, **feed), atol=1e-5)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([1, 2], [0x21]), ([15, 0, 7], [0x0F, 0x07]), ([[3, 4], [5, 6]], [[0x43], [0x65]])],
    ids=["the first in the low bits", "odd", "rows"],
)
def test_four_bits_are_packed_low_bits_first(codes, expected):
    np.testing.assert_array_equal(packed(np.array(codes, np.uint8), 4), expected)


def test_eight_bits_are_not_packed():
    np.testing.assert_array_equal(packed(np.array([1, 255], np.uint8), 8), [1, 255])


def test_weights_as_out_by_in():
    graph = matmul(5, 2).graph
    values = numpy_helper.to_array(graph.graph.initializer[0])
    tower = Tower("vision", graph, (), ("x",), "y")
    np.testing.assert_array_equal(weight_matrix(tower, Site("s", "r", None, "MatMul", "n", "w", (5, 2))), values.T)
    np.testing.assert_array_equal(weight_matrix(tower, Site("s", "r", None, "Gather", "n", "w", (5, 2))), values)
