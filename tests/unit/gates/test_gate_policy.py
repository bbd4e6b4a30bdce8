"""Policies: what is refused, where, and what the digest covers."""

from __future__ import annotations

from pathlib import Path

import pytest
from gates_sample import gate, policy

from compress.core import names
from compress.core.errors import DocumentError, UsageError
from compress.gates.policy import Policy, load_policy
from compress.recipe import document

_HEAD = "version: 1\nname: sample\ntasks:\n  reading: {split: release, items_per_slice: 1500}\ngates:\n"
_GOOD = "  - {metric: reading.accuracy, rule: non_inferior, margin: 0.02, because: it must hold}\n"


def _load(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "sample.yaml"
    path.write_text(text)
    return load_policy(path)


def _entry(rule: str, options: str, metric: str = "reading.accuracy") -> str:
    return _HEAD + f"  - {{metric: {metric}, rule: {rule}, because: x{', ' if options else ''}{options}}}\n"


def test_good(tmp_path: Path) -> None:
    made = _load(tmp_path, _HEAD + _GOOD)
    assert made.gates[0].model_dump() == {
        "metric": "reading.accuracy",
        "rule": "non_inferior",
        "because": "it must hold",
        "margin": 0.02,
        "confidence": 0.95,
    }
    assert made.tasks["reading"].items_per_slice == 1500


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(_entry("non_inferior", "margin: .nan"), "", id="nan"),
        pytest.param(_entry("non_inferior", "margin: .inf"), "", id="infinite"),
        pytest.param(_entry("non_inferior", "margin: true"), "margin", id="bool"),
        pytest.param(_entry("non_inferior", "margin: '0.02'"), "margin", id="text"),
        pytest.param(_entry("non_inferior", "margin: -0.01"), "margin", id="negative"),
        pytest.param(_entry("non_inferior", "margin: 2"), "margin", id="points for a fraction"),
        pytest.param(_entry("non_inferior", "margin: null"), "margin", id="null"),
        pytest.param(_entry("non_inferior", ""), "margin: is required", id="no margin"),
        pytest.param(_entry("non_inferior", "margin: 0.02, margin: 0.9"), "margin", id="duplicate key"),
        pytest.param(_entry("non_inferior", "margin: 0.02, confidence: 0.5"), "confidence", id="confidence low"),
        pytest.param(_entry("non_inferior", "margin: 0.02, confidence: 1"), "confidence", id="confidence high"),
        pytest.param(_entry("non_inferior", "margn: 0.02"), "did you mean margin", id="typo"),
        pytest.param(_entry("non_inferor", "margin: 0.02"), "did you mean non_inferior", id="unknown rule"),
        pytest.param(_entry("_paired", "margin: 0.02"), "no rule", id="private rule"),
        pytest.param(_entry("at_least", "value: .nan"), "", id="nan value"),
        pytest.param(_entry("at_least", "value: true"), "value", id="bool value"),
        pytest.param(_entry("parity", "minimum: 0.9, p1: 1.5"), "p1", id="cosine over 1"),
        pytest.param(_entry("census", "", "readng.accuracy"), "did you mean reading", id="undeclared task"),
        pytest.param(_entry("census", "", "accuracy"), "metric", id="metric without task"),
        pytest.param(_entry("census", "", "Reading.Accuracy"), "metric", id="metric in capitals"),
        pytest.param(_entry("worst_slice", "margin: 0.02, slices: [size]"), "slices", id="slice without dimension"),
        pytest.param(_entry("worst_slice", "margin: 0.02, dimensions: []"), "dimensions", id="no dimension"),
        pytest.param(
            _entry("worst_slice", "margin: 0.02, dimensions: [size], margins: {a=b: {margin: 0.1, because: y}}"),
            "a=b: not of the dimensions size",
            id="margin of a slice that is not judged",
        ),
        pytest.param(
            _entry("worst_slice", "margin: 0.02, margins: {size=6: {margin: 0.1}}"),
            "because",
            id="override unexplained",
        ),
        pytest.param(_entry("worst_slice", "margin: 0.02, min_items: 0"), "min_items", id="no items"),
        pytest.param(_HEAD + _GOOD.replace("it must hold", "' '"), "because: must not be empty", id="blank reason"),
        pytest.param(_HEAD + _GOOD.replace(", because: it must hold", ""), "because: is required", id="no reason"),
        pytest.param(_HEAD + _GOOD.replace("rule: non_inferior, ", ""), "rule: is required", id="no rule"),
        pytest.param(_HEAD + "  - 3\n", "gates[0]", id="a gate that is a number"),
        pytest.param(_HEAD.replace("gates:\n", "gates: []\n"), "let everything pass", id="no gates"),
        pytest.param(_HEAD, "gates", id="null gates"),
        pytest.param(_HEAD.replace("gates:\n", ""), "gates: is required", id="gates missing"),
        pytest.param(_HEAD.replace("1500", "0") + _GOOD, "items_per_slice", id="zero items"),
        pytest.param(_HEAD.replace("release", "train") + _GOOD, "split", id="training split"),
        pytest.param(_HEAD.replace("version: 1", "version: true") + _GOOD, "version", id="version"),
    ],
)
def test_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DocumentError) as caught:
        _load(tmp_path, text)
    assert caught.value.exit_code == 2
    assert told in str(caught.value)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in caught.value.problems)


