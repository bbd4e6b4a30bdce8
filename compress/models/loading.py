"""From a recipe's `model:` to an `Encoder`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from compress.core import names
from compress.core.errors import ResourceExhausted, UsageError
from compress.data.child import out_of_memory
from compress.models import streaming, structure
from compress.models.families.family import Family
from compress.models.shards import Shards
from compress.models.source import PROCESSING, WEIGHTS, Access, check_folder, locate
from compress.models.structure import Origin, Structure
from compress.models.tower import Encoder


class Source(Protocol):
    """The part of a recipe's `model:` that Hugging Face sources need."""

    @property
    def source(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def allow_pickle(self) -> bool: ...
    @property
    def normalize(self) -> bool: ...
    @property
    def streaming(self) -> bool | None: ...


@dataclass(frozen=True, slots=True)
class Described:
    """A model as its folder describes it, before a weight is read; `shards` where its weights are to stay there."""

    folder: Path
    options: Mapping[str, Any]
    config: Mapping[str, Any]
    architecture: str
    family: Family
    pruned: Structure | None
    shards: Shards | None


def describe(source: Source, offline: bool = False) -> Described:
    """Look at a model without loading it."""
    access = Access(source.revision, offline, source.allow_pickle)
    folder = locate(source.source, access)
    options = check_folder(folder, access)
    config = _config(folder)
    architecture = _architecture(config)
    family = family_of(architecture, folder)
    pruned = structure.read(folder)
    shards = streaming.shards_of(folder, source, pruned)
    return Described(folder, options, config, architecture, family, pruned, shards)


def load(source: Source, offline: bool = False) -> Encoder:
    """Load a Hugging Face encoder and export its float towers; one larger than memory keeps its weights in files."""
    seen = describe(source, offline)
    if seen.shards is not None:
        return _streamed(source, seen, seen.shards)
    architecture, folder, options, pruned = seen.architecture, seen.folder, seen.options, seen.pruned
    family = seen.family
    model = _model(architecture, folder, options, pruned)
    from compress.models.torch_export import export_towers

    towers, difference = export_towers(model, family, source.normalize)
    scale = getattr(model, "logit_scale", None)
    return Encoder(
        source=source.source,
        revision=source.revision,
        architecture=architecture,
        parameters=sum(weight.numel() for weight in model.parameters()),
        towers=towers,
        files=_files(folder, model.config),
        preprocess={"kind": "transformers", "padding": family.padding},
        logit_scale=float(scale.detach().exp()) if scale is not None else None,
        normalized=source.normalize,
        export_error=difference,
        origin=Origin(
            carried={
                kind: structure.carried(tower, _state(_parts(model, family, kind))) for kind, tower in towers.items()
            },
            structure=pruned or Structure(version=1, architecture=architecture, origin=_named(source)),
            pruned=pruned is not None,
            weights=lambda: _state(_model(architecture, folder, options, pruned)),
            loaded=structure.modules(towers),
            cut=structure.attentions(towers),
        ),
    )


def _streamed(source: Source, seen: Described, shards: Shards) -> Encoder:
    towers, config = streaming.towers_of(seen.architecture, seen.folder, seen.family, source.normalize, shards)
    return Encoder(
        source=source.source,
        revision=source.revision,
        architecture=seen.architecture,
        parameters=shards.parameters,
        towers=towers,
        files=_files(seen.folder, config),
        preprocess={"kind": "transformers", "padding": seen.family.padding},
        logit_scale=streaming.logit_scale(shards),
        normalized=source.normalize,
        shards=shards,
    )


def _named(source: Source) -> structure.Model:
    """What a recipe may call this model anywhere: a folder keeps its name, not where it lies here."""
    folder = Path(source.source).expanduser()
    return structure.Model(
        source=f"./{folder.resolve().name}" if folder.is_dir() else source.source, revision=source.revision
    )


def _parts(model: Any, family: Family, kind: str) -> Any:
    """The modules of a tower, under the names that they have in the model."""
    from torch import nn

    parts = family.towers[kind]
    if not parts.body:
        return model
    return nn.ModuleDict({name: getattr(model, name) for name in (parts.body, parts.projection) if name})


def _state(model: Any) -> dict[str, Any]:
    return {name: weight.numpy() for name, weight in model.state_dict().items()}


def _model(architecture: str, folder: Path, options: Mapping[str, Any], pruned: Structure | None) -> Any:
    if pruned is None:
        return pretrained(architecture, folder, options)
    if pruned.architecture != architecture:
        raise UsageError(f"it is the structure of a {pruned.architecture}, not {architecture}", str(folder))
    return _refitted(architecture, folder, pruned)


def _refitted(architecture: str, folder: Path, pruned: Structure) -> Any:
    """A pruned model: modules of the sizes that its structure says, weights from safetensors and nowhere else."""
    import transformers
    from safetensors.torch import load_file

    if not (folder / WEIGHTS[0]).is_file():
        raise UsageError(
            f"a pruned model needs {WEIGHTS[0]}", str(folder), "quantized artifacts do not hold float weights"
        )
    made = getattr(transformers, architecture)
    try:
        model = structure.fitted(
            made(made.config_class.from_pretrained(folder, local_files_only=True, attn_implementation="eager")), pruned
        )
        model.load_state_dict(load_file(folder / WEIGHTS[0]), strict=True)
    except UsageError:
        raise
    except Exception as error:  # transformers, torch and safetensors raise a dozen unrelated classes
        if out_of_memory(error):
            raise ResourceExhausted(f"memory ran out while loading the model: {error}", str(folder)) from error
        raise UsageError(f"the pruned model cannot be loaded: {error}", str(folder)) from error
    return model.float().eval()


def pretrained(architecture: str, folder: Path, options: Mapping[str, Any], unused: str | None = None) -> Any:
    """The model with its weights in float32, whatever they are stored in, ready to be evaluated.

    Weights whose names begin with `unused` may be missing. Raises UsageError where others are.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        model, told = getattr(transformers, architecture).from_pretrained(
            folder, local_files_only=True, dtype="float32", output_loading_info=True, **options
        )
    except Exception as error:  # transformers and safetensors raise a dozen unrelated classes
        if out_of_memory(error):
            raise ResourceExhausted(f"memory ran out while loading the model: {error}", str(folder)) from error
        raise UsageError(f"transformers cannot load the model: {error}", str(folder)) from error
    lacking = [name for name in sorted(told["missing_keys"]) if unused is None or not name.startswith(unused)]
    if lacking:  # transformers fills them with noise and only mentions it
        raise UsageError(f"the weights lack {', '.join(lacking[:5])} ({len(lacking)} in all)", str(folder))
    return model.eval()


def family_of(architecture: str, folder: Path) -> Family:
    """The family whose file names this architecture."""
    families = [names.load("compress.models.families", name) for name in names.available("compress.models.families")]
    found: list[Family] = [module.FAMILY for module in families if hasattr(module, "FAMILY")]
    for family in found:
        if architecture in family.architectures:
            return family
    known = [each for family in found for each in family.architectures]
    hint = names.did_you_mean(architecture, known)
    raise UsageError(f"no model family for architecture {architecture!r}", str(folder / "config.json"), hint)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"config.json cannot be read: {error}", str(folder)) from error
    if not isinstance(config, dict):
        raise UsageError("config.json holds no mapping", str(folder))
    return config


def _architecture(config: Mapping[str, Any]) -> str:
    """The class that the config names, or its model type where it names none."""
    named = config.get("architectures")
    return str(named[0] if isinstance(named, list) and named else config.get("model_type", "unknown"))


def _files(folder: Path, config: Any) -> Mapping[str, bytes]:
    """Config, processor and tokenizer files as they lie in the folder, without what ties them to it."""
    kept = {name: (folder / name).read_bytes() for name in PROCESSING if (folder / name).is_file()}
    described = json.loads(config.to_json_string(use_diff=True))
    for private in ("_name_or_path", "transformers_version"):
        described.pop(private, None)
    kept["config.json"] = (json.dumps(described, indent=2, sort_keys=True) + "\n").encode()
    if "preprocessor_config.json" not in kept and "processor_config.json" in kept:
        images = json.loads(kept["processor_config.json"]).get("image_processor")
        if images:  # transformers 5 nests it; other readers look for the file of its own
            kept["preprocessor_config.json"] = (json.dumps(images, indent=2, sort_keys=True) + "\n").encode()
    return kept
