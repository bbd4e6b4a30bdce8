"""What a recipe's target decides before a run: methods that it cannot serve, providers that are not here, refusals."""

import json

import onnxruntime
import pytest
import tiny_clip

from compress import targets
from compress.cli.main import main
from compress.cli.running import target_names
from compress.gates.outcomes import Unmeasured
from compress.pipeline import measurement, plan
from compress.pipeline.options import Options
from compress.steps.quantize._rounding import in_blocks
from compress.targets import tensorrt
from compress.targets.graph.emitter import weight_matrix

RECIPE = """
version: 1
name: small
model: {source: pocket-clip}
data: {calibration: {source: scenes, samples: 16}}
steps: [{use: quantize.%s}]
targets: [%s]
policy: none
reason: nothing is measured here
"""


def run(tmp_path, method, target):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE % (method, target))
    return main(["run", "--recipe", str(recipe), "--output", str(tmp_path / "out"), "--quiet"])


def test_every_target_has_its_parts():
    assert set(target_names()) >= {"onnxruntime-cpu", "onnxruntime-cuda", "tensorrt"}
    for name in target_names():
        target = targets.load(name)
        assert name == target.NAME
        assert all(callable(getattr(target, part)) for part in ("ready", "export", "files_of", "counts"))


def test_a_method_that_serves_another_target_ends_2(tmp_path, capsys):
    assert run(tmp_path, "fp8_static", "onnxruntime-cpu") == 2
    told = capsys.readouterr().err
    assert "steps[0].use" in told
    assert "use target tensorrt" in told
    assert not (tmp_path / "out").exists()


def test_bitsandbytes_for_onnx_ends_2_and_names_what_serves_it(tmp_path, capsys):
    assert run(tmp_path, "bnb, weights: nf4", "onnxruntime-cpu") == 2
    told = capsys.readouterr().err
    assert "quantize.gptq with weights: int4" in told
    assert "use target torch" in told
    recipe = str(tmp_path / "recipe.yaml")
    assert main(["plan", "--recipe", recipe, "--output", str(tmp_path / "out"), "--quiet"]) == 2
    assert "quantize.gptq with weights: int4" in capsys.readouterr().err


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA here")
def test_a_provider_that_is_not_here_ends_5_before_anything_is_loaded(tmp_path, capsys):
    assert run(tmp_path, "fp16", "onnxruntime-cuda") == 5
    assert "CUDAExecutionProvider" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_plan_names_what_tensorrt_takes_instead(tiny_encoder, tmp_path):
    kept = []
    for tower in tiny_encoder.towers.values():
        for site in tower.sites:
            if site.role in {"mlp.fc1", "embedding"}:
                tower.treatments[site.name] = in_blocks(weight_matrix(tower, site), 4, 32)
                kept.append(site.name)
    refused = list(plan._export(tensorrt, tiny_encoder, tmp_path / "made"))
    assert sorted(each.where for each in refused) == sorted(kept)
    hints = " ".join(each.hint for each in refused)
    assert "block: 64 or 128" in hints
    assert "quantize.fp16" in hints
    assert not any(tower.treatments for tower in tiny_encoder.towers.values())  # the rest was written


@pytest.mark.slow
def test_a_run_for_tensorrt(tmp_path):
    recipe, policy = tmp_path / "recipe.yaml", tmp_path / "near.yaml"
    told = (RECIPE % ("int8_static", "tensorrt")).split("policy:")[0] + f"policy: {policy}\n"
    recipe.write_text(told.replace("pocket-clip", str(tiny_clip.save(tmp_path / "model"))))
    policy.write_text(
        "version: 1\nname: near\ntasks: {parity: {split: development, items: 40}}\ngates:\n"
        '  - {metric: parity.p1_cosine, rule: at_least, value: 0.9, because: "it is the same model"}\n'
        '  - {metric: census.vision, rule: census, because: "what was planned"}\n'
    )
    assert main(["run", "--recipe", str(recipe), "--output", str(tmp_path / "out"), "--quiet"]) == 0
    made = tmp_path / "out" / "released" / "small"
    report = json.loads((made / "compress" / "gate_report.json").read_text())
    assert report["target"] == {"name": "tensorrt", "proof": "linted-only"}
    ran = {each["provider"] for each in report["proofs"] if each["ran"]}
    assert "CPUExecutionProvider" in ran
    assert "TensorrtExecutionProvider" not in ran
    assert "linted-only" in (made / "README.md").read_text()
    assert main(["lint", str(made)]) == 0
    assert main(["verify", str(made)]) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_for_torch(tmp_path):
    pytest.importorskip("bitsandbytes")
    recipe, policy = tmp_path / "recipe.yaml", tmp_path / "near.yaml"
    told = (RECIPE % ("bnb, weights: nf4", "torch")).split("policy:")[0] + f"policy: {policy}\n"
    recipe.write_text(told.replace("pocket-clip", str(tiny_clip.save(tmp_path / "model", width=64))))
    policy.write_text(
        "version: 1\nname: near\ntasks: {parity: {split: development, items: 40}}\ngates:\n"
        '  - {metric: parity.p1_cosine, rule: at_least, value: 0.9, because: "it is the same model"}\n'
        '  - {metric: parity.batch_cosine, rule: at_least, value: 0.999, because: "no neighbours"}\n'
        '  - {metric: size.ratio, rule: at_most, value: 0.9, because: "smaller"}\n'
        '  - {metric: census.vision, rule: census, because: "what was planned"}\n'
        '  - {metric: census.text, rule: census, because: "what was planned"}\n'
    )
    assert main(["run", "--recipe", str(recipe), "--output", str(tmp_path / "out"), "--quiet"]) == 0
    made = tmp_path / "out" / "released" / "small"
    report = json.loads((made / "compress" / "gate_report.json").read_text())
    assert [(each["runtime"], each["ran"]) for each in report["proofs"]] == [("torch", True)] * 2
    assert {each["tower"] for each in report["sizes"]} == {"vision", "text"}
    assert "nf4" in (made / "compress" / "report.html").read_text()
    assert main(["verify", str(made)]) == 0


def test_the_time_of_a_simulation_is_not_measured(tiny_encoder, tmp_path):
    tensorrt.export(tiny_encoder, tmp_path)
    told = measurement._latency(tmp_path, tmp_path, Options())
    assert isinstance(told, Unmeasured)
    assert "linted-only" in told.reason


def test_an_unknown_target_is_suggested():
    with pytest.raises(KeyError, match="tensorrt"):
        targets.load("tensorr")
