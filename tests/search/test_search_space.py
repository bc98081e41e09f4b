"""Spaces: what they may hold, what their points change, and that every recipe takes them."""

import itertools

import pytest

from notetune import config
from notetune.config import Config
from notetune.errors import ConfigError
from notetune.model.adapters.specs import (
    AdaptationPrompt,
    Full,
    LoRA,
    Prefix,
    Prompt,
    PTuning,
)
from notetune.recipe.sections import DownstreamConfig, PretrainConfig
from notetune.search.space import (
    Interval,
    Space,
    Values,
    changes,
    default_space,
    keys_at_ends,
    paper_space,
    point_count,
)

METHODS = (
    LoRA(),
    Prefix(),
    Prompt(),
    PTuning(),
    PTuning(reparameterisation="lstm"),
    AdaptationPrompt(),
    Full(),
)


class Recipe(Config):
    space: Space


def read(space):
    return config.parse(Recipe, {"space": space}, "recipe").space


@pytest.mark.parametrize(
    ("dimension", "at_ends", "within"),
    [
        ([4, 8, 16, 32], (4, 32), (8, 16)),
        ([0.0, 0.1, 0.2], (0.2,), (0.0, 0.1)),
        ([1, 2], (), (1, 2)),
        ([False, True, "auto"], (), (False, "auto")),
        ({"low": 1e-5, "high": 1e-2, "log": True}, (1e-5, 1e-2, 0.009999999), (3e-5, 9e-3)),
        ({"low": 0, "high": 0.5}, (0.5,), (0.0, 0.25)),
    ],
)
def test_an_end_of_a_space_is_where_a_wider_one_goes_on(dimension, at_ends, within):
    space = read({"key": dimension, "other": [1, 2]})
    for value in at_ends:
        assert keys_at_ends(space, {"key": value, "other": 1}) == ("key",)
    for value in within:
        assert keys_at_ends(space, {"key": value, "other": 1}) == ()


def test_a_list_is_values_and_a_section_is_an_interval_there_and_back():
    given = {
        "adapter.rank": [16, 4, 8],
        "adapter.init": ["text", "random"],
        "adapter.projection": [True, False],
        "optim.peak_lr": {"low": 1e-5, "high": 1e-3, "log": True},
    }
    space = read(given)
    assert list(space) == list(given)
    assert space["adapter.rank"] == Values((4, 8, 16))
    assert space["adapter.init"] == Values(("text", "random"))
    assert space["adapter.projection"].root == (True, False)
    assert space["optim.peak_lr"] == Interval(low=1e-5, high=1e-3, log=True)
    assert [space[key].is_ordered for key in list(space)[:3]] == [True, False, False]
    dumped = Recipe(space=space).model_dump(mode="json")
    assert dumped["space"]["adapter.rank"] == [4, 8, 16]
    assert read(dumped["space"]) == space


WRONG = {
    "no key": ({}, "space: a search needs at least one key"),
    "no value": ({"a.b": []}, "space.a.b: 0 values leave nothing to search; set the key in the re"),
    "one value": ({"a.b": [8]}, "space.a.b: 1 values leave nothing to search; set the key in the"),
    "a repeated value": ({"a": [8, 4, 8]}, "space.a: 8 is listed twice"),
    "a value in two forms": ({"a": [1, "x", True]}, "space.a: 1 is listed twice"),
    "no number": ({"a": [1, None]}, "space.a.1 is empty"),
    "an empty interval": ({"a": {"low": 2, "high": 2}}, "space.a: low 2 must be below high 2"),
    "a logarithm of 0": ({"a": {"low": 0, "high": 2, "log": True}}, "space.a: low 0 must be above"),
    "half a number": ({"a": {"low": 1, "high": 2.5, "whole": True}}, "high 2.5 must be whole"),
    "a misspelt key": ({"a": {"low": 1, "hihg": 2}}, "did you mean space.a.high?"),
    "text for a number": ({"a": {"low": "1", "high": 2}}, "space.a.low is '1'"),
    "infinity": ({"a": {"low": 1, "high": float("inf")}}, "space.a.high is inf"),
    "alpha twice": (
        {"adapter.alpha": [1, 2], "adapter.alpha/rank": [1, 2]},
        "adapter.alpha and adapter.alpha/rank set the same key",
    ),
    "a section and its key": (
        {"optim.peak_lr": [1, 2], "optim": [1, 2]},
        "optim and optim.peak_lr",
    ),
}


