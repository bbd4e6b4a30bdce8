"""What a student is made of: the config and the weights of the recipe's model, of a source, or of a type's defaults."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from numpy.typing import NDArray

from compress.core.errors import UsageError
from compress.models import student_config
from compress.models.loading import pretrained
from compress.models.source import PICKLES, WEIGHTS, Access, check_folder, locate
from compress.models.tower import Encoder

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Base:
    """What a student is made of: the config of a tower, and a function that reads weights by name.

    `folder` is where a model of its own lies, None where it is the teacher or a config alone; `told` calls it.
    """

    config: Any
    weights: Callable[[], Weights]
    told: str
    folder: Path | None = None


def base_of(encoder: Encoder, kind: str, model_type: str | None) -> Base:
    """The recipe's own model as a base, or the defaults of another model type.

    Raises UsageError where the model came as ONNX and no type is named.
    """
    if encoder.origin is not None:
        whole = student_config.config_of(json.loads(encoder.files["config.json"]), encoder.source)
        own = student_config.tower_config(whole, kind)
        if model_type in (None, own.model_type):
            return Base(own, encoder.origin.weights, "the teacher")
    elif model_type is None:
        hint = "name a `source`, or a model type: config: {model_type: bert, ...}"
        raise UsageError(f"the {kind} tower came as ONNX and has no config to derive a student from", "config", hint)
    return Base(student_config.config_of({"model_type": model_type}, "config.model_type"), dict, "no weights")


def source_of(source: str, kind: str, access: Access) -> Base:
    """A model folder, or one that holds a config.json alone, or a hub id. No code of it is run, no pickle opened.

    Raises UsageError for what is none of these, and for a compressed artifact, whose calibration nobody would look at.
    """
    folder = locate(source, access)
    if (folder / "compress").is_dir():
        hint = "name the model that it was made from"
        raise UsageError("a student does not start from a compressed artifact", source, hint)
    try:
        told = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"config.json cannot be read: {error}", source) from error
    if not isinstance(told, dict):
        raise UsageError("config.json holds no mapping", source)
    config = student_config.tower_config(student_config.config_of(told, source), kind)
    if not any((folder / name).is_file() for name in (*WEIGHTS, *PICKLES)):
        return Base(config, dict, f"the config of {folder.name}", folder)
    if not any((folder / name).is_file() for name in WEIGHTS):
        hint = "convert them to safetensors"
        raise UsageError("the weights are pickled, which can run code while loading", source, hint)
    options = check_folder(folder, access)
    dual = config.model_type != told.get("model_type")
    named = str((told.get("architectures") or ["AutoModel"])[0])
    architecture = named if dual or named.endswith("WithProjection") else "AutoModel"
    if architecture == "AutoModel":
        options["trust_remote_code"] = False
    elif not _is_model(architecture):
        raise UsageError(f"transformers has no model {architecture}", source)

    def weights() -> Weights:
        model = pretrained(architecture, folder, options, unused="pooler.")
        return {name: value.numpy() for name, value in model.state_dict().items()}

    return Base(config, weights, folder.name, folder)


def _is_model(name: str) -> bool:
    found = getattr(transformers, name, None)
    return isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
