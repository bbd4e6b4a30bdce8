"""`distill.qad`: integers that were rounded without care recover, in the blocks they have."""

import numpy as np
import pytest
import tiny_towers
import tiny_training

from compress.core import names
from compress.core.errors import UsageError
from compress.models.tower import copied
from compress.models.treatment import StaticInt8
from compress.steps.distill import qad
from compress.steps.step import Context
from compress.targets.graph import emitter
from compress.targets.graph.session import open_session

NAIVE = ("quantize.int4_rtn", {"scale_per": "tensor", "block": 16})
STATIC = ("quantize.int8_static", {"include": ["mlp.fc1", "mlp.fc2"]})


def quantized(encoder, step):
    use, options = step
    method = names.load("compress.steps", use)
    method.apply(
        encoder, method.Spec.model_validate(options, strict=False), Context(lambda kind: tiny_towers.feeds(kind, 12))
    )


def train(encoder, teacher, use="pairs", **options):
    data = tiny_training.TinySet(tiny_training.stored(64, use))
    spec = qad.Spec.model_validate({"steps": 4, "batch": 16, "rate": 5e-4, "held_out": 0.0, **options}, strict=False)
    return qad.apply(encoder, spec, Context(training=data, teacher=teacher))


def apart(tower, teacher):
    """Mean of 1 - cosine between the emitted file and the teacher, on inputs that nothing was trained on."""
    (feed,) = tiny_towers.feeds(tower.kind, 1, seed=77)
    new, old = (open_session(graph).run(None, feed)[0] for graph in (emitter.emit(tower), teacher.graph))
    return float(np.mean(1 - (new * old).sum(1)))


@pytest.mark.parametrize("step", [NAIVE, STATIC], ids=["int4", "w8a8"])
def test_what_was_lost_comes_back_in_the_same_blocks(tiny_encoder, step):
    teacher = copied(tiny_encoder)
    quantized(tiny_encoder, step)
    before = {kind: dict(tower.treatments) for kind, tower in tiny_encoder.towers.items()}
    lost = {kind: apart(tower, teacher.towers[kind]) for kind, tower in tiny_encoder.towers.items()}
    report = train(tiny_encoder, teacher, steps=40 if step is NAIVE else 4)
    for kind, tower in tiny_encoder.towers.items():
        if step is NAIVE:  # 8 bits lose too little here to tell what came back
            assert apart(tower, teacher.towers[kind]) < lost[kind]
        assert tower.treatments.keys() == before[kind].keys()
        for name, held in tower.treatments.items():
            old = before[kind][name]
            np.testing.assert_array_equal(held.scales, old.scales)
            assert held.codes.shape == old.codes.shape
            assert not isinstance(held, StaticInt8) or held.input_scale == old.input_scale
    changed = {
        (row.tower, row.site) for row in report.rows if row.treatment.endswith("trained") and row.treatment != "trained"
    }
    codes = {
        (kind, name)
        for kind, tower in tiny_encoder.towers.items()
        for name, held in tower.treatments.items()
        if (held.codes != before[kind][name].codes).any()
    }
    assert changed == codes


def test_learned_scales_are_other_scales(tiny_encoder):
    teacher = copied(tiny_encoder)
    quantized(tiny_encoder, NAIVE)
    before = dict(tiny_encoder.towers["vision"].treatments)
    train(tiny_encoder, teacher, scales="learned")
    for name, held in tiny_encoder.towers["vision"].treatments.items():
        moved = held.scales / before[name].scales
        assert (moved != 1).any()
        assert (np.abs(np.log(moved)) < 0.02).all()  # 4 steps at a rate of at most 0.002


def test_only_the_tower_that_is_fed_is_trained(tiny_encoder):
    teacher = copied(tiny_encoder)
    quantized(tiny_encoder, NAIVE)
    before = dict(tiny_encoder.towers["text"].treatments)
    report = train(tiny_encoder, teacher, use="images", steps=2)
    assert {row.tower for row in report.rows} == {"vision"}
    for name, held in tiny_encoder.towers["text"].treatments.items():
        np.testing.assert_array_equal(held.codes, before[name].codes)


def test_nothing_is_quantized(tiny_encoder):
    with pytest.raises(UsageError, match="nothing is quantized"):
        train(tiny_encoder, copied(tiny_encoder))
