"""Every method that ships: decodes its example, rejects what it does not know, changes what it reports, no more."""

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_towers
from onnx import numpy_helper
from pydantic import ValidationError
from tiny_training import TinySet, stored

from compress import targets
from compress.core import names
from compress.core.errors import UsageError
from compress.data.session import Encoder
from compress.models.graph import array, initializers
from compress.models.tower import copied
from compress.models.treatment import BlockWeights, Float16, StaticFloat8, StaticInt8
from compress.recipe.steps import StepSpec
from compress.steps import method_names, spec_of
from compress.steps.quantize import int4_rtn
from compress.steps.quantize._float8 import decoded
from compress.steps.step import Context
from compress.targets.graph import emitter, standard
from compress.targets.graph.emitter import weight_matrix
from compress.targets.graph.session import open_session

METHODS = method_names()
TORCH = {"quantize.bnb"}  # its file is no graph: tests/torch/test_torch_target.py
SCALES = {"calibrate.logit_scale"}  # it changes no weight: tests/unit/steps/test_logit_scale.py
QUANTIZERS = [name for name in METHODS if name.startswith("quantize.") and name not in TORCH]
HARD = {"compress.steps.prune.heads", "compress.steps.prune.depth"}
OTHER = {"prune.auto", "prune.depth"}
"""Pruners that make no layer narrower by a ratio: tests/unit/steps has their own."""

PRUNERS = [name for name in METHODS if name.startswith("prune.") and name not in OTHER]
SEARCHES = {"prune.auto"}
"""Methods that apply others, again and again."""

STUDENTS = {"distill.student"}  # it trains nothing, and derives from a config: tests/torch/test_student.py
DISTILLERS = [name for name in METHODS if name.startswith("distill.") and name not in STUDENTS]
ROUNDED = {"compress.steps.distill.qad"}
"""Distillers that train what is quantized already."""


CACHE = tempfile.TemporaryDirectory()
"""What the teacher says of the samples is asked once for all tests."""


@pytest.fixture(params=METHODS)
def method(request):
    return names.load("compress.steps", request.param)


@pytest.fixture(params=[name for name in METHODS if name not in SEARCHES | TORCH | SCALES | STUDENTS])
def plain(request):
    """A method that is applied once, and whose outcome is written as a graph."""
    return names.load("compress.steps", request.param)


@pytest.fixture(params=QUANTIZERS)
def quantizer(request):
    return names.load("compress.steps", request.param)


@pytest.fixture(params=PRUNERS)
def pruner(request):
    return names.load("compress.steps", request.param)


@pytest.fixture(params=DISTILLERS)
def distiller(request):
    return names.load("compress.steps", request.param)


@pytest.fixture
def pair(tmp_path, request):
    """Two encoders from the same files; of two blocks, where a method removes one."""
    made = []
    shortens = "plain" in request.fixturenames and request.getfixturevalue("plain").__name__.endswith("depth")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(tiny_towers.encoder(tmp_path / name, heads=4, blocks=1 + shortens))
    return made


@pytest.fixture
def headed(pair):
    """An encoder whose attentions have four heads."""
    return pair[0]


def example(method):
    return method.Spec.model_validate_json(json.dumps(method.EXAMPLE))


def applied(method, encoder, spec=None, seed=0):
    """A step as a recipe applies it; what trains finds towers that were compressed before."""
    context = Context(feeds, seed=seed)
    if method.__name__.removeprefix("compress.steps.") in DISTILLERS:
        context = replace(context, training=TinySet(stored(48)), teacher=copied(encoder), cache=Path(CACHE.name))
        damage(method, encoder)
    return method.apply(encoder, spec or example(method), context)


def damage(method, encoder):
    """What a training step is for: weights in 4 bits, or a tenth of noise on all of them."""
    if method.__name__ in ROUNDED:
        int4_rtn.apply(encoder, int4_rtn.Spec(), Context())
        return
    rng = np.random.default_rng(0)
    for tower in encoder.towers.values():
        for site in tower.sites:
            tensor = initializers(tower.graph)[site.weight]
            weight = array(tensor)
            noise = 0.1 * weight.std() * rng.standard_normal(weight.shape)
            tensor.CopyFrom(numpy_helper.from_array((weight + noise).astype(np.float32), site.weight))


