"""The documents tell the truth: commands run or parse, files decode, tables are complete, links lead somewhere."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from ruamel.yaml import YAML

sys.path.append(str(Path(__file__).parents[1] / "unit" / "artifact"))
import artifact_sample as sample

from compress.artifact import layout
from compress.artifact.staging import Store
from compress.cli.main import root
from compress.cli.running import read_recipe, target_names
from compress.core import errors, names
from compress.data import runtime
from compress.evals import task as tasks
from compress.gates.policy import RULES, load_policy
from compress.recipe import document
from compress.recipe.load import load
from compress.report import document as report
from compress.steps import spec_of

HERE = Path(__file__).parents[2]
README = (HERE / "README.md").read_text()
PAGES = sorted([*HERE.glob("*.md"), *HERE.glob("docs/**/*.md"), *HERE.glob("artifacts/*.md")])
LONG = ("quantize", "prune", "distill", "run", "plan", "export", "eval", "bench", "gate")
"""Commands that load a model: they are parsed here and run by other tests."""


def blocks(kind, page=README):
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.M | re.S)


def commands(block):
    """The block's commands with the exit code that a `# ends N` behind them promises."""
    for line in re.findall(r"^\$ (.*)$", block, re.M):
        command, _, ends = line.partition("   # ends ")
        yield command, int(ends or 0)


def is_long(command):
    words = command.split()
    return words[0] == "make" or (words[0] == "compress" and words[1] in LONG)


COMMANDS = [each for block in blocks("console") for each in commands(block)]
FILES = {block.split("\n")[0].removeprefix("# "): block for block in blocks("yaml")}


def graph():
    """A tower that returns its input."""
    from onnx import TensorProto, helper

    shape = ["batch", 3, 4, 4]
    value, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("pixel_values", "embeds"))
    node = helper.make_node("Identity", ["pixel_values"], ["embeds"])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph([node], "main", [value], [made]), opset_imports=opset, ir_version=8)
    return model.SerializeToString()


