"""Recipes from files: found by name, changed by `--set`, checked as a whole, written back."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from compress.core.errors import DocumentError, Problem, UsageError
from compress.core.names import bundled, did_you_mean
from compress.recipe import scalars, tree, writing
from compress.recipe.document import Document, attempt, read
from compress.recipe.fields import Strict
from compress.recipe.overrides import override
from compress.recipe.schema import NO_POLICY, Head, Recipe
from compress.recipe.steps import Step, StepSpec

SpecOf = Callable[[str], type[StepSpec]]


class _Entry(Strict):
    """A step before its method is looked up."""

    model_config = ConfigDict(extra="allow")

    use: str


class _Written(Head):
    steps: tuple[_Entry, ...] = Field(description="What is done to the model, in this order.")


def load(
    path: Path | str,
    spec_of: SpecOf,
    overrides: Sequence[str] = (),
    *,
    targets: Collection[str] = (),
    policies: Collection[str] = (),
) -> Recipe:
    """Read, override and check a recipe.

    `spec_of` gives the options class of a method and raises KeyError with a hint for an unknown one. `targets` and
    `policies` are the names that exist; where one is empty, those names are not looked at. Raises DocumentError with
    every problem of the file, its overrides and all steps at once; UsageError where there is no such file, or for an
    override of what is not there.
    """
    document = override(read(path if isinstance(path, Path) else find_recipe(path)), overrides)
    written, problems = attempt(document, _Written)
    steps, wrong = _steps(document, spec_of)
    problems += [*wrong, *_unknown(document, targets, policies), *_beyond_rescue(document, steps)]
    if written is None or problems:
        raise DocumentError(document.file, sorted(problems, key=lambda each: (each.line, each.column)))
    return Recipe(**{name: getattr(written, name) for name in Head.model_fields}, steps=tuple(steps))


def _steps(document: Document, spec_of: SpecOf) -> tuple[list[Step], list[Problem]]:
    """Every step with the options of its method; entries that name none are told by the schema."""
    steps: list[Step] = []
    problems: list[Problem] = []
    entries = document.data.get("steps")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        use = entry.get("use") if isinstance(entry, dict) else None
        if not isinstance(use, str):
            continue
        try:
            model = spec_of(use)
        except KeyError as error:
            problems.append(document.problem(("steps", index, "use"), f"no method {scalars.shown(use)}", error.args[0]))
            continue
        spec, wrong = attempt(document, model, ("steps", index), without=("use",))
        problems += wrong
        if spec is not None:
            steps.append(Step(use=use, spec=spec))
    return steps, problems


def _unknown(document: Document, targets: Collection[str], policies: Collection[str]) -> list[Problem]:
    """Targets and policies that do not exist; a policy with a slash or an ending is a path, and not looked at."""
    named, policy = document.data.get("targets"), document.data.get("policy")
    wanted: list[tuple[tree.Path, str, Any, Collection[str]]] = []
    if isinstance(named, list):
        wanted += [(("targets", at), "target", name, targets) for at, name in enumerate(named)]
    if isinstance(policy, str) and policy != NO_POLICY and not re.search(r"/|\.ya?ml$", policy):
        wanted.append((("policy",), "policy", policy, policies))
    return [
        document.problem(path, f"no {what} {scalars.shown(name)}", did_you_mean(name, known))
        for path, what, name, known in wanted
        if known and isinstance(name, str) and name not in known
    ]


def _beyond_rescue(document: Document, steps: Sequence[Step]) -> list[Problem]:
    """A rescue changes how weights are quantized, and nothing else."""
    if document.data.get("rescue") is None or any(step.use.startswith("quantize.") for step in steps):
        return []
    return [document.problem(("rescue",), "needs a quantize step: that is what it changes")]


def dump(recipe: Recipe) -> str:
    """YAML text of a recipe with all defaults filled in, which loads to an equal recipe again."""
    return writing.dump(recipe.resolved())


def find_recipe(name_or_path: str) -> Path:
    """A recipe's file: a path that exists, or the name of one that ships with the package."""
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
    except OSError:  # no file can have such a name
        pass
    shipped = bundled_recipes()
    name = name_or_path.removesuffix(".yaml")
    if name not in shipped:
        raise UsageError(f"no recipe {scalars.shown(name_or_path)}", hint=did_you_mean(name, shipped))
    return shipped[name]


def bundled_recipes() -> dict[str, Path]:
    """The recipes that ship with the package, by name (`int4_clip`, `real/fashion_int8`)."""
    root = bundled("recipes")
    return {each.relative_to(root).with_suffix("").as_posix(): each for each in sorted(root.rglob("*.yaml"))}


def locate(written: str, recipe: Path) -> Path:
    """The file that a path in a recipe means: beside the recipe if it is there, else from the working directory."""
    beside = recipe.parent / Path(written).expanduser()
    return beside if beside.exists() else Path(written).expanduser()
