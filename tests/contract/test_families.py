"""Every model family that ships: a tiny model of it is made from its config, exported, and every role is found."""

import numpy as np
import pytest

from compress.core import names
from compress.models.families.family import Family
from compress.models.sites import by_topology
from compress.recipe.selector import ROLES

PACKAGE = "compress.models.families"
FAMILIES = [name for name in names.available(PACKAGE) if name != "family"]
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    **SMALL,
    "vocab_size": 40,
    "max_position_embeddings": 16,
    "eos_token_id": 3,
    "pad_token_id": 0,
    "bos_token_id": 1,
}
VISION = {**SMALL, "image_size": 16, "patch_size": 8}


def family(name) -> Family:
    return names.load(PACKAGE, name).FAMILY


def test_there_are_families():
    assert "clip" in FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_file_says(name):
    import transformers

    told = family(name)
    assert set(told.towers) in ({"vision", "text"}, {"vision"})
    assert told.padding in ("longest", "max_length")
    for architecture in told.architectures:
        assert hasattr(transformers, architecture)
    for parts in told.towers.values():
        assert set(parts.roles) <= set(ROLES)
        assert parts.role("nothing.of.the.kind") is None


@pytest.mark.parametrize("name", FAMILIES)
def test_no_architecture_belongs_to_two_families(name):
    others = {each for other in FAMILIES if other != name for each in family(other).architectures}
    assert not others.intersection(family(name).architectures)


@pytest.mark.parametrize(
    ("name", "architecture"), [(name, each) for name in FAMILIES for each in family(name).architectures]
)
def test_a_tiny_model_is_exported_and_every_role_is_found(name, architecture):
    import torch
    import transformers

    from compress.models.torch_export import export_towers

    told = family(name)
    kind = getattr(transformers, architecture)
    torch.manual_seed(0)
    both = "text" in told.towers
    config = kind.config_class(text_config=TEXT, vision_config=VISION) if both else kind.config_class(**VISION)
    model = kind(config).eval()
    towers, difference = export_towers(model, told, normalize=True)
    assert difference <= 1e-4
    for tower_kind, parts in told.towers.items():
        tower = towers[tower_kind]
        assert {site.role for site in tower.sites} == set(parts.roles)
        assert {site.layer for site in tower.sites} == {None, 0, 1}
        found = {(site.node, site.role, site.layer) for site in by_topology(tower.graph)}
        assert found == {(site.node, site.role, site.layer) for site in tower.sites}
        assert tower.inputs == parts.inputs
        assert tower.tokens == parts.tokens
        assert [value.name for value in tower.graph.graph.output] == [parts.output]
        made = {name for node in tower.graph.graph.node for name in node.output}
        assert parts.tokens is None or parts.tokens in made
        assert np.isfinite(difference)
