"""A domain adapter that is kept and brought: another outcome, another run folder, plain peft."""

import json
import shutil

import peft
import pytest
import torch
from one_job import domain_job, find, jobs_on, run
from recipe_of_adapters import load, small_notes_and_recipe
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from notetune import config, storage
from notetune.errors import BundleError, ConfigError, DataError
from notetune.model.adapters.folder import read_folder
from notetune.prepare.patient_hashes import (
    PROVENANCE,
    corpus_findings,
    patient_hashes,
    stop_at_known_patients,
    text_hashes,
)
from notetune.prepare.prepared import open_prepared
from notetune.recipe.recipe import Recipe
from notetune.report.page import write_report
from notetune.study.evaluate import evaluate
from notetune.study.jobs import TRAINING
from notetune.study.run import run_study, work
from notetune.train.training import read_record

OTHER = "prepare.source.tasks=[{name: second, kind: binary, column: second}]"
VARIANTS = "downstream.variants=[head-only, domain-frozen, domain-trainable+task-lora]"

ONE = "downstream.variants=[domain-frozen]"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = small_notes_and_recipe(tmp_path_factory.mktemp("brought"))
    lines = (folder / "notes.csv").read_text().splitlines()
    rows = [f"{line},{number % 3 == 0:d}" for number, line in enumerate(lines[1:])]
    (folder / "notes.csv").write_text("\n".join([f"{lines[0]},second", *rows]) + "\n")
    run(first := load(folder, "lora", "name=first"), domain_job(first))
    return folder


def bring(place, adapter, *overrides):
    settings = [f"pretrain.from={adapter}", *overrides]
    return config.load(Recipe, place / "recipe.yaml", settings)


def kept(place):
    return place / "runs/first/domain/seed-0"


