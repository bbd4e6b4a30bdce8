"""Encoding in a child process: the bytes that are there, on the provider asked for, within limits, or an error."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from compress.bench import latency, worker
from compress.core.errors import CompressError, EnvironmentFailure, IntegrityError, ResourceExhausted
from compress.data import runtime
from compress.data.child import Limits
from compress.data.items import Request
from compress.data.preprocess import open_preprocess
from compress.data.runtime import Plain, PlainImage, PlainText, Runtime, Session, TowerFile, Towers, Transformers
from compress.data.session import Encoder, bounded, check_files
from compress.evals import encode as encoding
from compress.evals import task as tasks
from compress.evals.encode import How, Job, encode
from compress.gates.outcomes import Unmeasured

WIDTH, SIDE, LENGTH = 5, 8, 12
LIMITS = Limits(seconds=120)


class Shown:
    """A progress display that counts."""

    def __init__(self):
        self.steps, self.total = 0, None

    def track(self, items, what, total=None):
        self.total = total
        for each in items:
            self.steps += 1
            yield each

    def say(self, line):
        pass


def weights(rows, seed):
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)


def graph(nodes, given, made, held):
    """A small model; initializers by name."""
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "tower", [given], [made], tensors), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def vision(extra=(), name="flat", batch="batch"):
    given = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    made = helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, [batch, WIDTH])
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"]), *extra,
        helper.make_node("MatMul", [name, "w"], ["image_embeds"]),
    ]  # fmt: skip
    return graph(nodes, given, made, {"w": weights(3 * SIDE * SIDE, 0)})


def text():
    given = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", LENGTH])
    made = helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["batch", WIDTH])
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["ids", "w"], ["text_embeds"]),
    ]
    return graph(nodes, given, made, {"w": weights(LENGTH, 1)})


TEXT = TowerFile(file="onnx/text_model.onnx", input="input_ids", output="text_embeds")
MADE = Runtime(
    target="onnxruntime-cpu",
    towers=Towers(
        vision=TowerFile(file="onnx/vision_model.onnx", input="pixel_values", output="image_embeds"), text=TEXT
    ),
    session=Session(intra_op_num_threads=1),
    preprocess=Plain(image=PlainImage(size=(SIDE, SIDE)), text=PlainText(tokenizer="bytes", length=LENGTH)),
    logit_scale=18.5,
)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    (made / "onnx").mkdir(parents=True)
    onnx.save(vision(), made / "onnx" / "vision_model.onnx")
    onnx.save(text(), made / "onnx" / "text_model.onnx")
    runtime.write(made, MADE)
    return made


def job(name="relations", items=40):
    task, request = tasks.find(name), Request(items=items)
    return Job(task, request, task.load(request))


def test_the_child_gives_what_the_arithmetic_gives(folder):
    shown, asked = Shown(), job()
    found = encode(folder, {"relations": asked}, How(batch=7, limits=LIMITS, progress=shown))["relations"]
    pixels = np.stack([np.asarray(image.resize((SIDE, SIDE), 3), np.float32) for image in asked.data.images]) / 255
    expected = pixels.transpose(0, 3, 1, 2).reshape(40, -1) @ weights(3 * SIDE * SIDE, 0)
    np.testing.assert_allclose(found.images, expected, rtol=1e-4)
    ids = np.zeros((len(asked.data.texts), LENGTH))
    for row, told in enumerate(asked.data.texts):
        raw = (b"\2" + told.encode() + b"\3")[:LENGTH]
        ids[row, : len(raw)] = list(raw)
    np.testing.assert_allclose(found.texts, ids @ weights(LENGTH, 1), rtol=1e-4)
    assert found.logit_scale == 18.5
    assert found.batch_cosine == pytest.approx(1, abs=1e-6)
    assert shown.steps == shown.total == 40 + len(asked.data.texts)


@pytest.mark.parametrize(("padding", "tokens"), [("longest", 5), ("max_length", 9)])
def test_the_shipped_processor_is_used(folder, padding, tokens):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPImageProcessorPil, CLIPProcessor, PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "b": 2}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", model_max_length=9)
    side = {"height": SIDE, "width": SIDE}
    image = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    CLIPProcessor(image, tokenizer).save_pretrained(folder)
    made = open_preprocess(folder, MADE.model_copy(update={"preprocess": Transformers(padding=padding)}))
    ids, mask = made.texts(["a b a b b", "b"])
    assert (ids.shape, mask[1].tolist()) == ((2, tokens), [1] + [0] * (tokens - 1))
    assert made.texts(["a b a b b", "b"], LENGTH)[0].shape == (2, LENGTH)
    pixels = made.images([Image.new("L", (20, 30), 255), Image.new("RGB", (9, 9))])
    assert pixels.shape == (2, 3, SIDE, SIDE)
    np.testing.assert_allclose(pixels[:, :, 4, 4], [[1, 1, 1], [-1, -1, -1]])
    runtime.write(folder, MADE.model_copy(update={"preprocess": Transformers()}))
    found = encode(folder, {"relations": job()}, How(limits=replace(Limits.of_machine(), seconds=120)))["relations"]
    assert found.images.shape == (40, WIDTH)


def test_several_jobs_and_their_measures(folder):
    jobs = {"a": job("pins", 20), "b": job("parity", 20)}
    found = encode(folder, jobs, How(limits=LIMITS))
    measured = jobs["b"].task.measure(jobs["b"].data, found["b"], found["b"])
    assert set(measured) == set(jobs["b"].task.spec.metrics)
    assert measured["p1_cosine"].value == pytest.approx(1)
    assert measured["flips"].value == 0
    assert measured["neighbour_overlap"].value == 1


def test_a_tower_that_mixes_its_batch_is_seen(folder):
    mixing = [
        helper.make_node("ReduceMax", ["flat"], ["most"], axes=[0], keepdims=1),
        helper.make_node("Add", ["flat", "most"], ["mixed"]),  # an item alone is itself twice, not nothing
    ]
    onnx.save(vision(mixing, "mixed"), folder / "onnx" / "vision_model.onnx")
    encoder = Encoder(folder)
    images = list(job().data.images)
    assert not np.allclose(encoder.images(images)[:1], encoder.images(images[:1]))
    found = encode(folder, {"relations": job()}, How(limits=LIMITS))["relations"]
    assert found.batch_cosine < 0.999


def test_a_fixed_batch_is_filled_up(folder):
    free = Encoder(folder).images(list(job().data.images)[:7])
    onnx.save(vision(batch=3), folder / "onnx" / "vision_model.onnx")
    np.testing.assert_allclose(Encoder(folder).images(list(job().data.images)[:7]), free, rtol=1e-5)


def test_one_tower_alone(folder):
    alone = MADE.model_copy(update={"towers": Towers(vision=MADE.towers.vision)})
    runtime.write(folder, alone)
    asked = job("parity", 20)
    found = encode(folder, {"parity": asked}, How(limits=LIMITS))["parity"]
    assert found.texts.shape == (len(asked.data.texts), 0)
    measured = asked.task.measure(asked.data, found, found)
    assert {"text_cosine", "flips"} == set(asked.task.spec.metrics) - set(measured)


def test_a_provider_that_is_not_here(folder):
    session = Session(providers=("CUDAExecutionProvider",))
    runtime.write(folder, MADE.model_copy(update={"session": session}))
    with pytest.raises(EnvironmentFailure, match="CUDAExecutionProvider"):
        encode(folder, {"relations": job()}, How(limits=LIMITS))


def test_time_runs_out(folder):
    with pytest.raises(ResourceExhausted, match=r"not done after 0\.05 s"):
        encode(folder, {"relations": job()}, How(limits=Limits(seconds=0.05)))


def test_memory_runs_out(folder):
    hungry = [
        helper.make_node("Constant", [], ["big"], value=numpy_helper.from_array(np.array([1 << 18, 1 << 18]), "big")),
        helper.make_node("ConstantOfShape", ["big"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["flat", "zero"], ["more"]),
    ]  # a few bytes that ask for 256 GB
    onnx.save(vision(hungry, "more"), folder / "onnx" / "vision_model.onnx")
    with pytest.raises(ResourceExhausted):
        encode(folder, {"relations": job()}, How(limits=replace(Limits.of_machine(), seconds=120)))


def test_a_job_that_breaks_is_told_and_the_others_are_done(folder):
    broken = job("pins", 10)
    broken = Job(broken.task, Request(items=10, seed=-1), broken.data)
    found = encode(folder, {"broken": broken, "relations": job()}, How(limits=LIMITS))
    assert isinstance(found["broken"], Unmeasured)
    assert len(found["relations"].images) == 40


def test_data_that_change_in_between(folder):
    asked = job("pins", 10)
    with pytest.raises(IntegrityError, match="not those that were loaded before"):
        encode(folder, {"pins": Job(asked.task, Request(items=10, seed=1), asked.data)}, How(limits=LIMITS))


@pytest.mark.parametrize("content", [b"", b"\0" * 72, b"onnx", None], ids=["empty", "zeros", "text", "truncated"])
def test_what_is_no_model(folder, content):
    path = folder / "onnx" / "vision_model.onnx"
    path.write_bytes(path.read_bytes()[:-700] if content is None else content)
    with pytest.raises(CompressError):
        encode(folder, {"relations": job()}, How(limits=LIMITS))


def _external(folder, location):
    model = vision()
    held = model.graph.initializer[0]
    content, held.data_location = held.raw_data, TensorProto.EXTERNAL
    held.ClearField("raw_data")
    held.external_data.add(key="location", value=location)
    (folder / "onnx" / "vision_model.onnx").write_bytes(model.SerializeToString())
    return content


def test_external_data_beside_the_model_are_read(folder):
    before = Encoder(folder).images(list(job().data.images)[:2])
    (folder / "onnx" / "w.bin").write_bytes(_external(folder, "w.bin"))
    np.testing.assert_array_equal(Encoder(folder).images(list(job().data.images)[:2]), before)


@pytest.mark.parametrize("location", ["../../secret", "/etc/hostname", "w\0.bin", "..\\secret", "missing.bin", "onnx"])
def test_external_data_elsewhere_are_refused(folder, location):
    (folder.parent / "secret").write_bytes(_external(folder, location))
    with pytest.raises(IntegrityError):
        encode(folder, {"relations": job()}, How(limits=LIMITS))


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("which", ["w.bin", "vision_model.onnx"])
def test_links_are_refused(folder, link, which):
    (folder / "onnx" / "w.bin").write_bytes(_external(folder, "w.bin"))
    path, outside = folder / "onnx" / which, folder.parent / "outside"
    path.rename(outside)
    link(outside, path)
    with pytest.raises(IntegrityError, match=r"link|one name"):
        check_files(folder, "onnx/vision_model.onnx")


def test_external_data_of_a_subgraph_are_found(folder):
    inner = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["out"])], "inner", [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])], [numpy_helper.from_array(np.ones(1, "f"), "c")],
    )  # fmt: skip
    inner.initializer[0].data_location = TensorProto.EXTERNAL
    inner.initializer[0].external_data.add(key="location", value="/etc/hostname")
    model = vision()
    model.graph.node.append(helper.make_node("If", ["flat"], ["never"], then_branch=inner, else_branch=inner))
    (folder / "onnx" / "vision_model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(IntegrityError, match="outside"):
        check_files(folder, "onnx/vision_model.onnx")


def test_embeddings_are_kept_and_only_used_for_the_same_bytes(folder, tmp_path, monkeypatch):
    calls = []
    real = encoding.child.started
    monkeypatch.setattr(encoding.child, "started", lambda *args: calls.append(1) or real(*args))
    how = How(limits=LIMITS, cache=tmp_path / "cache")
    first = encode(folder, {"relations": job()}, how)["relations"]
    again = encode(folder, {"relations": job()}, how)["relations"]
    np.testing.assert_array_equal(first.images, again.images)
    assert len(calls) == 1
    stored = next((tmp_path / "cache").glob("*.npz"))
    stored.write_bytes(stored.read_bytes()[:-1])
    np.testing.assert_array_equal(encode(folder, {"relations": job()}, how)["relations"].texts, first.texts)
    assert len(calls) == 2
    model = onnx.load(folder / "onnx" / "vision_model.onnx")
    model.producer_name = "other"
    onnx.save(model, folder / "onnx" / "vision_model.onnx")
    encode(folder, {"relations": job()}, how)
    assert len(calls) == 3


def test_the_hash_seed_changes_nothing():
    code = (
        "from compress.evals import task as t; from compress.data.items import Request as R;"
        "print([t.find(n).load(R(items=12)).digest for n in ('reading', 'parity', 'retrieval', 'zero_shot')])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(told) == 1


def test_nothing_of_the_working_directory_is_imported(folder, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert encode(folder, {"relations": job()}, How(limits=LIMITS))["relations"].images.shape == (40, WIDTH)


def test_threads_rest_where_others_are_timed_beside(folder):
    """Sessions that are timed in turn, and no others."""
    asked = [each.text._session.get_session_options() for each in (worker._encoder(str(folder), 1), Encoder(folder))]
    assert asked[0].get_session_config_entry("session.intra_op.allow_spinning") == "0"
    with pytest.raises(RuntimeError, match="allow_spinning"):
        asked[1].get_session_config_entry("session.intra_op.allow_spinning")


def test_paired_latency(folder):
    plan = latency.Plan(batches=(1, 3), pairs=3, repeats=2, warm_up=1, threads=1, limits=LIMITS)
    found = latency.measure(folder, folder, plan)
    assert [(row.tower, row.batch) for row in found.rows] == [("vision", 1), ("text", 1), ("vision", 3), ("text", 3)]
    for row in found.rows:
        assert len(row.reference) == len(row.candidate) == 3
        assert row.ratio.low <= row.ratio.value <= row.ratio.high
    assert found.scores().keys() == {
        "latency.ratio", "latency.vision_ratio", "latency.text_ratio", "memory.ratio", "memory.peak",
    }  # fmt: skip
    assert min(found.reference_memory, found.candidate_memory) >= 0
    rows, memory = latency.measure_alone(folder, replace(plan, batches=(2,)))
    assert [(row.tower, row.batch, len(row.milliseconds)) for row in rows] == [("vision", 2, 3), ("text", 2, 3)]
    assert memory >= 0


def test_long_texts_are_as_long_as_the_tower_takes(folder):
    items = SimpleNamespace(images=[Image.new("RGB", (SIDE, SIDE))] * 3, captions=(("ab", "other"), ("cat",), ("d",)))
    encoder = worker._encoder(str(folder), 1)
    asked = {"long": False, "towers": ("vision", "text")}
    usual, long = (worker._calls(encoder, items, 3, {**asked, "long": long}) for long in (False, True))
    assert usual.keys() == long.keys() == {"vision", "text"}
    few, full = (np.count_nonzero(made["text"][1][encoder.text.file.input], axis=1) for made in (usual, long))
    assert few.tolist() == [4, 5, 3]  # two bytes and what stands before and behind them
    assert full.tolist() == [LENGTH] * 3
    assert long["text"][1][encoder.text.file.input][:, -1].tolist() == [3] * 3, "and end where they are full"
    assert worker._calls(encoder, items, 3, {**asked, "towers": ("text",)}).keys() == {"text"}
    plan = latency.Plan(batches=(2,), pairs=2, repeats=1, warm_up=1, threads=1, limits=LIMITS, towers=("vision",))
    assert [row["tower"] for row in latency.in_turn([folder], plan)] == ["vision"]


@pytest.mark.parametrize(("took", "calls"), [(0.5, 40), (4.0, 5), (500.0, 3), (0.0, worker.MOST)])
def test_short_calls_are_made_more_often(monkeypatch, took, calls):
    """As many as fill the milliseconds of a pair, the fewest that were asked for, and never without end."""
    made = []
    monkeypatch.setattr(worker, "_milliseconds", lambda call: made.append(call) or took)
    request = {"warm_up": 2, "repeats": 3, "milliseconds": 20.0, "pairs": 2}
    assert worker._alternate(["old", "new"], request, SimpleNamespace(done=lambda _: None)) == [[took, took]] * 2
    assert [made.count(side) for side in ("old", "new")] == [2 + 2 * calls] * 2


@pytest.mark.parametrize(("provider", "memory"), [("CPUExecutionProvider", 99), ("CUDAExecutionProvider", None)])
def test_only_a_processor_keeps_to_an_address_space(folder, provider, memory):
    runtime.write(folder, MADE.model_copy(update={"session": Session(providers=(provider,))}))
    assert bounded(Limits(5, 99), folder) == Limits(5, memory)


@pytest.mark.real
def test_a_published_encoder_scores_what_its_authors_say(folder):
    shelf = Path(__file__).parents[3] / "shared" / "data"
    if not (shelf / "fashion").is_dir():
        pytest.skip(f"no real data at {shelf}")
    for tower, file in (("vision", "image_encoder"), ("text", "text_encoder")):
        shutil.copyfile(shelf / "models" / "mira_clip" / f"{file}.onnx", folder / "onnx" / f"{tower}_model.onnx")
    plain = Plain(image=PlainImage(size=(80, 80)), text=PlainText(tokenizer="bytes", length=32))
    runtime.write(folder, MADE.model_copy(update={"preprocess": plain}))
    task, request = tasks.find("fashion_zero_shot"), Request(items=300, roots=(shelf,))
    asked = Job(task, request, task.load(request))
    found = encode(folder, {"task": asked}, How(limits=LIMITS))["task"]
    accuracy = task.measure(asked.data, found, found)["accuracy"].candidate.mean()
    assert accuracy == pytest.approx(0.89, abs=0.05)  # 45 classes, all 2,000 photos: 89 %