def feeds(kind):
    """More rows than any product has inputs."""
    return tiny_towers.feeds(kind, 12)


def target_of(method):
    """The first target that a method serves."""
    return targets.load(getattr(method, "TARGETS", ("onnxruntime-cpu",))[0])


def restored(held):
    """The weight that a treatment stands for."""
    if isinstance(held, StaticFloat8):
        return decoded(held.codes) * held.scales[:, None]
    return held.codes * held.scales[:, None] if isinstance(held, StaticInt8) else held.dequantized()


def embeddings(graph, kind):
    (feed,) = tiny_towers.feeds(kind, 1)
    return open_session(graph).run(None, feed)[0]


def changed(encoder):
    """Names of the sites whose weight is another in the emitted graph."""
    names_of = set()
    held = [each for tower in encoder.towers.values() for each in tower.treatments.values()]
    emit = standard.emit if any(isinstance(each, StaticFloat8) for each in held) else emitter.emit
    for kind, tower in encoder.towers.items():
        held = {tensor.name for tensor in emit(tower).graph.initializer}
        names_of |= {(kind, site.name) for site in tower.sites if site.weight not in held}
    return names_of


def test_there_are_methods():
    assert {"quantize.int4_rtn", "quantize.int8_rtn", "quantize.int8_static"} <= set(METHODS)


def test_a_method_has_its_parts(method):
    assert issubclass(method.Spec, StepSpec)
    assert callable(method.apply)
    assert method.__doc__
    assert method.Spec.__doc__
    assert f"`{method.__name__.removeprefix('compress.steps.')}`" in method.__doc__.splitlines()[0]


def test_its_example_is_decoded_and_says_something(method):
    spec = example(method)
    assert method.EXAMPLE
    for key in method.EXAMPLE:
        assert key in spec.model_fields_set


@pytest.mark.parametrize(
    "bad", [{"blok": 32}, {"towers": []}, {"towers": ["audio"]}, {"include": ["mlp.fc9"]}], ids=str
)
def test_what_it_does_not_know_is_rejected(method, bad):
    with pytest.raises(ValidationError):
        method.Spec.model_validate({**method.EXAMPLE, **bad}, strict=False)


def test_it_changes_what_it_reports_and_nothing_else(quantizer, tiny_encoder):
    before = {kind: embeddings(tower.graph, kind) for kind, tower in tiny_encoder.towers.items()}
    report = applied(quantizer, tiny_encoder)
    assert report.use == quantizer.__name__.removeprefix("compress.steps.")
    assert report.summary
    rows = [(row.tower, row.site) for row in report.rows]
    assert rows
    assert len(set(rows)) == len(rows)
    assert changed(tiny_encoder) == set(rows)
    for kind, tower in tiny_encoder.towers.items():
        same = embeddings(tower.graph, kind)
        np.testing.assert_allclose(same, before[kind], atol=1e-5, err_msg="the float graph goes on saying the same")
        assert {(kind, name) for name in tower.treatments} == {row for row in rows if row[0] == kind}


def weights(encoder):
    """Every weight of every tower by what reads it: nodes keep their names, weights need not."""
    made = {}
    for kind, tower in encoder.towers.items():
        held = initializers(tower.graph)
        for node in tower.graph.graph.node:
            made |= {(kind, node.name, at): array(held[name]) for at, name in enumerate(node.input) if name in held}
    return made


def test_a_pruner_changes_what_it_reports_and_nothing_else(pruner, headed):
    before, sites = weights(headed), {kind: tower.sites for kind, tower in headed.towers.items()}
    report = applied(pruner, headed)
    assert report.use == pruner.__name__.removeprefix("compress.steps.")
    assert report.summary
    rows = {(row.tower, row.site) for row in report.rows}
    assert len(rows) == len(report.rows) > 0
    after = weights(headed)
    assert after.keys() == before.keys()
    other = {key for key in before if not np.array_equal(before[key], after[key])}
    products = {
        (kind, site.node, 1): (kind, site.name) for kind in sites for site in sites[kind] if site.op == "MatMul"
    }
    assert {products[key] for key in other & products.keys()} == rows
    for kind, node, at in other - products.keys():  # biases of what was changed, and shapes of heads
        assert any(name.removeprefix("/").split(".")[0] in node for tower, name in rows if tower == kind) or at == 1
    for kind, tower in headed.towers.items():
        assert not tower.treatments
        assert [site.name for site in tower.sites] == [site.name for site in sites[kind]]


