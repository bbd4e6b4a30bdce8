"""Compression methods: a method is a file, found by name and imported only when used."""

from __future__ import annotations

from compress.core import names
from compress.recipe.steps import StepSpec

_KINDS = ("quantize", "prune", "distill", "calibrate")


def method_names() -> tuple[str, ...]:
    """Names of all methods, as a recipe's `use:` writes them."""
    return tuple(name for name in names.available(__name__) if name.split(".")[0] in _KINDS and "." in name)


def spec_of(name: str) -> type[StepSpec]:
    """The options class of a method. Raises KeyError with near names when there is no such method."""
    if name not in method_names():
        raise KeyError(names.did_you_mean(name, method_names()))
    spec: type[StepSpec] = names.load(__name__, name).Spec
    return spec
