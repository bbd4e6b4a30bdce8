"""Real suites on real models: scores near those their authors state, a released recognizer and a blocked one."""

import json

import pytest
from click.testing import CliRunner

from compress.cli.main import root
from compress.core.names import bundled
from compress.data.items import Request
from compress.evals import task as tasks

pytestmark = pytest.mark.real

TEXTS = {"iiit5k_words": 800, "icdar2015_words": 600, "receipts": 2346}


@pytest.fixture(scope="module")
def call(real_data, tmp_path_factory):
    """Runs a command with the real data below its root and returns its exit code and JSON."""
    output = tmp_path_factory.mktemp("artifacts")

    def run(*words):
        shared = ("--data-root", str(real_data), "--output", str(output), "--json", "--quiet")
        made = CliRunner().invoke(root, [*words, *shared])
        return made.exit_code, json.loads(made.stdout), output

    return run


def whole(scores):
    return {row["metric"]: row for row in scores["scores"] if row["dimension"] is None}


@pytest.mark.parametrize(
    ("recipe", "task", "metric", "expected"),
    [
        ("lprnet_float", "plates", "exact", 0.894),  # its authors: all 1,000 plates, of which 600 are here
        ("resnet20_cifar_float", "cifar10_classification", "accuracy", 0.8055),  # pixels and argmax by hand in numpy
        ("resnet56_cifar_float", "cifar10_classification", "accuracy", 0.8245),
    ],
)
def test_one_tower_scores_what_is_known_of_it(call, recipe, task, metric, expected):
    code, _, output = call("run", "--recipe", f"real/{recipe}", "--replace")
    assert code == 4  # nothing was gated
    code, found, _ = call("eval", str(output / "ungated" / recipe), "--task", task, "--split", "all")
    assert code == 0
    row = whole(found)[f"{task}.{metric}"]
    assert row["low"] <= expected <= row["high"]


@pytest.mark.long
def test_eight_bits_keep_the_plates_and_four_lose_them(call):
    code, report, _ = call("quantize", "--recipe", "real/lprnet_int4", "--policy", "plates_release")
    assert code == 3
    assert {row["metric"] for row in report["findings"] if row["status"] == "failed"} >= {"plates.exact"}
    _, report, _ = call("quantize", "--recipe", "real/lprnet_int8")
    passed = {row["metric"] for row in report["findings"] if row["status"] == "passed"}
    assert {"plates.exact", "census.vision", "size.ratio"} <= passed
    (characters,) = (row for row in report["findings"] if row["metric"] == "plates.character_accuracy")
    assert characters["value"] < 0.01, "352 plates may be too few to show it, but nothing says that it is lost"


@pytest.mark.parametrize("name", TEXTS)
def test_texts_become_choices(real_data, name):
    task = tasks.find(name)
    data = task.load(Request("all", roots=(real_data,)))
    assert len(data.ids) == TEXTS[name]
    assert data.arrays["candidates"].shape == (TEXTS[name], 16)
    assert all(len(set(row)) == 16 for row in data.arrays["candidates"].tolist())
    assert all(min(labels.count(each) for each in set(labels)) >= 2 for labels in data.slices.values())


@pytest.mark.long
def test_small_encoders_read_scene_text_no_better_than_guessing(call):
    """pocket-clip learned rendered codes; a gate on its scene text would be inconclusive, and that is right."""
    code, found, _ = call("eval", "pocket-clip", "--task", "icdar2015_words", "--items", "150", "--split", "all")
    assert code == 0
    assert whole(found)["icdar2015_words.accuracy"]["low"] <= 1 / 11


def test_prompts_and_names_come_from_the_data_root(real_data):
    task = tasks.find("imagenet_sample_zero_shot")
    data = task.load(Request("all", roots=(real_data,)))
    assert data.arrays["prompts"].shape == (998, 80)  # two names stand there twice
    labels = [
        json.loads(line)["label"] for line in (real_data / "imagenet_sample" / "labels.jsonl").read_text().splitlines()
    ]
    told = json.loads((real_data / "clip_text" / "en_classnames.json").read_text())["imagenet1k"]
    assert len(data.ids) == sum(label.lower() in map(str.lower, told) for label in labels) > 200
    task = tasks.find("cifar10_zero_shot")
    assert task.load(Request("all", items=20, roots=(real_data,))).arrays["prompts"].shape == (10, 18)


def test_no_prompt_of_the_published_set_is_in_the_project(real_data):
    prompts = json.loads((real_data / "clip_text" / "en_zeroshot_classification_templates.json").read_text())
    ours = "".join(path.read_text() for path in bundled("evals").rglob("*.yaml"))
    assert not [each for each in prompts["imagenet1k"] if each in ours]
