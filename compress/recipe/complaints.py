"""What a failed validation says to a person: where, what is wrong, what is allowed, what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from compress.core.names import did_you_mean
from compress.recipe.scalars import shown
from compress.recipe.tree import Path

_ALLOWED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text like {pattern}",
}
_LENGTH = {"too_short": "at least {min_length}", "too_long": "at most {max_length}"}


@dataclass(frozen=True)
class Complaint:
    """One thing wrong at a path of the data."""

    path: Path
    what: str
    hint: str = ""


def complaints(error: ValidationError, model: type[BaseModel], data: Any) -> list[Complaint]:
    """Everything wrong in data, one complaint for each path; the branches of a union are told as alternatives."""
    grouped: dict[Path, list[ErrorDetails]] = {}
    for each in error.errors(include_url=False):
        grouped.setdefault(_path(each, data), []).append(each)
    told = [path for path, found in grouped.items() if not _is_echo(path, found, grouped)]
    return [_complaint(path, grouped[path], model) for path in told]


def _is_echo(path: Path, errors: list[ErrorDetails], grouped: Iterable[Path]) -> bool:
    """Whether a list is called too short only because entries of it, told on their own, are wrong."""
    inside = any(path == other[: len(path)] and path != other for other in grouped)
    return inside and all(each["type"] == "too_short" for each in errors)


def _path(error: ErrorDetails, data: Any) -> Path:
    """Where an error is in the data: its location without the names that pydantic adds for union branches."""
    if not error["loc"]:
        return ()
    made: list[str | int] = []
    *parents, last = error["loc"]
    for part in parents:
        if _holds(data, part):
            made.append(part)
            data = data[part]
    if _holds(data, last) or error["type"] == "missing" or _is_default(error):
        made.append(last)
    return tuple(made)


def _holds(data: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(data, list) and 0 <= part < len(data)
    return isinstance(data, dict) and part in data


def _is_default(error: ErrorDetails) -> bool:
    """Whether a field that is not in the data was found wrong, because another one requires it."""
    return error["type"] == "value_error" and error["input"] is None


def _complaint(path: Path, errors: list[ErrorDetails], model: type[BaseModel]) -> Complaint:
    first = errors[0]
    kind, given = first["type"], first["input"]
    if kind == "missing":
        return Complaint(path, "is required")
    if kind == "extra_forbidden":
        return Complaint(path, "no such key", _near_key(str(path[-1]), model, first["loc"][:-1]))
    allowed = list(dict.fromkeys(_allowed(each) for each in errors if each["type"] in _ALLOWED))
    if len(allowed) < len({each["type"] for each in errors}) or not allowed:
        return Complaint(path, " or ".join(dict.fromkeys(_free(each) for each in errors)))
    return Complaint(path, f"must be {' or '.join(allowed)}, not {shown(given)}", _hint(errors, given))


def _allowed(error: ErrorDetails) -> str:
    return _ALLOWED[error["type"]].format(**error.get("ctx", {}))


def _free(error: ErrorDetails) -> str:
    """The message of an error that does not fit `must be X, not Y`."""
    context = error.get("ctx", {})
    if error["type"] in _LENGTH:
        wanted = _LENGTH[error["type"]].format(**context)
        return f"must have {wanted} {'entry' if wanted.endswith(' 1') else 'entries'}, not {context['actual_length']}"
    if error["type"] == "value_error":
        return str(context["error"])
    return f"must be {_allowed(error)}" if error["type"] in _ALLOWED else error["msg"]


def _hint(errors: list[ErrorDetails], given: Any) -> str:
    for each in errors:
        if each["type"] == "literal_error" and isinstance(given, str):
            near = did_you_mean(given, re.findall(r"'([^']*)'", each["ctx"]["expected"]))
            return "" if near.startswith("there is") else near  # what there is has just been said
        if each["type"] == "string_type" and isinstance(given, bool | int | float):
            return "put it in quotes"
    return ""


def _near_key(key: str, model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    """Which key was probably meant, found by following a location through the fields of the models."""
    models = {model}
    for part in location:
        inner = {found for each in models if part in each.model_fields for found in _models(each, str(part))}
        branch = {each for each in models if each.__name__ == part}
        models = branch or inner or models
    hint = did_you_mean(key, {name for each in models for name in each.model_fields})
    if location and hint.startswith("there is") and any(each.__subclasses__() for each in models):
        return ""  # a subclass, chosen by a validator, may allow more than can be told here
    return hint


def _models(model: type[BaseModel], name: str) -> Iterator[type[BaseModel]]:
    """The models that the annotation of a field mentions, and those derived from them."""
    pending: list[Any] = [model.model_fields[name].annotation]
    while pending:
        found = pending.pop()
        if isinstance(found, type) and not get_args(found) and issubclass(found, BaseModel):
            yield found
            pending.extend(found.__subclasses__())
        pending.extend(get_args(found))
