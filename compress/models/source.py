"""Where a Hugging Face model's files are: the embedded model, a folder, or the hub; and what a folder must hold."""

from __future__ import annotations

import json
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
TIMEOUT: Final = 8.0
"""Seconds to wait for an answer of the hub."""
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Access:
    """How a source may be reached: `revision` of a hub id, network or not, pickled weights or not."""

    revision: str | None = None
    offline: bool = False
    allow_pickle: bool = False


def locate(source: str, access: Access) -> Path:
    """The folder of a source's files. Raises UsageError if there is none, EnvironmentFailure if it is out of reach."""
    if source == EMBEDDED:
        return bundled("pocket_clip")
    folder = Path(source).expanduser()
    if source and folder.is_dir():
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
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    weights = (*WEIGHTS, "model-*.safetensors", *((*PICKLES, "pytorch_model-*.bin") if access.allow_pickle else ()))
    wanted = ["config.json", *weights, *PROCESSING]
    try:
        cached = access.offline or not _answers(source, access)
        found = snapshot_download(
            source, revision=access.revision, allow_patterns=wanted, local_files_only=cached, etag_timeout=TIMEOUT
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        hint = "check the spelling of the id and the revision; if it is a folder: there is none of that name"
        raise UsageError(str(error).splitlines()[0], source, hint) from error
    except Exception as error:  # the hub's client and its HTTP library raise unrelated classes
        reason = "--offline was given" if access.offline else "the hub cannot be reached"
        at = f" at revision {access.revision}" if access.revision else ""
        raise EnvironmentFailure(
            f"{reason} and the local cache does not hold the files; looked for {', '.join(wanted)}{at}",
            source,
            "point --model at a folder that holds config.json, model.safetensors and the processor and tokenizer files",
        ) from error
    return Path(found)


def _answers(source: str, access: Access) -> bool:
    """Whether the hub answers in time: the download itself waits for minutes and tries again and again."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        HfApi().model_info(source, revision=access.revision, timeout=TIMEOUT)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
        raise
    except Exception:  # whatever else it is, the cache may still hold what is needed
        return False
    return True


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
        _check_shards(folder, WEIGHTS)
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
    _check_shards(folder, PICKLES)
    return {"use_safetensors": False, "weights_only": True}


def _check_shards(folder: Path, names: tuple[str, str]) -> None:
    """Raise UsageError unless an index that will be used names files of this folder and of its own kind alone."""
    whole, index = (folder / name for name in names)
    if whole.is_file():
        return
    try:
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the index of the weights cannot be read: {error!r}", str(index)) from error
    for shard in sorted(map(str, shards)):
        if Path(shard).name != shard or Path(shard).suffix != whole.suffix or "\0" in shard:
            raise UsageError(
                f"the weights are said to be in {shard!r}, which is no {whole.suffix} file here", str(index)
            )
        if not (folder / shard).is_file():
            raise UsageError(f"the weights in {shard!r} are missing", str(index), "copy every file of the model")
