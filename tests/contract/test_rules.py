"""Every rule that is found: decodes its example, refuses an unknown key, and never passes by absence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from compress.core import names
from compress.core.score import Score
from compress.gates.gate import GateSpec
from compress.gates.outcomes import Census, Outcomes, Unmeasured
from compress.gates.policy import RULES

_ITEMS = tuple(map(str, range(1000)))
_RIGHT = Outcomes(_ITEMS, np.ones(1000), np.ones(1000), slices={"size": ("6", "8") * 500})
_WRONG = Outcomes(_ITEMS, np.ones(1000), np.zeros(1000), slices={"size": ("6", "8") * 500})
_CLOSE = Outcomes(_ITEMS, np.ones(1000), np.full(1000, 0.99), binary=False)
_END = st.none() | st.floats()
_FAR = Outcomes(_ITEMS, np.ones(1000), np.full(1000, 0.1), binary=False)

# rule -> options, a measurement that passes, one that fails
_EXAMPLES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "at_least": ({"value": 0.9}, Score.exact(0.9), Score.exact(0.8)),
    "at_most": ({"value": 0.3}, Score.exact(0.3), Score.exact(0.4)),
    "census": ({}, Census({"a": "1"}, {"a": "1"}), Census({"a": "1"}, {"a": "2"})),
    "non_inferior": ({"margin": 0.02}, _RIGHT, _WRONG),
    "parity": ({"minimum": 0.8, "p1": 0.9}, _CLOSE, _FAR),
    "worst_slice": ({"margin": 0.02, "dimensions": ["size"]}, _RIGHT, _WRONG),
}


def _spec(rule: str, **other: Any) -> GateSpec:
    data = {"metric": "a.b", "rule": rule, "because": "x", **_EXAMPLES[rule][0], **other}
    made: GateSpec = names.load(RULES, rule).Spec.model_validate(data)
    return made


def _statuses(rule: str, measurement: Any) -> set[str]:
    return {finding.status for finding in names.load(RULES, rule).judge(_spec(rule), measurement)}


def test_every_rule_has_an_example() -> None:
    assert set(names.available(RULES)) == set(_EXAMPLES)


@pytest.mark.parametrize("rule", names.available(RULES))
class TestRule:
    def test_passes_and_fails(self, rule: str) -> None:
        _, good, bad = _EXAMPLES[rule]
        assert _statuses(rule, good) == {"passed"}
        assert _statuses(rule, bad) == {"failed"}

    def test_refuses_what_it_does_not_know(self, rule: str) -> None:
        with pytest.raises(ValidationError, match="extra_forbidden"):
            _spec(rule, unknown=1)
        with pytest.raises(ValidationError, match="because"):
            _spec(rule, because="")

    @pytest.mark.parametrize("number", [math.nan, math.inf, True, "0.5", None])
    def test_refuses_a_threshold_that_is_no_number(self, rule: str, number: Any) -> None:
        for option, value in _EXAMPLES[rule][0].items():
            if isinstance(value, float):
                with pytest.raises(ValidationError, match=option):
                    _spec(rule, **{option: number})

    @pytest.mark.parametrize(
        "nothing",
        [
            Unmeasured("skipped"),
            None,
            Census({}, {}),
            Score(math.nan, math.nan, math.nan, 9),
            Score(1.0, None, None, 1),
            Outcomes((), np.zeros(0), np.zeros(0)),
            Outcomes(("a",), np.ones(1), np.ones(1), slices={"size": ("6",)}),
        ],
        ids=["unmeasured", "none", "census", "nan", "no interval", "no items", "one item"],
    )
    def test_never_passes_by_absence(self, rule: str, nothing: Any) -> None:
        assert _statuses(rule, nothing) == {"inconclusive"}

    @settings(deadline=None, max_examples=40)
    @given(value=st.floats(), low=_END, high=_END, n=st.integers(-1, 10**6))
    def test_a_score_without_an_interval_never_passes(
        self, rule: str, value: float, low: float | None, high: float | None, n: int
    ) -> None:
        """Whatever its value: as long as one end is missing or not finite, or nothing was counted."""
        whole = n > 0 and all(end is not None and math.isfinite(end) for end in (value, low, high))
        score = Score(value, low, high, n)
        if whole:
            score = Score(value, None, high, n)
        assert _statuses(rule, score) == {"inconclusive"}

    @settings(deadline=None, max_examples=40)
    @given(n=st.integers(0, 40), binary=st.booleans())
    def test_outcomes_of_one_cluster_never_pass(self, rule: str, n: int, binary: bool) -> None:
        """However many items there are: they are one observation, and one has no interval."""
        ones = np.ones(n)
        single = Outcomes(_ITEMS[:n], ones, ones, binary=binary, slices={"size": ("6",) * n}, clusters=("page",) * n)
        assert "passed" not in _statuses(rule, single) or rule == "parity"  # its limits hold for every item seen

    def test_findings_name_their_gate(self, rule: str) -> None:
        for measurement in (*_EXAMPLES[rule][1:], Unmeasured("skipped")):
            for finding in names.load(RULES, rule).judge(_spec(rule), measurement):
                assert (finding.metric, finding.rule) == ("a.b", rule)
                assert finding.because
                assert finding.reason
