"""Towers whose weights lie in a safetensors file, as those of a model larger than memory do."""

import json
import struct

import numpy as np
import onnx
from onnx import numpy_helper

from compress.models import reference
from compress.models.reference import Reference
from compress.models.shards import header
from compress.models.tower import Tower

KINDS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "uint8": "U8"}


def write_safetensors(path, arrays):
    """A safetensors file, byte by byte as its format says."""
    told, content = {}, b""
    for name, values in arrays.items():
        data = np.ascontiguousarray(values).tobytes()
        ends = [len(content), len(content) + len(data)]
        told[name] = {"dtype": KINDS[values.dtype.name], "shape": list(values.shape), "data_offsets": ends}
        content += data
    head = json.dumps(told).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + content)
    return path


def referring(tower, path):
    """A copy of a tower whose matrices lie, transposed as frameworks store them, in a safetensors file."""
    graph = onnx.ModelProto()
    graph.CopyFrom(tower.graph)
    matrices = {site.weight for site in tower.sites if site.op == "MatMul"}
    arrays = {each.name: numpy_helper.to_array(each).T for each in graph.graph.initializer if each.name in matrices}
    places = header(write_safetensors(path, arrays))
    for tensor in graph.graph.initializer:
        if tensor.name in places:
            tensor.CopyFrom(reference.turned(reference.tensor(tensor.name, places[tensor.name]), tensor.name))
    return Tower(tower.kind, graph, tower.sites, tower.inputs, tower.output, tokens=tower.tokens)


def place(path, offset, values):
    """The reference of an array that is written to a file at an offset."""
    path.write_bytes(b"\0" * offset + values.tobytes())
    return Reference(path, offset, values.dtype.name, values.shape)