def test_the_numbers_of_a_pruner_are_those_of_the_weights(pruner, headed):
    before = {(kind, site.name): site.shape for kind, tower in headed.towers.items() for site in tower.sites}
    rows = applied(pruner, headed).rows
    for row in rows:
        site = headed.towers[row.tower].site(row.site)
        assert row.bytes_before == 4 * np.prod(before[row.tower, row.site])
        assert row.bytes_after == 4 * np.prod(site.shape) == weight_matrix(headed.towers[row.tower], site).nbytes
        assert row.role == site.role
        assert 0 < row.error < 1
    assert sum(row.bytes_after for row in rows) < sum(row.bytes_before for row in rows)


@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.1, float("nan"), True])
def test_a_share_that_leaves_all_or_nothing(pruner, ratio):
    with pytest.raises(ValidationError):
        pruner.Spec(ratio=ratio)


def test_a_distiller_changes_what_it_reports_and_nothing_else(distiller, headed):
    sites = {kind: tower.sites for kind, tower in headed.towers.items()}
    report = applied(distiller, headed)
    assert report.use == distiller.USE
    assert report.summary
    rows = {(row.tower, row.site): row for row in report.rows}
    assert len(rows) == len(report.rows) == sum(map(len, sites.values()))
    for row in rows.values():
        assert row.role == headed.towers[row.tower].site(row.site).role
        assert 0 < row.error < 1
        assert row.bytes_before == row.bytes_after
    for kind, tower in headed.towers.items():
        assert tower.sites == sites[kind]
        assert bool(tower.treatments) == (distiller.__name__ in ROUNDED)
    curve = next(each for each in report.curves if each.name == "loss")
    assert curve.steps[0] == 0
    assert np.mean(curve.values[-3:]) < np.mean(curve.values[:3])


def test_only_the_selected_are_trained(distiller, headed):
    report = applied(distiller, headed, distiller.Spec(**distiller.EXAMPLE, include=("text:mlp.fc1",)))
    assert {(row.tower, row.role) for row in report.rows if row.treatment == "trained"} <= {("text", "mlp.fc1")}
    assert ("text", "mlp.fc1") in {(row.tower, row.role) for row in report.rows}


def test_a_distiller_without_data(distiller, headed):
    damage(distiller, headed)
    with pytest.raises(UsageError, match="needs training data"):
        distiller.apply(headed, example(distiller), Context(feeds, teacher=copied(headed)))


def test_nothing_is_pruned_that_was_quantized(pruner, headed):
    applied(names.load("compress.steps", "quantize.int4_rtn"), headed)
    with pytest.raises(UsageError, match="quantized already"):
        applied(pruner, headed)


def test_a_pruner_says_when_nothing_goes(pruner, headed):
    with pytest.raises(UsageError, match="goes: the count that stays is that of all"):
        applied(pruner, headed, pruner.Spec(ratio=0.001, multiple=1))


def test_values_that_are_not_finite(pruner, headed):
    for tower in headed.towers.values():
        site = next(site for site in tower.sites if site.role == "attn.qkv")
        broken = weight_matrix(tower, site).T.copy()
        broken[0, 0] = np.nan
        tensor = next(each for each in tower.graph.graph.initializer if each.name == site.weight)
        tensor.CopyFrom(numpy_helper.from_array(broken, site.weight))
    before = weights(headed)
    with pytest.raises(UsageError, match="NaN or infinity"):
        applied(pruner, headed)
    assert all(np.array_equal(before[key], value, equal_nan=True) for key, value in weights(headed).items())


