"""The training loop: the same curve after an interruption, in parts and in processes; what cannot be is said."""

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_towers
from onnx import numpy_helper
from tiny_training import TinySet, stored

from compress.core.errors import UsageError
from compress.core.progress import Silent
from compress.data import child
from compress.models.graph import array, initializers
from compress.models.tower import copied
from compress.steps.distill import _features, features, qad
from compress.steps.distill._batches import held_out, parts
from compress.steps.distill._blocks import outputs, paired
from compress.steps.distill._teachers import InChild
from compress.steps.quantize import int4_rtn
from compress.steps.step import Context
from compress.targets.graph import emitter
from compress.targets.graph.session import open_session

HERE = Path(__file__).resolve()


class Told(Silent):
    """Keeps what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What the teacher said, for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def teacher(tmp_path):
    return tiny_towers.encoder(tmp_path)


def damaged(encoder, seed=0):
    """A copy with noise on its weights."""
    made = copied(encoder)
    rng = np.random.default_rng(seed)
    for tower in made.towers.values():
        for site in tower.sites:
            tensor = initializers(tower.graph)[site.weight]
            weight = array(tensor)
            noisy = weight + 0.1 * weight.std() * rng.standard_normal(weight.shape)
            tensor.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), site.weight))
    return made


def context(teacher, cache, samples=48, **more):
    return Context(training=TinySet(stored(samples)), teacher=teacher, cache=cache, **more)


def spec(**more):
    told = {"steps": 8, "batch": 8, "held_out": 0, "epochs": None}
    if "epochs" in more or "seconds" in more:
        told["steps"] = None
    return features.Spec(**{**told, **more})


def losses(report, name="loss"):
    return next(np.array(curve.values) for curve in report.curves if curve.name == name)


def weights(encoder):
    return {
        (kind, tensor.name): array(tensor)
        for kind, tower in encoder.towers.items()
        for tensor in tower.graph.graph.initializer
    }


class Killed(Exception):
    pass


class Interrupting(Told):
    """Ends it all after so many steps."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def track(self, items, what, total=None, now=None):
        for done, item in enumerate(super().track(items, what, total, now)):
            if what == "distill" and done == self.at:
                raise Killed
            yield item


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "soap", "steps": 14}])  # its bases turn every ten steps
def test_what_was_interrupted_goes_on_where_it_was(teacher, shared, tmp_path, optimizer):
    whole, resumed = damaged(teacher), damaged(teacher)
    told = spec(checkpoint_minutes=1e-9, **optimizer)
    expected = losses(features.apply(whole, told, context(teacher, shared)))
    with pytest.raises(Killed):
        features.apply(resumed, told, context(teacher, shared, work=tmp_path / "work", progress=Interrupting(4)))
    for key, value in weights(damaged(teacher)).items():
        np.testing.assert_array_equal(weights(resumed)[key], value)  # nothing half-trained
    progress = Told()
    again = context(teacher, shared, work=tmp_path / "work", resume=True, progress=progress)
    found = losses(features.apply(resumed, told, again))
    assert "resumed after 5 steps of training" in progress.lines
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for key, value in weights(whole).items():
        np.testing.assert_allclose(weights(resumed)[key], value, atol=1e-6)


def test_a_damaged_checkpoint_is_passed_over(teacher, shared, tmp_path):
    told, work = spec(checkpoint_minutes=1e-9), tmp_path / "work"
    with pytest.raises(Killed):
        features.apply(damaged(teacher), told, context(teacher, shared, work=work, progress=Interrupting(4)))
    files = sorted(work.glob("*.safetensors"))
    assert [int(each.stem) for each in files] == [4, 5]
    content = bytearray(files[-1].read_bytes())
    content[-5] ^= 1
    files[-1].write_bytes(content)
    progress = Told()
    features.apply(damaged(teacher), told, context(teacher, shared, work=work, resume=True, progress=progress))
    assert "the checkpoint 000000005.safetensors is damaged; going back to the one before" in progress.lines
    assert "resumed after 4 steps of training" in progress.lines


