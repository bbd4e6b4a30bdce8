"""Training through integers: forward values are the treatment's and the file's, gradients are those of the papers."""

import numpy as np
import pytest
import tiny_towers
import torch

from compress.core import names
from compress.core.errors import UsageError
from compress.models.differentiable import DifferentiableTower, write_back
from compress.models.treatment import BlockWeights, StaticInt8
from compress.steps.distill import _fake_quant as fake_quant
from compress.steps.step import Context
from compress.targets.graph import emitter
from compress.targets.graph.session import open_session

KINDS = ("vision", "text")
STEPS = {
    "naive": [("quantize.int4_rtn", {"scale_per": "tensor", "block": 128})],
    "blocks that do not divide": [("quantize.int4_rtn", {"block": 64, "include": ["mlp.fc2", "projection"]})],
    "zero points": [("quantize.int4_rtn", {"block": 16, "symmetric": False})],
    "looks ahead": [("quantize.gptq", {"block": 32})],
    "tables and kernels": [("quantize.int8_rtn", {"block": 32, "include": ["embedding", "patch_embed", "mlp.fc1"]})],
    "w8a8": [("quantize.int8_static", {"include": ["patch_embed", "attn.qkv", "mlp.fc1", "mlp.fc2"]})],
}


def apply(encoder, steps):
    for use, options in steps:
        method = names.load("compress.steps", use)
        spec = method.Spec.model_validate(options, strict=False)
        method.apply(encoder, spec, Context(lambda kind: tiny_towers.feeds(kind, 12)))


@pytest.fixture(params=STEPS)
def encoder(request, tiny_encoder):
    apply(tiny_encoder, STEPS[request.param])
    return tiny_encoder


def module_of(tower, learn_scales=False):
    found = fake_quant.fakes(tower, learn_scales)
    fake_quant.start(tower, found)
    return DifferentiableTower(tower, (), found), found


def settle(tower, module, found):
    write_back(tower, module)
    fake_quant.settle(tower, found)


def embeddings(module, kind, output):
    (feed,) = tiny_towers.feeds(kind, 1, seed=9)
    tensors = {name: torch.from_numpy(values) for name, values in feed.items()}
    return feed, module(tensors)[output]


def test_it_computes_what_the_emitted_file_computes(encoder):
    for kind, tower in encoder.towers.items():
        if not tower.treatments:
            continue
        module, _ = module_of(tower)
        feed, made = embeddings(module, kind, tower.output)
        (expected,) = open_session(emitter.emit(tower)).run(None, feed)
        np.testing.assert_allclose(made.detach().numpy(), expected, atol=1e-5)


def restored(held):
    return held.codes * held.scales[:, None] if isinstance(held, StaticInt8) else held.dequantized()


def test_weights_are_those_of_the_treatment_and_the_way_back_gives_it_again(encoder):
    for tower in encoder.towers.values():
        module, found = module_of(tower)
        before = dict(tower.treatments)
        for fake in found.values():
            matrix = fake._matrix(fake.weight(module.weights()[fake.site.weight]))
            np.testing.assert_array_equal(matrix.detach().numpy(), restored(before[fake.site.name]))
        settle(tower, module, found)
        assert tower.treatments.keys() == before.keys()
        for name, held in tower.treatments.items():
            np.testing.assert_array_equal(held.codes, before[name].codes)
            np.testing.assert_array_equal(held.scales, before[name].scales)
            assert type(held) is type(before[name])


def test_after_a_step_of_training_the_treatment_holds_what_was_trained(encoder):
    for kind, tower in encoder.towers.items():
        if not tower.treatments:
            continue
        module, found = module_of(tower)
        optimizer = torch.optim.SGD(module.parameters(), 0.5)
        _, made = embeddings(module, kind, tower.output)
        (made * torch.randn(made.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
        for fake in found.values():
            assert module.weights()[fake.site.weight].grad.abs().sum() > 0
        optimizer.step()
        before = {name: held.codes.copy() for name, held in tower.treatments.items()}
        settle(tower, module, found)
        moved = [(tower.treatments[name].codes != codes).mean() for name, codes in before.items()]
        assert max(moved) > 0
        fake = next(iter(found.values()))
        expected = fake._matrix(fake.weight(module.weights()[fake.site.weight])).detach().numpy()
        np.testing.assert_array_equal(restored(tower.treatments[fake.site.name]), expected)


def grid(bits=4, scale=0.5, learn=False, columns=4):
    held = BlockWeights(np.full((1, 1, columns), 8, np.uint8), np.full((1, 1), scale, np.float32), None, bits, columns)
    return fake_quant._grid(held, learn)


def test_gradients_pass_where_nothing_is_clipped():
    weight = torch.tensor([[0.6, -4.2, 3.7, 9.0]], requires_grad=True)  # in steps of 0.5: 1.2, -8.4, 7.4, 18
    made = grid().rounded(weight)
    assert made.tolist() == [[0.5, -4.0, 3.5, 3.5]]
    made.backward(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert weight.grad.tolist() == [[1.0, 2.0, 3.0, 0.0]]


def test_scales_learn_as_lsq_says():
    """d(code * scale) / d scale: round(v) - v inside with v = weight / scale, the last code where it is clipped.

    What learns is the logarithm of the scale, which is 0.5 here: half of that.
    """
    learning = grid(learn=True)
    weight = torch.tensor([[0.6, -4.2, 3.7, 9.0]])
    learning.rounded(weight).backward(torch.ones(1, 4))
    assert learning.shift.grad.item() == pytest.approx(0.5 * ((1 - 1.2) + (-8 + 8.4) + (7 - 7.4) + 7), abs=1e-5)


def test_inputs_are_rounded_and_cut_off():
    value = torch.tensor([0.26, -0.24, 40.0, -70.0, 31.8], requires_grad=True)  # a scale of 0.25 ends at -32 and 31.75
    made = fake_quant.fake_input(value, torch.tensor(0.25))
    assert made.tolist() == [0.25, -0.25, 31.75, -32.0, 31.75]
    made.sum().backward()
    assert value.grad.tolist() == [1, 1, 0, 0, 1]
    above = fake_quant.fake_input(value, torch.tensor(0.25), 4)  # -1 to 62.75
    assert above.tolist() == [0.25, -0.25, 40.0, -1.0, 31.75]


def test_learned_scales_are_weights_of_the_tower(tiny_encoder):
    apply(tiny_encoder, STEPS["w8a8"])
    tower = tiny_encoder.towers["vision"]
    module, found = module_of(tower, learn_scales=True)
    scales = list(module.learned)
    assert len(scales) == 2 * len(found)
    assert {id(each) for each in scales} < {id(each) for each in module.parameters()}
    assert all(each.ndim == 1 for each in scales)
    _, made = embeddings(module, "vision", tower.output)
    made.square().sum().backward()
    assert all(each.grad is not None for each in scales)
    assert not list(module_of(tower)[0].learned)
    with torch.no_grad():
        for each in scales:
            each.add_(np.log(2.0))
    before = dict(tower.treatments)
    settle(tower, module, found)
    for name, held in tower.treatments.items():
        np.testing.assert_allclose(held.scales, 2 * before[name].scales, rtol=1e-6)
        assert held.input_scale == pytest.approx(2 * before[name].input_scale, rel=1e-6)


def test_halves_are_not_trained_through(tiny_encoder):
    apply(tiny_encoder, [("quantize.fp16", {})])
    with pytest.raises(UsageError, match="Float16 cannot be trained through"):
        fake_quant.fakes(tiny_encoder.towers["vision"])
