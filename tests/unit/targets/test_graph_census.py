"""The census: what was planned is found after emitting, and nothing else passes for it."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compress.models import external_data
from compress.models.graph import initializers
from compress.models.treatment import StaticInt8
from compress.steps.quantize._rounding import in_blocks, int8_per_channel
from compress.targets import onnxruntime_cpu
from compress.targets.graph import census
from compress.targets.graph.emitter import emit, weight_matrix

TREATED = ("mlp.fc1", "mlp.fc2", "patch_embed", "embedding")


def treat(tower, bits=4, symmetric=True, roles=TREATED):
    for site in tower.sites:
        if site.role in roles:
            tower.treatments[site.name] = in_blocks(weight_matrix(tower, site), bits, 32, symmetric)


def treat_static(tower, roles=("mlp.fc1", "attn.qkv")):
    for site in tower.sites:
        if site.role in roles:
            codes, scales = int8_per_channel(weight_matrix(tower, site))
            tower.treatments[site.name] = StaticInt8(codes, scales, 0.02)


@pytest.fixture(params=["vision", "text"])
def tower(request, tiny_encoder):
    return tiny_encoder.towers[request.param]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_planned_is_found(tower, bits, symmetric):
    treat(tower, bits, symmetric)
    treat_static(tower, ("attn.qkv", "attn.out"))
    planned = census.planned(tower)
    assert planned == census.found(emit(tower), tower)
    first = {"vision": {f"int{bits} product in blocks of 32": "3"},
             "text": {f"int{bits} product in blocks of 32": "2", f"int{bits} table in blocks of 32": "1"}}  # fmt: skip
    assert planned == {"float product": "1", "int8 static product": "4", **first[tower.kind]}


def test_of_a_float_tower(tower):
    planned = census.planned(tower)
    assert planned == census.found(tower.graph, tower)
    assert planned == {"vision": {"float product": "8"}, "text": {"float product": "7", "float table": "1"}}[tower.kind]


def test_nothing_was_changed(tower):
    treat(tower)
    assert census.planned(tower) != census.found(tower.graph, tower)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_weight_swapped_back_to_float(tower, renamed):
    treat(tower)
    model = emit(tower)
    at, node = next((at, node) for at, node in enumerate(model.graph.node) if node.op_type == "MatMulNBits")
    site = next(site for site in tower.sites if f"{site.weight}_q" == node.input[1])
    held = initializers(tower.graph)[site.weight]
    values = weight_matrix(tower, site).T
    name = "other" if renamed else held.name
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    model.graph.node[at].CopyFrom(helper.make_node("MatMul", [node.input[0], name], node.output, name=node.name))
    assert census.planned(tower) != census.found(model, tower)


@pytest.mark.parametrize("what", ["_q", "_scales"])
@pytest.mark.parametrize("role", ["mlp.fc1", "embedding", "patch_embed"])
def test_a_packed_weight_of_another_size(tower, role, what):
    treat(tower)
    model = emit(tower)
    site = next((site for site in tower.sites if site.role == role), None)
    if site is None:
        return  # the other tower has it
    tensor = initializers(model)[f"{site.weight}{what}"]
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[:-1]), tensor.name))
    if what == "_q" and role == "embedding":
        tensor.dims[0] += 1  # the shape still says what it should
    found = census.found(model, tower)
    assert found != census.planned(tower)
    assert any("wrong size" in kind for kind in found)


def test_static_weights_of_another_type(tower):
    treat_static(tower)
    model = emit(tower)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_zero"):
            tensor.CopyFrom(numpy_helper.from_array(np.int8(0), tensor.name))
    assert census.found(model, tower) != census.planned(tower)


def test_parts_add_up_to_the_file(tower):
    treat(tower)
    treat_static(tower, ("attn.qkv",))
    model = emit(tower)
    parts = census.parts(model)
    assert sum(parts.values()) == model.ByteSize()
    quantized = [site for site in tower.sites if site.role in TREATED]
    codes = sum(tower.treatments[site.name].codes.size for site in quantized if site.op != "Gather") // 2
    codes += sum(site.shape[0] * site.shape[1] for site in quantized if site.op == "Gather") // 2
    codes += 3 * 40 * 40
    assert codes <= parts["integer weights"] <= codes + 2  # a zero point of the shared input
    assert parts["float weights"] < tower.graph.ByteSize() / 2


@pytest.mark.parametrize("static", [False, True])
def test_counts_of_written_files(tiny_encoder, tmp_path, static):
    for tower in tiny_encoder.towers.values():
        treat_static(tower) if static else treat(tower)
    out = tmp_path / "out"
    out.mkdir()
    files = onnxruntime_cpu.export(tiny_encoder, out)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == sorted(
        ["compress/runtime.json", *(f"onnx/{kind}_model_{'int8' if static else 'q4'}.onnx" for kind in files)]
    )
    for planned, found in onnxruntime_cpu.counts(tiny_encoder, files).values():
        assert planned == found
        assert ("integer kernels" in planned) == static


def test_the_same_model_is_the_same_bytes_and_large_weights_lie_beside_it(tiny_encoder, tmp_path):
    model = tiny_encoder.towers["vision"].graph
    for name in ("a.onnx", "b.onnx"):
        external_data.save(model, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    before = model.SerializeToString()
    external_data.save(model, tmp_path / "large.onnx", above=1000)
    assert model.SerializeToString() == before
    assert (tmp_path / "large.onnx").stat().st_size < (tmp_path / "large.onnx_data").stat().st_size
    assert onnx.load(tmp_path / "large.onnx").graph.initializer[0].raw_data == model.graph.initializer[0].raw_data


def test_names_of_files(tiny_encoder):
    tower = tiny_encoder.towers["text"]
    assert onnxruntime_cpu.suffix(tower) == ""
    treat(tower, 8, roles=("mlp.fc1",))
    assert onnxruntime_cpu.suffix(tower) == "_q8"
    treat_static(tower, ("attn.out",))
    assert onnxruntime_cpu.suffix(tower) == "_int8"
    treat(tower, 4, roles=("mlp.fc2",))
    assert onnxruntime_cpu.suffix(tower) == "_q4"
