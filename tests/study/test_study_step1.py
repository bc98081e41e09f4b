"""Step 1 by several methods on the same notes, and what its perplexities are."""

import csv
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from builders import byte_tokenizer, random_llama
from one_job import domain_job, find, jobs_on, run, run_jobs
from small_study import write_word_notes
from transformers import AutoModelForCausalLM

from notetune import config
from notetune.errors import ConfigError, DataError, RunError
from notetune.metrics.scores import read_scores
from notetune.model.cards import read_card
from notetune.recipe.recipe import Recipe
from notetune.recipe.sections import PerplexityConfig
from notetune.serve.predictor import load_predictor
from notetune.study import perplexity, step1
from notetune.study.evaluate import evaluate, methods, read_study
from notetune.study.run import prepare_notes
from notetune.study.specs import DomainSpec, Notes
from notetune.train.training import read_record

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


def notes_of_two_sources(recipe):
    """The prepared notes, every third one as if it came from another source."""
    prepared = prepare_notes(recipe).prepared
    is_third_N = np.arange(len(prepared.store.note_ids)) % 3 == 0
    sources_N = np.where(is_third_N, "discharge", "radiology")
    changed = replace(prepared, store=replace(prepared.store, source_N=sources_N))
    return Notes(changed, changed)


def jobs_of_step_1(recipe, stages=("pretrain", "perplexity")):
    return [job for job in jobs_on(recipe) if job.stage in stages]


def pretrain_all(recipe, notes):
    """Train and measure every method; by method, the records and the perplexities."""
    jobs = jobs_of_step_1(recipe)
    run_jobs(jobs, notes)
    trained, measured = ([j for j in jobs if j.stage == s] for s in ("pretrain", "perplexity"))
    records = {job.method: read_record(job.folder / step1.TRAINING) for job in trained}
    return records, {job.method: perplexity.read(job) for job in measured}


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
    return pretrain_all(recipe, notes_of_two_sources(recipe))


def rows_of(trained, method):
    rows = trained[1][method]
    return {(row.split, row.source): row for row in rows if row.method == method}


def test_every_method_is_trained_on_the_notes_that_were_prepared_once(place, trained):
    records, measured = trained
    assert list(records) == ["lora", "wide"]
    assert records["lora"].trainable_parameters == LORA_2
    assert records["wide"].trainable_parameters == 2 * LORA_2
    assert records["lora"].tokens == records["wide"].tokens
    assert (place / "runs/several/compared/wide/domain/seed-0/adapter.json").is_file()
    assert len(list(place.rglob("store.json"))) == 1
    assert len(rows_of(trained, None)) == len(rows_of(trained, "lora"))
    assert list(measured) == [None, "lora", "wide"]
    assert {row.method for row in measured["wide"]} == {"wide"}


def test_perplexity_is_there_per_split_and_source_and_on_general_text(trained):
    for method in (None, "lora"):
        rows = rows_of(trained, method)
        sources = ("discharge", "radiology", "all")
        splits = ("train", "validation", "test")
        expected = {(split, source) for split in splits for source in sources}
        assert set(rows) == expected | {("general", "general")}
        for split in splits:
            one, other, both = (rows[split, source] for source in sources)
            assert one.tokens + other.tokens == both.tokens
            nats = sum(row.tokens * math.log(row.perplexity) for row in (one, other))
            assert both.perplexity == pytest.approx(math.exp(nats / both.tokens))
    assert rows["train", "all"].perplexity < rows_of(trained, None)["train", "all"].perplexity


def test_each_perplexity_has_an_interval_and_one_on_test_notes_stands_to_the_best(place, trained):
    rows = {row.method: row for row in methods(jobs_of_step_1(load(place)))}
    assert list(rows) == ["none", "lora", "wide"]
    for row in rows.values():
        assert list(row.intervals) == ["train", "validation", "test"]
        for split, (low, high) in row.intervals.items():
            assert low < row.perplexity[split] < high
    assert rows["none"].standing == "worse"
    assert min(rows.values(), key=lambda row: row.perplexity["test"]).standing in ("best", "tied")
    (job, *_) = (one for one in jobs_of_step_1(load(place)) if one.stage == "perplexity")
    batches = replace(job, spec=replace(job.spec, average="batch-mean"))
    assert perplexity.judged_on("test", {"none": batches}) == {}