def test_all_problems_at_once_and_where(tmp_path: Path) -> None:
    text = _HEAD + _GOOD.replace("0.02", "-1").replace("it must hold", "''") + _GOOD.replace("rule: non", "rule: nom")
    with pytest.raises(DocumentError) as caught:
        _load(tmp_path, text)
    places = {(problem.line, problem.path) for problem in caught.value.problems}
    assert places == {(6, "gates[0].margin"), (6, "gates[0].because"), (7, "gates[1].rule")}


def test_built_in_families_need_no_task() -> None:
    made = policy(gate("at_most", "size.ratio", value=0.3), gate("census", "census.vision"), tasks={})
    assert [each.metric for each in made.gates] == ["size.ratio", "census.vision"]


def test_digest_is_of_what_is_said_not_how(tmp_path: Path) -> None:
    plain = _load(tmp_path, _HEAD + _GOOD)
    assert _load(tmp_path, "# a comment\n" + _HEAD + _GOOD.replace(", ", ",  ")).digest == plain.digest
    assert document.read(tmp_path / "sample.yaml").digest == plain.digest


@pytest.mark.parametrize(
    "weaker",
    [
        gate(margin=0.03),
        gate(confidence=0.9),
        gate("worst_slice"),
        gate(metric="reading.other"),
        gate(because="another reason"),
    ],
    ids=str,
)
def test_digest_covers_every_option(weaker: dict[str, object]) -> None:
    assert policy(weaker).digest != policy(gate()).digest


def test_digest_covers_slice_margins() -> None:
    digests = {
        policy(gate("worst_slice", margins={"size=6": {"margin": margin, "because": "x"}})).digest
        for margin in (0.02, 0.03)
    }
    assert len(digests) == 2


def test_found_by_path_then_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = load_policy("clip_release")
    assert load_policy("clip_release.yaml") == shipped
    Path("clip_release").write_text(_HEAD + _GOOD)
    assert load_policy("clip_release").name == "sample"
    with pytest.raises(UsageError, match="did you mean clip_release"):
        load_policy("clip_relase")
    with pytest.raises(UsageError):
        load_policy("../policies/clip_release")


@pytest.mark.parametrize("path", sorted(names.bundled("evals", "policies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped(path: Path) -> None:
    made = load_policy(path)
    assert made.name == path.stem
    assert all(task.split == "release" for task in made.tasks.values())
    assert all(len(each.because) > 20 for each in made.gates)