def settle(root_, name, status):
    """An artifact gated with the bundled policy; if it is blocked, by its first gate."""
    policy = HERE / "evals" / "policies" / "clip_release.yaml"
    gates = document.read(policy).data["gates"]
    findings = [(gate["metric"], gate["rule"], None, "passed" if at else status) for at, gate in enumerate(gates)]
    with Store(root_).stage(name) as staging:
        sample.write_payload(staging, graph(), policy.read_text())
        sample.write_evidence(staging, status, tuple(findings))
        staging.settle(status)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory as the README supposes it."""
    made = tmp_path_factory.mktemp("readme")
    shutil.copytree(HERE / "evals", made / "evals")
    (made / "data").mkdir()
    for name, text in FILES.items():
        (made / name).write_text(text)
    settle(made / "artifacts", "int4_clip", "passed")
    settle(made / "artifacts", "int4_clip_naive", "failed")
    return made


@pytest.mark.parametrize(
    "block", [each for each in blocks("console") if any(not is_long(c) for c, _ in commands(each))]
)
def test_quick_commands_end_as_told(place, block):
    end_as_told(place, commands(block))


def end_as_told(place, told):
    """Run commands in one shell, but for the long ones."""
    quick = [each for each in told if not is_long(each[0])]
    script = "\n".join(f"{command}\necho ended $?" for command, _ in quick)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    ended = [int(code) for code in re.findall(r"^ended (\d+)$", ran.stdout, re.M)]
    assert ended == [code for _, code in quick], ran.stdout + ran.stderr


@pytest.mark.parametrize("with_bundle", [False, True], ids=["attestations", "bundle"])
def test_the_page_on_signing_ends_as_told(tmp_path, with_bundle):
    if with_bundle:
        pytest.importorskip("model_signing", reason="the extra [signing] is not installed")
    shutil.copytree(HERE / "evals", tmp_path / "evals")
    settle(tmp_path, "int4_clip", "passed")
    (tmp_path / "released").rename(tmp_path / "incoming")
    settle(tmp_path / "artifacts", "int4_clip_naive", "failed")
    page = (HERE / "docs" / "signing.md").read_text()
    found = [
        each for block in blocks("console", page) if with_bundle or "--bundle" not in block for each in commands(block)
    ]
    assert len(found) > 8
    end_as_told(tmp_path, found)


@pytest.mark.parametrize(
    "command", [command for command, _ in COMMANDS if command.startswith("compress ") and is_long(command)]
)
def test_long_commands_parse_and_their_recipes_hold(place, monkeypatch, command):
    monkeypatch.chdir(place)
    _, name, *words = shlex.split(command)
    found = root.get_command(click.Context(root), name)
    assert found is not None
    parsed = found.make_context(name, words)
    if "recipe" in parsed.params:
        read_recipe(parsed.params, name if name in ("quantize", "prune", "distill") else None)


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS if command.startswith("make ")])
def test_make_knows_its_targets(command):
    subprocess.run([*shlex.split(command), "-n"], cwd=HERE, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", FILES)
def test_files_decode(place, monkeypatch, name):
    monkeypatch.chdir(place)
    text = FILES[name]
    if "\nsteps:" in text:
        load(Path(name), spec_of, targets=target_names(), policies=("clip_release",))
    elif "\ngates:" in text:
        load_policy(name)
    else:
        tasks.read(Path(name))


def test_there_is_a_recipe_a_task_and_a_policy():
    assert sum("\nsteps:" in text for text in FILES.values()) == 1
    assert sum("\ngates:" in text for text in FILES.values()) == 1
    assert len(FILES) == 3
    for block in blocks("json"):
        json.loads(block)


def test_two_lines_load_an_artifact(place, monkeypatch):
    monkeypatch.chdir(place)
    (block,) = blocks("python")
    assert len(block.splitlines()) == 2
    given = {}
    exec(block, given)
    pixels = np.ones((2, 3, 4, 4), np.float32)
    np.testing.assert_array_equal(given["tower"].run(None, {"pixel_values": pixels})[0], pixels)


def test_every_exit_code_is_in_the_table():
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.M) for code in row.split(",")}
    kinds = [errors.CompressError, *errors.CompressError.__subclasses__()]
    assert told == {0, 130, 143} | {kind.exit_code for kind in kinds}


def test_every_rule_is_explained():
    table = README.split("## Your own policy")[1].split("\n## ")[0]
    assert set(names.available(RULES)) <= set(re.findall(r"`(\w+)`", table))


@pytest.mark.parametrize("page", [page for page in PAGES if "```yaml" in page.read_text()], ids=lambda page: page.name)
def test_yaml_in_the_pages_is_yaml(page):
    for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.M | re.S):
        assert isinstance(YAML(typ="safe", pure=True).load(block), dict)


def test_every_command_is_listed():
    table = README.split("## Every command")[1].split("\n## ")[0]
    assert set(root.list_commands(click.Context(root))) <= set(re.findall(r"`(\w+)`", table))


FORMAT = (HERE / "docs" / "format.md").read_text()


def test_the_format_lists_every_file_and_which_are_evidence():
    rows = dict(re.findall(r"^\| `([^`]+)` \| (payload|evidence|neither) \|", FORMAT, re.M))
    assert {path for path, kind in rows.items() if kind == "evidence"} == layout.EVIDENCE
    known = {value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}
    assert all(f"`{path}`" in FORMAT for path in known)


@pytest.mark.parametrize(
    "model",
    [report.Document, report.Finding, report.Change, report.Scored, report.FileSize, report.Latency,
     report.Environment, report.Model, report.Proof, report.Target, runtime.Runtime, runtime.TowerFile,
     runtime.PlainImage, runtime.PlainText],
    ids=lambda model: model.__name__,
)  # fmt: skip
def test_the_format_names_every_key(model):
    told = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", FORMAT))))
    assert set(model.model_fields) <= told


def test_the_format_gives_the_defaults_of_a_session():
    rows = dict(re.findall(r"^\| `session\.(\w+)` \| (.+?) \|", FORMAT, re.M))
    told = {name: json.loads(value.strip("`")) if value != "`all`" else "all" for name, value in rows.items()}
    assert told == runtime.Session().model_dump(mode="json")


def test_places_for_output_are_closed():
    assert re.findall(r"<!-- (output):\w+ -->.*?<!-- /(output) -->", README, re.S)
    assert len(re.findall(r"<!-- output:\w+ -->", README)) == README.count("<!-- /output -->")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HERE)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target
