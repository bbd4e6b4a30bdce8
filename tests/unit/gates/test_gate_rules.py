"""What each rule concludes, at and around its threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gates_sample import continuous, gate, outcomes, policy

from compress.core.score import Score
from compress.gates.decision import decide
from compress.gates.outcomes import Census, Measurement, Outcomes
from compress.gates.sample_size import pairs_needed
from compress.gates.verdict import Finding


def findings(declared: dict[str, Any], measurement: Measurement) -> tuple[Finding, ...]:
    return decide(policy(declared), {"reading.accuracy": measurement}, "0" * 64).findings


def finding(declared: dict[str, Any], measurement: Measurement) -> Finding:
    (only,) = findings(declared, measurement)
    return only


# non_inferior


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        pytest.param(outcomes(1000), "passed", id="identical"),
        pytest.param(outcomes(1000, lost=5, gained=5), "passed", id="equal"),
        pytest.param(outcomes(1000, gained=30), "passed", id="better"),
        pytest.param(outcomes(1000, lost=15), "inconclusive", id="a smaller drop, too few items"),
        pytest.param(outcomes(1000, lost=20), "failed", id="drop equal to the margin"),
        pytest.param(outcomes(1000, lost=100), "failed", id="worse"),
        pytest.param(outcomes(100), "inconclusive", id="identical on few items"),
        pytest.param(outcomes(1), "inconclusive", id="one item"),
        pytest.param(outcomes(0), "inconclusive", id="no item"),
        pytest.param(outcomes(1000, wrong=1000), "inconclusive", id="the reference is always wrong"),
        pytest.param(outcomes(1000, wrong=930, chance=0.0625), "inconclusive", id="the reference is at chance"),
        pytest.param(outcomes(1000, wrong=500, chance=0.0625), "passed", id="the reference reads half"),
    ],
)
def test_non_inferior(measured: Outcomes, status: str) -> None:
    assert finding(gate(), measured).status == status


def test_bound_equal_to_the_margin_is_not_below_it() -> None:
    bound = finding(gate(), outcomes(1000, lost=3)).bound
    assert bound is not None
    assert finding(gate(margin=bound), outcomes(1000, lost=3)).status == "inconclusive"
    assert finding(gate(margin=math.nextafter(bound, 1)), outcomes(1000, lost=3)).status == "passed"


def test_says_how_many_items_would_decide() -> None:
    """10 differences of 400 and one unseen, a drop of 0.5 points, power 0.9; the normal approximation says 1,046."""
    told = finding(gate(), outcomes(400, lost=6, gained=4))
    assert told.needed == pairs_needed(0.02, 0.95, 11 / 400, 0.005, power=0.9)
    assert 1046 < (told.needed or 0) < 1300
    assert told.reason == (
        "drop 0.5 pt, at most 2.152 pt with 95 % confidence; margin 2 pt; about 1,300 items would decide"
    )


def test_numbers_and_clusters_keep_the_normal_approximation() -> None:
    """30 images of 4 captions, 3 of them lose all four: as scattered as (3 + 1) * 16 / 120 in items."""
    labels = tuple(str(at // 4) for at in range(120))
    told = finding(gate(margin=0.2), outcomes(120, lost=12, clusters=labels))
    z = 1.6448536 + 1.2815516
    assert told.needed == math.ceil(z * z * (64 / 120 - 0.1**2) / (0.2 - 0.1) ** 2)


def test_nothing_would_decide_where_the_question_is_another() -> None:
    assert finding(gate(), outcomes(100, wrong=100)).needed is None
    assert finding(gate(), outcomes(100, lost=50)).needed is None
    assert finding(gate(margin=0.02), outcomes(100_000, lost=1_999, gained=0)).needed is None  # more than is an answer


def test_candidate_that_is_not_finite_is_wrong() -> None:
    measured = outcomes(1000)
    measured.candidate[:20] = [math.nan, math.inf, -math.inf, math.nan] * 5
    told = finding(gate(), measured)
    assert (told.status, told.value) == ("failed", 0.02)


@pytest.mark.parametrize("number", [math.nan, math.inf, 0.5, -1.0])
def test_reference_that_is_not_right_or_wrong_decides_nothing(number: float) -> None:
    measured = outcomes(1000)
    measured.reference[7] = number
    assert finding(gate(), measured).status == "inconclusive"


def test_continuous_candidate_that_is_not_finite_decides_nothing() -> None:
    assert finding(gate(), continuous([1.0] * 999)).status == "passed"
    assert finding(gate(), continuous([1.0] * 998 + [math.nan])).status == "inconclusive"


@pytest.mark.parametrize(
    "broken",
    [
        {"items": ("a",) * 1000},
        {"items": ("a", "b")},
        {"slices": {"size": ("6",) * 999}},
        {"clusters": ("a",) * 999},
        {"chance": math.nan},
        {"reference": np.ones(999)},
        {"candidate": np.ones((1000, 1))},
    ],
    ids=lambda broken: next(iter(broken)),
)
def test_ragged_outcomes_decide_nothing(broken: dict[str, Any]) -> None:
    whole = outcomes(1000)
    parts = {"items": whole.items, "reference": whole.reference, "candidate": whole.candidate, **broken}
    assert finding(gate(), Outcomes(**parts)).status == "inconclusive"


# worst_slice


def _sized(lost: dict[str, int], each: int = 1000, **more: Any) -> Outcomes:
    """`each` items in every slice of `size`, the given numbers of them lost."""
    candidate = np.concatenate([np.r_[np.zeros(count), np.ones(each - count)] for count in lost.values()])
    sizes = tuple(name for name in lost for _ in range(each))
    slices = {"size": sizes, "half": tuple("ab"[index % 2] for index in range(len(sizes)))}
    return Outcomes(tuple(map(str, range(len(sizes)))), np.ones(len(sizes)), candidate, slices=slices, **more)


def _by_slice(declared: dict[str, Any], measurement: Measurement) -> dict[str | None, str]:
    return {each.slice: each.status for each in findings(declared, measurement)}


def test_every_slice_counts_on_its_own() -> None:
    measured = _sized({"6": 40, "20": 0, "30": 0, "40": 0})
    assert finding(gate(), measured).status == "passed"
    declared = gate("worst_slice", dimensions=["size"])
    assert _by_slice(declared, measured) == {
        "size=6": "failed", "size=20": "passed", "size=30": "passed", "size=40": "passed"
    }  # fmt: skip
    assert decide(policy(declared), {"reading.accuracy": measured}, "").status == "failed"


def test_all_dimensions_unless_restricted() -> None:
    assert set(_by_slice(gate("worst_slice"), _sized({"6": 0}))) == {"size=6", "half=a", "half=b"}


def test_a_slice_may_have_its_own_margin_and_reason() -> None:
    own = {"size=6": {"margin": 0.1, "because": "six pixels are hard"}}
    small, large = findings(gate("worst_slice", dimensions=["size"], margins=own), _sized({"6": 40, "8": 0}))
    assert (small.status, small.threshold, small.because) == ("passed", 0.1, "six pixels are hard")
    assert (large.status, large.threshold, large.because) == ("passed", 0.02, "it must hold")


@pytest.mark.parametrize(
    ("options", "absent"),
    [
        ({"dimensions": ["size", "colour"]}, "colour="),
        ({"slices": ["size=6", "size=7"]}, "size=7"),
        ({"margins": {"size=7": {"margin": 0.1, "because": "x"}}}, "size=7"),
    ],
    ids=["dimension", "slice", "margin"],
)
def test_a_declared_slice_that_did_not_come_back_blocks(options: dict[str, Any], absent: str) -> None:
    found = _by_slice(gate("worst_slice", **options), _sized({"6": 0}))
    assert found.pop(absent) == "inconclusive"
    assert set(found.values()) == {"passed"}


def test_too_few_items_or_no_slices() -> None:
    assert _by_slice(gate("worst_slice", min_items=1001), _sized({"6": 0})) == {
        "size=6": "inconclusive", "half=a": "inconclusive", "half=b": "inconclusive"
    }  # fmt: skip
    assert finding(gate("worst_slice"), outcomes(1000)).status == "inconclusive"


def test_a_slice_the_reference_cannot_read_blocks() -> None:
    measured = _sized({"6": 0, "8": 0})
    measured.reference[:1000] = measured.candidate[:1000] = 0.0
    found = _by_slice(gate("worst_slice", dimensions=["size"]), measured)
    assert found == {"size=6": "inconclusive", "size=8": "passed"}


# at_least, at_most


@pytest.mark.parametrize("limit", [0.9, 1.1, 0.0001, -0.5, 0.0])
def test_equal_passes_and_the_next_float_does_not(limit: float) -> None:
    for rule, beyond in (("at_least", -math.inf), ("at_most", math.inf)):
        declared = gate(rule, value=limit)
        assert finding(declared, Score.exact(limit)).status == "passed"
        assert finding(declared, Score.exact(math.nextafter(limit, beyond))).status == "failed"
        assert finding(declared, Score.exact(math.nextafter(limit, -beyond))).status == "passed"


@pytest.mark.parametrize("rule", ["at_least", "at_most"])
@pytest.mark.parametrize(
    "score",
    [
        Score.exact(math.nan),
        Score.exact(math.inf),
        Score.exact(-math.inf),
        Score(0.9, None, None, 1),
        Score(0.9, 0.8, math.nan, 9),
        Score(0.9, 0.8, 1.0, 0),
    ],
)
def test_a_score_that_cannot_decide(rule: str, score: Score) -> None:
    assert finding(gate(rule, value=0.9), score).status == "inconclusive"


def test_limit_on_the_candidates_mean() -> None:
    told = finding(gate("at_least", value=0.9), outcomes(100, lost=10))
    assert (told.status, told.value, told.n) == ("passed", 0.9, 100)
    assert told.bound == pytest.approx(0.8256, abs=1e-4)  # Wilson, 90 of 100
    assert finding(gate("at_least", value=0.9), outcomes(100, lost=11)).status == "failed"
    assert finding(gate("at_most", value=0.9), continuous([0.8, 0.9, 0.95] * 20)).status == "passed"
    assert finding(gate("at_least", value=0.9), continuous([0.95])).status == "inconclusive"


# parity


@pytest.mark.parametrize(
    ("cosines", "lowest", "first"),
    [
        pytest.param([0.80] + [0.95] * 199, "passed", "passed", id="equal"),
        pytest.param([math.nextafter(0.80, 0)] + [0.95] * 199, "failed", "passed", id="one below"),
        pytest.param([0.85] * 2 + [0.95] * 198, "passed", "failed", id="one in a hundred"),
        pytest.param([0.85] + [0.95] * 50, "passed", "failed", id="few items: the first percentile is the lowest"),
    ],
)
def test_parity(cosines: list[float], lowest: str, first: str) -> None:
    found = _by_slice(gate("parity", minimum=0.80, p1=0.90), continuous(cosines))
    assert found == {"minimum": lowest, "p1": first}


@pytest.mark.parametrize("cosines", [[], [1.0], [1.0] * 99 + [math.nan]], ids=["none", "one", "nan"])
def test_parity_of_nothing(cosines: list[float]) -> None:
    assert {each.status for each in findings(gate("parity", minimum=0.8, p1=0.9), continuous(cosines))} == {
        "inconclusive"
    }


# census

_PLAN = {"ops.MatMulNBits": "24", "dtypes.int4": "24"}


@pytest.mark.parametrize(
    ("found", "status", "told"),
    [
        (_PLAN, "passed", "all 2 entries as planned"),
        ({**_PLAN, "dtypes.int4": "23"}, "failed", "dtypes.int4: planned 24, found 23"),
        ({"dtypes.int4": "24"}, "failed", "ops.MatMulNBits: planned 24, found nothing"),
        ({**_PLAN, "ops.MatMul": "1"}, "failed", "ops.MatMul: planned nothing, found 1"),
        ({"ops.MatMul": "24"}, "failed",
         "dtypes.int4: planned 24, found nothing; ops.MatMul: planned nothing, found 24; "
         "ops.MatMulNBits: planned 24, found nothing"),
        ({}, "inconclusive", "nothing was found in the file"),
    ],
    ids=["same", "other value", "missing", "extra", "unchanged model", "empty"],
)  # fmt: skip
def test_census(found: dict[str, str], status: str, told: str) -> None:
    result = finding(gate("census"), Census(_PLAN, found))
    assert (result.status, result.reason) == (status, told)


def test_census_without_a_plan() -> None:
    assert finding(gate("census"), Census({}, _PLAN)).status == "inconclusive"
    assert finding(gate("census"), Census({}, {})).status == "inconclusive"
