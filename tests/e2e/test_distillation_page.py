"""docs/distillation.md tells the truth: its recipes are read, its methods and options are those that there are."""

import re
import shlex
from pathlib import Path

import click
import pytest

from compress.cli.main import root
from compress.cli.running import read_recipe, target_names
from compress.gates.policy_file import bundled_policies
from compress.recipe.load import load
from compress.recipe.training import Feeding
from compress.steps import method_names, spec_of

PAGE = (Path(__file__).parents[2] / "docs" / "distillation.md").read_text()
FILES = {
    block.split("\n")[0].removeprefix("# "): block for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
}


@pytest.mark.parametrize("name", FILES)
def test_recipes_are_read(name, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    recipe = load(tmp_path / name, spec_of, targets=target_names(), policies=bundled_policies())
    assert f"{recipe.name}.yaml" == name
    assert any(step.use.startswith("distill.") for step in recipe.steps)


def test_every_method_and_every_option_of_feeding_has_its_row():
    rows = re.findall(r"^\| `([\w.]+)` \|", PAGE, re.M)
    assert {name for name in method_names() if name.startswith("distill.")} <= set(rows)
    assert set(Feeding.model_fields) <= set(rows)


def test_defaults_are_as_told():
    told = dict(re.findall(r"^\| `(\w+)` \| ([\w.]+) \|", PAGE, re.M))
    for name in ("streaming", "rendered", "augment", "views", "broken"):
        assert told[name] == str(Feeding.model_fields[name].default).lower()


def test_commands_parse(tmp_path, monkeypatch):
    """Options and recipes of the page's commands; what stands before `compress` starts processes."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    lines = [line.split("compress ", 1)[1] for line in re.findall(r"^\$ (.*compress distill .*)$", PAGE, re.M)]
    assert len(lines) == 3
    for line in lines:
        name, *words = shlex.split(line)
        found = root.get_command(click.Context(root), name)
        read_recipe(found.make_context(name, words).params, name)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / link).is_file(), link
