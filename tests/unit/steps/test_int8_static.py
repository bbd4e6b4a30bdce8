"""Calibration: what flows into each site is what a float run of the graph says flows into it."""

import numpy as np
import pytest
import tiny_towers

from compress.core.errors import CompressError, ResourceExhausted, UsageError
from compress.models.external_data import save
from compress.steps._activations import watch
from compress.steps.quantize._histogram import Histogram
from compress.steps.quantize.int8_static import Spec, apply
from compress.steps.step import Context
from compress.targets import onnxruntime_cpu
from compress.targets.graph.session import open_session, run

CONTEXT = Context(tiny_towers.feeds)


def test_every_value_is_seen_once_a_batch(tiny_encoder, tmp_path):
    tower = tiny_encoder.towers["vision"]
    seen = watch(tower, tower.sites, CONTEXT, Histogram)
    feeding = {node.name: node.input[0] for node in tower.graph.graph.node}
    values = {site.name: feeding[site.node] for site in tower.sites}
    asked = sorted(set(values.values()) - {"pixel_values"})
    save(tower.graph, tmp_path / "graph.onnx", outputs=asked)
    session = open_session(tmp_path / "graph.onnx")
    expected = {value: Histogram() for value in values.values()}
    for feed in tiny_towers.feeds("vision"):
        expected["pixel_values"].add(feed["pixel_values"])
        for value, array in zip(asked, run(session, asked, feed), strict=True):
            expected[value].add(array)
    assert seen.keys() == {site.name for site in tower.sites}
    for name, value in values.items():
        assert seen[name].largest == expected[value].largest > 0
        assert seen[name].top == expected[value].top
        np.testing.assert_array_equal(seen[name].counts, expected[value].counts)
    assert len({id(seen[site.name]) for site in tower.sites if site.role == "attn.qkv"}) == 1
    items = sum(len(feed["pixel_values"]) for feed in tiny_towers.feeds("vision"))
    fc2 = next(site.name for site in tower.sites if site.role == "mlp.fc2")
    assert seen[fc2].counts.sum() == items * 4 * tiny_towers.INNER


@pytest.mark.parametrize(
    ("dies", "error", "match"),
    [
        ("os._exit(3)", CompressError, "ended with 3"),
        ("os.kill(os.getpid(), 9)", ResourceExhausted, "ran out of memory"),
        ("raise ValueError('no numbers')", UsageError, "no numbers: the float model itself is broken"),
    ],
)
def test_what_breaks_while_calibrating_breaks_the_child_alone(tiny_encoder, tmp_path, monkeypatch, dies, error, match):
    (tmp_path / "dying_observer.py").write_text(
        f"import os\n\nclass Dying:\n    def add(self, values):\n        {dies}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    from dying_observer import Dying

    tower = tiny_encoder.towers["vision"]
    with pytest.raises(error, match=match):
        watch(tower, tower.sites, CONTEXT, Dying)


def test_the_clip_range_of_the_pixels_is_their_percentile(tiny_encoder):
    apply(
        tiny_encoder,
        Spec(include=("patch_embed",), range="percentile", percentile=90.0, towers=("vision",), symmetric=True),
        CONTEXT,
    )
    tower = tiny_encoder.towers["vision"]
    (held,) = tower.treatments.values()
    pixels = np.abs(np.concatenate([feed["pixel_values"].ravel() for feed in tiny_towers.feeds("vision")]))
    assert held.input_scale * 127 == pytest.approx(np.quantile(pixels, 0.9), rel=0.01)


def test_zero_points_run_in_the_same_integer_kernels(tiny_encoder):
    apply(tiny_encoder, Spec(), CONTEXT)
    for kind, tower in tiny_encoder.towers.items():
        zeros = {held.zero_point for held in tower.treatments.values()}
        assert len(zeros) > 1
        ops = [node.op_type for node in onnxruntime_cpu.fused(tower).graph.node]
        assert ops.count("MatMulIntegerToFloat") == len(tower.treatments), kind
        assert "DequantizeLinear" not in ops


def test_calibration_data_are_needed(tiny_encoder):
    with pytest.raises(UsageError, match="needs calibration data"):
        apply(tiny_encoder, Spec(), Context())
    with pytest.raises(UsageError, match="no calibration data for the vision tower"):
        apply(tiny_encoder, Spec(), Context(lambda kind: iter(())))


def test_a_table_has_no_input(tiny_encoder):
    with pytest.raises(UsageError, match="no input to quantize"):
        apply(tiny_encoder, Spec(include=("embedding",)), CONTEXT)
    assert not tiny_encoder.towers["text"].treatments


def test_activations_that_are_no_numbers(tiny_encoder):
    def broken(kind):
        for feed in tiny_towers.feeds(kind):
            yield {name: np.full_like(values, np.nan) if kind == "vision" else values for name, values in feed.items()}

    with pytest.raises(UsageError, match="NaN or infinity") as caught:
        apply(tiny_encoder, Spec(), Context(broken))
    assert caught.value.where.startswith("vision tower")
