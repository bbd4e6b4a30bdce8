"""The verdict: what is declared decides, absence blocks, and error rates are what they are said to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from gates_sample import continuous, gate, outcomes, policy
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.core.score import Score
from compress.gates.decision import decide
from compress.gates.outcomes import Census, Measurement, Outcomes, Unmeasured
from compress.gates.policy import Policy

_DIGEST = "ab" * 32

# one gate of each rule with a measurement on which it passes
_PASSING: dict[str, tuple[dict[str, Any], Measurement]] = {
    "reading.accuracy": (gate("worst_slice"), outcomes(500, slices={"size": ("6", "8") * 250})),
    "reading.words": (gate(metric="reading.words"), outcomes(800, lost=2, gained=2)),
    "reading.cosine": (gate("parity", "reading.cosine", minimum=0.8, p1=0.9), continuous([0.95] * 100)),
    "size.ratio": (gate("at_most", "size.ratio", value=0.3), Score.exact(0.27)),
    "reading.floor": (gate("at_least", "reading.floor", value=0.5), outcomes(100)),
    "census.vision": (gate("census", "census.vision"), Census({"a": "1"}, {"a": "1"})),
}
_NAN = np.full(100, math.nan)
_BROKEN: dict[str, Any] = {
    "unmeasured": Unmeasured("it crashed"),
    "none": None,
    "text": "0.99",
    "number": 1.0,
    "empty": outcomes(0),
    "nan score": Score.exact(math.nan),
    "no interval": Score(1.0, None, None, 1),
    "empty census": Census({}, {}),
    "nan outcomes": Outcomes(tuple(map(str, range(100))), _NAN, _NAN),
    "not arrays": Outcomes(("a", "b"), [1.0, 1.0], [1.0, 1.0]),  # type: ignore[arg-type]
}


def _declared(metrics: list[str]) -> tuple[Policy, dict[str, Measurement]]:
    made = policy(*(_PASSING[metric][0] for metric in metrics))
    return made, {metric: _PASSING[metric][1] for metric in metrics}


_SOME = st.lists(st.sampled_from(sorted(_PASSING)), min_size=1, max_size=6, unique=True)


def test_all_declared_gates_met_passes() -> None:
    verdict = decide(*_declared(sorted(_PASSING)), _DIGEST)
    assert (verdict.status, verdict.exit_code, verdict.digest) == ("passed", 0, _DIGEST)


@settings(deadline=None)
@given(_SOME, st.data())
def test_dropping_or_breaking_any_declared_gate_never_passes(metrics: list[str], data: st.DataObject) -> None:
    declared, measured = _declared(metrics)
    assert decide(declared, measured, _DIGEST).status == "passed"
    victim = data.draw(st.sampled_from(metrics))
    how = data.draw(st.sampled_from(["drop", *_BROKEN]))
    broken = {name: each for name, each in measured.items() if name != victim}
    if how != "drop":
        broken[victim] = _BROKEN[how]
    verdict = decide(declared, broken, _DIGEST)
    assert verdict.status != "passed"
    assert [each.metric for each in verdict.findings if each.status != "passed"].count(victim) >= 1


@pytest.mark.parametrize("victim", sorted(_PASSING))
def test_a_declared_gate_that_was_not_measured_blocks(victim: str) -> None:
    declared, measured = _declared(sorted(_PASSING))
    del measured[victim]
    verdict = decide(declared, measured, _DIGEST)
    assert [each.metric for each in verdict.findings if each.status == "inconclusive"] == [victim]


@settings(deadline=None)
@given(_SOME, st.sampled_from(sorted(_PASSING)))
def test_what_is_measured_and_not_declared_changes_nothing(metrics: list[str], extra: str) -> None:
    declared, measured = _declared(metrics)
    more = measured if extra in measured else {**measured, extra: Unmeasured("not asked for")}
    assert decide(declared, more, _DIGEST) == decide(declared, measured, _DIGEST)


class _Crashing(Mapping[str, Measurement]):
    """Measurements that break when one of them is looked at."""

    def __init__(self, inner: dict[str, Measurement], victim: str) -> None:
        self.inner, self.victim = inner, victim

    def __getitem__(self, key: str) -> Measurement:
        if key == self.victim:
            raise RuntimeError("the device is gone")
        return self.inner[key]

    def __iter__(self) -> Any:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)


@pytest.mark.parametrize("victim", sorted(_PASSING))
def test_a_crash_blocks_and_hides_no_other_gate(victim: str) -> None:
    declared, measured = _declared(sorted(_PASSING))
    verdict = decide(declared, _Crashing(measured, victim), _DIGEST)
    assert verdict.status == "inconclusive"
    assert {each.metric for each in verdict.findings} == set(_PASSING)
    assert [each.reason for each in verdict.findings if each.metric == victim] == [
        "judging ended with RuntimeError: the device is gone"
    ]


def test_no_gates_at_all_is_inconclusive() -> None:
    empty = policy(gate()).model_copy(update={"gates": ()})
    assert decide(empty, {"reading.accuracy": outcomes(1000)}, _DIGEST).exit_code == 4


def test_failed_outweighs_inconclusive() -> None:
    declared = policy(gate(), gate(metric="reading.words"))
    assert decide(declared, {"reading.accuracy": outcomes(1000, lost=50)}, _DIGEST).exit_code == 3


@pytest.mark.parametrize("count", ["items", "items_per_slice"])
def test_fewer_items_than_declared_block(count: str) -> None:
    declared = policy(gate(), tasks={"reading": {"split": "release", count: 1000}})
    assert decide(declared, {"reading.accuracy": outcomes(1000)}, _DIGEST).status == "passed"
    verdict = decide(declared, {"reading.accuracy": outcomes(999)}, _DIGEST)
    assert verdict.status == "inconclusive"
    assert verdict.findings[0].reason == "999 items were measured; the policy declares 1000"


def test_same_measurements_same_verdict() -> None:
    rng = np.random.default_rng(0)
    labels = tuple(np.repeat(np.arange(100), 3).astype(str))
    measured = {"reading.accuracy": continuous(rng.uniform(0.9, 1, 300), rng.uniform(0.9, 1, 300), clusters=labels)}
    verdicts = {repr(decide(policy(gate()), measured, _DIGEST).to_data()) for _ in range(5)}
    assert len(verdicts) == 1


# error rates

_GATE = policy(gate())


def _drawn(rng: np.random.Generator, n: int, lost: float, gained: float) -> Outcomes:
    """A reference that is right on 90 %, and a candidate that loses and gains these shares of all items."""
    u, reference = rng.random(n), (rng.random(n) < 0.9).astype(float)
    candidate = reference.copy()
    reference[u < lost], candidate[u < lost] = 1.0, 0.0
    won = (u >= lost) & (u < lost + gained)
    reference[won], candidate[won] = 0.0, 1.0
    return Outcomes(tuple(map(str, range(n))), reference, candidate)


def _status(measured: Outcomes) -> tuple[str, int | None]:
    verdict = decide(_GATE, {"reading.accuracy": measured}, _DIGEST)
    return verdict.status, verdict.findings[0].needed


@pytest.mark.parametrize(
    "lose",
    [lambda rng: _drawn(rng, 100, 0.02, 0.0), lambda rng: _drawn(rng, 100, 0.03, 0.01)],
    ids=["loses 2 points", "loses 3, gains 1"],
)
def test_a_true_drop_of_two_points_is_blocked(lose: Callable[[np.random.Generator], Outcomes]) -> None:
    blocked = sum(_status(lose(np.random.default_rng(seed)))[0] != "passed" for seed in range(200))
    assert blocked >= 190


@pytest.mark.parametrize("discordance", [0.02, 0.05, 0.10, 0.20])
def test_an_equal_candidate_passes_at_the_number_of_items_asked_for(discordance: float) -> None:
    passed = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        _, needed = _status(_drawn(rng, 100, discordance / 2, discordance / 2))
        if needed is not None:
            passed.append(_status(_drawn(rng, needed, discordance / 2, discordance / 2))[0] == "passed")
    assert len(passed) >= 150
    assert np.mean(passed) >= 0.80
