"""Embeddings kept between runs, found by a digest of everything they depend on."""

from __future__ import annotations

import io
import json
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Final

import numpy as np

import compress
from compress.core import digest
from compress.data import runtime
from compress.evals.task import Embeddings

_LIBRARIES: Final = ("numpy", "pillow", "transformers", "tokenizers")
_RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu")
_CODE: Final = ("data/*.py", "data/scenes/*.py", "evals/worker.py", "evals/patches.py")


def key_of(folder: Path, data: str, batch: int) -> str:
    """The key of embeddings: the folder's bytes, the data's digest, the code and the libraries that make them."""
    package = Path(compress.__file__).parent
    code = {str(path.relative_to(package)): digest.of_file(path) for part in _CODE for path in package.glob(part)}
    versions = {name: _version(name) for name in (*_LIBRARIES, *_RUNTIMES)}
    told = {"model": _model(folder), "data": data, "batch": batch, "code": code, "versions": versions}
    return digest.of_data(told)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _model(folder: Path) -> dict[str, str]:
    """Digests of all files that can play a part: everything but the evidence under compress/."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        name: digest.of_file(path)
        for name, path in names.items()
        if name == runtime.FILE or not name.startswith("compress/")
    }


def load(cache: Path, key: str) -> Embeddings | None:
    """Embeddings that were stored under a key; None where there are none or where their bytes have changed."""
    try:
        seal = json.loads((cache / f"{key}.json").read_bytes())
        content = (cache / f"{key}.npz").read_bytes()
        if digest.of_bytes(content) != seal["sha256"]:
            return None
        arrays = np.load(io.BytesIO(content), allow_pickle=False)
        tokens = arrays["tokens"] if seal["grid"] else None
        told = seal["logit_scale"], seal["batch_cosine"]
        return Embeddings(arrays["images"], arrays["texts"], *told, tokens, seal["grid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def store(cache: Path, key: str, embeddings: Embeddings) -> None:
    """Store embeddings under a key; the seal is written last, so that half a file is never taken for a whole one."""
    held = io.BytesIO()
    arrays = {"images": embeddings.images, "texts": embeddings.texts}
    if embeddings.tokens is not None:
        arrays["tokens"] = embeddings.tokens
    np.savez(held, allow_pickle=False, **arrays)
    seal = {
        "sha256": digest.of_bytes(held.getvalue()),
        "logit_scale": embeddings.logit_scale,
        "batch_cosine": embeddings.batch_cosine,
        "grid": embeddings.grid,
    }
    cache.mkdir(parents=True, exist_ok=True)
    _replace(cache / f"{key}.npz", held.getvalue())
    _replace(cache / f"{key}.json", json.dumps(seal).encode())


def _replace(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as made:
        made.write(content)
    Path(made.name).replace(path)
