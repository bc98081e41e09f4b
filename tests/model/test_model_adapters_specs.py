"""A recipe names the method by its kind."""

import pytest

from notetune.config import parse
from notetune.errors import ConfigError
from notetune.recipe.sections import PretrainConfig


def test_a_recipe_names_the_method_by_its_kind():
    kinds = ["lora", "prefix", "prompt", "p-tuning", "adaptation-prompt", "full"]
    for kind in kinds:
        config = parse(PretrainConfig, {"adapter": {"kind": kind}}, "recipe")
        assert config.adapter.kind == kind
    with pytest.raises(ConfigError, match=f"it should be one of {', '.join(kinds)}"):
        parse(PretrainConfig, {"adapter": {"kind": "lorra"}}, "recipe")
    with pytest.raises(ConfigError, match="for reparameterisation: lstm only"):
        parse(PretrainConfig, {"adapter": {"kind": "p-tuning", "layers": 4}}, "recipe")
    with pytest.raises(ConfigError, match="set projection: true"):
        parse(PretrainConfig, {"adapter": {"kind": "prefix", "hidden": 4}}, "recipe")
    with pytest.raises(ConfigError, match="is no name of layers and no expression"):
        parse(PretrainConfig, {"adapter": {"kind": "lora", "ranks": {"(": 4}}}, "recipe")
