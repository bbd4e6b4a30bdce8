"""`onnxruntime-cuda`: its files, where their products ran, and what happens on a machine without the provider."""

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_towers

from compress.core.errors import EnvironmentFailure, UsageError
from compress.data.session import Encoder
from compress.models.treatment import Float16, StaticFloat8
from compress.steps.quantize._float8 import float8_per_channel
from compress.steps.quantize._rounding import in_blocks
from compress.targets import onnxruntime_cuda
from compress.targets.graph import census, placement
from compress.targets.graph.emitter import weight_matrix
from compress.targets.graph.session import open_session
from compress.targets.graph.types import element_types

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def treat(encoder):
    """4-bit MLPs, everything else in half precision."""
    for tower in encoder.towers.values():
        for site in tower.sites:
            weight = weight_matrix(tower, site)
            four = site.role.startswith("mlp")
            half = Float16(weight.astype(np.float16), np.array([], np.str_))
            tower.treatments[site.name] = in_blocks(weight, 4, 32) if four else half


def test_4_bits_in_a_half_precision_graph(tiny_encoder):
    treat(tiny_encoder)
    for kind, tower in tiny_encoder.towers.items():
        model = onnxruntime_cuda.emit(tower)
        assert census.planned(tower) == census.found(model, tower)
        types = element_types(model)
        product = next(node for node in model.graph.node if node.op_type == "MatMulNBits")
        assert types[product.input[0]] == types[product.output[0]] == onnx.TensorProto.FLOAT16
        (feed,) = tiny_towers.feeds(kind, 1)
        (expected,), (got,) = open_session(tower.graph).run(None, feed), open_session(model).run(None, feed)
        assert (expected * got).sum(1).min() > 0.95


@pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA provider here")
def test_without_the_provider_it_ends_5(tiny_encoder, tmp_path):
    with pytest.raises(EnvironmentFailure, match="CUDAExecutionProvider") as caught:
        onnxruntime_cuda.ready()
    assert caught.value.exit_code == 5
    files = onnxruntime_cuda.export(tiny_encoder, tmp_path)  # writing needs no device
    with pytest.raises(EnvironmentFailure):
        Encoder(tmp_path)
    with pytest.raises(EnvironmentFailure):
        onnxruntime_cuda.counts(tiny_encoder, files)


def test_float8_is_refused(tiny_encoder):
    tower = tiny_encoder.towers["vision"]
    site = next(site for site in tower.sites if site.role == "mlp.fc1")
    tower.treatments[site.name] = StaticFloat8(*float8_per_channel(weight_matrix(tower, site)), 0.1)
    with pytest.raises(UsageError, match="runs on no such target"):
        onnxruntime_cuda.emit(tower)


def test_where_products_ran(tmp_path):
    files = tiny_towers.write(tmp_path)
    assert placement.of_products(files["vision"], ["CPUExecutionProvider"]) == {"CPUExecutionProvider": 10}


def test_a_product_on_the_cpu_does_not_pass_for_one_on_the_device():
    def event(name, op, provider):
        return {"cat": "Node", "name": name, "args": {"op_name": op, "provider": provider}}

    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    events = [event("a_kernel_time", "MatMul", cuda), event("a_kernel_time", "MatMul", cuda), {"cat": "Session"},
              event("b_kernel_time", "Conv", cpu), event("c_kernel_time", "Reshape", cpu)]  # fmt: skip
    assert placement.placed(events) == {cuda: 1, cpu: 1}


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="onnxruntime has no CUDAExecutionProvider here")
def test_on_a_device(tiny_encoder, tmp_path):
    treat(tiny_encoder)
    files = onnxruntime_cuda.export(tiny_encoder, tmp_path)
    for planned, found in onnxruntime_cuda.counts(tiny_encoder, files).values():
        assert planned == found
    assert Encoder(tmp_path).runtime.session.providers == ("CUDAExecutionProvider",)
