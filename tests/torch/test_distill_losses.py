"""Losses of distillation against what paper and pencil, or numpy, say."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from compress.steps.distill import _losses
from compress.steps.distill._training import schedule


def rows(*shape, seed=0):
    made = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return made / np.linalg.norm(made, axis=-1, keepdims=True)


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(each, np.float32)) for each in arrays]


def test_features_are_a_cosine():
    student, teacher = tensors([[1, 0], [0, 2]], [[3, 0], [4, 0]])
    assert float(_losses.features(student, teacher, normalized=True)) == pytest.approx(0.5)  # 0 and 1


def test_a_length_counts_where_embeddings_have_one():
    student, teacher = tensors([[1.0, 0.0]], [[3.0, 0.0]])
    assert float(_losses.features(student, teacher, normalized=False)) == pytest.approx(4 / 9)


def test_hidden_is_relative_to_the_teacher_and_padding_does_not_count():
    student, teacher = tensors([[[2.0], [9.0]]], [[[1.0], [0.0]]])
    assert float(_losses.hidden([student], [teacher])) == pytest.approx((1 + 81) / 1)
    (counted,) = tensors([[1, 0]])
    assert float(_losses.hidden([student], [teacher], counted)) == pytest.approx(1.0)
    assert float(_losses.hidden([student, teacher], [teacher, teacher], counted)) == pytest.approx(0.5)


def test_bank_is_a_divergence_with_a_sharper_teacher():
    student, teacher, entries = rows(4, 6), rows(4, 6, seed=1), rows(9, 6, seed=2)
    wanted, made = log_softmax(teacher @ entries.T / 0.05, 1), log_softmax(student @ entries.T / 0.1, 1)
    expected = (np.exp(wanted) * (wanted - made)).sum(1).mean()
    found = _losses.bank(*tensors(student, teacher, entries), temperature=0.1)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_affinity_goes_both_ways():
    images, texts, told_images, told_texts = (rows(5, 6, seed=at) for at in range(4))
    expected = 0.0
    for a, b, x, y in ((told_images, told_texts, images, texts), (told_texts, told_images, texts, images)):
        expected -= (softmax(7 * a @ b.T, 1) * log_softmax(7 * x @ y.T, 1)).sum(1).mean() / 2
    held = tensors(images, texts, told_images, told_texts)
    assert float(_losses.affinity(held, held, 7.0)) == pytest.approx(float(expected), rel=1e-5)


def test_contrastive_looks_for_its_own_column():
    images, texts = rows(6, 4), rows(6, 4, seed=1)
    expected = -np.mean([log_softmax(9 * images[at] @ texts.T)[at] for at in (2, 3)]) / 2
    expected -= np.mean([log_softmax(9 * texts[at] @ images.T)[at] for at in (2, 3)]) / 2
    own = tensors(images[2:4], texts[2:4])
    assert float(_losses.contrastive(own, tensors(images, texts), 2, 9.0)) == pytest.approx(float(expected), rel=1e-5)


def test_a_perfect_student_loses_nothing_but_the_sharpness():
    told = tensors(rows(4, 6))[0]
    assert float(_losses.features(told, told, normalized=True)) == pytest.approx(0, abs=1e-6)
    assert float(_losses.hidden([told], [told])) == 0
    assert float(_losses.bank(told, told, tensors(rows(9, 6))[0], 0.1)) > 0


def test_the_rate_rises_and_falls():
    assert schedule(0.0, 0.1) == pytest.approx(0.01, rel=0.02)
    assert schedule(0.1, 0.1) == pytest.approx(1.0)
    assert schedule(0.55, 0.1) == pytest.approx(0.505)
    assert schedule(1.0, 0.1) == pytest.approx(0.01)
    assert schedule(0.0, 0.0) == 1.0
