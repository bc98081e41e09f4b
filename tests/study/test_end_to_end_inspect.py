"""`notetune inspect`: a folder with a config.json alone is enough."""

import json

import pytest
from transformers import LlamaConfig

from notetune import config
from notetune.cli import main
from notetune.recipe.recipe import Recipe
from notetune.study.costs import costs_of_a_million
from notetune.study.counts import assumed_longest

SHAPES = {
    "llama-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "small": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    },
}
RECIPE = """
name: large
backbone: {place}/small
device: cpu
dtype: bfloat16
prepare:
  source: {{kind: table, path: nowhere.csv, columns: {{text: text}}}}
  max_tokens: 512
pretrain:
  adapter: {{kind: lora, rank: 16}}
  compare:
    small: {{adapter: {{kind: lora, rank: 4}}}}
    adaptation: {{adapter: {{kind: adaptation-prompt, length: 10, layers: 2}}}}
    prefix: {{adapter: {{kind: prefix, virtual_tokens: 20}}}}
    prompt: {{adapter: {{kind: prompt, virtual_tokens: 15}}}}
    p-tuning: {{adapter: {{kind: p-tuning, virtual_tokens: 20, hidden: 256, layers: 4,
                           reparameterisation: lstm}}}}
    everything: {{adapter: {{kind: full}}}}
  tokens_per_row: 1024
downstream:
  adapter: {{kind: lora, rank: 8}}
  variants: [head-only, task-lora, domain-frozen+task-lora, domain-trainable+task-lora]
  tokens_per_row: 1024
"""


H, LAYERS, VOCABULARY = 256, 3, 32_000
BACKBONE = 2 * VOCABULARY * H + LAYERS * (4 * H * H + 3 * H * 512 + 2 * H) + H
HEAD = H + 1
TRAINED = {
    "pretrain · lora": LAYERS * 2 * 16 * 2 * H,
    "pretrain · small": LAYERS * 2 * 4 * 2 * H,
    "pretrain · adaptation": 2 * (10 * H + 1),
    "pretrain · prefix": 20 * 2 * LAYERS * H,
    "pretrain · prompt": 15 * H,
    "pretrain · everything": BACKBONE,
    "any task · head-only": HEAD,
    "any task · task-lora": HEAD + LAYERS * 2 * 8 * 2 * H,
    "any task · domain-frozen+task-lora": HEAD + LAYERS * 2 * 8 * 2 * H,
    "any task · domain-trainable+task-lora": HEAD + LAYERS * 2 * (8 + 16) * 2 * H,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    for name, shape in SHAPES.items():
        config = LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=False, **shape)
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    (folder / "recipe.yaml").write_text(RECIPE.format(place=folder))
    return folder


@pytest.fixture(scope="module")
def found(place):
    return costs_of_a_million(config.load(Recipe, place / "recipe.yaml"))


def test_every_training_is_counted_without_weights(found):
    by_name = {training.name: training for training in found.trainings}
    assert by_name["pretrain · p-tuning"].trainable_parameters > 20 * H
    del by_name["pretrain · p-tuning"]
    counts = {name: training.trainable_parameters for name, training in by_name.items()}
    assert counts == TRAINED
    assert by_name["pretrain · everything"].total_parameters == BACKBONE
    both = by_name["any task · domain-frozen+task-lora"].total_parameters
    adapters = TRAINED["pretrain · lora"] + TRAINED["any task · task-lora"] - HEAD
    assert both == BACKBONE + adapters


def test_what_trains_more_takes_more(found):
    by_name = {training.name: training for training in found.trainings}
    lora, everything = by_name["pretrain · lora"], by_name["pretrain · everything"]
    head_only, task = by_name["any task · head-only"], by_name["any task · task-lora"]
    assert everything.memory_gib > lora.memory_gib > by_name["pretrain · small"].memory_gib
    assert task.memory_gib > head_only.memory_gib
    # Weights, gradients and two averages, each of four bytes.
    assert everything.memory_gib > 4 * 4 * BACKBONE / 2**30
    assert everything.flops > 1.4 * lora.flops
    assert task.flops > 1.8 * head_only.flops
    rates = [training.flops / training.seconds for training in found.trainings]
    assert rates == pytest.approx([rates[0]] * len(rates))
    assert {training.tokens for training in found.trainings} == {round(1e6 / 512) * 512}


def test_llama_7b_needs_only_its_configuration(place):
    overrides = [f"backbone={place}/llama-7b", "pretrain.compare={}", "downstream.variants=[]"]
    found = costs_of_a_million(config.load(Recipe, place / "recipe.yaml", overrides))
    (lora,) = found.trainings
    assert lora.total_parameters == 6_738_415_616 + 8_388_608
    assert lora.trainable_parameters == 8_388_608  # Table 2 of the paper
    # 13.4 G forward and as much backward, since the frozen weights get no gradient.
    assert 26e9 < lora.flops / lora.tokens < 27e9
    assert 1 < lora.memory_gib / (2 * 6_738_415_616 / 2**30) < 2


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_says_what_it_found_and_what_that_is_based_on(
    place, options, capsys, monkeypatch
):
    monkeypatch.setattr("sys.argv", ["notetune", "inspect", f"{place}/recipe.yaml", *options])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    text = capsys.readouterr().out
    if options:
        assert len(json.loads(text)["trainings"]) == len(TRAINED) + 1
    else:
        assert f"{TRAINED['pretrain · lora']:,}" in text
        assert "without weights" in text
        assert "1,953 of 512 tokens" in " ".join(text.split())


def test_documents_are_as_long_as_they_can_get_where_the_notes_are_to_tell(place):
    def longest(*overrides):
        return assumed_longest(config.load(Recipe, place / "recipe.yaml", overrides))

    assert longest() == 512
    assert longest("prepare.max_tokens=auto") == 1024 - 20  # a row, less virtual tokens
    rows = [f"{stage}.tokens_per_row=9999" for stage in ("pretrain", "downstream")]
    assert longest("prepare.max_tokens=auto", *rows) == 2048 - 20  # the positions of the backbone