def test_its_numbers_are_those_of_the_weights(quantizer, tiny_encoder):
    for row in applied(quantizer, tiny_encoder).rows:
        tower = tiny_encoder.towers[row.tower]
        site, held = tower.site(row.site), tower.treatments[row.site]
        weight = weight_matrix(tower, site)
        assert row.error == pytest.approx(np.linalg.norm(restored(held) - weight) / np.linalg.norm(weight), rel=1e-4)
        assert 0 < row.error < 0.3
        assert row.role == site.role
        assert row.bytes_before == weight.nbytes == 4 * np.prod(site.shape)
        assert row.bytes_after < row.bytes_before
        assert isinstance(held, BlockWeights | Float16 | StaticFloat8 | StaticInt8)


def test_only_the_selected(quantizer, tiny_encoder):
    spec = quantizer.Spec(include=("text:mlp.fc1",))
    report = applied(quantizer, tiny_encoder, spec)
    assert [(row.tower, row.role) for row in report.rows] == [("text", "mlp.fc1")]
    assert len(changed(tiny_encoder)) == 1


def test_only_the_selected_layers_are_pruned(pruner, headed):
    role = pruner.ROLES[0]
    before = weights(headed)
    report = applied(pruner, headed, pruner.Spec(**pruner.EXAMPLE, include=(f"text:{role}",)))
    assert {row.tower for row in report.rows} == {"text"}
    assert all(np.array_equal(before[key], value) for key, value in weights(headed).items() if key[0] == "vision")
    with pytest.raises(UsageError, match="cannot be pruned"):
        applied(pruner, headed, pruner.Spec(include=("projection",)))
    with pytest.raises(UsageError, match="nothing is left"):
        applied(pruner, headed, pruner.Spec(include=(f"text:{role}",), exclude=(f"text:{role}",)))


def test_a_selector_that_matches_nothing(method, tiny_encoder):
    if method.__name__.removeprefix("compress.steps.") in SCALES | STUDENTS:
        pytest.skip("it works on whole towers, and says so")
    if method.__name__.removeprefix("compress.steps.") in DISTILLERS:
        damage(method, tiny_encoder)
    before = changed(tiny_encoder)
    spec = method.Spec.model_validate_json(json.dumps({**method.EXAMPLE, "include": ["vision:embedding"]}))
    context = Context(feeds, training=TinySet(stored(8)), teacher=copied(tiny_encoder))
    with pytest.raises(UsageError, match="matches nothing"):
        method.apply(tiny_encoder, spec, context)
    assert changed(tiny_encoder) == before


def test_the_same_seed_gives_the_same_bytes(plain, pair, tmp_path):
    digests = []
    for at, encoder in enumerate(pair):
        applied(plain, encoder, seed=7)
        out = tmp_path / f"out{at}"
        out.mkdir()
        files = target_of(plain).export(encoder, out)
        digests.append({kind: hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in files.items()})
    assert digests[0] == digests[1]


def test_it_exports_loads_and_stays_near(plain, headed, tmp_path):
    reference = {kind: open_session(tower.graph) for kind, tower in headed.towers.items()}
    touched = {row.tower for row in applied(plain, headed).rows}
    target = target_of(plain)
    files = target.export(headed, tmp_path)
    opened = Encoder(tmp_path)  # as the gates open it
    for kind in files:
        (feed,) = tiny_towers.feeds(kind, 1)
        got, (expected,) = getattr(opened, kind).encode(feed), reference[kind].run(None, feed)
        assert got.shape == expected.shape
        cosines = (got * expected).sum(1)  # heads of random weights share nothing that could be made up for
        near = cosines.min() if plain.__name__ not in HARD else cosines.mean()
        assert near > 0.9, "compression is not allowed to turn an embedding around"
        assert (got != expected).any() == (kind in touched)
    for planned, found in target.counts(headed, files).values():
        assert planned == found


def test_names_that_are_no_method():
    for name in ("quantize.int4_weight", "step", "quantize", "quantize._rounding", "../quantize.int4_rtn", ""):
        with pytest.raises(KeyError):
            spec_of(name)


def test_near_names_are_suggested():
    with pytest.raises(KeyError, match=r"did you mean quantize\.int4_rtn"):
        spec_of("quantize.int4rtn")
