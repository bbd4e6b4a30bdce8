"""The bank of a bank loss: embeddings of the teacher that students compare themselves with; no pairs are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.core.errors import UsageError
from compress.data.training import TrainingSet
from compress.steps.distill._batches import ask
from compress.steps.distill._features import Features
from compress.steps.distill._options import Training
from compress.steps.distill._processes import Processes

_SAME: Final = 4
"""Decimals in which two embeddings of one text agree, whatever they were computed beside."""

_LEAST: Final = 8
"""A softmax over fewer says next to nothing."""


def bank_of(kind: str, data: TrainingSet, features: Features, spec: Training, processes: Processes) -> Tensor:
    """Different embeddings (at most `bank_size`, D) of what the data hold for one tower, as the first epoch has them.

    Every process makes the same. Raises UsageError where there are too few.
    """
    found: dict[bytes, NDArray[np.float32]] = {}
    for embeddings in _embeddings(kind, data, features, spec.batch):
        for each in embeddings:
            found.setdefault((np.round(each, _SAME) + 0.0).tobytes(), each)
        if processes.told(len(found) >= spec.bank_size):  # or one would ask the teacher once more than another
            break
    if len(found) < _LEAST:
        raise UsageError(f"a bank of {len(found)} embeddings says nothing", "data.training", f"{_LEAST} are the least")
    return torch.from_numpy(np.stack(list(found.values())[: spec.bank_size]))


def _embeddings(kind: str, data: TrainingSet, features: Features, batch: int) -> Iterator[NDArray[np.float32]]:
    for each in data.batches(0, batch):
        if kind in each.feeds:
            ask([each], {kind: features})
            yield features.get(each.keys[each.rows[kind]]).embeddings
