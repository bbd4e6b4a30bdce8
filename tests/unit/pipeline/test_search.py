"""What a search is told: losses in margins by hand, from the development split alone; and what plans predict."""

from types import SimpleNamespace

import numpy as np
import pytest

from compress.gates.outcomes import Outcomes, Unmeasured
from compress.gates.policy import Policy, load_policy
from compress.pipeline import prediction, search
from compress.pipeline.options import Options
from compress.pipeline.prediction import Left
from compress.recipe.schema import Step
from compress.steps.prune import depth, mlp, qk
from compress.steps.step import Context

GATES = [
    {"metric": "relations.accuracy", "rule": "worst_slice", "margin": 0.1, "because": "it counts"},
    {"metric": "relations.accuracy", "rule": "non_inferior", "margin": 0.05, "because": "it counts"},
    {"metric": "size.ratio", "rule": "at_most", "value": 0.5, "because": "it counts"},
]


def policy(**asked):
    tasks = {"relations": {"split": "release", "items": 500, **asked}}
    return Policy.model_validate({"version": 1, "name": "p", "tasks": tasks, "gates": tuple(GATES)})


def outcomes(lost):
    """Forty items in two slices; the candidate is wrong on the first `lost` of the first slice."""
    reference, candidate = np.ones(40), np.ones(40)
    candidate[:lost] = 0
    slices = {"size": ("small",) * 20 + ("large",) * 20}
    return {"relations.accuracy": Outcomes(tuple(map(str, range(40))), reference, candidate, slices=slices)}


def recipe(use="prune.auto", **options):
    step = SimpleNamespace(use=use, spec=SimpleNamespace(**options))
    return SimpleNamespace(steps=(step,), gated=True, policy="clip_release", seed=0, targets=("onnxruntime-cpu",))


def test_losses_are_counted_in_margins():
    gates = policy().gates[:2]
    assert search.shortfall(gates, outcomes(0)) == 0
    # 4 of 40 are two margins of the whole, and 4 of 20 two margins of the worst slice
    assert search.shortfall(gates, outcomes(4)) == pytest.approx((2 + 2) / 2)
    assert search.shortfall(gates[:1], outcomes(4)) == pytest.approx(2)


def test_what_was_not_measured_is_never_a_gain():
    gates = policy().gates[:2]
    assert search.shortfall(gates, {"relations.accuracy": Unmeasured("it broke")}) == float("inf")
    broken = outcomes(0)["relations.accuracy"]
    nothing = Outcomes(broken.items, broken.reference, np.full(40, np.nan), slices=broken.slices)
    assert search.shortfall(gates, {"relations.accuracy": nothing}) == pytest.approx((10 + 20) / 2)


def test_the_release_split_is_not_touched(monkeypatch):
    asked = []

    class Task:
        def load(self, request):
            asked.append(request)

    monkeypatch.setattr(search.tasks, "find", lambda *_: Task())
    found = search._asked(policy(), recipe(), Options())
    assert [(request.split, request.items) for request in asked] == [("development", search.ITEMS)]
    assert {name: task.split for name, task in found.tasks.items()} == {"relations": "development"}
    assert [gate.rule for gate in found.gates] == ["worst_slice", "non_inferior"]
    assert search._asked(load_policy("export_parity"), recipe(), Options()) is None, (
        "it protects nothing that is paired"
    )


def test_only_recipes_that_search_are_given_anything(tmp_path):
    context = Context()
    assert search.able(context, recipe("prune.mlp"), tmp_path, Options()) is context
    assert search.able(context, recipe("distill.heal", watch="held_out"), tmp_path, Options()) is context
    told = recipe("distill.heal", watch="gates")
    told.gated = False
    assert search.able(context, told, tmp_path, Options()).latency is not None


def test_only_steps_that_ask_for_gates_have_their_data_loaded(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(search, "_loss", lambda *_: asked.append(1) or (lambda _: 0.0))
    assert search.able(Context(), recipe(loss="cosine"), tmp_path, Options()).loss is None
    assert not asked
    assert search.able(Context(), recipe(loss="gates"), tmp_path, Options()).loss is not None


def test_a_recipe_without_a_policy_searches_by_cosines(tmp_path):
    told = recipe()
    told.gated = False
    made = search.able(Context(), told, tmp_path, Options())
    assert made.loss is None
    assert made.latency is not None


def test_seconds_come_from_pairs():
    assert search._pair([[2.0, 1.0], [4.0, 2.0], [30.0, 60.0]]) == pytest.approx((0.004, 0.002))


def steps(*specs):
    return [Step(use=f"prune.{name}", spec=spec) for name, spec in specs]


def test_more_and_less_than_a_recipe_says():
    left = {"text": Left(0.8, 0.7, 0.9)}
    told = steps(("qk", qk.Spec(ratio=0.25)), ("mlp", mlp.Spec(ratio=0.4)))
    found = prediction.predictions(told, left)
    assert [each.ratios for each in found] == [(0.125, 0.2), (0.25, 0.4), (0.375, pytest.approx(0.6)), (0.5, 0.8)]
    assert found[1].towers["text"] == Left(pytest.approx(0.8), pytest.approx(0.7), pytest.approx(0.9))
    assert found[3].towers["text"] == Left(pytest.approx(0.6), pytest.approx(0.4), pytest.approx(0.8))
    assert prediction.predictions(told, {"text": Left(0.8, 0.7, None)})[0].towers["text"].latency is None


def test_nothing_is_predicted_without_a_ratio_or_beyond_reason():
    left = {"text": Left(0.8, 0.7, 0.9)}
    assert prediction.predictions(steps(("depth", depth.Spec(blocks=1))), left) == ()
    assert [each.ratios for each in prediction.predictions(steps(("mlp", mlp.Spec(ratio=0.5))), left)] == [
        (0.25,), (0.5,), (0.75,),
    ]  # fmt: skip
