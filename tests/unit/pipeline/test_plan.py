"""What a plan counts: items a policy will really get, items it would need, and every site that a target refuses."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.core.errors import UsageError
from compress.data.items import Request
from compress.evals import task as tasks
from compress.gates.policy import Policy
from compress.models.tower import Encoder, Site, Tower
from compress.models.treatment import BlockWeights, StaticInt8
from compress.pipeline import demand, plan
from compress.pipeline.training import trains, untrained
from compress.recipe.schema import Recipe
from compress.recipe.steps import Step, StepSpec
from compress.steps.step import SiteReport
from compress.targets import onnxruntime_cpu


def policy(gates, **asked):
    return Policy.model_validate({"version": 1, "name": "p", "tasks": asked, "gates": tuple(gates)})


def gate(metric, rule, **options):
    return {"metric": metric, "rule": rule, "because": "it counts", **options}


BOUNDED = [
    gate("relations.accuracy", "worst_slice", margin=0.02),
    gate("relations.accuracy", "non_inferior", margin=0.01),
    gate("size.ratio", "at_most", value=0.3),
]


def test_items_per_slice_are_counted_as_the_task_will_load_them():
    asked = {"split": "release", "items_per_slice": 30}
    (found,) = demand.tasks_of(policy(BOUNDED, relations=asked), seed=3)
    loaded = tasks.find("relations").load(Request("release", None, 30, 3))
    assert found.items == len(loaded.ids)
    assert found.slices == {name: min(Counter(labels).values()) for name, labels in loaded.slices.items()}


def test_items_in_all_and_the_tasks_own_number():
    bounded = policy(BOUNDED, relations={"split": "release", "items": 70})
    (found,) = demand.tasks_of(bounded, seed=0)
    assert (found.items, found.slices) == (70, {"statement": 10})
    (found,) = demand.tasks_of(policy(BOUNDED, relations={"split": "release"}), seed=0)
    assert (found.items, found.slices["statement"]) == (1400, pytest.approx(200, rel=0.05))


def test_items_needed_give_the_promised_power():
    bounded = policy(BOUNDED, relations={"split": "release", "items": 70})
    worst, whole, size = demand.gates_of(bounded, demand.tasks_of(bounded, seed=0))
    assert worst.needed == {"0.05": 861, "0.1": 1618}
    reach = 1.6448536269514722 + 0.8416212335729143  # z of 95 % and of 80 %
    assert 0 < whole.needed["0.1"] - reach**2 * 0.1 / 0.01**2 < 150  # the normal approximation is a little too low
    assert (worst.per_slice, worst.declared, whole.per_slice, whole.declared) == (True, 10, False, 70)
    assert (size.needed, size.declared) == (None, None)


def test_a_metric_that_the_task_does_not_have_is_told():
    wrong = policy([gate("relations.acuracy", "non_inferior", margin=0.1)], relations={"split": "release", "items": 70})
    (error,) = demand.unmeasurable(wrong)
    assert "no metric 'acuracy'" in error.what
    assert error.hint == "did you mean accuracy"
    assert not list(demand.unmeasurable(policy(BOUNDED, relations={"split": "release", "items": 70})))


def test_data_that_only_the_folder_can_count_are_not_counted():
    asked = policy(
        [gate("fashion_zero_shot.accuracy", "non_inferior", margin=0.1)], fashion_zero_shot={"split": "release"}
    )
    (found,) = demand.tasks_of(asked, seed=0)
    assert (found.items, found.slices) == (None, {})


def site(name, role, op, shape):
    return Site(name, role, None, op, f"{name}_node", f"{name}_weight", shape)


def row(name, role):
    return SiteReport("vision", name, role, "clipped at 3.2", 10, 5, 0.1)


def blocks(columns, block, zero_points=None):
    count = -(-columns // block)
    return BlockWeights(np.zeros((3, count, block), np.uint8), np.ones((3, count), np.float32), zero_points, 4, columns)


@pytest.mark.parametrize(("columns", "padding"), [(32, 0), (33, 31), (40, 24), (64, 0)])
def test_padding_of_the_last_block(columns, padding):
    tower = Tower("vision", onnx.ModelProto(), (), (), "", {"a": blocks(columns, 32)})
    found = plan._planned(row("a", "mlp.fc1"), site("a", "mlp.fc1", "MatMul", (columns, 3)), tower)
    assert (found.bits, found.block, found.padding, found.shape) == (4, 32, padding, (columns, 3))
    assert found.treatment == "int4 in blocks of 32"


def test_what_calibration_would_decide_is_not_told():
    held = StaticInt8(np.zeros((3, 4), np.int8), np.ones(3, np.float32), 0.1)
    tower = Tower("vision", onnx.ModelProto(), (), (), "", {"a": held})
    found = plan._planned(row("a", "mlp.fc1"), site("a", "mlp.fc1", "MatMul", (4, 3)), tower)
    assert (found.bits, found.block, found.padding) == (8, None, 0)
    assert "clipped" not in found.treatment
    untreated = plan._planned(row("b", "mlp.fc1"), None, tower)
    assert (untreated.treatment, untreated.shape, untreated.bits) == ("clipped at 3.2", (), None)


def overlapping():
    """A convolution whose patches overlap, and a matrix product that anything can be done to."""
    weights = {"conv_weight": np.ones((4, 3, 3, 3), np.float32), "fc_weight": np.ones((4, 5), np.float32)}
    nodes = [
        helper.make_node("Conv", ["pixel_values", "conv_weight"], ["c"], name="conv_node", strides=[2, 2]),
        helper.make_node("ReduceMean", ["c", "axes"], ["r"], name="mean", keepdims=0),
        helper.make_node("MatMul", ["r", "fc_weight"], ["image_embeds"], name="fc_node"),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([2, 3], np.int64), "axes"))
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, 9, 9])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["n", 5])],
        tensors,
    )
    sites = site("conv", "patch_embed", "Conv", (4, 3, 3, 3)), site("fc", "projection", "MatMul", (4, 5))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    tower = Tower(
        "vision", model, sites, ("pixel_values",), "image_embeds", {"conv": blocks(27, 32), "fc": blocks(4, 32)}
    )
    preprocess = {"kind": "plain", "image": {"size": (9, 9)}}
    return Encoder("onnx", None, "onnx", 1, {"vision": tower}, {}, preprocess, None, True)


def test_every_site_that_the_target_refuses_is_told_and_the_rest_is_written(tmp_path):
    encoder = overlapping()
    integers = StaticInt8(np.zeros((4, 27), np.int8), np.ones(4, np.float32), 0.1)
    encoder.towers["vision"].treatments["conv"] = integers
    (refused,) = plan._export(onnxruntime_cpu, encoder, tmp_path / "made")
    assert refused.where == "conv"
    assert refused.hint.startswith("leave patch_embed out of this step")
    assert list(encoder.towers["vision"].treatments) == ["fc"]
    assert [path.name for path in (tmp_path / "made" / "onnx").iterdir()] == ["vision_model_q4.onnx"]


def test_a_refusal_of_no_site_ends_it(tmp_path):
    class Never:
        @staticmethod
        def export(encoder, folder):
            raise UsageError("not at all", "target", "take another")

    (refused,) = plan._export(Never, overlapping(), tmp_path / "made")
    assert (refused.where, refused.what, refused.hint) == ("target", "not at all", "take another")


def test_a_step_that_trains_needs_data():
    told = {
        "version": 1,
        "name": "a",
        "model": {"source": "pocket-clip"},
        "targets": ("onnxruntime-cpu",),
        "policy": "p",
    }
    heal = Step(use="distill.heal", spec=StepSpec())
    (refused,) = untrained(Recipe.model_validate({**told, "steps": (heal,)}))
    assert (refused.where, refused.what) == ("data.training", "distill.heal needs training data")
    for name in ("training", "calibration"):
        data = {name: {"source": "scenes", "samples": 4}}
        assert not list(untrained(Recipe.model_validate({**told, "steps": (heal,), "data": data})))


def test_a_student_is_rehearsed_and_maps_itself_by_training_data_too():
    assert not trains("distill.student")
    assert trains("distill.heal")
    assert not trains("prune.mlp")
    told = {
        "version": 1,
        "name": "a",
        "model": {"source": "pocket-clip"},
        "targets": ("onnxruntime-cpu",),
        "policy": "p",
    }
    step = Step(use="distill.student", spec=StepSpec())
    asking = (plan.StepPlan("distill.student", calibrates=True, rows=()),)
    (refused,) = plan._without_data(Recipe.model_validate({**told, "steps": (step,)}), asking)
    assert (refused.where, refused.what) == ("data.calibration", "distill.student needs calibration data")
    data = {"training": {"source": "scenes", "samples": 4}}
    assert not list(plan._without_data(Recipe.model_validate({**told, "steps": (step,), "data": data}), asking))
