"""What a candidate may be held against: ten steps, each against the one before, must not add up unseen."""

import pytest

from compress.core.errors import UsageError
from compress.data import runtime
from compress.pipeline.options import Options
from compress.pipeline.runnable import reference

RECIPE = """
version: 1
name: made
model: {source: pocket-clip}
steps: %s
targets: [onnxruntime-cpu]
policy: none
reason: only its recipe matters here
"""


@pytest.fixture
def artifact(tmp_path):
    """A folder that passes for an artifact, with the steps of its recipe."""

    def make(steps):
        (tmp_path / "compress").mkdir()
        (tmp_path / runtime.FILE).write_text("{}")
        (tmp_path / "compress" / "recipe.resolved.yaml").write_text(RECIPE % steps)
        return tmp_path

    return make


def test_a_compressed_artifact_is_no_reference(artifact):
    folder = artifact("[{use: quantize.int8_rtn}]")
    with pytest.raises(UsageError, match="compressed itself") as caught:
        reference(str(folder), Options())
    assert "pocket-clip" in caught.value.hint


def test_a_float_export_is_one(artifact):
    folder = artifact("[]")
    assert reference(str(folder), Options()) == folder
