"""docs/policies.md tells the truth: its files decode, its commands end as told, its outputs are what is printed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

sys.path.append(str(Path(__file__).parents[1] / "unit" / "artifact"))
import artifact_sample as sample

from compress.artifact import layout
from compress.artifact.staging import Store
from compress.cli.main import root
from compress.cli.running import read_recipe
from compress.core import names
from compress.gates import policy_file
from compress.gates.policy import load_policy
from compress.recipe import waivers

HERE = Path(__file__).parents[2]
PAGE = (HERE / "docs" / "policies.md").read_text()
NAME = re.compile(r"# (\S+)\n")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.M | re.S)


FILES = {NAME.match(block)[1]: block for block in blocks("yaml")}
COMMANDS = [
    (line.partition("   # ends ")[0], int(line.partition("   # ends ")[2] or 0))
    for block in blocks("console")
    for line in re.findall(r"^\$ (.*)$", block, re.M)
]
QUICK = [each for each in COMMANDS if each[0].split()[1] in ("policy", "verify")]
LONG = [each for each in COMMANDS if each not in QUICK]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The files of the page, and an artifact that was waived as its output says."""
    made = tmp_path_factory.mktemp("policies")
    for name, text in FILES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    with Store(made / "artifacts").stage("int4_clip_naive") as staging:
        sample.write_payload(staging, policy=policy_file.written(made / "app.yaml").decode())
        staging.write(layout.WAIVERS, (made / "waivers.yaml").read_bytes())
        given = waivers.read(made / "waivers.yaml")
        (entry,) = given.to_data()["waivers"]
        report = sample.report(staging.folder, staging.scan(), "waived", ())
        report["policy"]["name"] = "app"
        report["waivers"] = {"digest": given.digest, "unused": []}
        for gate in load_policy(made / "app.yaml").gates:
            waived = (gate.metric, gate.rule) == (entry["metric"], entry["rule"])
            told = {"status": "failed", **{key: entry[key] for key in ("reason", "expires", "by")}}
            report["findings"].append(
                {
                    "metric": gate.metric, "rule": gate.rule, "slice": None, "waiver": told if waived else None,
                    "status": "waived" if waived else "passed", "reason": "0.188154744070018 at most 0.15: no",
                }
            )  # fmt: skip
        staging.write(layout.GATE_REPORT, json.dumps(report).encode())
        cases = b"<testcase><skipped/></testcase><testcase><failure/></testcase>"
        staging.write(layout.JUNIT, b'<testsuite failures="1" errors="0" skipped="1">' + cases + b"</testsuite>")
        staging.settle("waived")
    return made


def test_quick_commands_end_as_told_and_print_what_is_shown(place):
    assert len(QUICK) > 7
    script = "\n".join(f"{command}\necho ended $?" for command, _ in QUICK)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    ended = [int(code) for code in re.findall(r"^ended (\d+)$", ran.stdout, re.M)]
    assert ended == [code for _, code in QUICK], ran.stdout + ran.stderr
    printed = ran.stdout.splitlines()
    shown = [line for block in blocks("text") for line in block.splitlines()]
    kinds = ("loosened", "tightened", "changed", "WAIVED", "  size.ratio at_most", "2 loosened")
    told = [line for line in shown if line.startswith(kinds)]
    assert len(told) > 8
    assert not [line for line in told if line not in printed]


def test_digests_on_the_page_are_those_of_its_files(place):
    app, parent = load_policy(place / "app.yaml"), load_policy("export_parity")
    assert f"old  export_parity {parent.digest}\nnew  app {app.digest}\n" in PAGE
    assert f"policy     ok  app {app.digest} (the required one)" in PAGE
    assert f"by waivers {waivers.read(place / 'waivers.yaml').digest}\n" in PAGE


@pytest.mark.parametrize("command", [command for command, _ in LONG])
def test_long_commands_parse(place, monkeypatch, command):
    monkeypatch.chdir(place)
    _, name, *words = shlex.split(command)
    found = root.get_command(click.Context(root), name)
    read_recipe(found.make_context(name, words).params, name)


@pytest.mark.parametrize("name", FILES)
def test_files_decode(place, name):
    if name.startswith(".github"):
        steps = YAML(typ="safe", pure=True).load(FILES[name])["jobs"]["compare"]["steps"]
        assert "compress policy diff base/" in steps[-1]["run"]
    elif "\nwaivers:" in FILES[name]:
        waivers.read(place / name).require_valid(name)
    else:
        load_policy(place / name)


def test_the_pipeline_compares_with_the_base_branch(tmp_path):
    """The commands of the job, with git and a branch that loosens a policy and one that does not."""
    step = YAML(typ="safe", pure=True).load(FILES[".github/workflows/policies.yml"])["jobs"]["compare"]["steps"][-1]
    shutil.copytree(names.bundled("evals", "policies"), tmp_path / "evals" / "policies")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]

    def run(*words):
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)

    run(*git, "init")
    run(*git, "add", "-A")
    run(*git, "commit", "-m", "policies")
    run(*git, "update-ref", "refs/remotes/origin/main", "HEAD")
    file = tmp_path / "evals" / "policies" / "clip_release.yaml"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "GITHUB_BASE_REF": "main"}
    for old, new, code in (("value: 0.30", "value: 0.29", 0), ("value: 0.29", "value: 0.31", 3)):
        file.write_text(file.read_text().replace(old, new))
        run(*git, "worktree", "prune")
        ran = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        shutil.rmtree(tmp_path / "base")
