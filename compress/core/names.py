"""Names that stand for files: a method, task or rule is found by its file's name, and near names are suggested."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from types import ModuleType

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'did you mean x' for the nearest known names, or what there is, or nothing."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.55)
    if near:
        return "did you mean " + " or ".join(near)
    return "there is " + ", ".join(names) if names and len(names) <= 12 else ""


def available(package: str) -> tuple[str, ...]:
    """Dotted names of the public modules below a package, found without importing any of them."""
    root = Path(str(resources.files(package)))
    found = (path.relative_to(root).with_suffix("").parts for path in sorted(root.rglob("*.py")))
    return tuple(".".join(parts) for parts in found if not any(part.startswith("_") for part in parts))


def load(package: str, name: str) -> ModuleType:
    """Import the module that a name stands for. Raises KeyError with near names when there is none."""
    if not _NAME.fullmatch(name) or name not in available(package):
        raise KeyError(did_you_mean(name, available(package)))
    return importlib.import_module(f"{package}.{name}")


def bundled(*parts: str) -> Path:
    """A file or folder that ships with the package: `bundled("recipes", "int4_clip.yaml")`."""
    return Path(str(resources.files("compress.bundled"))).joinpath(*parts)
