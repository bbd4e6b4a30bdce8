"""Steps on towers whose weights lie in files do what they do on towers in memory, and go on where they were."""

import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import tiny_towers
from referred import referring

from compress.core import names
from compress.core.errors import IntegrityError, UsageError
from compress.models.external_data import save
from compress.models.kept import Kept
from compress.models.treatment import BlockWeights, Float16, StaticInt8
from compress.steps.step import Context
from compress.targets.onnxruntime_cpu import fused

METHODS = {
    "int4_rtn": {"block": 16, "symmetric": False},
    "int8_rtn": {"include": ("mlp.fc2", "embedding", "patch_embed")},
    "hqq": {"block": 64},
    "gptq": {"towers": ("vision",)},
    "int8_static": {"towers": ("vision",), "include": ("patch_embed", "attn.qkv", "mlp.fc2"), "smooth": None},
}


def equal(one, other):
    pairs = [(getattr(one, each.name), getattr(other, each.name)) for each in fields(one)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


@pytest.fixture
def both(tmp_path):
    """An encoder in memory, and the same with its matrices in files and its treatments in a folder."""
    held = tiny_towers.encoder(tmp_path)
    towers = {kind: referring(tower, tmp_path / f"{kind}.safetensors") for kind, tower in held.towers.items()}
    for kind, tower in towers.items():
        tower.treatments = Kept(tmp_path / "kept" / kind)
    return held, replace(held, towers=towers)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_the_same_where_weights_are_streamed(both, tmp_path, name):
    method = names.load("compress.steps", f"quantize.{name}")
    spec = method.Spec(**METHODS[name])
    reports = [
        method.apply(encoder, spec, Context(tiny_towers.feeds, scratch=tmp_path / "scratch")) for encoder in both
    ]
    assert reports[0] == reports[1]
    assert reports[0].rows
    for kind in spec.towers:
        tower = both[0].towers[kind]
        large = both[1].towers[kind]
        assert set(tower.treatments) == set(large.treatments) != set()
        assert all(equal(held, large.treatments[site]) for site, held in tower.treatments.items())
        for folder, each in (("a", tower), ("b", large)):
            (tmp_path / folder).mkdir(exist_ok=True)
            save(fused(each), tmp_path / folder / f"{kind}.onnx")
        assert (tmp_path / "a" / f"{kind}.onnx").read_bytes() == (tmp_path / "b" / f"{kind}.onnx").read_bytes()
    left = {path.name for path in (tmp_path / "scratch").glob("*/*")}
    assert left == {"gptq": {"2", "3"}, "int8_static": {"1", "2"}}.get(
        name, set()
    )  # two places at a time, to go on from


def test_what_cannot_be_kept_in_a_file_is_refused(tmp_path):
    kept = Kept(tmp_path / "kept")
    with pytest.raises(UsageError, match="Float16"):
        kept["a"] = Float16(np.zeros((2, 2), np.float16), np.array(["x"]))
    assert not kept
    with pytest.raises(KeyError):
        kept["a"]


def test_treatments_come_back_from_their_files(tmp_path):
    codes = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    blocks = BlockWeights(codes, np.ones((2, 2), np.float32), np.zeros((2, 2), np.uint8), 4, 5)
    static = StaticInt8(np.ones((2, 3), np.int8), np.ones(2, np.float32), 0.25, zero_point=3)
    kept = Kept(tmp_path / "kept")
    kept["layers.0.fc1"], kept["../fc2"] = blocks, static
    assert sorted(path.parent.name for path in tmp_path.rglob("*.safetensors")) == ["kept", "kept"]
    again = Kept(tmp_path / "kept")
    assert not again
    again.adopt("layers.0.fc1")
    again.adopt("../fc2")
    assert equal(again["layers.0.fc1"], blocks)
    assert equal(again["../fc2"], static)
    del again["../fc2"]
    assert list(again) == ["layers.0.fc1"]
    kept.path("layers.0.fc1").write_bytes(b"nothing")
    with pytest.raises(IntegrityError):
        Kept(tmp_path / "kept").adopt("layers.0.fc1")


LARGE = """
import json, struct, sys
from pathlib import Path
from onnx import TensorProto, helper
from compress.data.child import peak_memory, restart_peak
from compress.models import reference
from compress.models.external_data import save
from compress.models.kept import Kept
from compress.models.shards import header
from compress.models.sites import by_topology
from compress.models.tower import Encoder, Tower
from compress.steps.quantize import int4_rtn
from compress.steps.step import Context
from compress.targets.onnxruntime_cpu import fused

folder, width, layers = Path(sys.argv[1]), 1024, 48
told = {f"w{n}": {"dtype": "BF16", "shape": [width, width], "data_offsets": [2 * n * width**2, 2 * (n + 1) * width**2]}
        for n in range(layers)}
head = json.dumps(told).encode()
with (folder / "model.safetensors").open("wb") as opened:
    opened.write(struct.pack("<Q", len(head)) + head)
    opened.truncate(opened.tell() + 2 * layers * width**2)  # zeros that take no room on the disk
nodes = [helper.make_node("MatMul", [f"v{n}", f"w{n}"], [f"v{n + 1}"], name=f"p{n}") for n in range(layers)]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in ("v0", f"v{layers}")]
drawn = helper.make_graph(nodes, "g", ends[:1], ends[1:])
graph = helper.make_model(drawn, opset_imports=[helper.make_opsetid("", 20)])
for name, place in header(folder / "model.safetensors").items():
    graph.graph.initializer.append(reference.turned(reference.tensor(name, place), name))
tower = Tower("vision", graph, by_topology(graph), ("v0",), f"v{layers}", Kept(folder / "kept"))
encoder = Encoder("x", None, "x", 0, {"vision": tower}, {}, {}, None, False)
assert len(tower.sites) == layers
before = restart_peak()
int4_rtn.apply(encoder, int4_rtn.Spec(scale_search="absmax"), Context())
save(fused(tower), folder / "made.onnx", 1)
print((peak_memory() - before) / (4 * layers * width**2), (folder / "made.onnx_data").stat().st_size)
"""


def test_a_model_is_quantized_in_a_fraction_of_its_size(tmp_path):
    done = subprocess.run([sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=True)
    share, size = map(float, done.stdout.split())
    assert share < 0.5  # of 201 MB; one weight is a fiftieth
    assert size >= 48 * 1024 * (512 + 32 * 4)
