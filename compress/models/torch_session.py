"""A tower of a Hugging Face folder in torch, with the face of an ONNX Runtime session: what goes in, what comes out.

Weights come from safetensors and from nowhere else. Found by name from `data/session.py`, in a child process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.core.errors import CompressError, IntegrityError
from compress.data import runtime
from compress.models import bnb_weights, structure
from compress.models.families.family import TowerParts
from compress.models.loading import family_of


@dataclass(frozen=True, slots=True)
class Value:
    """Name, shape and type of an input or output; a text in the shape is an axis of any length."""

    name: str
    shape: tuple[int | str, ...]
    type: str


class TorchTower:
    """One tower. Called as an `InferenceSession` is."""

    def __init__(self, module: Any, parts: TowerParts, inputs: Sequence[Value]) -> None:
        self._module, self._parts, self._inputs = module, parts, tuple(inputs)

    def get_inputs(self) -> tuple[Value, ...]:
        """What it takes."""
        return self._inputs

    def get_outputs(self) -> tuple[Value, ...]:
        """What it gives."""
        return (Value(self._parts.output, ("batch", "width"), "tensor(float)"),)

    def run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Embeddings, (batch, width)."""
        import torch

        if list(outputs) != [self._parts.output]:
            raise CompressError(f"this tower gives {self._parts.output}, not {', '.join(outputs)}")
        with torch.inference_mode():
            made = self._module(*(torch.from_numpy(np.array(feed[name])) for name in self._parts.inputs))
        return [made[0].float().numpy()]


def open_tower(folder: Path, name: str, threads: int) -> TorchTower:
    """The tower whose shard has this name. Raises IntegrityError for weights that are not those of its config."""
    import torch
    import transformers

    from compress.models.torch_export import TowerWrapper

    torch.set_num_threads(threads or torch.get_num_threads())
    told = runtime.read(folder)
    kind = "vision" if told.towers.vision is not None and told.towers.vision.file == name else "text"
    architecture = json.loads((folder / "config.json").read_bytes())["architectures"][0]
    family = family_of(architecture, folder)
    made = getattr(transformers, architecture)
    config = made.config_class.from_pretrained(folder, local_files_only=True, attn_implementation="eager")
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # its layers are put in below, which also serves pruned models
    with torch.no_grad():
        model = made(config)
        if (pruned := structure.read(folder)) is not None:
            model = structure.fitted(model, pruned)
        _load(model, folder)
    parts = family.towers[kind]
    module = TowerWrapper(model.eval(), parts, told.normalized).eval()
    return TorchTower(module, parts, _inputs(parts, getattr(model, parts.body).config, kind))


def _load(model: Any, folder: Path) -> None:
    from safetensors.torch import load_file

    told = runtime.read(folder).towers
    state: dict[str, Any] = {}
    for file in (told.vision, told.text):
        if file is not None:
            state |= load_file(folder / file.file)
    left = bnb_weights.put(model, state)
    try:
        lacking, unknown = model.load_state_dict(left, strict=False)
    except RuntimeError as error:
        raise IntegrityError(f"the weights do not fit the config: {error}", str(folder)) from error
    loaded = [name for name in lacking if not _from_bnb(name, state)]
    if loaded or unknown:
        raise IntegrityError(f"weights lack or are not known: {', '.join([*loaded, *unknown][:5])}", str(folder))


def _from_bnb(name: str, state: Mapping[str, Any]) -> bool:
    """Whether a parameter is one that a layer of bitsandbytes was given already."""
    module = name.rpartition(".")[0]
    return f"{module}.SCB" in state or any(each.startswith(f"{module}.weight.{bnb_weights.STATE}") for each in state)


def _inputs(parts: TowerParts, config: Any, kind: str) -> tuple[Value, ...]:
    if kind == "vision":
        side = config.image_size
        return (Value(parts.inputs[0], ("batch", 3, side, side), "tensor(float)"),)
    return tuple(Value(name, ("batch", "sequence"), "tensor(int64)") for name in parts.inputs)
