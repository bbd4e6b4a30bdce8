"""The commands around a run, through the command line, on a tiny random CLIP."""

import copy
import functools
import json
import shutil

import pytest
import tiny_clip

from compress.cli.main import main
from compress.models import loading
from compress.pipeline import model
from compress.recipe.sources import NamedModel
from compress.steps.quantize import int8_rtn, int8_static

STEPS = """
  - {use: quantize.int8_static, exclude: [projection]}
  - {use: quantize.int8_rtn, include: [embedding, projection]}
"""
RECIPE = """
version: 1
name: tiny
model: {{source: {model}}}
data:
  calibration: {{source: scenes, samples: 20}}
steps: {steps}
targets: [onnxruntime-cpu]
policy: none
reason: nothing is released here
"""
POLICY = """
version: 1
name: near
tasks:
  parity: {split: release, items: 20}
gates:
  - {metric: parity.p1_cosine, rule: at_least, value: 0.9, because: it should stay near}
  - {metric: size.ratio, rule: at_most, value: 1.0, because: it should not grow}
"""
GATE = "  - {metric: zero_shot.accuracy, rule: non_inferior, margin: 0.02, because: it should not lose}\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_clip.save(tmp_path_factory.mktemp("model") / "tiny", width=48)


@pytest.fixture
def recipe(tiny, tmp_path):
    def write(steps=STEPS, name="tiny"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(RECIPE.format(model=tiny, steps=steps))
        return file

    return write


@functools.cache
def loaded(source):
    return loading.load(NamedModel(source=source))


@pytest.fixture
def once(monkeypatch):
    """Each model is loaded and exported once for all tests: what is tested is what comes after."""
    monkeypatch.setattr(model, "load_named", lambda source, offline: copy.deepcopy(loaded(source.source)))


def compress(*words):
    return main([str(word) for word in words])


def stop(*_):
    raise KeyboardInterrupt


def result(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def interrupted(once, recipe, tmp_path, monkeypatch):
    """An output root whose run was interrupted in its second step."""
    output = tmp_path / "out"
    with monkeypatch.context() as broken:
        broken.setattr(int8_rtn, "apply", stop)
        assert compress("run", "--recipe", recipe(), "--output", output, "--quiet") == 130
    assert (output / "staging" / ".tiny.checkpoint" / "1.json").is_file()
    assert not (output / "ungated").exists()
    return output


def digest(folder):
    return json.loads((folder / "compress" / "gate_report.json").read_text())["digest"]


def test_a_resumed_run_makes_the_same_artifact(recipe, interrupted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(model, "load_named", loading.load)  # exported again, as after a kill
    assert compress("run", "--recipe", recipe(), "--output", tmp_path / "whole", "--quiet") == 4
    assert not (tmp_path / "whole" / "staging" / ".tiny.checkpoint").exists()
    monkeypatch.setattr(int8_static, "apply", stop)
    assert compress("run", "--recipe", recipe(), "--output", interrupted, "--resume") == 4
    assert "resumed after step 1: quantize.int8_static" in " ".join(capsys.readouterr().err.split())
    report = json.loads((interrupted / "ungated" / "tiny" / "compress" / "gate_report.json").read_text())
    assert [step["use"] for step in report["steps"]] == ["quantize.int8_static", "quantize.int8_rtn"]
    assert report["digest"] == digest(tmp_path / "whole" / "ungated" / "tiny")
    assert not (interrupted / "staging" / ".tiny.checkpoint").exists()


def test_a_changed_recipe_is_not_resumed_but_runs_anew_without_resume(recipe, interrupted, capsys):
    changed = recipe(STEPS.replace("[projection]", "[projection, mlp.fc2]"))
    assert compress("run", "--recipe", changed, "--output", interrupted, "--resume", "--quiet") == 2
    assert "recipe changed since the checkpoint was written" in capsys.readouterr().err
    assert compress("run", "--recipe", changed, "--output", interrupted, "--quiet") == 4


def test_a_changed_model_is_not_resumed(recipe, interrupted, tmp_path, capsys):
    other = tiny_clip.save(tmp_path / "other", width=48, seed=1)
    file = recipe()
    file.write_text(RECIPE.format(model=other, steps=STEPS))
    assert compress("run", "--recipe", file, "--output", interrupted, "--resume", "--quiet") == 2
    assert "model changed" in capsys.readouterr().err


def test_a_plan_foretells_what_a_run_makes_and_keeps_nothing(once, recipe, tmp_path, capsys):
    output, file = tmp_path / "out", recipe()
    assert compress("plan", "--recipe", file, "--output", output, "--json", "--quiet") == 0
    plan = result(capsys)
    assert not output.exists()
    assert compress("run", "--recipe", file, "--output", output, "--json", "--quiet") == 4
    report = result(capsys)
    assert {each["tower"]: (each["before"], each["after"]) for each in plan["sizes"]} == {
        each["tower"]: (each["reference_bytes"], each["candidate_bytes"]) for each in report["sizes"]
    }
    first, second = plan["steps"]
    assert (first["calibrates"], second["calibrates"]) == (True, False)
    assert [(row["site"], row["role"]) for row in first["rows"]] == [
        (row["site"], row["role"]) for row in report["steps"][0]["rows"]
    ]
    table = next(row for row in second["rows"] if row["role"] == "embedding")
    assert (table["shape"], table["bits"], table["block"], table["padding"]) == ([98, 48], 8, 32, 16)
    assert plan["calibration"] == {"source": "scenes", "samples": 20, "seed": 0}


def test_a_plan_tells_everything_that_cannot_be(once, tiny, tmp_path, capsys):
    steps = """
  - {use: quantize.int8_static, include: [embedding]}
  - {use: quantize.int8_static}
"""
    file = tmp_path / "impossible.yaml"
    without_data = RECIPE.replace("data:\n  calibration: {{source: scenes, samples: 20}}\n", "")
    file.write_text(without_data.format(model=tiny, steps=steps))
    assert compress("plan", "--recipe", file, "--json", "--quiet") == 2
    refused = result(capsys)["refused"]
    assert refused[0]["where"].startswith("steps[0] quantize.int8_static: text_model.embeddings.token_embedding")
    assert "quantize.int8_rtn" in refused[0]["hint"]
    assert refused[1]["where"] == "data.calibration"


def test_a_plan_is_shown_in_words(once, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    policy = tmp_path / "near.yaml"
    policy.write_text(POLICY.replace("gates:", "  zero_shot: {split: release, items: 96}\ngates:") + GATE)
    file = recipe()
    file.write_text(file.read_text().replace("policy: none\nreason: nothing is released here", "policy: near.yaml"))
    assert compress("plan", "--recipe", file, "--quiet") == 0
    shown = capsys.readouterr().out
    for expected in (
        "vision: 6",
        "16 zeros",
        "needs calibration data",
        "zero_shot.accuracy",
        "861",
        "1,618",
        "size.ratio",
    ):
        assert expected in shown


def test_eval(once, tiny, tmp_path, capsys):
    words = "eval", tiny, "--items", 28, "--output", tmp_path, "--quiet"
    assert compress(*words, "--task", "relations", "--json") == 0
    first, *slices = result(capsys)["scores"]
    assert (first["metric"], first["slice"], first["n"]) == ("relations.accuracy", None, 28)
    assert first["low"] <= first["value"] <= first["high"]
    assert sum(row["n"] for row in slices) == 28
    assert compress(*words, "--task", "parity") == 2
    assert "compares two models" in capsys.readouterr().err
    assert compress(*words, "--task", "relation") == 2
    assert "did you mean relations" in capsys.readouterr().err


def test_bench(once, tiny, tmp_path, capsys):
    words = "--batch", 1, "--pairs", 2, "--output", tmp_path, "--quiet"
    assert compress("bench", tiny, *words, "--json") == 0
    alone = result(capsys)
    assert [(row["tower"], row["batch"]) for row in alone["rows"]] == [("vision", 1), ("text", 1)]
    assert all(0 < row["ms"]["min"] <= row["ms"]["median"] for row in alone["rows"])
    assert compress("bench", tiny, tiny, *words, "--json") == 0
    paired = result(capsys)
    assert [row["pairs"] for row in paired["rows"]] == [2, 2]
    assert compress("bench", tiny, *words) == 0
    assert "peak memory" in capsys.readouterr().out


def test_a_run_signs_its_verdict_whichever_it_is(once, recipe, tmp_path, capsys):
    assert compress("keygen", tmp_path / "key", "--json") == 0
    key_id = result(capsys)["key_id"]
    words = "run", "--recipe", recipe(), "--output", tmp_path / "out", "--sign", tmp_path / "key"
    assert compress(*words) == 4
    shown = capsys.readouterr()
    assert f"signed by key {key_id}" in shown.out
    secret = (tmp_path / "key").read_text().splitlines()[1]
    assert secret not in shown.out + shown.err
    ungated = tmp_path / "out" / "ungated" / "tiny"
    assert compress("verify", ungated, "--public-key", tmp_path / "key.pub", "--json") == 4
    signature = result(capsys)["signature"]
    assert (signature["status"], signature["key_id"]) == ("ok", key_id)
    assert all(secret.encode() not in path.read_bytes() for path in ungated.rglob("*") if path.is_file())


def test_export_then_gate(once, tiny, tmp_path, capsys):
    output = tmp_path / "out"
    assert compress("keygen", tmp_path / "key") == 0
    export = "export", tiny, "--target", "onnxruntime-cpu", "--output", output, "--sign", tmp_path / "key", "--quiet"
    assert compress(*export) == 0
    released = output / "released" / "tiny"
    assert compress("verify", released, "--public-key", tmp_path / "key.pub") == 0
    policy = tmp_path / "near.yaml"
    policy.write_text(POLICY)
    before = sorted(path for path in output.rglob("*") if path.is_file())
    capsys.readouterr()
    gate = "gate", released, "--reference", tiny, "--output", output, "--quiet"
    assert compress(*gate, "--policy", policy, "--json") == 0
    report = result(capsys)
    assert (report["status"], report["digest"]) == ("passed", digest(released))
    assert [finding["status"] for finding in report["findings"]] == ["passed", "passed"]
    assert compress(*gate, "--policy", "export_parity") == 4
    assert "census.vision" in capsys.readouterr().out
    after = sorted(path for path in output.rglob("*") if path.is_file())
    assert [path for path in after if "cache" not in path.parts] == [
        path for path in before if "cache" not in path.parts
    ]
    judged = [json.loads(line)["policy"] for line in (output / "ledger.jsonl").read_text().splitlines()]
    assert judged == ["export_parity", "near", "export_parity"]
    assert report["attempts"] == [{"split": "release", "candidates": 1}]


def test_calibrating_on_what_is_measured_decides_nothing(once, recipe, tmp_path, capsys):
    (tmp_path / "near.yaml").write_text(POLICY)
    file = recipe()
    text = file.read_text().replace("policy: none\nreason: nothing is released here", "policy: near.yaml")
    file.write_text(text.replace("samples: 20", "samples: 20, split: release"))
    words = "run", "--recipe", file, "--output", tmp_path / "out", "--quiet", "--json"
    assert compress(*words) == 4
    found = {finding["metric"]: finding for finding in result(capsys)["findings"]}
    assert found["parity.p1_cosine"]["status"] == "inconclusive"
    assert "20 of 20 items were seen by a step" in found["parity.p1_cosine"]["reason"]
    assert found["size.ratio"]["status"] == "passed"
    assert not (tmp_path / "out" / "released").exists()
    (blocked,) = (tmp_path / "out" / "blocked").iterdir()
    assert compress("gate", blocked, "--reference", text.split("source: ")[1].split("}")[0], *words[3:], "--policy",
                    tmp_path / "near.yaml") == 4  # fmt: skip
    assert "were seen by a step" in result(capsys)["findings"][0]["reason"]
    against_itself = "gate", blocked, "--reference", blocked, *words[3:], "--policy", tmp_path / "near.yaml"
    assert compress(*against_itself) == 2
    assert "has to be an original" in capsys.readouterr().err


def test_who_does_not_say_what_it_was_calibrated_on_is_not_decided(once, tiny, tmp_path, capsys):
    output, policy = tmp_path / "out", tmp_path / "near.yaml"
    policy.write_text(POLICY)
    words = "--reference", tiny, "--policy", policy, "--output", output, "--quiet", "--json"
    assert compress("gate", tiny, *words) == 0  # it is the reference
    capsys.readouterr()
    (exported,) = (output / "cache" / "reference").iterdir()
    other = tiny_clip.save(tmp_path / "other", width=48, seed=1)  # trained further, on whatever it may be
    assert compress("gate", other, *words) == 4
    assert "nobody knows what it was calibrated on" in result(capsys)["findings"][0]["reason"]
    assert compress("gate", other, *words, "--calibration", "none") == 3
    capsys.readouterr()
    shutil.copytree(exported, tmp_path / "foreign")
    assert compress("gate", tmp_path / "foreign", *words) == 4
    assert "nobody knows what it was calibrated on" in result(capsys)["findings"][0]["reason"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["export", "pocket-clip", "--target", "onnxruntime-cup"], "did you mean onnxruntime-cpu"),
        (["export", "pocket-clip", "--target", "onnxruntime-cpu", "--name", "../x"], "must be a name"),
        (["export", "nowhere/", "--target", "onnxruntime-cpu"], "no such model folder"),
        (["eval", "tower.onnx", "--task", "reading"], "source: onnx"),
        (
            ["gate", "pocket-clip", "--policy", "clip_realese", "--reference", "pocket-clip"],
            "did you mean clip_release",
        ),
    ],
)
def test_what_cannot_be_ends_with_2_and_a_hint(words, expected, tmp_path, capsys):
    assert compress(*words, "--output", tmp_path, "--quiet") == 2
    assert expected in capsys.readouterr().err
