"""`recipes/paper.yaml` for real, with small backbones on a small synthetic hospital."""

from pathlib import Path

import pytest
from builders import random_encoder, random_llama

from notetune import config
from notetune.hospital.hospital import SyntheticConfig, write_hospital
from notetune.recipe.recipe import Recipe
from notetune.report.page import report_sections
from notetune.study.run import run_study

PAPER = Path(__file__).parents[2] / "recipes/paper.yaml"
TASKS = ["ventilation", "mortality", "length_of_stay", "diagnoses", "procedures"]
VARIANTS = [
    "head-only",
    "task-lora",
    "domain-frozen",
    "domain-frozen+task-lora",
    "domain-trainable",
    "domain-trainable+task-lora",
]
METHODS = ["none", "lora", "adaptation-prompts", "prefix-tuning", "prompt-tuning", "p-tuning"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    place = tmp_path_factory.mktemp("paper")
    write_hospital(place / "hospital", SyntheticConfig(patients=60))
    random_llama(place / "backbone")
    random_encoder(place / "encoder")
    shallow = "{adaptation-prompts: {adapter: {layers: 2}}, p-tuning: {adapter: {hidden: 8}}}"
    full = "{adapter: {kind: full}, compare: {}}"
    overrides = [
        f"runs={place}/runs",
        f"data={place}/hospital",
        "dtype=float32",
        "tune={}",
        "device=cpu",
        f"backbones.llama-7b={{backbone: {place}/backbone, pretrain: {{compare: {shallow}}}}}",
        f"backbones.pmc-llama-7b.backbone={place}/backbone",
        "backbones.pmc-llama-7b.pretrain.compare={}",
        "backbones.pmc-llama-7b.downstream={variants: [head-only]}",
        f"backbones.clinical-llama-7b={{backbone: {place}/backbone, pretrain: {full}, "
        "downstream: {variants: [full-domain]}}",
        f"encoders.models={{small: {place}/encoder}}",
        "prepare.split={kind: fractions, validation: 0.2, test: 0.3}",
        "prepare.max_tokens=40",
        "prepare.min_train_positives=8",
        "pretrain.epochs=0.2",
        "pretrain.perplexity_documents=20",
        "downstream.epochs=1",
        "encoders.epochs=1",
        "evaluate.draws=100",
        "evaluate.tfidf_min_patients=2",
    ]
    return run_study(config.load(Recipe, PAPER, overrides))


def test_the_paper_preset_runs_on_the_synthetic_hospital_into_one_report(results):
    models = ["prevalence", "tf-idf", "tf-idf-cut"]
    models += [f"llama-7b/{variant}" for variant in VARIANTS]
    models += [
        "small+full",
        "small+lora",
        "llama-7b/hybrid",
        "small+hybrid",
        "pmc-llama-7b/head-only",
        "pmc-llama-7b/hybrid",
        "clinical-llama-7b/full-domain",
        "clinical-llama-7b/hybrid",
    ]
    assert [task.task for task in results.tasks] == TASKS
    assert [[row.model for row in task.rows] for task in results.tasks] == [models] * len(TASKS)
    assert [row.method for row in results.methods] == [
        *(f"llama-7b/{method}" for method in METHODS),
        *("clinical-llama-7b/none", "clinical-llama-7b/full"),
    ]
    assert any(stage.stage == "corpus of step 1: discharge notes" for stage in results.flow)


def test_the_tables_of_the_paper_show_ours_and_theirs_side_by_side(results):
    (section,) = (s for s in report_sections(results) if s.anchor == "published")
    methods, models = section.blocks
    adapted = {row[0].detail: row for row in methods.rows}["llama-7b/lora"]
    found = next(row for row in results.methods if row.method == "llama-7b/lora")
    assert adapted[1].text == f"{found.trainable_parameters:,}"
    assert (adapted[2].text, adapted[9].text, adapted[11].text) == ("8.4M (0.12 %)", "1", "none")
    frozen = {row[0].detail: row for row in models.rows}["llama-7b/domain-frozen"]
    shown = [row.auroc for row in results.tasks[0].rows if row.model == "llama-7b/domain-frozen"]
    assert frozen[1].sort == shown[0].value
    assert frozen[2].text == "0.5222"
