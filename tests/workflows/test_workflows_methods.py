"""Step 1 by several methods on the same notes, and what its perplexities are."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import byte_tokenizer, random_llama
from small_study import write_word_notes
from transformers import AutoModelForCausalLM

from notetune import config
from notetune.errors import ConfigError, DataError, RunError
from notetune.metrics.scores import read_scores
from notetune.model.bundle import read_card
from notetune.serve.predictor import load_predictor
from notetune.workflows import downstream, methods, perplexity, pretrain
from notetune.workflows.evaluate import evaluate
from notetune.workflows.finished import Finished
from notetune.workflows.prepare import prepare
from notetune.workflows.recipe import Recipe

RECIPE = """
name: several
runs: {place}/runs
backbone: {place}/backbone
device: cpu
prepare:
  source:
    kind: table
    path: {place}/notes.csv
    columns: {{text: text, note_id: note, patient_id: patient}}
    tasks:
      - {{name: died, kind: binary, column: died}}
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  max_tokens: 48
pretrain:
  adapter: {{kind: lora, rank: 2, alpha: 4}}
  compare:
    wide: {{adapter: {{kind: lora, rank: 4}}, optim: {{peak_lr: 1e-3, targets_per_step: 1024}}}}
  general_text: {place}/general.txt
  tokens_per_row: 256
  optim: {{targets_per_step: 1024, peak_lr: 5e-3}}
