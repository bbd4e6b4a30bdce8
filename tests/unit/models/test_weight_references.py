"""Weights that are read when they are asked for, from the files of a model folder."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from referred import place, write_safetensors

from compress.core.errors import IntegrityError, UsageError
from compress.models import reference
from compress.models.graph import array
from compress.models.shards import header, open_shards

VALUES = np.array([[1.5, -2.0, 0.25], [3.0, 0.0, -0.5]], np.float32)


@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16], ids=["float32", "float16", "bfloat16"])
def test_what_is_read_is_what_was_written_as_float32(tmp_path, kind):
    made = reference.tensor("w", place(tmp_path / "w", 7, VALUES.astype(kind)))
    read = array(made)
    assert read.dtype == np.float32
    assert np.array_equal(read, VALUES)
    assert reference.nbytes(made) == VALUES.nbytes
    turned = reference.turned(made, "t")
    assert list(turned.dims) == [3, 2]
    assert np.array_equal(array(turned), VALUES.T)
    assert np.array_equal(array(reference.turned(turned, "w")), VALUES)
    assert array(made) is not read


def test_integers_keep_their_type(tmp_path):
    values = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert np.array_equal(array(reference.tensor("n", place(tmp_path / "n", 0, values))), values)
    half = place(tmp_path / "h", 0, VALUES.astype(np.float16))
    assert array(reference.tensor("h", half, widened=False)).dtype == np.float16


def test_a_file_that_became_shorter_or_went_away_is_no_weight(tmp_path):
    made = reference.tensor("w", place(tmp_path / "w", 4, VALUES))
    (tmp_path / "w").write_bytes(b"\0" * 20)
    with pytest.raises(IntegrityError, match="ends before"):
        array(made)
    (tmp_path / "w").unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        array(made)


def sharded(folder):
    """Two shards and their index."""
    write_safetensors(folder / "a.safetensors", {"one.weight": VALUES})
    write_safetensors(folder / "b.safetensors", {"two": VALUES[0].astype(ml_dtypes.bfloat16), "n": np.arange(2)})
    index = {"weight_map": {"one.weight": "a.safetensors", "two": "b.safetensors", "n": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_are_found_by_their_index(tmp_path):
    found = open_shards(sharded(tmp_path))
    assert [path.name for path in found.files] == ["a.safetensors", "b.safetensors"]
    assert found.parameters == 9
    assert found.weights["two"].shape == (3,)
    assert np.array_equal(array(reference.tensor("one", found.weights["one.weight"])), VALUES)


def test_the_digest_follows_every_byte(tmp_path):
    before = open_shards(sharded(tmp_path)).digest()
    assert open_shards(tmp_path).digest() == before
    content = bytearray((tmp_path / "a.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(content)
    assert open_shards(tmp_path).digest() != before


def test_a_missing_shard_is_named(tmp_path):
    (sharded(tmp_path) / "b.safetensors").unlink()
    with pytest.raises(UsageError, match=r"b\.safetensors.* missing"):
        open_shards(tmp_path)


def test_a_shard_that_lacks_what_the_index_promises_is_damaged(tmp_path):
    write_safetensors(sharded(tmp_path) / "b.safetensors", {"n": np.arange(2)})
    with pytest.raises(IntegrityError, match="lacks 'two'"):
        open_shards(tmp_path)


def told(**changes):
    """The header of one weight of 2 x 2, with its length before it."""
    head = json.dumps({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}}).encode()
    return struct.pack("<Q", len(head)) + head


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no safetensors"),
        (b"\xff" * 9, "header says"),
        (struct.pack("<Q", 2) + b"[]", "no safetensors"),
        (told() + b"\0" * 15, "cut off"),
        (told(data_offsets=[0, 15]) + b"\0" * 16, "not 15 bytes"),
        (told(dtype="XX2") + b"\0" * 16, "XX2"),
    ],
    ids=["empty", "header", "list", "short", "size", "type"],
)
def test_a_broken_file_is_told_apart(tmp_path, content, said):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError, match=said):
        header(tmp_path / "model.safetensors")
    with pytest.raises(IntegrityError):
        open_shards(tmp_path)


def test_a_folder_without_safetensors_cannot_be_streamed(tmp_path):
    with pytest.raises(UsageError, match="streamed"):
        open_shards(tmp_path)
