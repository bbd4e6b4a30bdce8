"""Walking the ladder: development data alone, inside the budget, every rung counted, and none of it twice."""

from pathlib import Path

import numpy as np
import pytest
import tiny_towers

from compress.core.progress import Silent
from compress.core.score import Score
from compress.data.fingerprint import of_images
from compress.gates.policy import Policy
from compress.pipeline import ledger, rescue, sensitivity
from compress.pipeline.measurement import Measured
from compress.pipeline.options import Options
from compress.recipe.rescue import Rescue
from compress.recipe.schema import Recipe
from compress.recipe.steps import Step
from compress.steps import spec_of
from compress.steps.step import Context, StepReport
from compress.targets import onnxruntime_cpu

POLICY = Policy.model_validate(
    {
        "version": 1, "name": "p", "tasks": {"parity": {"split": "release", "items": 10}},
        "gates": ({"metric": "parity.p1_cosine", "rule": "at_least", "value": 0.9, "because": "it counts"},),
    }
)  # fmt: skip


def recipe(**budget):
    return Recipe(
        version=1, name="r", model={"source": "x"}, targets=("onnxruntime-cpu",), policy="p",
        rescue=Rescue(**(budget or {"max_size_ratio": 0.9})),
        steps=(Step(use="quantize.int4_rtn", spec=spec_of("quantize.int4_rtn")(block=64)),),
    )  # fmt: skip


class Place:
    """A scene whose gates pass from the n-th measurement on; remembers what was measured."""

    def __init__(self, tmp_path, monkeypatch, passes, resume=False, **budget):
        self.seen, self.built = [], []
        self.original = tiny_towers.encoder(_made(tmp_path / "towers"))
        reference = _made(tmp_path / "reference")
        onnxruntime_cpu.export(self.original, reference)

        def measure(policy, subject, seed, options):
            self.seen.append(policy)
            value = 0.95 if len(self.seen) > passes else 0.5
            scores = {"parity.p1_cosine": Score.exact(value), "size.ratio": Score.exact(0.2)}
            return Measured({**scores, "latency.ratio": Score.exact(1.0)}, None)

        monkeypatch.setattr(rescue, "measure", measure)
        self.scene = rescue.Scene(
            recipe(**budget), POLICY, onnxruntime_cpu, reference, {}, of_images((), ()), self.apply,
            Options(output=tmp_path / "out", resume=resume),
        )  # fmt: skip

    def apply(self, told, encoder):
        self.built.append(told.name)
        reports = []
        for step in told.steps:
            method = __import__(f"compress.steps.{step.use}", fromlist=["apply"])
            reports.append(method.apply(encoder, step.spec, Context()))
        return tuple(reports)

    def walk(self):
        made = rescue.copied(self.original)
        return rescue.walk(self.scene, self.original, (made, self.apply(self.scene.recipe, made)))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_recipe_that_passes_is_left_alone(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch, passes=0)
    (_, reports), told = place.walk()
    assert [each.rung for each in told.tried] == ["as written"]
    assert told.taken == "as written"
    assert isinstance(reports[0], StepReport)


def test_only_development_data_are_read_and_the_budget_binds_rungs(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch, passes=3, max_size_ratio=0.9, max_latency_ratio=1.5)
    (encoder, _), told = place.walk()
    assert {task.split for policy in place.seen for task in policy.tasks.values()} == {"development"}
    assert [len(policy.gates) for policy in place.seen[:2]] == [1, 3]
    assert [each.status for each in told.tried] == ["failed"] * 3 + ["passed"]
    assert told.taken == told.tried[-1].rung == "4 in float"
    assert told.steps[0]["use"] == "quantize.int4_rtn"
    assert len(told.steps[0]["exclude"]) == 4
    treated = {(kind, name) for kind, tower in encoder.towers.items() for name in tower.treatments}
    every = {(kind, site.name) for kind, tower in encoder.towers.items() for site in tower.sites}
    assert treated < every
    assert not any(tower.treatments for tower in place.original.towers.values()), "each rung starts from the original"


def test_every_rung_that_was_measured_counts_as_an_attempt(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch, passes=2)
    _, told = place.walk()
    assert told.attempts == ({"split": "development", "candidates": 3},)
    assert len(ledger._read(tmp_path / "out" / ledger.FILE)) == 3


