"""Pickled weights that run code, configs that name code, and what is never passed on."""

import json
import os
import pickle
import re
from pathlib import Path

import pytest

import compress
from compress.core.errors import UsageError
from compress.models import loading
from compress.models.source import Access, check_folder

torch = pytest.importorskip("torch")

CONFIG = {
    "architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 8,
    "text_config": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
                    "vocab_size": 10, "max_position_embeddings": 8, "eos_token_id": 3},
    "vision_config": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
                      "image_size": 8, "patch_size": 8},
}  # fmt: skip


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, canary):
        self.command = f"touch {canary}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    return made


def weights():
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(
        CLIPConfig(**{key: CONFIG[key] for key in ("text_config", "vision_config", "projection_dim")})
    ).state_dict()


def load(folder, allowed):
    access = Access(offline=True, allow_pickle=allowed)
    return loading.pretrained("CLIPModel", folder, check_folder(folder, access))


def poisoned(folder, canary, how):
    """Put a bomb where weights are expected."""
    file = folder / "pytorch_model.bin"
    if how == "pickle":
        file.write_bytes(pickle.dumps(Bomb(canary)))
    elif how == "torch":
        torch.save({"logit_scale": Bomb(canary)}, file)
    elif how == "legacy":
        torch.save({"logit_scale": Bomb(canary)}, file, _use_new_zipfile_serialization=False)
    elif how == "shard":
        shard = folder / "pytorch_model-00001-of-00001.bin"
        torch.save({"logit_scale": Bomb(canary)}, shard)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"logit_scale": shard.name}}))
    elif how == "named safetensors":
        torch.save({"logit_scale": Bomb(canary)}, folder / "model.safetensors")
    elif how == "behind an index":
        torch.save({"logit_scale": Bomb(canary)}, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"logit_scale": file.name}}))
    elif how == "beside broken safetensors":
        torch.save({"logit_scale": Bomb(canary)}, file)
        (folder / "model.safetensors").write_bytes(b"\0" * 100)


def test_the_bomb_works(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize(
    "how", ["pickle", "torch", "legacy", "shard", "named safetensors", "behind an index", "beside broken safetensors"]
)
def test_a_bomb_never_goes_off(folder, tmp_path, how, allowed):
    canary = tmp_path / "canary"
    poisoned(folder, canary, how)
    with pytest.raises(UsageError) as caught:
        load(folder, allowed)
    assert not canary.exists()
    if not allowed and how in ("pickle", "torch", "legacy", "shard"):
        assert "can run code while loading" in caught.value.what
        assert "--allow-pickle" in caught.value.hint


def test_plain_pickled_weights_load_when_allowed_and_only_then(folder):
    torch.save(weights(), folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="pickled"):
        load(folder, False)
    asked = []
    real = torch.load

    def spy(*args, **options):
        asked.append(options.get("weights_only"))
        return real(*args, **options)

    torch.load = spy
    try:
        model = load(folder, True)
    finally:
        torch.load = real
    assert asked
    assert set(asked) == {True}
    assert model.logit_scale.dtype == torch.float32


def test_safetensors_are_taken_and_the_pickle_beside_them_is_not_opened(folder, tmp_path):
    from safetensors.torch import save_file

    save_file(weights(), folder / "model.safetensors", {"format": "pt"})
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "canary")))
    for allowed in (False, True):
        load(folder, allowed)
    assert not (tmp_path / "canary").exists()


def test_code_that_a_config_names_is_not_imported(folder, tmp_path):
    from safetensors.torch import save_file

    save_file(weights(), folder / "model.safetensors", {"format": "pt"})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    told = {**CONFIG, "auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(told))
    load(folder, True)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "name", ["os.system", "AutoModel", "pipeline", "__class__", "modeling_utils", "", "CLIPModel "]
)
def test_an_architecture_is_a_name_we_know(folder, name):
    with pytest.raises(UsageError, match="no model family"):
        loading.family_of(name, folder)


def test_no_line_of_the_package_trusts_remote_code():
    root = Path(compress.__file__).parent
    lines = [line for path in sorted(root.rglob("*.py")) for line in path.read_text().splitlines()]
    asked = [line for line in lines if "trust_remote_code" in line]
    assert all(re.search(r"trust_remote_code\W+False", line) for line in asked), asked
    unpickling = [
        line for line in lines if re.search(r"\b(pickle|joblib|dill)\b\.|torch\.load\(|allow_pickle=True", line)
    ]
    assert unpickling == []
