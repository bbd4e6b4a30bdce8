"""Gate reports small enough to check by hand: one that passed, and the same with one slice lost and one undecided."""

import copy
from typing import Any

_HEX = "0123456789abcdef" * 4


def finding(metric: str, rule: str, place: str | None, **numbers: Any) -> dict[str, Any]:
    base = {"metric": metric, "rule": rule, "slice": place, "status": "passed", "value": None, "bound": None,
            "threshold": None, "n": 1, "reason": "", "because": "read or not", "needed": None}  # fmt: skip
    return base | numbers


def score(place: str | None, reference: float, candidate: float, half: float = 0.01) -> dict[str, Any]:
    def span(value: float) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half}

    dimension, _, name = (place or "").partition("=")
    spans = {"reference": span(reference), "candidate": span(candidate), "drop": span(reference - candidate)}
    return {"metric": "reading.accuracy", "dimension": dimension or None, "slice": name or None, "n": 1500, **spans}


def passed() -> dict[str, Any]:
    places = ("size=19-24", "size=6-8", "size=9-12")
    drop = {"value": 0.005, "threshold": 0.02, "n": 1500, "reason": "drop 0.5 pt"}
    return {
        "version": 1, "name": "int4_clip", "digest": _HEX, "status": "passed", "exit_code": 0,
        "created": "2026-01-02T03:04:05Z",
        "model": {"source": "pocket-clip", "revision": None, "parameters": 2_400_000, "architecture": "CLIPModel"},
        "policy": {"name": "clip_release", "digest": "a" * 64}, "recipe": {"name": "int4_clip", "digest": "b" * 64},
        "steps": [{"use": "quantize.int4_rtn", "summary": "1 matrix to 4 bit", "rows": [
            {"tower": "vision", "site": "layers.0.fc1", "role": "fc1", "treatment": "int4 block 32",
             "bytes_before": 4000, "bytes_after": 560, "error": 0.07}]}],
        "findings": [
            *(finding("reading.accuracy", "worst_slice", place, **drop, bound=0.01 + at / 1000)
              for at, place in enumerate(places)),
            finding("size.ratio", "at_most", None, value=0.21, bound=0.21, threshold=0.25),
        ],
        "scores": [score(place, 0.8, 0.795) for place in places] + [score(None, 0.81, 0.805)],
        "sizes": [{"file": "onnx/vision_model_q4.onnx", "tower": "vision", "reference_bytes": 6_900_000,
                   "candidate_bytes": 1_449_000, "parts": {"int4 weights": 1_000_000, "scales": 449_000}}],
        "latency": [{"tower": "vision", "batch": 1, "reference_ms": {"min": 2.0, "median": 2.1, "max": 2.5},
                     "candidate_ms": {"min": 1.5, "median": 1.6, "max": 2.0},
                     "ratio": {"min": 0.7, "median": 0.76, "max": 0.9}, "pairs": 30}],
        "environment": {"python": "3.11.9", "platform": "Linux", "packages": {"numpy": "2.0.0"}, "cpu": "some cpu"},
        "attempts": None,
    }  # fmt: skip


def blocked() -> dict[str, Any]:
    """size=6-8 drops by 14.1 points; size=9-12 cannot be told from the margin."""
    made = copy.deepcopy(passed())
    made |= {"name": "int4_naive", "status": "failed", "exit_code": 3, "digest": _HEX[::-1]}
    made["findings"][1] |= {"status": "failed", "value": 0.141, "bound": 0.1537, "reason": "drop 14.1 pt"}
    made["findings"][2] |= {"status": "inconclusive", "value": 0.012, "bound": 0.0243, "needed": 4200,
                            "reason": "drop 1.2 pt; about 4,200 items would decide"}  # fmt: skip
    made["scores"][1] = score("size=6-8", 0.47, 0.329)
    return made


def waived() -> dict[str, Any]:
    """The same two findings, both waived; a third waiver was not needed."""
    made = blocked() | {"status": "waived", "exit_code": 3}
    for at, was in ((1, "failed"), (2, "inconclusive")):
        made["findings"][at] |= {"status": "waived", "waiver": {
            "status": was, "reason": "the scanner is replaced", "expires": "2031-05-31", "by": "Ada"}}  # fmt: skip
    unused = {"metric": "size.ratio", "rule": "at_most", "slice": None, "expires": "2031-01-01", "reason": "x"}
    return made | {"waivers": {"digest": "c" * 64, "unused": [unused]}}


def undecided() -> dict[str, Any]:
    made = copy.deepcopy(passed())
    made |= {"status": "inconclusive", "exit_code": 4}
    made["findings"][0] |= {"status": "inconclusive", "value": None, "bound": None, "reason": "not measured"}
    return made


def ungated() -> dict[str, Any]:
    made = copy.deepcopy(passed())
    made |= {"status": "ungated", "exit_code": 4, "findings": [], "policy": None, "reason": "only a trial"}
    return made


def bare(status: str = "ungated") -> dict[str, Any]:
    return {"version": 1, "name": "bare", "digest": _HEX, "status": status, "findings": []}
