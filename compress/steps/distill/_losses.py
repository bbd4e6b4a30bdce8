"""What a student is trained towards: functions of embeddings (n, D), the student's first, the teacher's fixed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def features(student: Tensor, teacher: Tensor, normalized: bool) -> Tensor:
    """1 - cosine, mean over samples; for embeddings whose length means something, their relative distance as well.

    CLIP-KD (2307.12732) finds this the largest part of what distillation gains.
    """
    turned = (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()
    return turned if normalized else turned + relative(student, teacher)


def relative(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Squared distance over the teacher's own mean square; `weights` (n, tokens) are 0 where nothing counts."""
    if weights is None:
        return F.mse_loss(student, teacher) / teacher.square().mean().clamp_min(1e-12)
    held = weights.to(student.dtype)[..., None]
    return ((student - teacher).square() * held).sum() / (teacher.square() * held).sum().clamp_min(1e-12)


def hidden(student: Sequence[Tensor], teacher: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """The relative distance of block outputs (n, tokens, width), mean over blocks."""
    return torch.stack([relative(*pair, weights) for pair in zip(student, teacher, strict=True)]).mean()


def bank(student: Tensor, teacher: Tensor, entries: Tensor, temperature: float) -> Tensor:
    """KL(softmax(t B^T / (temperature / 2)) || softmax(s B^T / temperature)), B a bank (m, D); DIME-FM, 2303.18232."""
    wanted = F.log_softmax(teacher @ entries.T / (temperature / 2), -1)
    made = F.log_softmax(student @ entries.T / temperature, -1)
    return F.kl_div(made, wanted, reduction="batchmean", log_target=True)


def affinity(rows: Sequence[Tensor], columns: Sequence[Tensor], scale: float) -> Tensor:
    """Cross entropy of the similarities of images and texts, both ways; TinyCLIP, 2309.12314.

    `rows` are this process's embeddings, (student images, student texts, teacher images, teacher texts), `columns` the
    same of all processes.
    """
    images, texts, told_images, told_texts = rows
    all_images, all_texts, all_told_images, all_told_texts = columns
    across = _cross_entropy(scale * told_images @ all_told_texts.T, scale * images @ all_texts.T)
    back = _cross_entropy(scale * told_texts @ all_told_images.T, scale * texts @ all_images.T)
    return (across + back) / 2


def _cross_entropy(wanted: Tensor, made: Tensor) -> Tensor:
    return -(F.softmax(wanted, -1) * F.log_softmax(made, -1)).sum(-1).mean()


def contrastive(rows: Sequence[Tensor], columns: Sequence[Tensor], first: int, scale: float) -> Tensor:
    """Each image to its own text among all, and back (CLIP, 2103.00020); row 0 belongs to column `first`."""
    images, texts = rows
    all_images, all_texts = columns
    own = torch.arange(first, first + len(images), device=images.device)
    across = F.cross_entropy(scale * images @ all_texts.T, own)
    return (across + F.cross_entropy(scale * texts @ all_images.T, own)) / 2
