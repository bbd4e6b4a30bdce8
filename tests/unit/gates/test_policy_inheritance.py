"""Policies that extend one another: what is merged, what is refused and where, and what the digest covers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.core.errors import DocumentError, UsageError
from compress.gates import inheritance, policy_file
from compress.gates.policy import Policy, load_policy
from compress.recipe import document, writing

_PARENT = """\
version: 1
name: parent
description: what everybody asks for
tasks:
  reading: {split: release, items: 1000}
  parity: {split: release}
gates:
  - {metric: reading.accuracy, rule: non_inferior, margin: 0.02, because: it reads}
  - {metric: parity.p1_cosine, rule: at_least, value: 0.9, because: it stays}
  - {metric: size.ratio, rule: at_most, value: 0.3, because: it fits}
"""
_CHILD = """\
version: 1
name: child
extends: parent.yaml
tasks:
  reading: {split: release, items: 2000}
  pins: {split: release}
gates:
  - {metric: size.ratio, rule: at_most, value: 0.2, because: it fits here}
  - {metric: pins.accuracy, rule: non_inferior, margin: 0.05, because: it finds}
without:
  - {metric: parity.p1_cosine, rule: at_least, because: nobody keeps an index}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "parent.yaml").write_text(_PARENT)
    (tmp_path / "child.yaml").write_text(_CHILD)
    return tmp_path


def _told(file: Path) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        load_policy(file)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_a_child_adds_replaces_and_leaves_out(place: Path) -> None:
    made = load_policy(place / "child.yaml")
    assert (made.name, made.description) == ("child", "")
    assert [(name, task.items) for name, task in made.tasks.items()] == [
        ("reading", 2000), ("parity", None), ("pins", None),
    ]  # fmt: skip
    assert [(gate.metric, gate.rule, gate.because) for gate in made.gates] == [
        ("reading.accuracy", "non_inferior", "it reads"),
        ("size.ratio", "at_most", "it fits here"),
        ("pins.accuracy", "non_inferior", "it finds"),
    ]
    assert made.gates[1].value == 0.2  # type: ignore[attr-defined]


def test_a_gate_may_use_an_inherited_task_and_a_child_may_add_nothing_else(place: Path) -> None:
    text = "version: 1\nname: child\nextends: ./parent.yaml\n"
    (place / "child.yaml").write_text(text)
    same = load_policy(place / "child.yaml")
    assert same.gates == load_policy(place / "parent.yaml").gates
    more = "gates:\n  - {metric: parity.batch_cosine, rule: at_least, value: 0.99, because: x}\n"
    (place / "child.yaml").write_text(text + more)
    assert len(load_policy(place / "child.yaml").gates) == 4


def test_bundled_parents_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clip_release").write_text(_PARENT)  # a file of that name is none of a path
    Path("mine.yaml").write_text("version: 1\nname: mine\nextends: clip_release\n")
    assert load_policy("mine.yaml").gates == load_policy(policy_file.bundled_policies()["clip_release"]).gates


