"""Where a teacher runs changes nothing that it says: in a child, on the device, in shares over processes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_towers
import torch
from test_distill_training import Interrupting, Killed, Told, context, damaged, losses, spec

from compress.core.errors import UsageError
from compress.core.progress import Silent
from compress.data import child
from compress.models.tower import Tower
from compress.steps.distill import features
from compress.steps.distill._blocks import outputs
from compress.steps.distill._features import Features
from compress.steps.distill._placing import placed
from compress.steps.distill._processes import Processes
from compress.steps.distill._teachers import InChild, OnDevice

HERE = Path(__file__).resolve()
CPU = torch.device("cpu")


@pytest.fixture
def teacher(tmp_path):
    return tiny_towers.encoder(tmp_path, heads=4, blocks=3)


def asked(kind, lengths=(7, 5, 9)):
    """Batches of different sizes; texts of different lengths."""
    rng = np.random.default_rng(4)
    for at, length in enumerate(lengths):
        keys = np.arange(10 * at, 10 * at + 2 + at)
        if kind == "text":
            yield keys, {"input_ids": rng.integers(0, tiny_towers.VOCABULARY, (len(keys), length))}
        else:
            side = tiny_towers.SIDE
            yield keys, {"pixel_values": rng.normal(size=(len(keys), 3, side, side)).astype(np.float32)}


def not_finite(tower):
    """The tower with one weight that is no number."""
    graph = onnx.ModelProto()
    graph.CopyFrom(tower.graph)
    tensor = next(each for each in graph.graph.initializer if each.name == "projection.weight")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), tensor.name))
    return Tower(tower.kind, graph, tower.sites, tower.inputs, tower.output)


@pytest.mark.parametrize("kind", ["vision", "text"])
def test_on_the_device_it_says_what_it_says_in_a_child(teacher, tmp_path, kind):
    tower = teacher.towers[kind]
    blocks, batches = outputs(tower)[1:], list(asked(kind))
    keys = np.concatenate([each for each, _ in batches])
    said = []
    for at, each in enumerate((InChild(tower, blocks), OnDevice(tower, blocks, CPU))):
        store = Features(each, tmp_path / f"{at}", Silent())
        store.fill(batches)
        said.append(store.get(keys))
    expected, found = said
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-5)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    assert len(found.blocks) == 2
    for own, other in zip(found.blocks, expected.blocks, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-3, atol=1e-3)
    shared = Features(InChild(tower, blocks), tmp_path / "1", Silent())  # one store for all places
    assert not len(shared.lacks(keys))


def test_a_training_with_the_teacher_on_the_device(teacher, tmp_path, monkeypatch):
    expected = losses(features.apply(damaged(teacher), spec(teacher="child"), context(teacher, tmp_path / "child")))
    default = losses(features.apply(damaged(teacher), spec(), context(teacher, tmp_path / "child")))
    np.testing.assert_array_equal(default, expected)
    monkeypatch.setattr(child, "run", lambda *_: pytest.fail("a child was asked"))
    told = spec(teacher="device")
    found = losses(features.apply(damaged(teacher), told, context(teacher, tmp_path / "device")))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    monkeypatch.setattr(OnDevice, "say", lambda *_: pytest.fail("the teacher was asked again"))
    again = losses(features.apply(damaged(teacher), told, context(teacher, tmp_path / "device")))
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_a_checkpoint_goes_on_with_another_place(teacher, tmp_path):
    cache, work = tmp_path / "cache", tmp_path / "work"
    before = context(teacher, cache, work=work, progress=Interrupting(4))
    with pytest.raises(Killed):
        features.apply(damaged(teacher), spec(checkpoint_minutes=1e-9), before)
    progress = Told()
    again = context(teacher, cache, work=work, resume=True, progress=progress)
    features.apply(damaged(teacher), spec(checkpoint_minutes=1e-9, teacher="device"), again)
    assert "resumed after 5 steps of training" in progress.lines


def test_weights_go_when_nobody_asks(teacher, tmp_path):
    each = OnDevice(teacher.towers["text"], (), CPU)
    store = Features(each, tmp_path, Silent())
    store.fill(list(asked("text")))
    store.turn()
    assert each._module is not None, "it was asked in the epoch that ended"
    store.turn()
    assert each._module is None


def test_what_is_no_number(teacher, tmp_path):
    store = Features(OnDevice(not_finite(teacher.towers["text"]), (), CPU), tmp_path / "store", Silent())
    with pytest.raises(UsageError, match="the teacher says NaN or infinity"):
        store.fill(list(asked("text")))
    assert not list((tmp_path / "store").iterdir())


def test_places_that_cannot_be(teacher, tmp_path):
    with pytest.raises(ValueError, match="teacher"):
        spec(teacher="cloud")
    with pytest.raises(UsageError, match="one process has nobody to share"):
        features.apply(damaged(teacher), spec(teacher="sharded"), context(teacher, tmp_path))
    tower = teacher.towers["text"]
    tower.graph.graph.node[0].op_type = "Strange"
    with pytest.raises(UsageError, match="torch cannot run a text tower with Strange"):
        placed("device", {"text": (tower, ())}, Processes(), Silent())


class Many(Processes):
    """As many processes that all say the same."""

    def of_all(self, value):
        return [value] * self.world


WEIGHTS = 39936
"""Numbers in the text tower of three blocks, counted by hand: see `test_in_two_processes`."""


@pytest.mark.parametrize(
    ("device", "free", "world", "expected"),
    [
        ("cpu", 1 << 40, 1, "InChild"),
        ("cpu", 1 << 40, 2, "InChild"),
        ("cuda", 10 * WEIGHTS, 2, "OnDevice"),
        ("cuda", 10 * WEIGHTS, 1, "OnDevice"),
        ("cuda", 7 * WEIGHTS, 2, "Sharded"),
        ("cuda", 7 * WEIGHTS, 1, "InChild"),
        ("cuda", 3 * WEIGHTS, 2, "InChild"),
    ],
)
def test_where_it_fits(teacher, monkeypatch, device, free, world, expected):
    """A teacher of 4 bytes a weight may take half of what is free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 1 << 40))
    progress, tower = Told(), teacher.towers["text"]
    made = placed("auto", {"text": (tower, ())}, Many(0, world, torch.device(device)), progress)
    assert type(made["text"]).__name__ == expected
    assert bool(progress.lines) == (expected != "InChild")
    tower.graph.graph.node[0].op_type = "Strange"
    made = placed("auto", {"text": (tower, ())}, Many(0, world, torch.device(device)), progress)
    assert type(made["text"]) is InChild


