"""A recipe that fails on development data, through the command line: a rung saves it, and the report says which."""

import json

import pytest
import tiny_clip

from compress.cli.main import main

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
RECIPE = """
version: 1
name: saved
model: {source: MODEL}
data: {calibration: {source: scenes, samples: 64}}
steps: [{use: quantize.int4_rtn, scale_per: tensor, block: 128, towers: [vision], include: [mlp.fc1]}]
targets: [onnxruntime-cpu]
policy: POLICY
rescue: {max_size_ratio: 1.5}
"""
POLICY = """
version: 1
name: near
tasks: {parity: {split: release, items: 40}}
gates:
  - {metric: parity.min_cosine, rule: at_least, value: 0.9997, because: "a naive scale is not near enough"}
  - {metric: census.vision, rule: census, because: "what was planned"}
"""


def test_a_rung_saves_it(tmp_path, capsys):
    recipe, policy, output = tmp_path / "recipe.yaml", tmp_path / "near.yaml", tmp_path / "out"
    policy.write_text(POLICY)
    model = tiny_clip.save(tmp_path / "model", width=64)
    recipe.write_text(RECIPE.replace("MODEL", str(model)).replace("POLICY", str(policy)))
    given = ["--recipe", str(recipe), "--output", str(output), "--quiet"]
    assert main(["plan", *given, "--json"]) == 0
    planned = [each["name"] for each in json.loads(capsys.readouterr().out)["rungs"]]
    assert planned == ["1 in float", "finer blocks", "better rounding", "next format"]
    assert main(["run", *given]) == 0
    shown = capsys.readouterr().out
    made = output / "released" / "saved"
    report = json.loads((made / "compress" / "gate_report.json").read_text())
    told = report["rescue"]
    tried = [each["rung"] for each in told["tried"]]
    assert tried == ["as written", *planned][: len(tried)]
    assert [each["status"] for each in told["tried"]] == ["failed"] * (len(tried) - 1) + ["passed"]
    assert told["taken"] == tried[-1] != "as written"
    assert told["steps"]
    assert told["sensitivity"]["held_out"]
    assert len(told["sensitivity"]["rows"]) == 2
    attempts = {each["split"]: each["candidates"] for each in report["attempts"]}
    assert attempts == {"development": len(tried), "release": 1}
    assert f"→ {told['taken']}" in shown
    assert "How it was rescued" in (made / "compress" / "report.html").read_text()
    assert main(["verify", str(made)]) == 0
    assert not list((output / "staging").glob("*rung*"))
