"""What changed between two policies: nothing between equal ones, and no weakening goes unnoticed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from gates_sample import gate, policy
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.core import names
from compress.gates.difference import Difference, differences, loosened
from compress.gates.gate import Stricter
from compress.gates.policy import RULES, load_policy
from compress.gates.policy_file import bundled_policies

_SLICED = gate(
    "worst_slice",
    dimensions=["size", "angle"],
    slices=["size=6", "size=9"],
    min_items=500,
    confidence=0.95,
    margins={"angle=30": {"margin": 0.03, "because": "slanted"}},
)
_GATES: list[dict[str, Any]] = [
    _SLICED,
    gate(confidence=0.99),
    gate("at_least", "reading.floor", value=0.8),
    gate("at_most", "size.ratio", value=0.3),
    gate("parity", "reading.cosine", minimum=0.8, p1=0.9),
    gate("census", "census.vision"),
]
_TASKS: dict[str, Any] = {
    "reading": {"split": "release", "items": 3000, "items_per_slice": 1500},
    "pins": {"split": "release"},
}


def _between(old: list[Any], new: list[Any], tasks: dict[str, Any] | None = None) -> tuple[Difference, ...]:
    return differences(policy(*old, tasks=_TASKS), policy(*new, tasks=_TASKS if tasks is None else tasks))


def _brief(found: tuple[Difference, ...]) -> list[tuple[str, str, str]]:
    return [(each.kind, each.where, each.what) for each in found]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"margin": 0.021}, [("loosened", "margin")]),
        ({"margin": 0.019}, [("tightened", "margin")]),
        ({"confidence": 0.94}, [("loosened", "confidence")]),
        ({"confidence": 0.96}, [("tightened", "confidence")]),
        ({"min_items": 499}, [("loosened", "min_items")]),
        ({"min_items": None}, [("loosened", "min_items")]),
        ({"min_items": 501}, [("tightened", "min_items")]),
        ({"dimensions": ["size", "angle", "ink"]}, [("tightened", "dimensions")]),
        ({"dimensions": None}, [("tightened", "dimensions")]),
        ({"dimensions": ["angle", "size"]}, []),
        ({"dimensions": ["angle", "size", "size"]}, []),
        ({"slices": ["size=6"]}, [("loosened", "size=9")]),
        ({"slices": ["size=9", "size=6"]}, []),
        ({"slices": ["size=6", "size=9", "size=13"]}, [("tightened", "size=13")]),
        ({"margins": {}}, [("loosened", "angle=30"), ("tightened", "margin")]),
        ({"margins": {}, "slices": ["size=6", "size=9", "angle=30"]}, [("tightened", "margin")]),
        ({"margins": {"angle=30": {"margin": 0.04, "because": "slanted"}}}, [("loosened", "margin")]),
        ({"margins": {"angle=30": {"margin": 0.01, "because": "slanted"}}}, [("tightened", "margin")]),
        ({"margins": {"angle=30": {"margin": 0.03, "because": "upright"}}}, [("changed", "because")]),
        (
            {"margins": {**_SLICED["margins"], "size=6": {"margin": 0.05, "because": "tiny"}}},
            [("loosened", "margin")],
        ),
        ({"because": "other words"}, [("changed", "because")]),
    ],
    ids=str,
)
def test_every_option_of_worst_slice(change: dict[str, Any], told: list[tuple[str, str]]) -> None:
    found = _between([_SLICED], [{**_SLICED, **change}])
    assert [(each.kind, each.what) for each in found] == told
    back = _between([{**_SLICED, **change}], [_SLICED])
    opposite = {"loosened": "tightened", "tightened": "loosened", "changed": "changed"}
    assert sorted((each.kind, each.what) for each in back) == sorted((opposite[kind], what) for kind, what in told)


def test_a_dimension_that_is_no_longer_judged() -> None:
    (found,) = _between([{**_SLICED, "margins": {}}], [{**_SLICED, "margins": {}, "dimensions": ["size"]}])
    assert (found.kind, found.what, found.old, found.new) == ("loosened", "dimensions", "size, angle", "size")
    everything, some = {**_SLICED, "margins": {}, "dimensions": None}, {**_SLICED, "margins": {}}
    assert _brief(_between([everything], [some])) == [("loosened", "reading.accuracy worst_slice", "dimensions")]


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ({"reading": {"split": "development", "items": 3000, "items_per_slice": 1500}}, [("loosened", "split")]),
        ({"reading": {"split": "release", "items": 2999, "items_per_slice": 1500}}, [("loosened", "items")]),
        ({"reading": {"split": "release", "items": 3001, "items_per_slice": 1500}}, [("tightened", "items")]),
        ({"reading": {"split": "release", "items": 3000, "items_per_slice": 1499}}, [("loosened", "items_per_slice")]),
        ({"reading": {"split": "release", "items": 3000}}, [("loosened", "items_per_slice")]),
        ({"reading": {**_TASKS["reading"], "task": "pins"}}, [("loosened", "task")]),
        ({"pins": {"split": "release", "items": 9}}, [("loosened", "items")]),
        ({"pins": {"split": "development"}}, [("loosened", "split")]),
        ({"pins": None}, [("loosened", "task")]),
        ({"charts": {"split": "release"}}, [("changed", "task")]),
    ],
    ids=str,
)
def test_tasks(tasks: dict[str, Any], told: list[tuple[str, str]]) -> None:
    new = {name: task for name, task in {**_TASKS, **tasks}.items() if task is not None}
    assert [(each.kind, each.what) for each in _between(_GATES, _GATES, new)] == told


def test_the_release_split_instead_of_the_development_split_is_tighter() -> None:
    before = {**_TASKS, "pins": {"split": "development"}}
    old = policy(*_GATES, tasks=before)
    assert _brief(differences(old, policy(*_GATES, tasks=_TASKS))) == [("tightened", "task pins", "split")]


def test_another_rule_is_a_gate_less_and_a_gate_more() -> None:
    found = _between([gate("at_least", "size.ratio", value=0.3)], [gate("at_most", "size.ratio", value=0.3)])
    assert _brief(found) == [
        ("loosened", "size.ratio at_least", "gate"), ("tightened", "size.ratio at_most", "gate"),
    ]  # fmt: skip


def test_two_gates_of_one_metric_and_rule_are_both_compared() -> None:
    first, second = (gate("at_most", "size.ratio", value=value) for value in (0.3, 0.2))
    assert not _between([first, second], [first, second])
    assert _brief(_between([first, second], [first])) == [("loosened", "size.ratio at_most", "gate")]


def test_a_name_is_no_more_than_that() -> None:
    renamed = policy(*_GATES, tasks=_TASKS).model_copy(update={"name": "other"})
    assert _brief(differences(policy(*_GATES, tasks=_TASKS), renamed)) == [("changed", "policy", "name")]


def test_a_default_counts_as_if_it_were_written() -> None:
    assert not _between([gate()], [gate(confidence=0.95)])


def test_what_does_not_say_which_way_it_goes_counts_as_loosened() -> None:
    class Spec(names.load(RULES, "at_least").Spec):  # type: ignore[misc,name-defined]
        bins: int

    made = policy(gate("at_least", "reading.floor", value=0.5), tasks=_TASKS)
    old, new = (
        made.model_copy(update={"gates": (Spec(metric="a.b", rule="at_least", because="x", value=0.5, bins=bins),)})
        for bins in (10, 20)
    )
    for found in (differences(old, new), differences(new, old)):
        assert [(each.kind, each.what) for each in found] == [("loosened", "bins")]


@pytest.mark.parametrize("rule", names.available(RULES))
def test_every_number_of_every_rule_says_which_way_it_is_stricter(rule: str) -> None:
    for name, field in names.load(RULES, rule).Spec.model_fields.items():
        if name not in ("metric", "rule", "because", "slices", "margins"):
            assert any(isinstance(each, Stricter) for each in field.metadata), name


@pytest.mark.parametrize("name", bundled_policies())
def test_a_policy_and_itself(name: str) -> None:
    assert differences(load_policy(name), load_policy(name)) == ()


# properties

_DRAWN = st.lists(
    st.sampled_from(_GATES), min_size=1, max_size=6, unique_by=lambda each: (each["metric"], each["rule"])
)
_WEAKER: dict[str, Any] = {
    "margin": lambda value: st.floats(value, 1, exclude_min=True, exclude_max=True),
    "confidence": lambda value: st.floats(0.5, value, exclude_min=True, exclude_max=True),
    "min_items": lambda value: st.integers(2, value - 1),
    "minimum": lambda value: st.floats(-1, value, exclude_max=True),
    "p1": lambda value: st.floats(-1, value, exclude_max=True),
}


def _weaker(rule: str, name: str, value: float) -> st.SearchStrategy[float]:
    if name == "value":
        above = st.floats(value, 10, exclude_min=True)
        return above if rule == "at_most" else st.floats(-10, value, exclude_max=True)
    made: st.SearchStrategy[float] = _WEAKER[name](value)
    return made


@settings(deadline=None)
@given(_DRAWN)
def test_no_difference_between_a_policy_and_itself(gates: list[dict[str, Any]]) -> None:
    assert _between(gates, copy.deepcopy(gates)) == ()
    assert _between(gates, gates[::-1]) == ()


@settings(deadline=None)
@given(_DRAWN, st.data())
def test_loosening_any_number_is_told(gates: list[dict[str, Any]], data: st.DataObject) -> None:
    numbers = [
        (at, name) for at, each in enumerate(gates) for name, value in each.items() if isinstance(value, float | int)
    ]
    if not numbers:  # a census has none
        return
    at, name = data.draw(st.sampled_from(numbers))
    changed = copy.deepcopy(gates)
    changed[at][name] = data.draw(_weaker(gates[at]["rule"], name, gates[at][name]))
    found = _between(gates, changed)
    assert (f"{gates[at]['metric']} {gates[at]['rule']}", name) in [
        (each.where, each.what) for each in found if each.kind == "loosened"
    ]
    assert loosened(found)
    assert not [each for each in _between(changed, gates) if each.kind == "loosened"]


@settings(deadline=None)
@given(_DRAWN, st.data())
def test_a_gate_less_is_told_whatever_else_is_tighter(gates: list[dict[str, Any]], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(gates))
    rest = [each for each in gates if each is not gone] + [gate("at_most", "latency.ratio", value=1.0)]
    found = _between(gates, rest)
    assert ("loosened", f"{gone['metric']} {gone['rule']}", "gate") in _brief(found)