def test_a_checkpoint_of_another_training_is_refused(teacher, shared, tmp_path):
    work = tmp_path / "work"
    with pytest.raises(Killed):
        features.apply(
            damaged(teacher),
            spec(checkpoint_minutes=1e-9),
            context(teacher, shared, work=work, progress=Interrupting(2)),
        )
    with pytest.raises(UsageError, match="the training changed"):
        features.apply(damaged(teacher), spec(rate=0.5), context(teacher, shared, work=work, resume=True))


def test_the_teacher_is_asked_once(teacher, tmp_path, monkeypatch):
    asked = []
    run = child.run
    monkeypatch.setattr(child, "run", lambda *given: asked.append(given[0]) or run(*given))
    features.apply(damaged(teacher), spec(), context(teacher, tmp_path))
    assert len(asked) == 2  # one for each tower
    first = losses(features.apply(damaged(teacher), spec(), context(teacher, tmp_path)))
    assert len(asked) == 2
    features.apply(damaged(teacher), spec(), context(damaged(teacher, seed=9), tmp_path))
    assert len(asked) == 4, "another teacher says something else"
    chunk = next((tmp_path / "features").glob("*/chunk-*/0.npy"))
    chunk.write_bytes(chunk.read_bytes()[:-100])
    progress = Told()
    again = replace(context(teacher, tmp_path), progress=progress)
    np.testing.assert_allclose(losses(features.apply(damaged(teacher), spec(), again)), first, atol=1e-6)
    assert len(asked) == 5 or not progress.lines  # the other teacher's chunk may be the damaged one


def test_what_the_teacher_says_is_what_onnx_runtime_says(teacher, shared):
    data, tower = TinySet(stored(20)), teacher.towers["vision"]
    store = _features.Features(InChild(tower, outputs(tower)), shared / "direct", Silent())
    batch = next(data.batches(0, 20))
    store.fill([(batch.keys, batch.feeds["vision"])])
    said = store.get(batch.keys[[3, 1]])
    model = onnx.ModelProto()
    model.CopyFrom(tower.graph)
    model.graph.output.append(onnx.helper.make_tensor_value_info("after_mlp", onnx.TensorProto.FLOAT, None))
    embeddings, blocks = open_session(model).run(None, dict(batch.feeds["vision"]))
    np.testing.assert_allclose(said.embeddings, embeddings[[3, 1]], atol=1e-6)
    np.testing.assert_allclose(said.blocks[0], blocks[[3, 1]], atol=2e-3 * np.abs(blocks).max())
    assert said.lengths.tolist() == [4, 4]


def test_in_parts_it_is_the_same_step(teacher, shared):
    whole = losses(features.apply(damaged(teacher), spec(), context(teacher, shared)))
    pieces = losses(
        features.apply(damaged(teacher), spec(accumulate=4, losses=features.Weights()), context(teacher, shared))
    )
    np.testing.assert_allclose(pieces, whole, atol=2e-2)  # hidden is relative to each part's own size
    only = features.Weights(hidden=0.0)
    whole = losses(features.apply(damaged(teacher), spec(losses=only), context(teacher, shared)))
    pieces = losses(features.apply(damaged(teacher), spec(accumulate=4, losses=only), context(teacher, shared)))
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_parts_keep_rows_and_samples_together():
    batch = next(TinySet(stored(12)).batches(0, 12))
    made = parts(batch, 3)
    assert [len(each.keys) for each in made] == [4, 4, 4]
    np.testing.assert_array_equal(np.concatenate([each.keys for each in made]), batch.keys)
    for kind in ("vision", "text"):
        for name, value in batch.feeds[kind].items():
            np.testing.assert_array_equal(np.concatenate([each.feeds[kind][name] for each in made]), value)
        assert all(each.rows[kind].tolist() == [0, 1, 2, 3] for each in made)
    with pytest.raises(UsageError, match="divided into 5"):
        parts(batch, 5)


