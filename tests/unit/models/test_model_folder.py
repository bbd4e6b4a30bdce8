"""What a model folder must hold, what is refused, and how long the hub is waited for."""

import json
import time

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from compress.core.errors import EnvironmentFailure, UsageError
from compress.core.names import bundled
from compress.models import source as sources
from compress.models.source import Access, check_folder, locate

OFFLINE = Access(offline=True)


def folder(path, *files, index=None):
    """A folder with empty files; `index` becomes the weight map of the safetensors index."""
    for name in files:
        (path / name).write_text("{}")
    if index is not None:
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return path


def test_the_embedded_model():
    assert locate("pocket-clip", OFFLINE) == bundled("pocket_clip")


def test_a_folder(tmp_path):
    assert locate(str(tmp_path), OFFLINE) == tmp_path


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", "owner/../name", "", "a b"])
def test_what_is_neither_a_folder_nor_an_id(source):
    with pytest.raises(UsageError, match="no such model folder"):
        locate(source, OFFLINE)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="no such model folder"):
        locate(str(tmp_path / "model.onnx"), OFFLINE)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "there is no config.json"),
        (["model.safetensors"], "there is no config.json"),
        (["config.json"], "no weights in the model folder; looked for model.safetensors"),
        (["config.json", "pytorch_model.bin"], r"pickled \(pytorch_model.bin\), which can run code"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_folders_that_lack_something(tmp_path, files, said):
    with pytest.raises(UsageError, match=said):
        check_folder(folder(tmp_path, *files), OFFLINE)


def test_pickles_only_when_allowed_and_safetensors_before_them(tmp_path):
    allowed = Access(allow_pickle=True)
    folder(tmp_path, "config.json", "pytorch_model.bin")
    assert check_folder(tmp_path, allowed) == {"use_safetensors": False, "weights_only": True}
    folder(tmp_path, "model.safetensors")
    assert check_folder(tmp_path, allowed) == {"use_safetensors": True}


def test_shards(tmp_path):
    index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    folder(tmp_path, "config.json", *index.values(), index=index)
    assert check_folder(tmp_path, OFFLINE) == {"use_safetensors": True}
    (tmp_path / index["b"]).unlink()
    with pytest.raises(UsageError, match=r"'model-00002-of-00002\.safetensors' are missing"):
        check_folder(tmp_path, OFFLINE)


@pytest.mark.parametrize(
    "shard",
    [
        "../model.safetensors",
        "/tmp/model.safetensors",
        "pytorch_model.bin",
        "a/b.safetensors",
        "",
        ".",
        "x.safetensors\0.bin",
    ],
)
def test_an_index_that_points_elsewhere(tmp_path, shard):
    with pytest.raises(UsageError, match=r"no \.safetensors file here"):
        check_folder(folder(tmp_path, "config.json", "pytorch_model.bin", index={"a": shard}), OFFLINE)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": [1]}}', "\xff"])
def test_an_index_that_is_none(tmp_path, content):
    folder(tmp_path, "config.json")
    (tmp_path / "model.safetensors.index.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match="index of the weights"):
        check_folder(tmp_path, OFFLINE)


# ---------------------------------------------------------------- the hub, which no test reaches


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_network(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)


def is_out_of_reach(access):
    began = time.monotonic()
    with pytest.raises(EnvironmentFailure) as caught:
        locate("owner/name", access)
    assert time.monotonic() - began < 20
    for name in ("config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"):
        assert name in caught.value.what
    assert "point --model at a folder" in caught.value.hint
    return caught.value.what


def test_offline():
    told = is_out_of_reach(Access(revision="abc", offline=True))
    assert told.startswith("--offline was given")
    assert told.endswith("at revision abc")
    assert "pytorch_model" not in told


def test_no_network(no_network):
    told = is_out_of_reach(Access(allow_pickle=True))
    assert told.startswith("the hub cannot be reached")
    assert "pytorch_model.bin" in told


def test_without_an_answer_the_cache_is_asked_and_nothing_else(no_network, monkeypatch, tmp_path):
    asked = []

    def download(source, **options):
        asked.append(options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert locate("owner/name", Access(revision="main")) == tmp_path
    assert asked[0]["local_files_only"] is True
    assert asked[0]["revision"] == "main"
    assert asked[0]["etag_timeout"] == sources.TIMEOUT
    assert not any("bin" in name for name in asked[0]["allow_patterns"])


def test_with_an_answer_it_is_downloaded(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, **options: asked.append(options))
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda _, **options: asked.append(options) or str(tmp_path)
    )
    assert locate("owner/name", Access()) == tmp_path
    assert asked[0]["timeout"] == sources.TIMEOUT
    assert asked[1]["local_files_only"] is False


def test_an_id_that_cannot_be(monkeypatch):
    def fail(*_, **__):
        raise HFValidationError("Repo id must not have '--'")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(UsageError, match="Repo id must not"):
        locate("owner/na--me", Access())


def test_whatever_the_client_raises(no_network, monkeypatch):
    for error in (RuntimeError("new in the next version"), LocalEntryNotFoundError("nothing")):

        def fail(*_, _error=error, **__):
            raise _error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        is_out_of_reach(Access())


@pytest.mark.slow
def test_a_hub_that_never_answers(monkeypatch):
    """A socket that accepts and says nothing: the wait is the one that was set, not the client's minutes."""
    import socket

    silent = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(sources, "TIMEOUT", 1.0)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with silent:
        is_out_of_reach(Access())
