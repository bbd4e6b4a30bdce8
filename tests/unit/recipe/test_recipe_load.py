"""Recipes: every mistake at once with its place, overrides, and the way to a file and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipe_sample import GOOD, PruneSpec, RoundSpec, spec_of
from ruamel.yaml import YAML

from compress.core.errors import DocumentError, UsageError
from compress.recipe import load as loading
from compress.recipe.load import dump, find_recipe, load, locate
from compress.recipe.schema import Recipe
from compress.recipe.selector import ROLES
from compress.recipe.sources import (
    ByteText,
    Columns,
    DataSource,
    ImageInput,
    NamedModel,
    OnnxModel,
    Preprocess,
    TokenizerText,
)
from compress.recipe.steps import Step


def written(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def told(folder: Path, text: str, *overrides: str) -> list[str]:
    """Everything that loading tells, without the name of the file."""
    path = written(folder, text)
    with pytest.raises(DocumentError) as caught:
        load(path, spec_of, overrides)
    return str(caught.value).replace(f"{path}:", "").splitlines()


def test_a_good_recipe(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, GOOD), spec_of)
    assert recipe.model == NamedModel(source="pocket-clip")
    assert recipe.data == {"calibration": DataSource(source="scenes", split="calibration", samples=256)}
    assert recipe.steps == (
        Step(
            use="quantize.round",
            spec=RoundSpec(block=64, towers=("text",), exclude=("vision:mlp.fc2@-1", "projection")),
        ),
        Step(use="prune.heads", spec=PruneSpec(ratio=0.1)),
    )
    assert (recipe.targets, recipe.policy, recipe.gated, recipe.seed) == (("onnxruntime-cpu",), "clip_release", True, 0)


def test_every_mistake_at_once(tmp_path: Path) -> None:
    text = """\
version: 1
name: ../evil
modell: {source: pocket-clip}
model: {source: pocket-clip}
data:
  calibration: {source: scenes, samples: 0}
steps:
  - {use: quantize.rond}
  - {use: prune.heads, ratio: true, damping: "0.5", rtio: 1}
  - {use: quantize.round, exclude: [mlp.fc3]}
