"""Where a Hugging Face model's files are: the embedded model, a folder, or the hub; and what a folder must hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from compress.core.errors import EnvironmentFailure, UsageError
from compress.core.names import bundled

EMBEDDED: Final = "pocket-clip"
WEIGHTS: Final = ("model.safetensors", "model.safetensors.index.json")
PICKLES: Final = ("pytorch_model.bin", "pytorch_model.bin.index.json")
PROCESSING: Final = (
    "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "merges.txt", "special_tokens_map.json", "added_tokens.json", "spiece.model",
)  # fmt: skip
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Access:
    """How a source may be reached: `revision` of a hub id, network or not, pickled weights or not."""

    revision: str | None = None
    offline: bool = False
    allow_pickle: bool = False


def locate(source: str, access: Access) -> Path:
    """The folder of a source's files. Raises UsageError for what cannot be, EnvironmentFailure for what cannot be had."""
    if source == EMBEDDED:
        return bundled("pocket_clip")
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or source.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(source):
        raise UsageError(
            "no such model folder",
            source,
            f"a source is {EMBEDDED!r}, a folder with config.json, or a hub id such as owner/name",
        )
    return _download(source, access)


def _download(source: str, access: Access) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    weights = (*WEIGHTS, "model-*.safetensors", *((*PICKLES, "pytorch_model-*.bin") if access.allow_pickle else ()))
    wanted = ["config.json", *weights, *PROCESSING]
    try:
        return Path(
            snapshot_download(source, revision=access.revision, allow_patterns=wanted, local_files_only=access.offline)
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UsageError(str(error).splitlines()[0], source, "check the spelling of the id and the revision") from error
    except (LocalEntryNotFoundError, OSError) as error:
        why = (
            "--offline was given and the files are not in the local cache"
            if access.offline
            else "the hub cannot be reached"
        )
        raise EnvironmentFailure(
            f"{why}; looked for {', '.join(wanted)}" + (f" at revision {access.revision}" if access.revision else ""),
            source,
            "point --model at a folder that holds config.json, model.safetensors and the processor and tokenizer files",
        ) from error


def check_folder(folder: Path, access: Access) -> dict[str, Any]:
    """Options for `from_pretrained` that load this folder's weights and nothing else.

    Safetensors are taken where they are. Pickled weights are refused unless allowed, and then read with
    `weights_only=True`; there is no fallback from one to the other.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(
            "there is no config.json in the model folder", str(folder), "a model folder is what save_pretrained writes"
        )
    if any((folder / name).is_file() for name in WEIGHTS):
        return {"use_safetensors": True}
    pickles = [name for name in PICKLES if (folder / name).is_file()]
    if not pickles:
        looked = ", ".join(WEIGHTS)
        raise UsageError(f"no weights in the model folder; looked for {looked}", str(folder))
    if not access.allow_pickle:
        raise UsageError(
            f"the weights are pickled ({pickles[0]}), which can run code while loading",
            str(folder),
            "convert them to safetensors, or pass --allow-pickle if you trust them",
        )
    return {"use_safetensors": False, "weights_only": True}