downstream: {{variants: [domain-frozen], tokens_per_row: 256}}
evaluate: {{draws: 100, baselines: [prevalence]}}
"""
BFLOAT16_ROUNDING = 2**-8
LORA_2 = 2 * (2 * (32 + 32) + 2 * (32 + 16))


def prepare_of_two_sources(recipe):
    """The prepared notes, every third one as if it came from another source."""
    prepared = prepare(recipe)
    is_third_N = np.arange(len(prepared.store.note_ids)) % 3 == 0
    sources_N = np.where(is_third_N, "discharge", "radiology")
    return replace(prepared, store=replace(prepared.store, source_N=sources_N))


def load(place, *overrides):
    return config.load(Recipe, place / "recipe.yaml", overrides)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    random_llama(folder / "backbone")
    write_word_notes(folder / "notes.csv", 60)
    (folder / "general.txt").write_text("Once upon a time.\n\n\nThe end, é.\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(place=folder))
    return folder


@pytest.fixture(scope="module")
def trained(place):
    recipe = load(place)
    return methods.pretrain_all(recipe, prepare_of_two_sources(recipe))


def rows_of(trained, name, when):
    rows = trained[name].perplexity
    return {(row.split, row.source): row for row in rows if row.model == when}


def test_every_method_is_trained_on_the_notes_that_were_prepared_once(place, trained):
    assert list(trained) == ["lora", "wide"]
    assert trained["lora"].record.trainable_parameters == LORA_2
    assert trained["wide"].record.trainable_parameters == 2 * LORA_2
    assert trained["lora"].record.tokens == trained["wide"].record.tokens
    assert (place / "runs/several/compared/wide/domain/seed-0/adapter.json").is_file()
    assert len(list(place.rglob("store.json"))) == 1
    assert len(rows_of(trained, "lora", "before")) == len(rows_of(trained, "lora", "after"))
    assert not rows_of(trained, "wide", "before")


def test_perplexity_is_there_per_split_and_source_and_on_general_text(trained):
    for when in ("before", "after"):
        rows = rows_of(trained, "lora", when)
        sources = ("discharge", "radiology", "all")
        splits = ("train", "validation", "test")
        expected = {(split, source) for split in splits for source in sources}
        assert set(rows) == expected | {("general", "general")}
        for split in splits:
            one, other, both = (rows[split, source] for source in sources)
            assert one.tokens + other.tokens == both.tokens
            nats = sum(row.tokens * math.log(row.perplexity) for row in (one, other))
            assert both.perplexity == pytest.approx(math.exp(nats / both.tokens))
    assert (
        rows["train", "all"].perplexity
        < rows_of(trained, "lora", "before")["train", "all"].perplexity
    )


def test_general_text_is_read_passage_by_passage(place, trained):
    plain = AutoModelForCausalLM.from_pretrained(place / "backbone").eval()
    nats, targets = 0.0, 0
    for passage in ("Once upon a time.", "The end, é."):
        ids = torch.tensor([[0, *(b for b in _byte_ids(passage)), 1]])
        with torch.inference_mode():
            nats += plain(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        targets += ids.shape[1] - 1
    row = rows_of(trained, "lora", "before")["general", "general"]
    assert row.tokens == targets
    assert row.perplexity == pytest.approx(math.exp(nats / targets), rel=1e-5)
    assert row.bits_per_byte == pytest.approx(nats / math.log(2) / (17 + 12), rel=1e-5)


def _byte_ids(text):
    return byte_tokenizer().encode(text, add_special_tokens=False).ids


def test_a_further_method_trains_alone_and_a_finished_one_is_kept(place, trained):
    manifest = place / "runs/several/domain/seed-0/manifest.json"
    before = manifest.stat().st_mtime_ns
    recipe = load(place, "pretrain.compare.narrow={adapter: {kind: lora, rank: 1}}")
    prepared = prepare_of_two_sources(recipe)
    again = methods.pretrain_all(recipe, prepared)
    assert list(again) == ["lora", "wide", "narrow"]
    assert manifest.stat().st_mtime_ns == before
    assert again["wide"] == trained["wide"]
    assert [row.method for row in methods.method_rows(again)] == ["none", "lora", "wide", "narrow"]


def states_of(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


MEASURING = {
    "perplexity_documents": ("3", lambda row: row.tokens),
    "perplexity": ("batch-mean", lambda row: row.perplexity),
    "general_text": ("{place}/other.txt", lambda row: row.source),
}


def test_every_key_that_measures_is_changed_here(place):
    assert set(MEASURING) == set(load(place).pretrain.measuring)
    assert not set(MEASURING) & set(load(place).pretrain.training)
    assert {"adapter", "optim", "sources"} < set(load(place).pretrain.training)


@pytest.mark.parametrize("key", MEASURING)
def test_a_key_that_measures_trains_nothing_again(place, trained, key, monkeypatch):
    (place / "other.txt").write_text("Twice upon a time.\n")
    value, figure = MEASURING[key]
    recipe = load(place, f"pretrain.{key}={value.format(place=place)}")
    prepared = prepare_of_two_sources(recipe)
    roots = place / "runs/several/domain/seed-0", place / "runs/several/compared/wide/domain/seed-0"
    before = [states_of(root) for root in roots]
    assert min(len(states) for states in before) > 5
    assert not perplexity.is_measured(recipe, prepared, measures_before=True)
    with pytest.raises(RunError, match="no perplexity that was measured as the recipe says now"):
        methods.read_all(recipe, prepared)
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "fit", None)
        again = methods.pretrain_all(recipe, prepared)
        back = methods.pretrain_all(load(place), prepared)
    assert [states_of(root) for root in roots] == before
    for name in ("lora", "wide"):
        old, new = (each[name].perplexity for each in (trained, again))
        assert len(old) == len(new)
        assert list(map(figure, old)) != list(map(figure, new))
        assert back[name].record == trained[name].record
        assert [row.perplexity for row in back[name].perplexity] == pytest.approx(
            [row.perplexity for row in old], rel=1e-6
        )


def test_a_measurement_that_was_killed_is_done_again_without_a_training(place, monkeypatch):
    recipe = load(place, f"runs={place}/killed", "pretrain.compare={}")
    prepared = prepare(recipe)
    with monkeypatch.context() as patch:
        patch.setattr(perplexity.infer, "perplexity", None)
        with pytest.raises(TypeError):
            pretrain.pretrain(recipe, prepared)
    before = states_of(recipe.folder.domain(0))
    assert len(before) > 5
    rows = pretrain.pretrain(recipe, prepared).perplexity
    assert states_of(recipe.folder.domain(0)) == before
    assert {row.model for row in rows} == {"before", "after"}


def test_the_report_has_the_methods_and_names_the_compat_switch(place, trained):
    recipe = load(place, "pretrain.perplexity=batch-mean", f"runs={place}/compat")
    prepared = prepare_of_two_sources(recipe)
    compat = methods.pretrain_all(recipe, prepared)
    for cell in downstream.cells(recipe, prepared):
        downstream.downstream(recipe, prepared, cell)
    results = evaluate(recipe, {"": Finished(recipe, prepared, prepared, compat)})
    none, lora, wide = results.methods
    assert (
        none.perplexity.keys()
        == wide.perplexity.keys()
        == {"train", "validation", "test", "general"}
    )
    after = rows_of(compat, "lora", "after")
    assert lora.perplexity["test"] == after["test", "all"].perplexity
    assert none.perplexity["test"] == rows_of(compat, "lora", "before")["test", "all"].perplexity
    assert none.perplexity["test"] != rows_of(trained, "lora", "before")["test", "all"].perplexity
    assert wide.trainable_parameters == 2 * lora.trainable_parameters
    assert [s for s in results.compat_switches if s.startswith("perplexity: batch-mean")]
    assert {row.model for row in results.perplexity} == {"before", "after", "wide"}
    assert "wide" in results.learning_curves


def test_a_bfloat16_study_says_so_in_its_bundles_and_predicts_with_it(place):
    recipe = load(place, "dtype=bfloat16", f"runs={place}/bfloat16", "pretrain.compare={}")
    prepared = prepare(recipe)
    pretrain.pretrain(recipe, prepared)
    (cell,) = downstream.cells(recipe, prepared)
    downstream.downstream(recipe, prepared, cell)
    folder = recipe.folder.cell(cell.task, cell.variant, cell.seed)
    assert read_card(folder).dtype == "bfloat16"
    predictor = load_predictor(folder, str(place / "backbone"))
    assert predictor.bundle.model.backbone.dtype == "bfloat16"
    adapter = predictor.bundle.model.tensors("domain")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    table = read_scores(folder / "test.parquet")
    with (place / "notes.csv").open(newline="", encoding="utf-8") as file:
        text_of = {row["note"]: row["text"] for row in csv.DictReader(file)}
    texts = [text_of[note] for note in table.note_ids_N.tolist()]
    together = predictor.predict(texts).scores_NK
    alone = np.concatenate([predictor.predict([text]).scores_NK for text in texts])
    assert len(np.unique(alone)) > 1
    assert np.abs(together - table.scores_NK).max() < BFLOAT16_ROUNDING
    assert np.abs(alone - table.scores_NK).max() < BFLOAT16_ROUNDING
    other = recipe.model_copy(update={"dtype": "float32"})
    assert pretrain.inputs(other, prepared, 0) != pretrain.inputs(recipe, prepared, 0)


def test_faulty_recipes_of_step_1_are_refused_in_one_line(place):
    recipe = load(place, f"pretrain.general_text={place}/nowhere.txt")
    with pytest.raises(DataError, match=r"nowhere\.txt is not a file"):
        pretrain.pretrain(recipe, prepare(recipe))
    (place / "empty.txt").write_text(" \n")
    empty = load(place, f"pretrain.general_text={place}/empty.txt", f"runs={place}/empty")
    with pytest.raises(DataError, match=r"empty\.txt is empty"):
        pretrain.pretrain(empty, prepare(empty))
    assert not empty.folder.domain(0).exists()
    with pytest.raises(ConfigError, match="lora is how the report names the domain adapter"):
        load(place, "pretrain.compare={lora: {}}")
    with pytest.raises(ConfigError, match="batch-mean"):
        load(place, "pretrain.perplexity=epoch")
    with pytest.raises(ConfigError, match="bfloat16"):
        load(place, "dtype=float16")
    wrong = load(place, "pretrain.sources=[nursing]")
    with pytest.raises(DataError, match="no training note of source nursing"):
        pretrain.training_documents(wrong, prepare(wrong))
