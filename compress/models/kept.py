"""Treatments that lie in files, one a site: what a tower larger than memory has in place of a dictionary."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np

from compress.artifact.staging import write_file
from compress.core import digest
from compress.core.errors import IntegrityError, UsageError
from compress.models.shards import header
from compress.models.treatment import Treatment

_KINDS = {kind.__name__: kind for kind in get_args(Treatment)}


class Kept(MutableMapping[str, Treatment]):
    """Treatments by site in the files of a folder. What is read is mapped and not held; a write is whole or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._told: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, site: str) -> Path:
        """The file of a site."""
        return self.folder / f"{digest.of_bytes(site.encode())[:24]}.safetensors"

    def adopt(self, site: str) -> None:
        """Take in what the file of a site holds already. Raises IntegrityError where it is none of ours."""
        path = self.path(site)
        try:
            with path.open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
                told = json.loads(opened.read(length))["__metadata__"]
            self._told[site] = {"kind": _KINDS[told["kind"]], "plain": json.loads(told["plain"])}
        except (OSError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise IntegrityError(f"is no kept treatment: {error!r}", str(path)) from error

    def __setitem__(self, site: str, held: Treatment) -> None:
        from safetensors.numpy import save

        parts = {each.name: getattr(held, each.name) for each in fields(held)}
        arrays = {name: np.ascontiguousarray(value) for name, value in parts.items() if isinstance(value, np.ndarray)}
        if any(value.dtype.kind not in "iuf" for value in arrays.values()):
            raise UsageError(f"{type(held).__name__} cannot be kept in a file", site, "model.streaming: false")
        plain = {name: value for name, value in parts.items() if name not in arrays}
        told = {"kind": type(held).__name__, "plain": json.dumps(plain, default=lambda value: value.item())}
        write_file(self.path(site), save(arrays, told))
        self._told[site] = {"kind": type(held), "plain": plain}

    def __getitem__(self, site: str) -> Treatment:
        told, path = self._told[site], self.path(site)
        arrays = {
            name: np.memmap(path, each.stored, "r", each.offset, each.shape) for name, each in header(path).items()
        }
        made: Treatment = told["kind"](**told["plain"], **arrays)
        return made

    def __delitem__(self, site: str) -> None:
        del self._told[site]
        self.path(site).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        return iter(self._told)

    def __len__(self) -> int:
        return len(self._told)
