"""Which sites a step gets, and what it is told when there are none."""

import pytest
from tiny_towers import ROLES

from compress.core.errors import UsageError
from compress.recipe.steps import StepSpec
from compress.steps._selection import selected

DEFAULT = ("attn.qkv", "mlp.fc2")


def names(encoder, **options):
    found = selected(encoder.towers, StepSpec(**options), DEFAULT)
    return [(tower.kind, site.role) for tower, site in found]


def test_the_roles_a_method_is_made_for(tiny_encoder):
    assert sorted(set(names(tiny_encoder))) == [(kind, role) for kind in ("text", "vision") for role in DEFAULT]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": ("projection",)}, [("vision", "projection"), ("text", "projection")]),
        ({"include": ("projection",), "towers": ("text",)}, [("text", "projection")]),
        ({"include": ("text:mlp.fc1@0",)}, [("text", "mlp.fc1")]),
        ({"include": ("vision:mlp.fc1@-1",)}, [("vision", "mlp.fc1")]),
        ({"towers": ("vision",), "exclude": ("attn.qkv",)}, [("vision", "mlp.fc2")]),
        ({"include": ("embedding", "patch_embed")}, [("vision", "patch_embed"), ("text", "embedding")]),
    ],
    ids=str,
)
def test_selectors(tiny_encoder, options, expected):
    assert names(tiny_encoder, **options) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"include": ("vision:embedding",)}, "vision:embedding matches nothing"),
        ({"include": ("mlp.fc1", "mlp.fc1@7")}, "mlp.fc1@7 matches nothing"),
        ({"include": ("mlp.fc1@-2",)}, "mlp.fc1@-2 matches nothing"),
        ({"exclude": ("text:patch_embed",)}, "text:patch_embed matches nothing"),
        ({"towers": ("text",), "include": ("vision:mlp.fc1",)}, "vision:mlp.fc1 matches nothing"),
        ({"exclude": DEFAULT}, "nothing is left"),
    ],
    ids=str,
)
def test_what_matches_nothing(tiny_encoder, options, said):
    with pytest.raises(UsageError, match=said) as caught:
        names(tiny_encoder, **options)
    assert "mlp.fc2@0..0" in caught.value.hint


def test_a_tower_that_is_not_there(tiny_encoder):
    towers = {"vision": tiny_encoder.towers["vision"]}
    with pytest.raises(UsageError, match="no tower text"):
        list(selected(towers, StepSpec(towers=("text",)), DEFAULT))


def test_a_model_without_sites(tiny_encoder):
    towers = dict(tiny_encoder.towers)
    for tower in towers.values():
        tower.sites = ()
    with pytest.raises(UsageError, match="nothing is left"):
        list(selected(towers, StepSpec(), DEFAULT))


def test_every_site_of_the_hand_made_towers_is_found(tiny_encoder):
    for kind, tower in tiny_encoder.towers.items():
        roles = [site.role for site in tower.sites]
        first = {"vision": "patch_embed", "text": "embedding"}[kind]
        assert {role: roles.count(role) for role in roles} == {**ROLES, first: 1}
