"""The JSON Schema for editors, selectors, and where a source is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from recipe_sample import METHODS

from compress.recipe.schema import json_schema
from compress.recipe.selector import ROLES, Selector
from compress.recipe.sources import place
from compress.recipe.steps import StepSpec


class Same(StepSpec):
    """A second class with a name that may be taken."""

    depth: int = 1


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every part of a schema that has properties."""
    if isinstance(schema, dict):
        if "properties" in schema and "type" in schema:
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


def test_the_schema_knows_every_method_and_its_options() -> None:
    schema = json_schema(METHODS)
    steps = {each["properties"]["use"]["const"]: each for each in schema["properties"]["steps"]["items"]["oneOf"]}
    base = {"use", "towers", "include", "exclude"}
    assert {use: set(each["properties"]) - base for use, each in steps.items()} == {
        "quantize.round": {"block", "bits", "search"},
        "prune.heads": {"ratio", "damping", "note"},
    }
    assert steps["prune.heads"]["required"] == ["use", "ratio"]
    assert set(schema["required"]) == {"version", "name", "model", "steps", "targets", "policy"}
    assert all(each["additionalProperties"] is False for each in objects(schema))


def test_every_property_of_ours_is_described() -> None:
    described = [each for part in objects(json_schema({"a.b": StepSpec})) for each in part["properties"].values()]
    assert len(described) > 40
    assert all(each.get("description") for each in described)


def test_references_lead_somewhere_even_if_classes_share_a_name() -> None:
    other = type("Same", (StepSpec,), {"__annotations__": {"width": int}, "width": 2, "__module__": "elsewhere"})
    text = json.dumps(json_schema({"a.b": Same, "c.d": other, "e.f": Same}))
    names = set(json.loads(text)["$defs"])
    assert {part.split('"')[0] for part in text.split("#/$defs/")[1:]} == names
    assert '"depth"' in text
    assert '"width"' in text


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("mlp.fc2", Selector("mlp.fc2")),
        ("mlp.fc2@0", Selector("mlp.fc2", None, 0)),
        ("attn.qkv@3", Selector("attn.qkv", None, 3)),
        ("vision:mlp.fc2@-1", Selector("mlp.fc2", "vision", -1)),
        ("text:embedding", Selector("embedding", "text")),
        ("conv@-1", Selector("conv", None, -1)),
    ],
)
def test_selectors(text: str, selector: Selector) -> None:
    assert Selector.parse(text) == selector
    assert str(selector) == text


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_a_selector(role: str) -> None:
    assert Selector.parse(role).role == role


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mlp.fc3", "no role 'mlp.fc3' (did you mean mlp.fc2 or mlp.fc1)"),
        ("audio:mlp.fc2", "must be [tower:]role[@layer] such as mlp.fc2 or vision:mlp.fc2@-1, not 'audio:mlp.fc2'"),
        ("mlp.fc2@", "must be [tower:]role[@layer] such as mlp.fc2 or vision:mlp.fc2@-1, not 'mlp.fc2@'"),
        ("mlp.fc2@1.5", "must be [tower:]role[@layer] such as mlp.fc2 or vision:mlp.fc2@-1, not 'mlp.fc2@1.5'"),
        ("mlp.fc2\n", "must be [tower:]role[@layer] such as mlp.fc2 or vision:mlp.fc2@-1, not 'mlp.fc2\\n'"),
        ("patch_embed@0", "patch_embed is there once and has no layers; write 'patch_embed'"),
    ],
)
def test_what_is_no_selector(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^") as caught:
        Selector.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("scenes", "bundled"), ("pocket-clip", "bundled"), ("openai/clip-vit-base-patch32", "hub"), ("mnist", "hub"),
        ("./photos", "folder"), ("../a/b", "folder"), ("/data/x", "folder"), ("a/b/c", "folder"), ("~/x", "folder"),
    ],
)  # fmt: skip
def test_where_a_source_is(source: str, where: str) -> None:
    assert place(source) == where