def test_it_ends_early_where_nothing_gets_better(teacher, shared):
    student, progress = copied(teacher), Told()  # there is nothing to learn, and a rate that does harm
    told = spec(steps=40, rate=0.01, patience=2, held_out=0.25)
    report = features.apply(student, told, context(teacher, shared, progress=progress))
    assert any("no better" in line for line in progress.lines)
    assert len(losses(report)) < 40
    watched = losses(report, "held-out loss")
    assert watched.argmin() == 0
    assert len(watched) == 3


@pytest.mark.parametrize("method", [features, qad], ids=lambda method: method.USE)
def test_gates_on_development_data_end_it_and_the_best_stays(teacher, shared, method):
    """What they are shown is what the step would leave; the second look finds the best, and two more no better."""
    student = damaged(teacher)
    if method is qad:
        int4_rtn.apply(student, int4_rtn.Spec(), Context())
    values, shown = iter((0.5, 0.25, 0.75, 0.5)), []

    def gates(made):
        shown.append(made)
        return next(values)

    told = method.Spec(steps=40, batch=8, rate=1e-3, watch="gates", patience=2, held_out=0.25)
    report = method.apply(student, told, context(teacher, shared, loss=gates))
    assert losses(report, "gate loss, development").tolist() == [0.5, 0.25, 0.75, 0.5]
    assert "gate loss, development 0.5000" in report.summary
    same = [
        all(
            emitter.emit(student.towers[kind]).SerializeToString(deterministic=True)
            == emitter.emit(each.towers[kind]).SerializeToString(deterministic=True)
            for kind in student.towers
        )
        for each in shown
    ]
    assert same == [False, True, False, False]


def test_gates_that_cannot_be_watched(teacher, shared):
    told = spec(steps=40, watch="gates")
    with pytest.raises(UsageError, match="no gates to watch"):
        features.apply(damaged(teacher), told, context(teacher, shared))
    with pytest.raises(UsageError, match="cannot be measured on development data"):
        features.apply(damaged(teacher), told, context(teacher, shared, loss=lambda _: math.inf))


def test_held_out_samples_are_not_trained_on():
    trained, held = held_out(TinySet(stored(40)), 0.1)
    assert set(trained.stored.samples) | set(held.stored.samples) == set(range(40))
    assert len(held) == 4
    assert not set(trained.stored.samples) & set(held.stored.samples)
    assert trained.digest != held.digest
    assert held_out(TinySet(stored(40)), 0.0)[1] is None


def test_a_loss_that_is_no_number(teacher, shared, tmp_path):
    student = damaged(teacher)
    told = spec(rate=1e30, warmup=0, checkpoint_minutes=1e-9)
    with pytest.raises(UsageError, match=r"the loss is (nan|inf).*the checkpoint after step \d+ is kept"):
        features.apply(student, told, context(teacher, shared, work=tmp_path / "work"))
    assert all(np.isfinite(value).all() for value in weights(student).values())
    assert list((tmp_path / "work").glob("*.safetensors"))


def test_a_student_larger_than_its_teacher(teacher, shared):
    student = damaged(teacher)
    student.towers["text"].graph.graph.initializer.append(numpy_helper.from_array(np.zeros((3, 3), np.float32), "more"))
    with pytest.raises(UsageError, match=r"the text student has [\d,]+ weights and its teacher"):
        features.apply(student, spec(), context(teacher, shared))


@pytest.mark.parametrize(("use", "kind"), [("images", "vision"), ("captions", "text")])
def test_data_for_one_tower(teacher, shared, use, kind):
    fed = replace(context(teacher, shared), training=TinySet(stored(48, use)))
    report = features.apply(damaged(teacher), spec(), fed)
    assert {row.tower for row in report.rows} == {kind}
    other = {"vision": "text", "text": "vision"}[kind]
    with pytest.raises(UsageError, match=f"there are only {use} to train on, and none of them is for {other}"):
        features.apply(damaged(teacher), spec(towers=(other,)), fed)
    with pytest.raises(UsageError, match="need images with captions"):
        features.apply(damaged(teacher), spec(losses=features.Weights(affinity=1.0)), fed)