def test_the_parent_is_found_beside_the_child_wherever_one_stands(
    place: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    Path("parent.yaml").write_text(_PARENT.replace("0.02", "0.9"))
    assert load_policy(place / "child.yaml").gates[0].margin == 0.02  # type: ignore[attr-defined]


def test_the_digest_is_of_what_is_resolved(place: Path) -> None:
    before = load_policy(place / "child.yaml")
    (place / "child.yaml").write_text("# another comment\n" + _CHILD)
    assert load_policy(place / "child.yaml").digest == before.digest
    (place / "parent.yaml").write_text(_PARENT.replace("margin: 0.02", "margin: 0.2"))
    weaker = load_policy(place / "child.yaml")
    assert weaker.digest != before.digest
    plain = place / "plain.yaml"
    plain.write_text(writing.dump(policy_file.read(place / "child.yaml").require_merged().data))
    assert load_policy(plain).digest == document.read(plain).digest == weaker.digest


def test_what_an_artifact_keeps_stands_alone(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = tmp_path_factory.mktemp("artifact") / "policy.yaml"
    kept.write_bytes(policy_file.written(place / "child.yaml"))
    assert load_policy(kept) == load_policy(place / "child.yaml")
    assert document.read(kept).digest == load_policy(place / "child.yaml").digest
    head = kept.read_text().splitlines()[:2]
    assert head == ["# child -> parent, merged.", "# Without parity.p1_cosine at_least: nobody keeps an index"]
    assert policy_file.written(place / "parent.yaml") == _PARENT.encode()


def test_no_word_of_a_policy_ends_its_comment(place: Path) -> None:
    text = _CHILD.replace("because: nobody keeps an index", 'because: "one\\ngates: []"')
    (place / "child.yaml").write_text(text)
    written = policy_file.written(place / "child.yaml").decode()
    assert "# Without parity.p1_cosine at_least: one gates: []\n" in written
    assert document.parse(written, "x").data["gates"]


def test_a_chain_of_four_and_no_longer(place: Path) -> None:
    for at, (name, parent) in enumerate([("c", "child"), ("d", "c"), ("e", "d")]):
        gate = f"  - {{metric: size.bytes, rule: at_most, value: {9 - at}, because: x}}\n"
        (place / f"{name}.yaml").write_text(f"version: 1\nname: {name}\nextends: {parent}.yaml\ngates:\n{gate}")
    made = load_policy(place / "d.yaml")
    assert [(each.metric, each.because) for each in made.gates][-1] == ("size.bytes", "x")
    assert made.gates[-1].value == 8.0  # type: ignore[attr-defined]
    (line,) = _told(place / "e.yaml")
    assert "child.yaml:3:1 extends: is the 5th policy of a chain, and 4 are the most: " in line
    assert line.endswith("parent.yaml")


def test_a_cycle_is_told_with_its_chain(place: Path) -> None:
    (place / "parent.yaml").write_text(_PARENT + "extends: child.yaml\n")
    (line,) = _told(place / "child.yaml")
    assert "parent.yaml:11:1 extends: comes back to itself: " in line
    told = line.split("itself: ")[1].split(" -> ")
    assert [Path(each).name for each in told] == ["child.yaml", "parent.yaml", "child.yaml"]
    (place / "self.yaml").write_text("version: 1\nname: self\nextends: ./self.yaml\n")
    assert "comes back to itself" in _told(place / "self.yaml")[0]


@pytest.mark.parametrize(
    ("parent", "told"),
    [
        ("clip_relase", "did you mean clip_release"),
        ("prent.yaml", "did you mean parent.yaml"),
        ("/etc/passwd", "must be relative"),
        ("~/parent.yaml", "must be relative"),
        ("3", "must be the name"),
        ("null", "must be the name"),
        ("[parent.yaml]", "must be the name"),
        ("' '", "must be the name"),
    ],
)
def test_a_parent_that_cannot_be(place: Path, parent: str, told: str) -> None:
    (place / "child.yaml").write_text(_CHILD.replace("parent.yaml", parent))
    (line,) = _told(place / "child.yaml")
    assert "child.yaml:3:1 extends: " in line
    assert told in line


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("parity.p1_cosine", "parity.p1_cosin", "child.yaml:11:5 without[0]: the parent has no gate"),
        (", because: nobody keeps an index", "", "child.yaml:11:5 without[0].because: is required"),
        ("nobody keeps an index", "' '", "without[0].because: must not be empty"),
        ("rule: at_least, because: nobody", "rul: at_least, because: nobody", "without[0].rule: is required"),
        ("parity.p1_cosine, rule: at_least", "size.ratio, rule: at_most", "is named under `without` as well"),
        ("pins.accuracy", "pin.accuracy", "child.yaml:9:6 gates[1].metric: no task 'pin' is declared"),
        ("margin: 0.05", "margin: -1", "gates[1].margin: must be at least 0"),
        ("extends: parent.yaml\n", "", "goes with `extends` only"),
        ("extends: parent", "extnds: parent", "extnds: no such key (did you mean extends)"),
    ],
)
def test_refused_where_it_is_written(place: Path, old: str, new: str, told: str) -> None:
    assert old in _CHILD
    (place / "child.yaml").write_text(_CHILD.replace(old, new))
    assert any(told in line for line in _told(place / "child.yaml"))


def test_all_problems_of_all_files_at_once(place: Path) -> None:
    (place / "parent.yaml").write_text(_PARENT.replace("value: 0.9", "value: .5x").replace("items: 1000", "items: 0"))
    (place / "child.yaml").write_text(_CHILD.replace("0.05", "5").replace("because: nobody", "becaus: nobody"))
    places = {line.split(": ")[0].rsplit("/", 1)[1] for line in _told(place / "child.yaml")}
    assert places == {
        "parent.yaml:5:29 tasks.reading.items",  # the child replaces it, and it is wrong all the same
        "parent.yaml:9:48 gates[1].value",
        "child.yaml:9:49 gates[1].margin",
        "child.yaml:11:5 without[0].because",
        "child.yaml:11:48 without[0].becaus",
    }


