"""All items together may lose less than a margin, compared with the reference item by item."""

from __future__ import annotations

import numpy as np

from compress.gates.gate import undecided
from compress.gates.outcomes import Measurement, Unmeasured, paired
from compress.gates.rules._paired import PairedSpec, Part, judge_part
from compress.gates.verdict import Finding


class Spec(PairedSpec):
    """Options of `non_inferior`."""


def judge(spec: Spec, measurement: Measurement) -> tuple[Finding, ...]:
    """One finding over all items."""
    outcomes = paired(measurement)
    if isinstance(outcomes, Unmeasured):
        return (undecided(spec, outcomes.reason),)
    everything = np.ones(len(outcomes.items), dtype=np.bool_)
    return (judge_part(spec, outcomes, Part(None, everything, spec.margin, spec.because)),)
