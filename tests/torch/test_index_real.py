"""The two indexes on embeddings of a published encoder and photos of products."""

import shutil

import numpy as np
import pytest

from compress.data import runtime
from compress.data.child import Limits
from compress.data.items import Request
from compress.data.runtime import Plain, PlainImage, PlainText, Runtime, TowerFile, Towers
from compress.evals import index
from compress.evals import task as tasks
from compress.evals.encode import How, Job, encode
from compress.evals.ranking import unit


@pytest.mark.real
@pytest.mark.skipif(index.name() == index.EXACT, reason="needs the extra [index]: pymilvus and milvus-lite")
def test_the_indexes_agree_on_photos(real_data, tmp_path):
    files = {}
    (tmp_path / "onnx").mkdir()
    for tower, file, given, made in (
        ("vision", "image_encoder", "pixel_values", "image_embeds"),
        ("text", "text_encoder", "input_ids", "text_embeds"),
    ):
        shutil.copyfile(real_data / "models" / "mira_clip" / f"{file}.onnx", tmp_path / "onnx" / f"{tower}.onnx")
        files[tower] = TowerFile(file=f"onnx/{tower}.onnx", input=given, output=made)
    plain = Plain(image=PlainImage(size=(80, 80)), text=PlainText(tokenizer="bytes", length=32))
    runtime.write(
        tmp_path, Runtime(target="onnxruntime-cpu", towers=Towers(**files), preprocess=plain, logit_scale=10.0)
    )
    task, request = tasks.find("fashion_cross_index"), Request(items=150, roots=(real_data,))
    job = Job(task, request, task.load(request))
    found = encode(tmp_path, {"task": job}, How(limits=Limits(seconds=200)))["task"]
    gallery, views, names = unit(found.images[:150]), unit(found.images[150:]), unit(found.texts)
    ours, theirs = (index.neighbours([gallery], [views, names], 11, which) for which in (index.EXACT, "milvus"))
    right = []
    for ids in (ours[0][0], theirs[0][0]):
        right.append(index.recall(gallery, views, ids, np.eye(150, dtype=bool), 1))
    np.testing.assert_array_equal(*right)
    assert right[0].mean() > 0.1  # chance is 1 in 150; this encoder tells kinds of products, not products
    for one, other in zip(ours[0], theirs[0], strict=True):
        assert (one == other).mean() > 0.99  # photos that are listed twice are equally near
