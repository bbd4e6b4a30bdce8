"""The rungs of a rescue: which steps they are made of, in which order, and what they leave alone."""

import pytest

from compress.pipeline.ladder import Layer, Start, bits, rungs
from compress.recipe.steps import Step
from compress.steps import spec_of


def step(use, **options):
    return Step(use=use, spec=spec_of(use)(**options))


FC1 = [Layer.of("vision", "mlp.fc1", at, table=False) for at in range(3)]
FC2 = [Layer.of("vision", "mlp.fc2", at, table=False) for at in range(2)]
TABLE = Layer.of("text", "embedding", None, table=True)
NAMES = [each.selector for each in (*FC1, *FC2)]


def made(steps, treated, worst=(), calibrated=True):
    return list(rungs(Start(tuple(steps), tuple(map(tuple, treated)), tuple(worst), calibrated)))


def named(found):
    return [each.name for each in found]


def test_a_layer_is_named_as_a_recipe_would():
    assert NAMES[0] == "vision:mlp.fc1@0"
    assert TABLE.selector == "text:embedding"


def test_the_worst_layers_stay_in_float_by_doubling_numbers():
    steps = [step("quantize.int8_static", include=("mlp.fc1",)), step("quantize.int8_rtn", include=("mlp.fc2",))]
    found = made(steps, [FC1, FC2], ["vision:mlp.fc2@1", "vision:mlp.fc1@2", *NAMES[:2], NAMES[3]])
    assert named(found) == ["1 in float", "2 in float", "4 in float"]
    one, two, four = (each.steps for each in found)
    assert [each.spec.exclude for each in one] == [(), ("vision:mlp.fc2@1",)]
    assert [each.spec.exclude for each in two] == [("vision:mlp.fc1@2",), ("vision:mlp.fc2@1",)]
    (left,) = four  # of the first step nothing is left
    assert left.use == "quantize.int8_rtn"
    assert all(each.in_float for each in found)


def test_what_is_excluded_already_is_not_named_twice():
    steps = [step("quantize.int8_static", exclude=("projection",))]
    (found,) = made(steps, [FC1[:2]], NAMES[:2])
    assert found.steps[0].spec.exclude == ("projection", NAMES[0])


def test_from_finer_blocks_on_a_rung_keeps_what_the_one_before_changed():
    found = made([step("quantize.int4_rtn", scale_per="tensor", block=128, towers=("vision",))], [FC1])
    assert named(found) == ["finer blocks", "better rounding", "next format"]
    finer, better, following = (each.steps[0] for each in found)
    assert (finer.spec.block, finer.spec.scale_per) == (32, "block")
    assert (better.use, better.spec.block, better.spec.weights) == ("quantize.gptq", 32, "int4")
    assert following.use == "quantize.int8_static"
    assert {each.spec.towers for each in (finer, better, following)} == {("vision",)}
    assert found[0].what == "steps[0] quantize.int4_rtn block 128 -> 32, scale_per tensor -> block"


def test_without_data_or_with_tables_nothing_asks_for_data():
    for layers, calibrated in ((FC1, False), ([TABLE], True)):
        found = made([step("quantize.int4_rtn", block=64)], [layers], calibrated=calibrated)
        assert [each.steps[0].use for each in found] == ["quantize.int4_rtn", "quantize.hqq", "quantize.int8_rtn"]


def test_kernels_keep_their_inputs_in_float():
    kernels = [Layer.of("vision", "conv", at, table=False) for at in range(3)]
    found = made([step("quantize.int4_rtn", block=32, include=("conv",))], [kernels])
    assert [each.steps[0].use for each in found][-2:] == ["quantize.gptq", "quantize.int8_rtn"]
    assert found[-1].steps[0].spec.include == ("conv",)


@pytest.mark.parametrize("block", [16, 32, 64, 128])
def test_blocks_are_never_coarser(block):
    found = made([step("quantize.gptq", block=block)], [FC1])
    sizes = [block, *(each.steps[0].spec.block for each in found if each.name == "finer blocks")]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= 16
    assert ("finer blocks" in named(found)) == (block > 16)


def test_eight_bits_and_pruning_are_left_alone():
    steps = [step("prune.mlp", ratio=0.5), step("quantize.int8_static")]
    found = made(steps, [FC1, FC1], NAMES[:3])
    assert named(found) == ["1 in float", "2 in float"]
    assert all(each.steps[0] == steps[0] for each in found)


@pytest.mark.parametrize(
    ("use", "options", "count"),
    [
        ("quantize.int4_rtn", {}, 4), ("quantize.int8_rtn", {}, 8), ("quantize.int8_static", {}, 8),
        ("quantize.gptq", {"weights": "int8"}, 8), ("quantize.hqq", {}, 4), ("quantize.fp16", {}, None),
    ],
)  # fmt: skip
def test_bits(use, options, count):
    assert bits(step(use, **options)) == count
