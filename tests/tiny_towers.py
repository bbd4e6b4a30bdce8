"""A dual encoder small enough to check by hand, as ONNX towers: one block each, every role there once."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.models.onnx_towers import load_onnx

WIDTH, INNER, JOINT, VOCABULARY, SIDE, PATCH = 40, 72, 24, 30, 8, 4


class Drawing:
    """Nodes and weights of a graph under construction."""

    def __init__(self, seed=0):
        self.nodes, self.weights, self.before = [], {}, ""
        self.rng = np.random.default_rng(seed)

    def weight(self, name, *shape):
        name = self.before + name
        self.weights[name] = (self.rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
        return name

    def const(self, name, values, dtype=np.int64):
        name = self.before + name
        self.weights[name] = np.array(values, dtype)
        return name

    def node(self, op, inputs, output, **options):
        output = self.before + output
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"/{output}", **options))
        return output

    def linear(self, value, name, rows, columns):
        made = self.node("MatMul", [value, self.weight(f"{name}.weight", rows, columns)], f"{name}.product")
        return self.node("Add", [made, self.weight(f"{name}.bias", columns)], name)

    def norm(self, value, name):
        ends = [self.const(f"{name}.scale", np.ones(WIDTH), np.float32), self.weight(f"{name}.bias", WIDTH)]
        return self.node("LayerNormalization", [value, *ends], name, axis=-1)

    def model(self, given, made):
        tensors = [numpy_helper.from_array(values, name) for name, values in self.weights.items()]
        model = helper.make_model(
            helper.make_graph(self.nodes, "tower", [given], [made], tensors),
            opset_imports=[helper.make_opsetid("", 20)],
        )
        model.ir_version = 9
        onnx.checker.check_model(model)
        return model


def _block(draw, value, heads):
    seen = draw.norm(value, "norm1")
    q, k, v = (draw.linear(seen, name, WIDTH, WIDTH) for name in "qkv")
    turned = [0, 2, 1]
    if heads > 1:
        shape, turned = draw.const("head_shape", [0, 0, heads, WIDTH // heads]), [0, 1, 3, 2]
        cut = [draw.node("Reshape", [each, shape], f"{name}_cut") for name, each in zip("qkv", (q, k, v), strict=True)]
        q, k, v = (
            draw.node("Transpose", [each], f"{name}_cut_heads", perm=[0, 2, 1, 3])
            for name, each in zip("qkv", cut, strict=True)
        )
    turned = draw.node("Transpose", [k], "k_turned", perm=turned)
    scores = draw.node("MatMul", [q, turned], "scores")
    mixed = draw.node("MatMul", [draw.node("Softmax", [scores], "attention", axis=-1), v], "mixed")
    if heads > 1:
        joined = draw.node("Transpose", [mixed], "mixed_heads", perm=[0, 2, 1, 3])
        mixed = draw.node("Reshape", [joined, draw.const("joined_shape", [0, 0, WIDTH])], "mixed_joined")
    value = draw.node("Add", [value, draw.linear(mixed, "out", WIDTH, WIDTH)], "after_attention")
    inner = draw.node("Gelu", [draw.linear(draw.norm(value, "norm2"), "fc1", WIDTH, INNER)], "inner")
    return draw.node("Add", [value, draw.linear(inner, "fc2", INNER, WIDTH)], "after_mlp")


def _projected(draw, value, heads, blocks):
    """Blocks, all but the first with their number before every name, and what comes behind them."""
    for at in range(blocks):
        draw.before = f"b{at}." if at else ""
        value = _block(draw, value, heads)
    draw.before = ""
    pooled = draw.node("ReduceMean", [value, draw.const("tokens", [1])], "pooled", keepdims=0)
    return draw.node("MatMul", [pooled, draw.weight("projection.weight", WIDTH, JOINT)], "projected")


def _unit(draw, value, output):
    length = draw.node("ReduceL2", [value, draw.const("last", [-1])], "length", keepdims=1)
    return draw.node("Div", [value, length], output)


def vision(seed=0, heads=1, blocks=1):
    draw = Drawing(seed)
    kernel = draw.weight("patch.weight", WIDTH, 3, PATCH, PATCH)
    seen = draw.node(
        "Conv", ["pixel_values", kernel, draw.weight("patch.bias", WIDTH)], "patches", strides=[PATCH, PATCH]
    )
    flat = draw.node("Reshape", [seen, draw.const("flat_shape", [0, 0, -1])], "flat")
    cells = draw.node("Transpose", [flat], "cells", perm=[0, 2, 1])
    _unit(draw, _projected(draw, cells, heads, blocks), "image_embeds")
    return draw.model(
        helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE]),
        helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", JOINT]),
    )


def text(seed=1, heads=1, blocks=1):
    draw = Drawing(seed)
    told = draw.node("Gather", [draw.weight("table", VOCABULARY, WIDTH), "input_ids"], "tokens_in", axis=0)
    _unit(draw, _projected(draw, told, heads, blocks), "text_embeds")
    return draw.model(
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["batch", JOINT]),
    )


ROLES = {"attn.qkv": 3, "attn.out": 1, "mlp.fc1": 1, "mlp.fc2": 1, "projection": 1}


def write(folder, heads=1, blocks=1):
    """Both towers as files, by kind."""
    files = {"vision": folder / "vision.onnx", "text": folder / "text.onnx"}
    for kind, model in (("vision", vision(heads=heads, blocks=blocks)), ("text", text(heads=heads, blocks=blocks))):
        files[kind].write_bytes(model.SerializeToString())
    return files


def encoder(folder, heads=1, blocks=1):
    """The encoder of both towers, read from files below `folder`."""
    plain = {
        "kind": "plain",
        "image": {"size": [SIDE, SIDE]},
        "text": {"tokenizer": "bytes", "length": 8},
    }
    return load_onnx(write(folder, heads, blocks), plain, 10.0)


def feeds(kind, batches=2, seed=5):
    """Batches of inputs of a tower."""
    rng = np.random.default_rng(seed)
    for size in range(3, 3 + batches):
        if kind == "vision":
            yield {"pixel_values": rng.normal(size=(size, 3, SIDE, SIDE)).astype(np.float32)}
        else:
            yield {"input_ids": rng.integers(0, VOCABULARY, (size, 7))}
