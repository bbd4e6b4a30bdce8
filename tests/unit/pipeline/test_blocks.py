"""A run on a model larger than memory goes on in the middle of a step, and only where nothing has changed."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_towers
from referred import referring

from compress.models.external_data import save
from compress.pipeline.blocks import Blocks
from compress.steps.quantize import gptq, int4_rtn, int8_rtn
from compress.steps.step import Context
from compress.targets.onnxruntime_cpu import fused

FOLLOWS = {"recipe": "a", "model": "b", "calibration data": None, "numpy": "2"}


class Killed(BaseException):
    """What ends a run where nothing can be tidied up."""


class Said:
    """Progress that remembers."""

    def __init__(self):
        self.lines = []

    def track(self, items, what, total=None):
        yield from items

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def encoder(tmp_path):
    held = tiny_towers.encoder(tmp_path)
    towers = {kind: referring(tower, tmp_path / f"{kind}.safetensors") for kind, tower in held.towers.items()}
    return replace(held, towers=towers)


def started(folder, encoder, said, resume=False, follows=FOLLOWS):
    kept = Blocks(folder, follows, encoder, said)
    return kept, kept.start(resume), kept.context(Context(tiny_towers.feeds))


def written(encoder, folder):
    folder.mkdir()
    for kind, tower in encoder.towers.items():
        save(fused(tower), folder / kind)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupted(folder, encoder, method, spec, after):
    """A run that ends after so many weights."""
    kept, _, context = started(folder, encoder, Said())
    add = kept.add

    def last(row):
        add(row)
        last.left -= 1
        if not last.left:
            raise Killed

    last.left = after
    kept.add = last
    with pytest.raises(Killed):
        method.apply(encoder, spec, context)


@pytest.mark.parametrize(
    ("method", "after"), [(int4_rtn, 9), (gptq, 3)], ids=["without data", "with data, in the middle of a block"]
)
def test_what_was_interrupted_ends_with_the_same_bytes(tmp_path, encoder, method, after):
    spec = method.Spec(towers=("vision", "text") if method is int4_rtn else ("vision",))
    _, _, context = started(tmp_path / "whole", encoder, Said())
    report = method.apply(encoder, spec, context)
    expected = written(encoder, tmp_path / "expected")
    interrupted(tmp_path / "kept", encoder, method, spec, after)
    said = Said()
    kept, reports, context = started(tmp_path / "kept", encoder, said, resume=True)
    assert not reports
    assert said.lines == [f"resumed: {after} weights are done"]
    fresh = []
    add = kept.add
    kept.add = lambda row: (fresh.append(row), add(row))
    assert method.apply(encoder, spec, context) == report
    assert len(fresh) == len(report.rows) - after
    assert written(encoder, tmp_path / "made") == expected


@pytest.mark.parametrize("changed", FOLLOWS)
def test_another_model_recipe_or_data_starts_anew_and_says_so(tmp_path, encoder, changed):
    interrupted(tmp_path / "kept", encoder, int4_rtn, int4_rtn.Spec(), 4)
    said = Said()
    kept, _, _ = started(tmp_path / "kept", encoder, said, resume=True, follows={**FOLLOWS, changed: "other"})
    assert said.lines == [f"{changed} changed since the checkpoint; starting with the first block"]
    assert all(kept.row(tower, site.name) is None for tower in encoder.towers for site in encoder.towers[tower].sites)
    assert said.lines[1:] == []


def test_without_resume_nothing_is_taken_over(tmp_path, encoder):
    interrupted(tmp_path / "kept", encoder, int4_rtn, int4_rtn.Spec(), 4)
    said = Said()
    kept, _, _ = started(tmp_path / "kept", encoder, said)
    assert said.lines == []
    assert kept.row("vision", encoder.towers["vision"].sites[1].name) is None


def test_what_is_damaged_is_done_again(tmp_path, encoder):
    interrupted(tmp_path / "kept", encoder, int4_rtn, int4_rtn.Spec(), 4)
    one, *others = sorted((tmp_path / "kept" / "vision").glob("*.safetensors"))
    content = bytearray(one.read_bytes())
    content[-1] ^= 1
    one.write_bytes(content)
    seal = next((tmp_path / "kept" / "sealed0").glob(f"vision-{others[0].stem}.json"))
    seal.write_bytes(b"{")
    said = Said()
    _, _, context = started(tmp_path / "kept", encoder, said, resume=True)
    int4_rtn.apply(encoder, int4_rtn.Spec(), context)
    assert sum("is damaged" in line and "done again" in line for line in said.lines) == 2
    made = written(encoder, tmp_path / "made")
    started(tmp_path / "whole", encoder, Said())
    int4_rtn.apply(encoder, int4_rtn.Spec(), Context())
    assert made == written(encoder, tmp_path / "expected")


def test_finished_steps_are_not_run_again(tmp_path, encoder):
    kept, reports, context = started(tmp_path / "kept", encoder, Said())
    reports.append(int4_rtn.apply(encoder, int4_rtn.Spec(), context))
    kept.save(reports)
    spec = int8_rtn.Spec(include=("mlp.fc2", "embedding"))
    interrupted_at = [row.site for row in reports[0].rows]
    int8_rtn.apply(encoder, spec, context)  # fc2 is held at 8 bits now, and the step is not noted as finished
    kept, again, context = started(tmp_path / "kept", encoder, Said(), resume=True)
    assert again == reports
    assert [name for tower in encoder.towers.values() for name in tower.treatments] == interrupted_at
    assert len(int8_rtn.apply(encoder, spec, context).rows) == 3
    bits = {site.role: tower.treatments[site.name].bits for tower in encoder.towers.values() for site in tower.sites
            if site.name in tower.treatments}  # fmt: skip
    assert bits == {"attn.qkv": 4, "attn.out": 4, "mlp.fc1": 4, "mlp.fc2": 8, "projection": 4, "embedding": 8}


def test_progress_tells_blocks_rate_time_left_and_memory(tmp_path, encoder):
    said = Said()
    _, _, context = started(tmp_path / "kept", encoder, said)
    int4_rtn.apply(encoder, int4_rtn.Spec(), context)
    (line,) = said.lines  # of two blocks, one in each tower
    assert line.startswith("1 of 2 blocks done, ")
    assert "a minute" in line
    assert "minutes left, peak memory" in line
    assert np.isfinite(float(line.split("peak memory ")[1].split()[0]))