@pytest.mark.parametrize(("space", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_space_is_one_clear_error(space, message):
    with pytest.raises(ConfigError) as error:
        read(space)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_that_no_section_has_is_named_when_it_is_applied():
    with pytest.raises(ConfigError, match=r"unknown key optim.paek_lr; did you mean optim.peak_lr"):
        config.changed(PretrainConfig(), changes({"optim.paek_lr": 1e-3}, LoRA()), "trial 3")


def test_a_point_is_counted_once():
    assert point_count({"a": Values((1, 2, 3)), "b": Values(("x", "y"))}) == 6
    assert point_count({"a": Values((1, 2)), "b": Interval(low=3, high=7, whole=True)}) == 10
    assert point_count({"a": Values((1, 2)), "b": Interval(low=3, high=7)}) is None


def test_alpha_follows_the_rank_of_the_point_or_of_the_section():
    point = {"adapter.alpha/rank": 0.5, "adapter.rank": 16, "head_lr": 1e-3}
    assert changes(point, LoRA(rank=2)) == {"adapter": {"alpha": 8.0, "rank": 16}, "head_lr": 1e-3}
    assert changes({"adapter.alpha/rank": 2}, LoRA(rank=4)) == {"adapter": {"alpha": 8}}


@pytest.mark.parametrize("adapter", [Prefix(), None])
def test_alpha_without_a_lora_is_named(adapter):
    found = "prefix" if adapter else "missing"
    with pytest.raises(ConfigError, match=f"adapter.alpha/rank is 2 and the adapter {found}"):
        changes({"adapter.alpha/rank": 2}, adapter)


def test_the_spaces_of_the_paper_have_its_values():
    tokens = {1, 5, 10, 15, 20}
    published = [
        (LoRA(), {"rank": {2, 4, 8, 16}, "alpha": {4, 8, 16, 32}, "dropout": {0, 0.1, 0.2}}),
        (Prefix(), {"virtual_tokens": tokens, "projection": {True, False}}),
        (Prompt(), {"virtual_tokens": tokens, "init": {"text", "random"}}),
        (PTuning(), {"virtual_tokens": tokens, "hidden": {64, 128, 256, 768}}),
        (
            PTuning(reparameterisation="lstm"),
            {
                "virtual_tokens": tokens,
                "hidden": {64, 128, 256, 768},
                "layers": {1, 2, 4, 8, 12},
                "dropout": {0, 0.1, 0.2},
            },
        ),
        (AdaptationPrompt(layers=30), {"length": {5, 10}, "layers": {10, 20, 30}}),
        (AdaptationPrompt(), {"length": {5, 10}}),  # in all layers, however many these are
    ]
    for adapter, values in published:
        space = paper_space(adapter)
        assert {key: set(space[key].root) for key in space} == {
            f"adapter.{key}": value for key, value in values.items()
        }
    assert point_count(paper_space(LoRA())) == 48
    assert Prompt().text == "Finish this clinical note:"
    assert paper_space(Full()) == paper_space(None) == {}


def ends(dimension):
    """The values that a recipe is most likely to refuse, as they come from a proposal."""
    if isinstance(dimension, Values):
        return dimension.root
    return dimension.low, dimension.high


def test_sections_take_every_corner_of_every_space():
    taken = 0
    for adapter in METHODS:
        spaces = [] if isinstance(adapter, Full) else [paper_space(adapter)]
        sections = [
            (PretrainConfig(adapter=adapter), [*spaces, default_space(adapter, has_head=False)]),
            (
                DownstreamConfig(adapter=adapter),
                [
                    *spaces,
                    default_space(adapter, has_head=True),
                    default_space(adapter, has_head=True, domain=Prefix()),
                    default_space(None, has_head=True, domain=LoRA()),
                ],
            ),
        ]
        for section, offered in sections:
            for space in offered:
                read({key: dimension.model_dump() for key, dimension in space.items()})
                corners = itertools.zip_longest(*map(ends, space.values()))
                first = next(iter(zip(*map(ends, space.values()), strict=False)))
                for corner in corners:
                    point = {
                        key: start if value is None else value
                        for key, value, start in zip(space, corner, first, strict=True)
                    }
                    changed = config.changed(section, changes(point, adapter), "trial")
                    assert changed.adapter.kind == adapter.kind
                    taken += 1
    assert taken > 100


def test_a_default_space_holds_the_rates_of_the_adapters_that_train():
    def rates(space):
        return {key for key in space if key.endswith("_lr")}

    assert rates(default_space(LoRA(), has_head=False)) == {"optim.peak_lr"}
    assert rates(default_space(LoRA(), has_head=True)) == {"optim.peak_lr"}
    with_domain = default_space(LoRA(), has_head=True, domain=LoRA())
    assert rates(with_domain) == {"optim.peak_lr", "domain_lr"}
    alone = default_space(None, has_head=True, domain=LoRA())
    assert set(alone) == {"domain_lr", "epochs"}
    assert set(default_space(Full(), has_head=False)) == {"optim.peak_lr", "epochs"}
    assert all(with_domain[key].log for key in rates(with_domain))
