"""Processes that `accelerate launch` starts beside the first one: they apply the steps and write nothing."""

import pytest
import tiny_towers

from compress.cli.running import options_of
from compress.core.errors import UsageError
from compress.core.progress import Silent
from compress.pipeline import run as story
from compress.pipeline.options import Options
from compress.recipe.rescue import Rescue
from compress.recipe.schema import Recipe
from compress.recipe.steps import Step
from compress.steps import spec_of

GIVEN = {"output": "out", "roots": (), "offline": True, "quiet": False, "key": None}


def recipe(folder):
    files = {kind: str(path) for kind, path in tiny_towers.write(folder).items()}
    preprocess = {"image": {"size": (8, 8)}, "text": {"tokenizer": "bytes", "length": 5}}
    step = Step(use="quantize.int4_rtn", spec=spec_of("quantize.int4_rtn")())
    return Recipe(
        version=1, name="r", model={"source": "onnx", **files, "preprocess": preprocess},
        targets=("onnxruntime-cpu",), policy="none", reason="a test", steps=(step,),
    )  # fmt: skip


def test_a_follower_applies_the_steps_and_writes_nothing(tmp_path, monkeypatch):
    applied = []
    steps = story.apply_steps

    def spied(*given):
        applied.append([report.use for report in steps(*given)])

    monkeypatch.setattr(story, "apply_steps", spied)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "towers").mkdir()
    told = recipe(tmp_path / "towers")
    story.follow(told, tmp_path / "r.yaml", Options(output=tmp_path / "out", follower=True))
    assert applied == [["quantize.int4_rtn"]]
    assert not (tmp_path / "out").exists()
    rescued = told.model_copy(update={"rescue": Rescue(max_size_ratio=0.9)})
    with pytest.raises(UsageError, match="in one process"):
        story.follow(rescued, tmp_path / "r.yaml", Options())


@pytest.mark.parametrize(("rank", "follower"), [(None, False), ("0", False), ("3", True)])
def test_the_rank_tells(monkeypatch, rank, follower):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("compress.cli.signing.signing_of", lambda given: None)
    found = options_of(GIVEN)
    assert found.follower is follower
    assert isinstance(found.progress, Silent) is follower
