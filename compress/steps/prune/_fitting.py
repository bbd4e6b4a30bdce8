"""What a pruned product's weight becomes: fitted again from what is kept, shifted by the mean, or left as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from compress.core.errors import UsageError
from compress.steps import _ridge
from compress.steps._moments import Matrix
from compress.steps._ridge import Fit, Kept
from compress.steps._walk import Calibrated

Compensate = Literal["ridge", "bias", "none"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The fit of a product, its error on held-out samples (see `_ridge.error`), and in words how it came about.

    `tried` is the fit whose error that is: the held-out samples have no part in it.
    """

    fit: Fit
    error: float
    words: str
    tried: Fit


SILENT: Final = (0.0, 1e-3, 1e-2, 1e-1)
"""How much tokens may count from which nothing reaches the embedding, where there are any: they steady the fit."""


def fitted(seen: Calibrated, weight: Matrix, bias: Matrix, keep: Kept, how: Compensate) -> Fitted:
    """Fit a product with weight (out, in) and bias (out,) again, for the inputs that are kept.

    Moments of inputs that are not kept are used up.
    With fewer rows than kept inputs a covariance says nothing, and only the bias is fitted.
    """
    start, rows, seen = weight[:, keep], seen.rows, seen.kept(keep)
    told = f", tokens alike: no gradient of {', '.join(seen.unknown)}" if seen.unknown else ""
    if how == "none":
        made = Fit(start, bias, float("inf"))
        return Fitted(made, _judged(made, seen), "weights as they were", made)
    if how == "bias" or rows <= len(keep):
        few = f": {rows:.0f} rows of calibration are too few for more" if how == "ridge" else ""
        made, tried = (_ridge.shifted(each, start) for each in (seen.moments(), seen.train))
        return Fitted(made, _judged(tried, seen), f"bias fitted{few}", tried)
    try:
        tried, error, silent = _chosen(seen, start)
        if not np.isfinite(tried.ridge):
            made = _ridge.shifted(seen.moments(silent), start)
            return Fitted(made, error, "bias fitted: no ridge helps on held-out samples", tried)
        made = _ridge.fit(seen.moments(silent), start, tried.ridge)
    except np.linalg.LinAlgError as problem:
        what, hint = f"the covariance of its inputs cannot be inverted: {problem}", "compensate: bias"
        raise UsageError(what, seen.junction.site.name, f"use more calibration samples, or {hint}") from problem
    return Fitted(
        made,
        error,
        f"fitted with ridge {tried.ridge:.0e}" + f", silent {silent:g}" * bool(seen.silent[0].rows) + told,
        tried,
    )


def _chosen(seen: Calibrated, start: Matrix) -> tuple[Fit, float, float]:
    """The fit of the samples that are fitted to, its error, and the weight of silent tokens in it.

    They are the best on held-out samples; where there are none, a cautious ridge.
    """
    if not seen.held_out.rows:
        made = _ridge.fit(seen.training(SILENT[-1]), start, 1e-2)
        return made, _judged(made, seen), SILENT[-1]
    tried = {
        silent: _ridge.best_ridge(seen.training(silent), seen.held_out, start)
        for silent in (SILENT if seen.silent[0].rows else SILENT[:1])
    }
    silent = min(tried, key=lambda each: tried[each][1])
    made, squared = tried[silent]
    return made, float(np.sqrt(squared)), silent


def _judged(made: Fit, seen: Calibrated) -> float:
    """Root of the error on samples that the fit has not seen; on all where there are no others."""
    return float(np.sqrt(_ridge.error(made, seen.held_out if seen.held_out.rows else seen.moments())))