SCRIPT = """
import json, shutil, sys
sys.path[:0] = {paths!r}
from datetime import timedelta
from pathlib import Path
import numpy as np, tiny_towers
import torch.distributed as dist
from test_distill_teachers import asked, not_finite
from test_distill_training import context, damaged, losses, spec
from compress.core.progress import Silent
from compress.steps.distill import features
from compress.steps.distill._blocks import outputs
from compress.steps.distill._features import Features
from compress.steps.distill._processes import Processes, leave
from compress.steps.distill._sharded import Sharded
from compress.steps.distill._teachers import OnDevice

dist.init_process_group("gloo", timeout=timedelta(seconds=300))  # what hangs ends
rank = dist.get_rank()
own = Path({folder!r}) / f"process-{{rank}}"
(own / "model").mkdir(parents=True)
teacher = tiny_towers.encoder(own / "model", heads=4, blocks=3)
told = {{}}

def trained(name, cache):
    weights = features.Weights(affinity=0.5, bank=0.5)
    options = spec(steps=6, teacher=name, losses=weights, held_out=0.25, bank_size=16)
    report = features.apply(damaged(teacher), options, context(teacher, own / cache))
    return losses(report).tolist(), losses(report, "held-out loss").tolist()

told["child"] = trained("child", "a")
told["sharded"] = trained("sharded", "b")
if rank == 1:
    shutil.rmtree(own / "a")  # the first process has everything, the second nothing
told["half"] = trained("sharded", "a")
told["again"] = trained("sharded", "a")

tower, processes = teacher.towers["text"], Processes(rank, 2)
mine = list(asked("text"))[:2] if rank else list(asked("text"))[2:]  # two batches in one process, one in the other
keys = np.concatenate([each for each, _ in mine])
shares = Sharded(tower, outputs(tower), processes)
said = []
for at, each in enumerate((shares, OnDevice(tower, outputs(tower), processes.device))):
    store = Features(each, own / f"store{{at}}", Silent())
    store.fill(mine)
    said.append(store.get(keys))
told["apart"] = float(np.abs(said[0].embeddings - said[1].embeddings).max())
told["blocks"] = [float(np.abs(a - b).max()) for a, b in zip(said[0].blocks, said[1].blocks, strict=True)]
weights = [weight for part in shares.parts for weight in part.module.parameters()]
told["held"] = sum(weight.to_local().numel() for weight in weights)
told["whole"] = sum(weight.numel() for weight in weights)

def ended(each, feeds):
    try:
        Features(each, own / "store2", Silent()).fill(feeds)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""

told["nan"] = ended(Sharded(not_finite(tower), (), processes), mine if rank else [])
wrong = [(keys, {{"input_ids": np.full((len(keys), 7), 10**6)}})] if rank else mine  # no such token
told["wrong"] = ended(Sharded(tower, (), processes), wrong)
del shares, weights, each, store  # what knows the group
leave()
names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
told["threads"] = [name for name in names if "gloo" in name]
(own / "told").write_text(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_two_processes(tmp_path):
    """The same curve as with children, half of the weights in each, and nobody waits for the other for ever."""
    made = tmp_path / "two.py"
    made.write_text(SCRIPT.format(paths=[str(HERE.parent), str(HERE.parents[1])], folder=str(tmp_path)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*launch, str(made)], check=True, timeout=590)
    first, second = (json.loads((tmp_path / f"process-{rank}" / "told").read_text()) for rank in (0, 1))
    for name in ("sharded", "half", "again"):
        for found, expected in zip(first[name], first["child"], strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4)
        assert second[name] == first[name]
    for told in (first, second):
        assert told["threads"] == []  # they may abort a process that ends
        assert told["apart"] < 1e-5
        assert len(told["blocks"]) == 3
        assert max(told["blocks"]) < 1e-2
        assert told["whole"] == WEIGHTS
        assert abs(told["held"] - WEIGHTS / 2) < 0.05 * WEIGHTS
        assert told["nan"][0] == "UsageError"
        assert "the teacher says NaN or infinity" in told["nan"][1]
    assert first["held"] + second["held"] == WEIGHTS
    assert second["wrong"][0] not in ("", "CompressError"), "its own error"
    assert first["wrong"][0] == "CompressError"
    assert first["wrong"][1].startswith(f"process 1: {second['wrong'][0]}")
