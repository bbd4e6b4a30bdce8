"""Towers as torch modules: ONNX Runtime's numbers, torch's gradients, weights back where they came from."""

import numpy as np
import onnx
import pytest
import tiny_towers
import torch
from onnx import TensorProto, helper

from compress.models.differentiable import DifferentiableTower
from compress.models.loading import load
from compress.recipe.sources import NamedModel
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
def test_the_embedded_model(kind):
    tower = load(NamedModel(source="pocket-clip"), offline=True).towers[kind]
    agree(tower, pocket_feeds(kind))