@pytest.fixture(scope="module")
def of_peft(place, tmp_path_factory):
    """An adapter that plain peft wrote, of nobody knows which patients."""
    folder = tmp_path_factory.mktemp("theirs")
    plain = AutoModelForCausalLM.from_pretrained(place / "backbone")
    settings = peft.LoraConfig(
        r=3, target_modules="all-linear", rank_pattern={"q_proj": 2}, task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(plain, settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    model.save_pretrained(folder)
    return folder


def markdown(results, recipe):
    write_report(results, recipe.folder.report)
    return (recipe.folder.report / "report.md").read_text()


def trained_steps(recipe):
    return read_record(recipe.folder.domain(0) / TRAINING).steps


def test_another_outcome_on_the_same_notes_trains_no_step_1(place):
    first = load(place, "lora", "name=first")
    assert domain_job(first).is_made()
    second = load(place, "lora", "name=first", OTHER)
    assert next(iter(second.preparation.source.tasks)).name == "second"
    assert domain_job(second).is_made(is_checked=True)  # with the notes prepared anew
    assert "second" in open_prepared(second.folder.prepared).tasks
    domain_job(first)  # as it was, for the other tests


def test_an_adapter_of_another_run_is_taken_as_it_is_in_a_study_of_another_outcome(place):
    recipe = bring(
        place, kept(place), "name=taken", "pretrain.epochs=0", "seeds=2", OTHER, VARIANTS
    )
    assert recipe.pretrain.adapter == load(place, "lora").pretrain.adapter
    results = run_study(recipe)
    assert trained_steps(recipe) == 0
    digests = {read_folder(recipe.folder.domain(seed)).digest for seed in (0, 1)}
    assert digests == {read_folder(kept(place)).digest}
    cell = recipe.folder.cell("second", "domain-frozen", 0)
    frozen = load_file(cell / "domain/adapter_model.safetensors")
    before = load_file(kept(place) / "adapter_model.safetensors")
    assert frozen.keys() == before.keys()
    assert all(torch.equal(frozen[name], before[name]) for name in before)
    rows = {row.method: row.perplexity["test"] for row in results.methods}
    assert rows["lora"] != rows["none"]
    (of_heads,) = [row for row in results.tasks[0].rows if row.model == "domain-frozen"]
    assert (of_heads.runs, of_heads.is_deterministic) == ((0,), True)
    page = markdown(results, recipe)
    assert (
        "The domain adapter was brought and used as it is, without a step 1: its patients" in page
    )
    assert "the adapter that was brought" in page
    labels = {row.model for task in results.tasks for row in task.rows}
    assert {"hybrid", "head-only", "domain-frozen", "domain-trainable+task-lora"} <= labels


def test_what_is_taken_does_not_depend_on_where_it_lies(place, tmp_path):
    shutil.copytree(kept(place), tmp_path / "elsewhere")
    one, two = (
        domain_job(bring(place, folder, "name=moved", "pretrain.epochs=0"))
        for folder in (kept(place), tmp_path / "elsewhere")
    )
    assert storage.fingerprint(one.inputs) == storage.fingerprint(two.inputs)
    trained_on = domain_job(bring(place, kept(place), "name=moved"))
    anew = domain_job(load(place, "lora", "name=moved"))
    assert trained_on.inputs != anew.inputs


def test_an_adapter_is_trained_on_from_its_weights_and_keeps_whom_it_knew(place):
    recipe = bring(place, kept(place), "name=on", "pretrain.epochs=1")
    run(recipe, domain_job(recipe), find(recipe, "perplexity", method="lora"))
    assert trained_steps(recipe) > 0
    first, anew = (
        read_record(folder / TRAINING).curve[0].loss
        for folder in (recipe.folder.domain(0), kept(place))
    )
    assert first < anew
    known = json.loads((recipe.folder.domain(0) / PROVENANCE).read_text())
    (before,) = known["before"]
    assert before["patients"] == json.loads((kept(place) / PROVENANCE).read_text())["patients"]


def test_who_is_known_to_a_brought_adapter_is_judged_and_stops_the_study(place, tmp_path):
    recipe = bring(place, kept(place), "name=judged", "pretrain.epochs=0")
    run(recipe, domain_job(recipe))
    prepared = open_prepared(recipe.folder.prepared)
    folder = recipe.folder.domain(0)
    found = corpus_findings(folder, prepared)
    assert [(f.check, f.split_b, f.count, f.is_judged) for f in found] == [
        ("same patient", "test of died", 0, True),
        ("same text", "validation of died", 0, True),
        ("same text", "test of died", 0, True),
    ]
    task = prepared.tasks["died"]
    known = json.loads((folder / PROVENANCE).read_text())
    rows = task.rows("validation")[:2]
    patients = patient_hashes(task.patient_ids_N[task.rows("test")[:1]].tolist(), known["salt"])
    texts = text_hashes(prepared, task.note_ids_N[rows], known["salt"])
    for more in ({"patients": patients}, {"texts": texts}):
        ((key, values),) = more.items()
        shutil.copytree(kept(place), tmp_path / key)
        (tmp_path / key / PROVENANCE).write_text(
            json.dumps({**known, key: [*known[key], *values], "is_brought": False})
        )
        leaky = bring(place, tmp_path / key, f"name=leaky-{key}", "pretrain.epochs=0", ONE)
        with pytest.raises(DataError, match=r"leak check: .*the adapter that was brought"):
            work(leaky)
        stop_at_known_patients(leaky.folder.domain(0), prepared, allowed=True)
    said = (tmp_path / "patients" / PROVENANCE).read_bytes()
    (tmp_path / "patients" / PROVENANCE).unlink()
    later = bring(place, tmp_path / "patients", "name=later", "pretrain.epochs=0", ONE)
    work(later)  # nobody knows its patients, until what says them is put beside it
    (tmp_path / "patients" / PROVENANCE).write_bytes(said)
    with pytest.raises(DataError, match=r"leak check: .*the adapter that was brought"):
        work(later)


def test_the_provenance_holds_neither_ids_nor_texts(place):
    said = (kept(place) / PROVENANCE).read_text()
    prepared = open_prepared(place / "runs/first/prepared")
    store = prepared.store
    values = [*store.patient_ids.tolist(), *store.note_ids.tolist()]
    assert len(values) > 20
    assert not {f'"{value}"' for value in values} & set(said.split())
    assert not any(text in said for text in prepared.texts(store.note_ids))
    assert len(json.loads(said)["texts"]) > 10


def test_of_an_adapter_of_plain_peft_the_report_says_that_its_patients_are_unknown(place, of_peft):
    recipe = bring(place, of_peft, "name=theirs", "pretrain.epochs=0", VARIANTS)
    results = run_study(recipe)
    brought = [f for f in results.leakage if f.split_a == "the adapter that was brought"]
    assert {(f.check, f.is_judged, f.not_judged) for f in brought} == {
        ("same patient", False, "its patients are unknown"),
        ("same text", False, "its texts are unknown"),
    }
    page = markdown(results, recipe)
    assert "its patients are unknown, so nobody can say whether it has read notes of" in page
    assert "not judged" in page
    assert evaluate(bring(place, of_peft, "name=theirs", "pretrain.epochs=0", VARIANTS)).tasks


def test_an_adapter_that_does_not_fit_is_refused_before_notes_are_prepared(
    place, of_peft, tmp_path
):
    with pytest.raises(ConfigError, match=r"pretrain: adapter.rank is 7, but 3 in the adapter of"):
        bring(place, of_peft, "pretrain.adapter={kind: lora, rank: 7}")
    with pytest.raises(BundleError, match=r"is not an adapter folder: it needs adapter.json"):
        bring(place, place / "nowhere")
    with pytest.raises(ConfigError, match="epochs: 0 trains nothing; name an adapter with `from`"):
        load(place, "lora", "pretrain.epochs=0")
    for folder, line in (
        (kept(place), "was trained on the backbone .*, not on tiny"),
        (of_peft, "does not fit the backbone"),
    ):
        recipe = bring(place, folder, "name=misfit", "backbone=tiny")
        with pytest.raises(BundleError, match=f"pretrain.from: .*{line}") as error:
            work(recipe)
        assert "\n" not in str(error.value)
        assert not recipe.folder.prepared.exists()


def test_a_study_of_two_backbones_brings_an_adapter_to_one_of_them(place, of_peft):
    text = (
        (place / "recipe.yaml")
        .read_text()
        .replace(f"backbone: {place}/backbone\n", "")
        .replace("NAME", "two")
    )
    other = f"{{backbone: {place}/backbone, pretrain: {{from: {of_peft}}}}}"
    two = f"backbones: {{a: {place}/backbone, b: {other}}}\n"
    (place / "two.yaml").write_text(text + two)
    studies = config.load(Recipe, place / "two.yaml").studies
    assert studies["a"].pretrain.from_ is None
    assert studies["b"].pretrain.adapter == read_folder(of_peft).spec
    assert jobs_on(load(place, "lora", "name=first"))