def test_what_is_over_the_budget_is_not_measured(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch, passes=99, max_size_ratio=0.001)
    (encoder, _), told = place.walk()
    assert len(place.seen) == 1
    assert {each.status for each in told.tried[1:]} == {"over budget"}
    assert [each.rung for each in told.tried].count("1 in float") == 1
    assert "2 in float" not in [each.rung for each in told.tried], "more layers in float would cost more"
    assert (told.taken, told.steps) == ("as written", ())
    assert "no rung passes" in told.why
    assert encoder.towers["vision"].treatments


def test_a_latency_over_the_budget_is_no_pass(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch, passes=1, max_latency_ratio=0.5)
    _, told = place.walk()
    assert {each.status for each in told.tried} == {"failed"}
    assert told.taken == "as written"


def test_what_was_not_measured_is_not_rescued(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch, passes=99)
    monkeypatch.setattr(rescue, "measure", lambda *_: Measured({}, None))
    _, told = place.walk()
    assert [each.rung for each in told.tried] == ["as written"]
    assert "not measured" in told.why


def test_a_rung_that_cannot_be_built_is_told_and_passed_over(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch, passes=1)
    apply, calls = place.apply, []

    def breaking(told, encoder):
        calls.append(told.name)
        if len(calls) == 2:
            raise rescue.UsageError("no such kernel", "steps[0]")
        return apply(told, encoder)

    place.scene = rescue.replace(place.scene, apply=breaking)
    made = rescue.copied(place.original)
    _, told = rescue.walk(place.scene, place.original, (made, breaking(place.scene.recipe, made)))
    assert [each.status for each in told.tried] == ["failed", "cannot be built", "passed"]
    assert "no such kernel" in told.tried[1].reason


def test_finished_rungs_are_not_measured_again(tmp_path, monkeypatch):
    first = Place(tmp_path, monkeypatch, passes=2)
    _, told = first.walk()
    again = Place(tmp_path, monkeypatch, passes=0, resume=True)
    _, resumed = again.walk()
    assert again.seen == []
    assert resumed.tried == told.tried
    assert resumed.taken == told.taken
    assert again.built == ["r", "r+rung2"], "only what is taken is built"
    changed = Place(tmp_path, monkeypatch, passes=0, resume=True, max_size_ratio=0.8)
    changed.walk()
    assert len(changed.seen) == 1, "another recipe is not known"


def test_without_calibration_data_the_largest_weight_errors_are_the_worst(tmp_path):
    encoder = tiny_towers.encoder(tmp_path)
    method = __import__("compress.steps.quantize.int4_rtn", fromlist=["apply"])
    report = method.apply(encoder, method.Spec(), Context())
    start = rescue.start(recipe(), (encoder, (report,)), None)
    worst = max(report.rows, key=lambda row: row.error)
    site = encoder.towers[worst.tower].site(worst.site)
    assert start.worst[0].startswith(f"{worst.tower}:{site.role}")
    assert not start.calibrated


def test_damage_by_hand():
    before = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [2.0, 0.0]], np.float32)
    after = np.array([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0], [0.0, 0.0], [np.nan, 0.0]], np.float32)
    assert sensitivity.damage(before, after) == pytest.approx([0, 1, 2, 1, 2])


def test_the_broken_layer_is_the_most_sensitive(tmp_path):
    encoder = tiny_towers.encoder(tmp_path)
    method = __import__("compress.steps.quantize.int8_rtn", fromlist=["apply"])
    method.apply(encoder, method.Spec(), Context())
    tower = encoder.towers["vision"]
    name = next(site.name for site in tower.sites if site.role == "mlp.fc1")
    tower.treatments[name].scales[:] *= 3
    context = Context(lambda kind: tiny_towers.feeds(kind, 4), Silent())
    rows, samples = sensitivity._of_tower(tower, context)
    assert samples == 3 + 4 + 5 + 6
    worst = max(rows, key=lambda row: row.mean)
    assert worst.site == name
    assert worst.p1 >= worst.mean > 0.01
    assert sorted(row.mean for row in rows)[-2] < 0.01, "treating the others alone does next to nothing"
    found = sensitivity.Sensitivity(tuple(rows), {"vision": samples}, True)
    selectors = {key: layer.selector for key, layer in rescue.layers(encoder).items()}
    assert sensitivity.by_layer(found, selectors)[0].startswith("vision:mlp.fc1")
