"""Hostile recipes: bombs and deep nesting are refused with exit code 2 in under two seconds, and nothing is written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from compress.cli.main import main
from compress.core.errors import DocumentError
from compress.recipe.document import parse, read

KIB = 1024
STEPS = zip("abcdefgh", "bcdefghi", strict=True)
ALIASES = "\n".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in STEPS)

FINE = """\
version: 1
name: fine
model: {source: pocket-clip}
steps: []
targets: [onnxruntime-cpu]
policy: none
reason: test
"""

BOMBS = {
    "billion laughs": f"a: &a [lol]\n{ALIASES}\n",
    "quadratic blow-up": "a: &a " + "x" * 100_000 + "\nb: [" + "*a," * 20_000 + "]\n",
    "alias to itself": "a: &a [*a]\n",
    "merge bomb": "a: &a {x: 1}\nb: {<<: [" + "*a," * 30_000 + "]}\n",
    "deep lists": "[" * 200 * KIB,
    "deep mappings": "{" * 200 * KIB,
    "deep mixture": "a: " + "[{" * 100 * KIB,
    "deep blocks": "\n".join(" " * depth + "a:" for depth in range(600)),
    "deep dashes": "- " * 100 * KIB,
    "deep keys": "? " * 100 * KIB,
    "many entries": "a: [" + "1," * 120 * KIB + "]",
    "many keys": "".join(f"k{number}: 1\n" for number in range(25_000)),
    "many tags": "a: " + "!" * 250 * KIB,
    "many anchors": "a: [" + "&x " * 80 * KIB + "]",
    "many documents": "--- a\n" * 40 * KIB,
    "many directives": "%A\n" * 80 * KIB,
    "long number": "a: " + "9" * 250 * KIB,
    "long exponent": "a: 1e" + "9" * 250 * KIB,
    "long hexadecimal": "a: 0x" + "f" * 250 * KIB,
    "comments": "#\n" * 120 * KIB,
    "open quote": 'a: "' + "\\n" * 120 * KIB,
    "too large": "a: " + "x" * (1024 * KIB + 1),
    "too large and multibyte": "a: " + "é" * 200 * KIB,
    "python object": "a: !!python/object/apply:os.system ['touch canary']\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_quickly(bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bomb.yaml").write_text(BOMBS[bomb], encoding="utf-8")
    began = time.process_time()
    with pytest.raises(DocumentError) as caught:
        read(Path("bomb.yaml"))
    assert time.process_time() - began < 2
    assert caught.value.exit_code == 2
    assert len(caught.value.problems) <= 101
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.yaml"]


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(DocumentError, match="is larger than 256 KiB"):
        read(Path("/dev/zero"))


def test_exactly_the_limit_is_read() -> None:
    parse("a: " + "x" * (256 * KIB - 3), "f")
    with pytest.raises(DocumentError, match="larger"):
        parse("a: " + "x" * (256 * KIB - 2), "f")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..", "evil\\0"])
def test_a_recipe_name_that_is_a_path_ends_2_and_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(FINE.replace("fine", f'"{name}"'))
    assert main(["recipe", "check", "recipe.yaml"]) == 2
    assert "recipe.yaml:2:" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize(
    "setting",
    ["name=../../evil", "name=/tmp/evil", "../evil=1", "steps.0.__class__=1", "a.b.c=1", "name=!!python/name:os", "=1",
     "name=&a x", "gates.0.margin=0.9", "policy.gates=[]", "steps.-1.use=x", "steps.00000000000009.use=x", "name",
     "seed=" + "9" * 100_000, "data=" + "{a: " * 300],
)  # fmt: skip
def test_a_hostile_setting_ends_2_and_writes_nothing(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(FINE)
    assert main(["recipe", "check", "recipe.yaml"]) == 0
    assert main(["recipe", "check", "recipe.yaml", "--set", setting]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
