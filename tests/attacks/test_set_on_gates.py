"""`--set` changes a recipe and never what must hold: gates are the policy's, and the policy is another file."""

import pytest

from compress.cli.main import main

RECIPE = "int4_clip"
WEAKER = (
    "gates=[]", "policy.gates=[]", "policy.gates.0.margin=0.9", "gates.0.margin=0.9", "margin=0.9", "tasks={}",
    "waivers=[]", "policy={name: weak, gates: []}", "confidence=0.5",
)  # fmt: skip


@pytest.mark.parametrize("setting", WEAKER)
def test_a_setting_that_would_weaken_a_gate_ends_2(setting, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", "check", RECIPE, "--set", setting]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["run", "--recipe", RECIPE, "--set", setting, "--quiet"]) == 2
    assert list(tmp_path.iterdir()) == []