@pytest.mark.parametrize("who", ["parent", "child"])
def test_gates_of_which_nobody_could_tell_which_one_is_replaced(place: Path, who: str) -> None:
    file, text = (place / "parent.yaml", _PARENT) if who == "parent" else (place / "child.yaml", _CHILD)
    more = "  - {metric: size.ratio, rule: at_most, value: 0.25, because: twice}\n"
    file.write_text(text.replace("without:", more + "without:") if who == "child" else text + more)
    assert "which replaces which?" in _told(place / "child.yaml")[0]


def test_a_child_that_drops_all_gates_is_none(place: Path) -> None:
    keys = (("reading.accuracy", "non_inferior"), ("parity.p1_cosine", "at_least"), ("size.ratio", "at_most"))
    dropped = "".join(f"  - {{metric: {metric}, rule: {rule}, because: x}}\n" for metric, rule in keys)
    (place / "child.yaml").write_text(f"version: 1\nname: child\nextends: parent.yaml\nwithout:\n{dropped}")
    assert any("would let everything pass" in line for line in _told(place / "child.yaml"))


def test_a_parent_that_is_not_there_or_no_policy(place: Path) -> None:
    (place / "parent.yaml").write_text("gates: [\n")
    assert "parent.yaml:" in _told(place / "child.yaml")[0]
    with pytest.raises(UsageError):
        load_policy(place / "absent.yaml")


# properties

_METRICS = ("reading.accuracy", "reading.words", "parity.p1_cosine", "size.ratio", "size.bytes", "latency.ratio")
_GATE = st.fixed_dictionaries(
    {
        "metric": st.sampled_from(_METRICS),
        "rule": st.sampled_from(("at_least", "at_most")),
        "value": st.floats(0, 1),
        "because": st.sampled_from(("x", "y")),
    }
)
_GATES = st.lists(_GATE, min_size=1, max_size=8, unique_by=lambda gate: (gate["metric"], gate["rule"]))
_TASKS = {"reading": {"split": "release"}, "parity": {"split": "release"}}


def _document(name: str, **data: Any) -> document.Document:
    return document.Document(f"{name}.yaml", {"version": 1, "name": name, **data}, {})


def _key(gate: dict[str, Any]) -> tuple[str, str]:
    return gate["metric"], gate["rule"]


@settings(deadline=None)
@given(_GATES, st.lists(_GATES, max_size=3), st.data())
def test_a_gate_is_lost_only_where_without_names_it(
    first: list[Any], children: list[list[Any]], data: st.DataObject
) -> None:
    level = inheritance.alone(_document("first", tasks=_TASKS, gates=first))
    for at, gates in enumerate(children):
        before = level.data["gates"]
        own = {_key(gate) for gate in gates}
        free = [gate for gate in before if _key(gate) not in own]
        gone = data.draw(st.lists(st.sampled_from(free), unique_by=_key)) if free else []
        without = [{"metric": gate["metric"], "rule": gate["rule"], "because": "x"} for gate in gone]
        level, problems = inheritance.merge(level, _document(f"child{at}", extends="x", gates=gates, without=without))
        assert not problems
        after = {_key(gate): gate for gate in level.data["gates"]}
        assert after == {
            **{_key(gate): gate for gate in before if gate not in gone}, **{_key(gate): gate for gate in gates},
        }  # fmt: skip
        assert len(after) == len(level.data["gates"])
        for place, gate in enumerate(level.data["gates"]):  # each knows who wrote it
            source, path = level.origin(("gates", place))
            assert source.data["gates"][path[1]] == gate
        if level.data["gates"]:
            assert Policy.model_validate(level.data | {"gates": tuple(level.data["gates"])}).digest == level.digest


@settings(deadline=None)
@given(_GATES)
def test_a_policy_without_words_of_its_own_is_its_parent(gates: list[Any]) -> None:
    parent = inheritance.alone(_document("parent", tasks=_TASKS, gates=gates))
    made, problems = inheritance.merge(parent, _document("parent", extends="x"))
    assert not problems
    assert made.data == parent.data
    assert document.parse(writing.dump(made.data), "x").data == made.data