targets: [onnxruntime-cpu]
policy: clip_release
"""
    assert told(tmp_path, text) == [
        "2:1 name: must be a name: 1 to 64 of a-z 0-9 _ . - that start with a letter or digit, without '..'",
        "3:1 modell: no such key (did you mean model)",
        "6:33 data.calibration.samples: must be at least 1, not 0",
        "8:6 steps[0].use: no method 'quantize.rond' (did you mean quantize.round)",
        "9:24 steps[1].ratio: must be a number, not true",
        "9:37 steps[1].damping: must be a number, not '0.5'",
        "9:53 steps[1].rtio: no such key (did you mean ratio)",
        "10:37 steps[2].exclude[0]: no role 'mlp.fc3' (did you mean mlp.fc2 or mlp.fc1)",
    ]


ONNX = "{source: onnx, vision: v.onnx, preprocess: {image: {size: [256, 128]}}}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "1:1 version: must be 1, the only version there is so far, not 2"),
        ("version: 1", "version: true", "1:1 version: must be a whole number, not true"),
        ("version: 1", "description: x", "1:1 version: is required"),
        ("{source: pocket-clip}", "pocket-clip", "3:1 model: must be a mapping, not 'pocket-clip'"),
        ("{source: pocket-clip}", "{sorce: x}", "3:1 model.source: is required|3:9 model.sorce: no such key "
         "(did you mean source)"),
        ("{source: pocket-clip}", "{source: pocket-clip, vision: a}", "3:30 model.vision: no such key ("
         "did you mean revision)"),
        ("{source: pocket-clip}", "{source: pocket-clip, revision: main}",
         "3:30 model.revision: only a hub id has a revision, and 'pocket-clip' is none"),
        ("{source: pocket-clip}", "{source: a/b, revision: 1234567}",
         "3:22 model.revision: must be text, not 1234567 (put it in quotes)"),
        ("{source: pocket-clip}", "{source: onnx, preprocess: {}}",
         "3:1 model.text: give vision, text or both: the paths of the ONNX files"),
        ("{source: pocket-clip}", "{source: onnx, visoin: a}", "3:1 model.text: give vision, text or both: the paths of"
         " the ONNX files|3:1 model.preprocess: is required|3:23 model.visoin: no such key (did you mean vision)"),
        ("{source: pocket-clip}", "{source: onnx, vision: v.onnx, preprocess: {}}",
         "3:39 model.preprocess: image is required, because there is a vision tower"),
        ("{source: pocket-clip}", ONNX.replace("128]", "0], fit: squash, std: [1, 1]"),
         "3:72 model.preprocess.image.size[1]: must be at least 1, not 0"
         "|3:76 model.preprocess.image.fit: must be 'pad', 'crop' or 'stretch', not 'squash'"
         "|3:89 model.preprocess.image.std[2]: is required"),
        ("samples: 256", "smaples: 256", "5:53 data.calibration.smaples: no such key (did you mean samples)"),
        ("source: scenes", "source: owner/set", "5:3 data.calibration.revision: is required for the hub id 'owner/set' "
         "(write './owner/set' if it is a folder)"),
        ("source: scenes", "source: ./photos, revision: main", "5:35 data.calibration.revision: only a hub id has a "
         "revision, and './photos' is none"),
        ("source: scenes", "source: owner/set, revision: v1.0", "5:36 data.calibration.revision: must be a commit, "
         "40 hex digits, not 'v1.0': tags and branches can move"),
        ("block: 64", "bits: 5", "7:27 steps[0].bits: must be 4 or 8, not 5"),
        ("towers: [text]", "towers: []", "7:38 steps[0].towers: must have at least 1 entry, not 0"),
        ("towers: [text]", "towers: [txt]", "7:47 steps[0].towers[0]: must be 'vision' or 'text', not 'txt' "
         "(did you mean text)"),
        ("towers: [text]", "towers: [text, text]", "7:38 steps[0].towers: names something twice: text, text"),
        ("towers: [text]", "towers: text", "7:38 steps[0].towers: must be a list, not 'text'"),
        ("towers: [text]", "include: [mlp]", "7:48 steps[0].include[0]: no role 'mlp' "
         "(did you mean mlp.fc2 or mlp.fc1)"),
        ("towers: [text]", "include: [mlp.fc1, mlp.fc1]", "7:38 steps[0].include: names something twice: "
         "mlp.fc1, mlp.fc1"),
        ("projection]", "projection@0]", "7:85 steps[0].exclude[1]: projection is there once and has no layers; "
         "write 'projection'"),
        ("use: prune.heads", "use: 3", "8:5 steps[1].use: must be text, not 3 (put it in quotes)"),
        ("    ratio: 1e-1\n", "", "8:5 steps[1].ratio: is required"),
        ("ratio: 1e-1", "note: ' '\n    ratio: 0.1", "9:5 steps[1].note: must not be empty"),
        ("[onnxruntime-cpu]", "[]", "10:1 targets: must have at least 1 entry, not 0"),
        ("[onnxruntime-cpu]", "[a, a]", "10:1 targets: names a target twice: a, a"),
        ("policy: clip_release", "policy: none", "1:1 reason: is required with `policy: none`: say why nothing has to "
         "hold"),
        ("policy: clip_release", "policy: x\nreason: y", "12:1 reason: goes with `policy: none` only"),
        ("policy: clip_release", "", "1:1 policy: is required"),
        ("policy: clip_release", "policy: x\nseed: -1", "12:1 seed: must be at least 0, not -1"),
    ],
)  # fmt: skip
def test_one_mistake(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert GOOD.count(old) == 1
    assert told(tmp_path, GOOD.replace(old, new)) == message.split("|")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("", "1:1 steps: is required"),
        ("steps: 3", "4:1 steps: must be a list, not 3"),
        ("steps: [3]", "4:9 steps[0]: must be a mapping, not 3"),
        ("steps: [{}]", "4:9 steps[0].use: is required"),
    ],
)
def test_steps_that_are_none(steps: str, message: str, tmp_path: Path) -> None:
    head = "version: 1\nname: x\nmodel: {source: pocket-clip}\n"
    assert told(tmp_path, f"{head}{steps}\ntargets: [x]\npolicy: y\n") == [message]


def test_unknown_targets_and_policies_are_told_where_the_known_ones_are_given(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    assert load(path, spec_of, targets=["onnxruntime-cpu"], policies=["clip_release"]).policy == "clip_release"
    with pytest.raises(DocumentError) as caught:
        load(path, spec_of, targets=["onnxruntime-cuda"], policies=["clip_releases"])
    assert [(each.line, each.column, each.path, each.hint) for each in caught.value.problems] == [
        (10, 11, "targets[0]", "did you mean onnxruntime-cuda"),
        (11, 1, "policy", "did you mean clip_releases"),
    ]
    by_path = written(tmp_path, GOOD.replace("policy: clip_release", "policy: ./mine.yaml"))
    assert load(by_path, spec_of, policies=["other"]).policy == "./mine.yaml"


def test_overrides_change_what_is_there_and_add_what_the_schema_knows(tmp_path: Path) -> None:
    changes = ["steps.0.block=16", "seed=7", "name=other", "steps.1={use: quantize.round, bits: 8}", "steps.1.block=8"]
    recipe = load(written(tmp_path, GOOD), spec_of, changes)
    assert recipe.steps[0].spec.model_dump()["block"] == 16
    assert recipe.steps[1] == Step(use="quantize.round", spec=RoundSpec(bits=8, block=8))
    assert (recipe.seed, recipe.name) == (7, "other")
    assert load(tmp_path / "r.yaml", spec_of).steps[0].spec.model_dump()["block"] == 64


def test_overrides_are_checked_like_the_file(tmp_path: Path) -> None:
    changes = ("steps.0.blok=64", "steps.1.ratio=2", "data.calibration={samples: x}", "name=a/b")
    assert told(tmp_path, GOOD, *changes) == [
        "2:1 --set name: must be a name: 1 to 64 of a-z 0-9 _ . - that start with a letter or digit, without '..'",
        "5:17 --set data.calibration.source: is required",
        "5:53 --set data.calibration.samples: must be a whole number, not 'x'",
        "7:5 --set steps.0.blok: no such key (did you mean block)",
        "9:5 --set steps.1.ratio: must be at most 1.0, not 2",
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("step.0.block=1", "--set step.0.block: document has no 'step'\n  did you mean steps"),
        ("steps.2.block=1", "--set steps.2.block: steps has 2 entries, counted from 0"),
        ("steps.-1.block=1", "--set steps.-1.block: steps has 2 entries, counted from 0"),
        ("steps.x=1", "--set steps.x: steps has 2 entries, counted from 0"),
        ("name.x=1", "--set name.x: name is 'small_clip' and has no parts"),
        ("data.calib.samples=1", "--set data.calib.samples: data has no 'calib'\n  did you mean calibration"),
        ("seed", "--set seed: must be path=value\n  for example --set steps.0.block=64"),
        ("a..b=1", "--set a..b=1: must be path=value\n  for example --set steps.0.block=64"),
        ("seed=&a 1", "--set seed: anchors (&name) are not allowed\n  the value is read as YAML: '&a 1'"),
        ("seed=.nan", "--set seed: NaN and infinities are not allowed\n  the value is read as YAML: '.nan'"),
    ],
)
def test_an_override_of_what_is_not_there(setting: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(written(tmp_path, GOOD), spec_of, [setting])
    assert str(caught.value) == message


def test_recipes_are_found_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped" / "real").mkdir(parents=True)
    for name in ("int4_clip.yaml", "real/fashion_int8.yaml"):
        (tmp_path / "shipped" / name).write_text(GOOD)
    monkeypatch.setattr(loading, "bundled", lambda *parts: tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    shipped = tmp_path / "shipped"
    assert find_recipe("int4_clip") == find_recipe("int4_clip.yaml") == shipped / "int4_clip.yaml"
    assert find_recipe("real/fashion_int8") == shipped / "real" / "fashion_int8.yaml"
    assert load("int4_clip", spec_of).name == "small_clip"
    Path("int4_clip.yaml").write_text(GOOD)
    assert find_recipe("int4_clip.yaml") == Path("int4_clip.yaml")
    for name in ("../r", "x" * 5000, "a\0b", "", "real"):
        with pytest.raises(UsageError, match="no recipe"):
            find_recipe(name)
    with pytest.raises(UsageError, match="did you mean int4_clip"):
        find_recipe("int4_clp")


def test_paths_in_a_recipe_are_looked_for_beside_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = Path("here/r.yaml")
    assert locate("v.onnx", recipe) == Path("v.onnx")
    Path("here/v.onnx").touch()
    assert locate("v.onnx", recipe) == Path("here/v.onnx")


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12)
texts = texts.map(lambda text: text.replace("\ufeff", "-")).filter(str.strip) | st.sampled_from(
    ["1", "1e-3", "null", "true", "no", ".inf", ".nan", "-", "- a", "a: b", "#x", "2024-01-31", "~", "<<", "0x1", "'",
     "\\"]
)  # fmt: skip
names = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,9}", fullmatch=True).filter(lambda name: ".." not in name)
counts = st.integers(1, 2**31)
positive = st.floats(1e-300, 1e300)
channels = st.none() | st.tuples(positive, positive, positive)
selectors = st.builds(
    lambda tower, role, layer: tower + role + (layer if "." in role else ""),
    st.sampled_from(["", "vision:", "text:"]), st.sampled_from(ROLES), st.sampled_from(["", "@0", "@-1", "@11"]),
)  # fmt: skip
base = {
    "towers": st.sampled_from([("vision",), ("text",), ("text", "vision")]),
    "include": st.lists(selectors, unique=True, max_size=3).map(tuple),
    "exclude": st.lists(selectors, unique=True, max_size=3).map(tuple),
}
steps = st.one_of(
    st.builds(RoundSpec, block=counts, bits=st.sampled_from([4, 8]), search=st.sampled_from(["mse", "none"]), **base)
    .map(lambda spec: Step(use="quantize.round", spec=spec)),
    st.builds(PruneSpec, ratio=st.floats(0, 1), damping=st.none() | st.floats(-1e300, 1e300), note=texts, **base)
    .map(lambda spec: Step(use="prune.heads", spec=spec)),
)  # fmt: skip
images = st.builds(ImageInput, size=st.tuples(counts, counts), fit=st.sampled_from(["pad", "crop", "stretch"]),
                   divide=positive, mean=channels, std=channels, pad_value=st.integers(0, 255))  # fmt: skip
models = st.one_of(
    st.builds(NamedModel, source=st.just("owner/name"), revision=st.none() | texts, normalize=st.booleans()),
    st.builds(
        OnnxModel, source=st.just("onnx"), vision=texts, text=texts, logit_scale=st.none() | positive,
        preprocess=st.builds(Preprocess, image=images, text=st.one_of(
            st.builds(ByteText, tokenizer=st.just("bytes"), length=counts, start=st.integers(0, 9)),
            st.builds(TokenizerText, tokenizer=texts.filter(lambda text: text != "bytes"), length=counts),
        )),
    ),
)  # fmt: skip
commits = st.text("0123456789abcdef", min_size=40, max_size=40)
sources = st.builds(
    DataSource, source=st.just("owner/set"), revision=commits, split=st.none() | texts, samples=st.none() | counts,
    kind=st.none() | names, columns=st.none() | st.builds(Columns, image=texts, label=st.none() | texts),
)  # fmt: skip
recipes = st.builds(
    Recipe, version=st.just(1), name=names, description=st.none() | texts, model=models,
    data=st.dictionaries(names, sources, max_size=2), steps=st.lists(steps, max_size=3).map(tuple),
    targets=st.lists(names, min_size=1, max_size=3, unique=True).map(tuple), policy=st.just("none"), reason=texts,
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes)
def test_a_dumped_recipe_loads_to_an_equal_one(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump(recipe), encoding="utf-8")
    again = load(path, spec_of)
    assert again == recipe
    assert again.digest == recipe.digest
    assert dump(again) == dump(recipe)
    assert YAML(typ="safe", pure=True).load(path.read_text("utf-8")) == recipe.resolved()


def test_a_dumped_recipe_shows_all_defaults_and_quotes_what_a_reader_may_take_for_something_else(
    tmp_path: Path,
) -> None:
    text = """\
version: 1
name: x
description: "1_000"
model: {source: pocket-clip}
steps: [{use: prune.heads, ratio: 1, damping: null, note: "no"}]
targets: [torch]
policy: none
reason: "12:30"
"""
    assert (
        dump(load(written(tmp_path, text), spec_of))
        == """\
version: 1
name: x
description: "1_000"
model:
  source: pocket-clip
  allow_pickle: false
  normalize: true
data: {}
targets:
- torch
policy: none
reason: "12:30"
seed: 0
steps:
- use: prune.heads
  towers:
  - vision
  - text
  include: []
  exclude: []
  ratio: 1.0
  damping:
  note: "no"
"""
    )


def test_the_digest_is_about_what_is_meant(tmp_path: Path) -> None:
    one = load(written(tmp_path, GOOD), spec_of)
    same = load(written(tmp_path, "# why\n" + GOOD.replace("1e-1", "0.10") + "seed: 0\n"), spec_of)
    other = load(written(tmp_path, GOOD), spec_of, ["seed=1"])
    assert one.digest == same.digest != other.digest
