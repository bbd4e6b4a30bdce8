"""The suite: every declared metric comes back, if only with the reason why it was not measured."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from compress.core.errors import CompressError, EnvironmentFailure, UsageError
from compress.data import fingerprint, rendered
from compress.data.items import Request
from compress.evals import suite
from compress.evals import task as tasks
from compress.evals.task import Embeddings
from compress.gates.outcomes import Outcomes, Unmeasured


def policy(tasks, *metrics):
    asked = {
        name: SimpleNamespace(split="release", items=8, items_per_slice=None, task=task) for name, task in tasks.items()
    }
    return SimpleNamespace(tasks=asked, gates=[SimpleNamespace(metric=metric) for metric in metrics])


@pytest.fixture
def encoded(monkeypatch):
    """Embeddings that a test can change, in place of a child process."""
    made = {}

    def encode(folder, jobs, how):
        rng = np.random.default_rng(0)
        found = {}
        for name, job in jobs.items():
            images, texts = (rng.normal(size=(n, 6)).astype("f") for n in (len(job.data.ids), len(job.data.texts)))
            found[name] = Embeddings(images, texts, 1.0, 1.0)
        return found | made.get(folder, {})

    class Encoding:
        """The real one's parts, without a child."""

        def __init__(self, folder, jobs, how):
            self.result = lambda: encode(folder, jobs, how)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def look(self):
            return False

        def start(self, threads):
            assert threads >= 1, "two side by side share the cores"

    monkeypatch.setattr(suite, "Encoding", Encoding)
    return made


def test_names_begin_with_what_the_policy_calls_the_task(encoded):
    got = suite.measure(policy({"small": "relations"}, "small.accuracy"), "old", "new", suite.Options())
    assert set(got) == {"small.accuracy"}
    assert isinstance(got["small.accuracy"], Outcomes)
    assert len(got["small.accuracy"].items) == 8


def test_a_metric_no_task_gives_is_unmeasured(encoded):
    got = suite.measure(policy({"relations": None}, "relations.speed"), "old", "new", suite.Options())
    assert got["relations.speed"] == Unmeasured("the task gives no such metric")
    assert isinstance(got["relations.accuracy"], Outcomes)


def test_one_broken_task_does_not_hide_the_other(encoded):
    encoded["new"] = {"pins": Unmeasured("ValueError: no")}
    got = suite.measure(policy({"pins": None, "charts": None}, "pins.extra"), "old", "new", suite.Options())
    assert got["pins.accuracy"] == got["pins.extra"] == Unmeasured("ValueError: no")
    assert isinstance(got["charts.accuracy"], Outcomes)


def test_towers_without_a_common_space(encoded):
    encoded["new"] = {"pins": Embeddings(np.ones((8, 3), "f"), np.ones((8, 4), "f"))}
    got = suite.measure(policy({"pins": None}), "old", "new", suite.Options())
    assert "no common space: 3 and 4" in got["pins.accuracy"].reason


@pytest.mark.parametrize("part", ["look", "start"])
def test_a_folder_that_cannot_be_encoded(encoded, monkeypatch, part):
    def broken(*_):
        raise CompressError("onnxruntime cannot open it")

    monkeypatch.setattr(suite.Encoding, part, broken)
    got = suite.measure(policy({"pins": None}, "pins.accuracy"), "old", "new", suite.Options())
    assert got["pins.accuracy"] == Unmeasured("CompressError: onnxruntime cannot open it")


def test_what_the_user_has_to_change_ends_the_run(encoded, tmp_path):
    with pytest.raises(UsageError, match=r"no task 'readin'(.|\n)*did you mean reading"):
        suite.measure(policy({"readin": None}), "old", "new", suite.Options())
    asked = policy({"pins": None})
    asked.tasks["pins"].split = "test"
    with pytest.raises(UsageError, match=r"no split 'test'"):
        suite.measure(asked, "old", "new", suite.Options())
    with pytest.raises(EnvironmentFailure, match=r"'fashion' is not there(.|\n)*--data-root"):
        suite.measure(policy({"fashion_retrieval": None}), "old", "new", replace(suite.Options(), roots=(tmp_path,)))


PLANTED = {
    "exact": lambda image: image,
    "mirrored": ImageOps.mirror,
    "resized": lambda image: image.resize((96, 96), Image.Resampling.BICUBIC),
}


def scenes(kind, split="release"):
    items = rendered.load(rendered.Rendered(kinds=(kind,)), Request(split, 8))
    return items.ids, list(items.images)


@pytest.mark.parametrize("how", PLANTED)
def test_a_task_with_an_item_that_a_step_saw_is_not_measured(encoded, how):
    ids, images = scenes("relations", "calibration")
    names, held_out = scenes("pins")
    used = fingerprint.of_images([*ids, "calibration/planted"], [*images, PLANTED[how](held_out[3])])
    asked = policy({"pins": None, "relations": None}, "pins.accuracy", "pins.other")
    got = suite.measure(asked, "old", "new", suite.Options(seen=used))
    assert got["pins.accuracy"] == got["pins.other"]
    assert got["pins.accuracy"].reason == (f"1 of 8 items were seen by a step: {names[3]} is calibration/planted")
    assert isinstance(got["relations.accuracy"], Outcomes)


def test_nobody_knows_what_a_step_saw(encoded):
    asked = policy({"pins": None})
    got = suite.measure(asked, "old", "new", suite.Options(seen=Unmeasured("its data are not here")))
    assert got == {"pins.accuracy": Unmeasured("its data are not here")}


def test_fewer_items_than_the_policy_declares(encoded, tmp_path):
    (tmp_path / "few").mkdir()
    for at in range(3):
        Image.new("RGB", (8, 8), (at * 80, 0, 0)).save(tmp_path / "few" / f"{at}.png")
    rows = [f'{{"file": "{at}.png", "text": "number {at}", "split": "release"}}' for at in range(3)]
    (tmp_path / "few" / "labels.jsonl").write_text("\n".join(rows) + "\n")
    told = "source: folder, path: few, captions: text, split_by: split"
    (tmp_path / "near.yaml").write_text(
        f"version: 1\nname: near\nkind: parity\ndescription: Three.\ndata: {{{told}}}\n"
        "metrics: {p1_cosine: Near.}\nitems: 4\n"
    )
    options = suite.Options(roots=(tmp_path,), task_folders=(tmp_path,))
    got = suite.measure(policy({"near": None}), "old", "new", options)
    assert got == {"near.p1_cosine": Unmeasured("there are 3 items, and 8 were asked for")}
    asked = policy({"near": None})
    asked.tasks["near"].items = 3
    assert suite.measure(asked, "old", "new", options)["near.p1_cosine"].n == 3
    asked.tasks["near"].items = None  # the task itself says four
    assert suite.measure(asked, "old", "new", options)["near.p1_cosine"].reason.endswith("4 were asked for")


@pytest.mark.parametrize("task", ["twins", "robust", "cross_index", "frozen_probe"])
def test_items_are_counted_as_policies_count_them(task):
    assert tasks.find(task).load(Request("release", 24)).count == 24