def test_perplexities_are_compared_on_one_backbone_under_whatever_name(place, trained):
    jobs = [job for job in jobs_of_step_1(load(place)) if job.stage == "perplexity"]
    best = min(methods(jobs), key=lambda row: row.perplexity["test"]).method
    twice = [replace(job, backbone=name) for name in ("one", "other") for job in jobs]
    rows = {row.method: row.standing for row in methods(twice)}
    assert rows[f"one/{best}"] == rows[f"other/{best}"] == "tied"
    weights = replace(jobs[0].spec.weights, fingerprint="another")
    others = [replace(job, backbone="o", spec=replace(job.spec, weights=weights)) for job in jobs]
    alone = {row.method: row.standing for row in methods(jobs)}
    beside = {row.method: row.standing for row in methods([*jobs, *others])}
    assert beside == alone | {f"o/{name}": standing for name, standing in alone.items()}


def test_general_text_is_read_passage_by_passage(place, trained):
    plain = AutoModelForCausalLM.from_pretrained(place / "backbone").eval()
    nats, targets = 0.0, 0
    for passage in ("Once upon a time.", "The end, é."):
        ids = torch.tensor([[0, *(b for b in _byte_ids(passage)), 1]])
        with torch.inference_mode():
            nats += plain(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        targets += ids.shape[1] - 1
    row = rows_of(trained, None)["general", "general"]
    assert row.tokens == targets
    assert row.perplexity == pytest.approx(math.exp(nats / targets), rel=1e-5)
    assert row.bits_per_byte == pytest.approx(nats / math.log(2) / (17 + 12), rel=1e-5)


def _byte_ids(text):
    return byte_tokenizer().encode(text, add_special_tokens=False).ids


def test_a_further_method_trains_alone_and_a_finished_one_is_kept(place, trained):
    manifest = place / "runs/several/domain/seed-0/manifest.json"
    before = manifest.stat().st_mtime_ns
    recipe = load(place, "pretrain.compare.narrow={adapter: {kind: lora, rank: 1}}")
    again = pretrain_all(recipe, notes_of_two_sources(recipe))
    assert list(again[0]) == ["lora", "wide", "narrow"]
    assert manifest.stat().st_mtime_ns == before
    assert [one["wide"] for one in again] == [one["wide"] for one in trained]
    rows = methods(jobs_of_step_1(recipe))
    assert [row.method for row in rows] == ["none", "lora", "wide", "narrow"]


def states_of(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


MEASURING = {
    "perplexity_documents": ("3", lambda row: row.tokens),
    "perplexity": ("batch-mean", lambda row: row.perplexity),
    "general_text": ("{place}/other.txt", lambda row: row.source),
}


def test_every_key_that_measures_is_changed_here():
    assert set(MEASURING) == set(PerplexityConfig.model_fields)
    training = {field.name for field in fields(DomainSpec)}
    assert not set(MEASURING) & training
    assert {"adapter", "optim", "sources"} < training


@pytest.mark.parametrize("key", MEASURING)
def test_a_key_that_measures_trains_nothing_again(place, trained, key, monkeypatch):
    (place / "other.txt").write_text("Twice upon a time.\n")
    value, figure = MEASURING[key]
    recipe = load(place, f"pretrain.{key}={value.format(place=place)}")
    notes = notes_of_two_sources(recipe)
    roots = place / "runs/several/domain/seed-0", place / "runs/several/compared/wide/domain/seed-0"
    before = [states_of(root) for root in roots]
    assert min(len(states) for states in before) > 5
    assert not any(job.is_made() for job in jobs_of_step_1(recipe, ["perplexity"]))
    with pytest.raises(RunError, match="no perplexity that was measured as the recipe says now"):
        read_study(recipe)
    with monkeypatch.context() as patch:
        patch.setattr(step1, "fit", None)
        again = pretrain_all(recipe, notes)
        back = pretrain_all(load(place), notes)
    assert [states_of(root) for root in roots] == before
    assert back[0] == trained[0]
    for name in (None, "lora", "wide"):
        old, new = (each[1][name] for each in (trained, again))
        assert len(old) == len(new)
        assert list(map(figure, old)) != list(map(figure, new))
        assert [row.perplexity for row in back[1][name]] == pytest.approx(
            [row.perplexity for row in old], rel=1e-6
        )


def test_a_measurement_that_was_killed_is_done_again_without_a_training(place, monkeypatch):
    recipe = load(place, f"runs={place}/killed", "pretrain.compare={}")
    with monkeypatch.context() as patch:
        patch.setattr(perplexity.infer, "document_losses", None)
        with pytest.raises(TypeError):
            run(recipe, find(recipe, "perplexity", method="lora"))
    before = states_of(recipe.folder.domain(0))
    assert len(before) > 5
    _, measured = pretrain_all(recipe, prepare_notes(recipe))
    assert states_of(recipe.folder.domain(0)) == before
    assert {row.method for rows in measured.values() for row in rows} == {None, "lora"}


def test_the_report_has_the_methods_and_names_the_compat_switch(place, trained):
    recipe = load(place, "pretrain.perplexity=batch-mean", f"runs={place}/compat")
    notes = notes_of_two_sources(recipe)
    compat = pretrain_all(recipe, notes)
    run_jobs([job for job in jobs_on(recipe) if job.stage == "model"], notes)
    results = evaluate(recipe)
    none, lora, wide = results.methods
    assert (
        none.perplexity.keys()
        == wide.perplexity.keys()
        == {"train", "validation", "test", "general"}
    )
    assert lora.perplexity["test"] == rows_of(compat, "lora")["test", "all"].perplexity
    assert none.perplexity["test"] == rows_of(compat, None)["test", "all"].perplexity
    assert none.perplexity["test"] != rows_of(trained, None)["test", "all"].perplexity
    assert wide.trainable_parameters == 2 * lora.trainable_parameters
    assert [s for s in results.compat_switches if s.startswith("perplexity: batch-mean")]
    assert {(row.method, row.is_domain_adapter) for row in results.perplexity} == {
        (None, False),
        ("lora", True),
        ("wide", False),
    }
    assert "wide" in results.learning_curves


def test_a_bfloat16_study_says_so_in_its_bundles_and_predicts_with_it(place):
    recipe = load(place, "dtype=bfloat16", f"runs={place}/bfloat16", "pretrain.compare={}")
    (job,) = (job for job in jobs_on(recipe) if job.stage == "model")
    run(recipe, job)
    folder = job.folder
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
    assert domain_job(other).inputs != domain_job(recipe).inputs


def test_faulty_recipes_of_step_1_are_refused_in_one_line(place):
    recipe = load(place, f"pretrain.general_text={place}/nowhere.txt")
    with pytest.raises(DataError, match=r"nowhere\.txt is not a file"):
        pretrain_all(recipe, prepare_notes(recipe))
    (place / "empty.txt").write_text(" \n")
    empty = load(place, f"pretrain.general_text={place}/empty.txt", f"runs={place}/empty")
    with pytest.raises(DataError, match=r"empty\.txt is empty"):
        pretrain_all(empty, prepare_notes(empty))
    assert not empty.folder.domain(0).exists()
    with pytest.raises(ConfigError, match="lora is how the report names the domain adapter"):
        load(place, "pretrain.compare={lora: {}}")
    with pytest.raises(ConfigError, match="batch-mean"):
        load(place, "pretrain.perplexity=epoch")
    with pytest.raises(ConfigError, match="bfloat16"):
        load(place, "dtype=float16")
    wrong = load(place, "pretrain.sources=[nursing]")
    with pytest.raises(DataError, match="no training note of source nursing"):
        domain_job(wrong).spec.documents_of(prepare_notes(wrong).corpus.store)