def test_weights_drawn_anew(teacher, shared):
    report = features.apply(damaged(teacher), spec(start="random", steps=1), context(teacher, shared))
    inherited = features.apply(damaged(teacher), spec(steps=1), context(teacher, shared))
    assert losses(report)[0] > 2 * losses(inherited)[0]
    again = features.apply(damaged(teacher, seed=4), spec(start="random", steps=1), context(teacher, shared))
    assert losses(again)[0] == pytest.approx(losses(report)[0], abs=1e-6), "nothing of the old weights is left"


def test_one_budget_and_some_loss():
    with pytest.raises(ValueError, match="give one of steps, epochs, seconds"):
        features.Spec(steps=3, seconds=1.0)
    with pytest.raises(ValueError, match="nothing to train towards"):
        features.Spec(losses=features.Weights(features=0.0, hidden=0.0))


def test_time_is_recorded_as_steps(teacher, shared):
    report = features.apply(damaged(teacher), spec(seconds=0.5), context(teacher, shared))
    assert f"{len(losses(report))} steps of 8 in" in report.summary


class Named:
    def __init__(self, *names):
        self.names = names


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        ("abcd", "abcd", "abcd"),
        ("ac", "abcd", "bd"),
        ("bd", "abcd", "cd"),
        ("d", "abcd", "d"),
        ("xy", "abcd", "bd"),
        ("xyz", "abcd", "acd"),
    ],
)
def test_blocks_that_belong_together(monkeypatch, own, other, expected):
    monkeypatch.setattr("compress.steps.distill._blocks.outputs", lambda tower: tuple(tower.names))
    assert "".join(pair.teacher for pair in paired(Named(*own), Named(*other))) == expected


SCRIPT = """
import json, os, sys
sys.path[:0] = {paths!r}
from pathlib import Path
import tiny_towers
from test_distill_training import context, damaged, losses, spec
from compress.steps.distill import affinity, features
folder = Path({folder!r})
own = folder / f"model-{{os.environ.get('RANK', 0)}}"  # or one process reads what the other is writing
own.mkdir(exist_ok=True)
teacher = tiny_towers.encoder(own)
weights = features.Weights(affinity=0.5, contrastive=0.1, hidden=0.0)
told = spec(steps={steps}, checkpoint_minutes={minutes}, losses=weights, optimizer={optimizer!r})
given = context(teacher, folder / "cache", work=folder / "work", resume={resume})
report = features.apply(damaged(teacher), told, given)
from accelerate import PartialState
if PartialState().is_main_process:
    (folder / {out!r}).write_text(json.dumps([PartialState().num_processes, *losses(report).tolist()]))
"""


def script(tmp_path, **told):
    paths = [str(HERE.parent), str(HERE.parents[1])]
    defaults = {"paths": paths, "folder": str(tmp_path), "steps": 6, "minutes": 5.0, "resume": False, "out": "one"}
    defaults["optimizer"] = "adamw"
    made = tmp_path / f"{told.get('out', 'one')}.py"
    made.write_text(SCRIPT.format(**{**defaults, **told}))
    return str(made)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "soap", "steps": 14}])
def test_two_processes_are_one(tmp_path, optimizer):
    import json

    one = script(tmp_path, out="one", **optimizer)
    subprocess.run([sys.executable, one], check=True, timeout=200)
    two = script(tmp_path, out="two", **optimizer)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", two]
    subprocess.run(launch, check=True, timeout=200)
    (count, *found), (alone, *expected) = (json.loads((tmp_path / name).read_text()) for name in ("two", "one"))
    assert (count, alone) == (2, 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    import json

    whole = script(tmp_path, out="whole", steps=60)
    subprocess.run([sys.executable, whole], check=True, capture_output=True, timeout=200)
    running = subprocess.Popen([sys.executable, script(tmp_path, out="killed", steps=60, minutes=1e-9)])
    deadline = time.monotonic() + 200
    while len(list((tmp_path / "work").glob("*.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    running.kill()
    assert running.wait() == -9
    subprocess.run([sys.executable, script(tmp_path, out="again", steps=60, resume=True)], check=True, timeout=200)
    found, expected = (json.loads((tmp_path / name).read_text()) for name in ("again", "whole"))
    np.testing.assert_allclose(found, expected, atol=1e-6)
