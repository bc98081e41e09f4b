"""What a job depends on: every key of a recipe changes the jobs whose outcome it can change."""

import inspect
import pkgutil
import re
from dataclasses import replace
from typing import get_args

import pytest
from builders import random_encoder
from small_study import small_study

from notetune import config, storage
from notetune.cli.keys import keys
from notetune.model.adapters.folder import AdapterCard
from notetune.model.adapters.specs import LoRA
from notetune.prepare import prepared
from notetune.prepare.settings import Preparation
from notetune.recipe.recipe import Recipe
from notetune.study.listing import jobs_of
from notetune.study.specs import KINDS, Facts, Stage
from notetune.study.wanted import place_of

MORE = """
encoders:
  models: {{bert: {folder}/bert}}
  variants: [head-only, full, lora]
"""
SETTINGS = [
    "seeds=1",
    "evaluate.draws=100",
    "prepare.source.features=[age]",
    "prepare.source.columns.stay_id=stay",
    "prepare.source.columns.time=time",
    "pretrain.compare={other: {adapter: {kind: prompt, virtual_tokens: 2}}}",
    "downstream.variants=[head-only, task-lora, domain-frozen, domain-trainable+task-lora]",
    "downstream.tasks=[died]",
]
FACTS = Facts(("died",), ("l",), "t", "d", 48, 1, "c", 48)

STEP_1 = {"pretrain lora", "perplexity lora"}
OTHER = {"pretrain other", "perplexity other"}
ALONE = {"perplexity None"}
ON_DOMAIN = {"domain-frozen", "domain-trainable+task-lora", "hybrid"}
ADAPTERS = {"task-lora", "domain-trainable+task-lora", "hybrid"}
BACKBONE = {"head-only", *ADAPTERS, *ON_DOMAIN}
TRAINED_ENCODERS = {"bert+full", "bert+lora", "bert+hybrid"}
ENCODERS = {"bert+head-only", *TRAINED_ENCODERS}
WORDS = {"tf-idf", "tf-idf-cut"}
HYBRIDS = {"hybrid", "bert+hybrid"}
MEASURED = {*ALONE, "perplexity lora", "perplexity other"}
EVERY_STEP_1 = {*STEP_1, *OTHER, *ALONE, *ON_DOMAIN}
TRAINED_STEP_1 = EVERY_STEP_1 - ALONE
CHANGES = {
    "schema=1": set(),
    "name=x": set(),
    "title=x": set(),
    "runs=/x": set(),
    "prepared=/x": set(),
    "notices=[x]": set(),
    "device=auto": set(),
    "gpu=h100": set(),
    "checkpoint_minutes=0": set(),
    "recompute=true": set(),
    "keep_hidden_states=false": set(),
    "dtype=bfloat16": {"prepare", *EVERY_STEP_1, *BACKBONE, *ENCODERS},
    "prepare.split.seed=7": {"prepare"},
    "prepare.opener=none": {"prepare"},
    "prepare.max_tokens=40": {"prepare", "encode", *ENCODERS},
    "prepare.long_notes=first": {"prepare"},  # one piece is read anyway
    "prepare.drop_near_duplicates=true": {"prepare"},
    "prepare.join=by time": {"prepare"},
    "prepare.late_notes=drop": {"prepare"},
    "prepare.min_train_positives=1": {"prepare"},
    "prepare.allow_leaks=true": {"prepare"},
    "prepare.workers=1": set(),
    "pretrain.perplexity_documents=3": MEASURED,
    "pretrain.perplexity=batch-mean": MEASURED,
    "pretrain.general_text={folder}/text": MEASURED,
    "pretrain.adapter.rank=3": TRAINED_STEP_1 - OTHER,
    "pretrain.compare.other.adapter.virtual_tokens=3": OTHER,
    "pretrain.compare.other.optim={peak_lr: 1}": OTHER,
    "pretrain.sources=[visit]": EVERY_STEP_1,
    "pretrain.always=true": set(),  # something stands on step 1 anyway
    "pretrain.leaked_texts=drop": {"prepare"},
    "pretrain.epochs=2": TRAINED_STEP_1,
    "pretrain.from={folder}/kept": TRAINED_STEP_1 - OTHER,
    "pretrain.tokens_per_row=300": EVERY_STEP_1,
    "pretrain.compiled=true": EVERY_STEP_1,
    "pretrain.sharded=true": EVERY_STEP_1,
    "pretrain.optim.peak_lr=1": TRAINED_STEP_1,
    "downstream.tasks=[died, stay]": {"prepare"},
    "downstream.adapter.rank=3": ADAPTERS,
    "downstream.features.pooling=last": BACKBONE,
    "downstream.features.layers=[0, 2]": BACKBONE,
    "downstream.max_pieces=2": {"encode", "tf-idf-cut", *BACKBONE, *ENCODERS},
    "downstream.class_weights=balanced": {*BACKBONE, *ENCODERS},
    "downstream.epochs=2": ADAPTERS,
    "downstream.tokens_per_row=300": BACKBONE,
    "downstream.optim.peak_lr=1": ADAPTERS,
    "downstream.domain_lr=1": {"domain-trainable+task-lora", "hybrid"},
    "downstream.head_lr=1": ADAPTERS,
    "downstream.evaluations_per_epoch=3": {*ADAPTERS, *TRAINED_ENCODERS},
    "downstream.choose=loss": {*ADAPTERS, *TRAINED_ENCODERS},
    "downstream.patience=1": {*ADAPTERS, *TRAINED_ENCODERS},
    "encoders.adapter.rank=3": {"bert+lora", "bert+hybrid"},
    "encoders.features.pooling=mean": ENCODERS,
    "encoders.features.layers=[0, 2]": ENCODERS,
    "encoders.epochs=9": TRAINED_ENCODERS,
    "encoders.tokens_per_row=300": ENCODERS,
    "encoders.full_optim.peak_lr=1": {"bert+full"},
    "encoders.lora_optim.peak_lr=1": {"bert+lora", "bert+hybrid"},
    "encoders.head_lr=1": TRAINED_ENCODERS,
    # Nothing, while nothing is searched.
    "tune.objective=loss": set(),
    "tune.trials=3": set(),
    "tune.starts=3": set(),
    "tune.proposer=random": set(),
    "tune.share=0.5": set(),
    "tune.seed=1": set(),
    "evaluate.combine=mean": set(),
    "evaluate.draws=200": set(),
    "evaluate.primary=[]": set(),
    "evaluate.tfidf_min_patients=9": {*WORDS, "columns", *HYBRIDS},
    "evaluate.listed_patients={file: x}": set(),
    "evaluate.published=gema-2023": set(),
    "evaluate.seed=1": set(),
}
# What adds or removes jobs, and leaves all others as they are.
LISTS = (
    "seeds=2",
    "downstream.variants=[head-only, domain-frozen, domain-trainable+task-lora]",
    "encoders.variants=[lora]",
    "evaluate.baselines=[tf-idf, tf-idf-cut, columns]",
    "evaluate.hybrid=null",
    "evaluate.deletion_notes=3",
    "tune.pretrain=default",
    "tune.downstream=default",
)
# What is searched, a key, and whose search that key changes.
OF_STEP_1, OF_STEP_2 = "tune.pretrain=default", "tune.downstream=paper"
OF_EACH = ("trials=3", "starts=3", "share=0.5", "proposer=random", "seed=1")
OF_SEARCHES = (
    *((OF_STEP_1, f"tune.{change}", {"lora", "other"}) for change in OF_EACH),
    *((OF_STEP_2, f"tune.{change}", {"task-lora"}) for change in OF_EACH),
    (OF_STEP_2, "tune.objective=loss", {"task-lora"}),
    (OF_STEP_1, "pretrain.epochs=2", {"lora", "other"}),
    (OF_STEP_2, "downstream.epochs=2", {"task-lora"}),
)
# Other notes, another backbone or encoder: by their contents, which are no keys.
CONTENTS = {"data", "backbone", "backbones", "prepare.source", "pretrain.corpus", "encoders.models"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = small_study(tmp_path_factory.mktemp("jobs"))
    random_encoder(folder / "bert")
    (folder / "text").write_text("another text")
    spec = LoRA(rank=2, alpha=4)
    card = AdapterCard(backbone="one", spec=spec, sha256_of_tensors="0").model_dump_json()
    (folder / "kept").mkdir()
    (folder / "kept/adapter.json").write_text(card)
    path = folder / "recipe.yaml"
    path.write_text(path.read_text() + MORE.format(folder=folder))
    return folder


def identities(place, *changes):
    """What each job is made from, by what it makes, down to the first of what it needs."""
    given = [change.replace("{folder}", str(place)) for change in changes]
    recipe = config.load(Recipe, place / "recipe.yaml", [*SETTINGS, *given])
    pieces = recipe.max_pieces(FACTS.max_pieces, FACTS.max_tokens)
    found = {}
    for job in jobs_of(recipe, "", replace(FACTS, max_pieces=pieces)):
        spec = prepared.inputs(job.spec) if isinstance(job.spec, Preparation) else job.spec
        needs = [found[need] for need in job.needs if need.stage != "prepare"]
        found[job] = storage.fingerprint([job.stage, spec, needs])
    return {(name_of(job), job.seed): identity for job, identity in found.items()}


def name_of(job):
    if job.stage == "search":
        return f"search {job.model.name if job.model else job.method}"
    if job.stage == "deletion test":
        return f"{job.model.name} without sentences"
    if job.stage in ("pretrain", "perplexity"):
        return f"{job.stage} {job.method}"
    return job.model.name if job.model else job.stage


@pytest.mark.parametrize("change", CHANGES)
def test_a_key_changes_the_jobs_whose_outcome_it_can_change_and_no_other(place, change):
    before, after = identities(place), identities(place, change)
    assert before.keys() == after.keys()
    assert {name for name, _ in before} >= CHANGES[change]
    assert {name for name, _ in before if before[name, 0] != after[name, 0]} == CHANGES[change]


def test_another_tokenizer_config_of_an_encoder_changes_its_jobs_alone(place):
    before = identities(place)
    settings = place / "bert" / "tokenizer_config.json"
    settings.write_text('{"sep_token": "</s>"}')
    after = identities(place)
    settings.unlink()
    changed = {name for name, _ in before if before[name, 0] != after[name, 0]}
    assert changed == ENCODERS | {"encode"}


@pytest.mark.parametrize(
    ("late_notes", "moment", "is_said"),
    [("drop", "null", False), ("drop", "note", True), ("stop", "note", False)],
)
def test_a_card_says_that_late_notes_were_left_out_where_there_is_a_prediction_time(
    place, late_notes, moment, is_said
):
    task = f"{{name: died, kind: binary, column: died, prediction_time: {moment}}}"
    changes = (f"prepare.late_notes={late_notes}", f"prepare.source.tasks=[{task}]")
    recipe = config.load(Recipe, place / "recipe.yaml", [*SETTINGS, *changes])
    assert place_of(recipe, task="died").of_source.get("drops_late", False) is is_said
    assert "drops_late" not in place_of(recipe, task="another").of_source


@pytest.mark.parametrize(("searched", "change", "names"), OF_SEARCHES)
def test_a_key_changes_the_searches_whose_outcome_it_can_change(place, searched, change, names):
    before, after = identities(place, searched), identities(place, searched, change)
    assert before.keys() == after.keys()
    expected = {f"search {name}" for name in names}
    assert {name for name, _ in before} >= expected
    assert {name for name, _ in before if before[name, 0] != after[name, 0]} >= expected


@pytest.mark.parametrize("change", LISTS)
def test_a_list_of_models_or_runs_leaves_the_jobs_that_stay_as_they_are(place, change):
    before, after = identities(place), identities(place, change)
    assert before.keys() != after.keys()
    assert all(after[job] == before[job] for job in before.keys() & after.keys())


@pytest.mark.parametrize(
    ("change", "is_trained"),
    [
        ("seeds=2", False),
        ("downstream.variants=[head-only, task-lora, domain-frozen]", True),
        ("pretrain.always=true", True),
        ("pretrain.compare={other: {adapter: {kind: prompt}}}", True),
    ],
)
def test_step_1_is_trained_where_something_stands_on_it(place, change, is_trained):
    alone = ("pretrain.compare={}", "downstream.variants=[head-only, task-lora]")
    listed = {name for name, _ in identities(place, *alone, change)}
    assert listed >= BACKBONE - ON_DOMAIN
    assert listed.isdisjoint({*STEP_1, *ALONE}) is not is_trained


def test_a_search_for_step_1_is_asked_for_whatever_stands_on_it(place):
    alone = ("pretrain.compare={}", "downstream.variants=[head-only, task-lora]")
    assert "search lora" in {name for name, _ in identities(place, *alone, "tune.pretrain=default")}


@pytest.mark.parametrize(
    "nothing",
    [
        ("downstream.variants=[]", "encoders.models={}"),
        ("downstream.variants=[head-only]", "downstream.tasks=[]", "prepare.source.tasks=[]"),
    ],
)
def test_a_recipe_without_step_2_trains_step_1(place, nothing):
    assert {*STEP_1, *ALONE} <= {
        name for name, _ in identities(place, "pretrain.compare={}", *nothing)
    }


def test_no_key_of_a_recipe_is_left_out_above():
    changed = {re.split("[={]", change)[0] for change in (*CHANGES, *LISTS)}
    known = {key.name.replace("compare.NAME", "compare.other") for key in keys(Recipe)}
    covered = {key for key in known if any(f"{one}.".startswith(f"{key}.") for one in changed)}
    of_values = ("adapter", "optim", "full_optim", "lora_optim", "source", "split", "corpus")
    inside = re.compile(rf"(^|\.)({'|'.join(of_values)})\.|evaluate\.(primary|listed_patients)")
    left = {key for key in known - covered if not inside.search(key)}
    assert left <= {*CONTENTS}


def test_every_stage_has_its_row_and_its_maker_takes_what_it_is_given():
    assert set(KINDS) == set(get_args(Stage))
    makers = [(kind, kind.maker) for kind in KINDS.values() if kind.maker]
    assert len(makers) == 8
    for kind, maker in makers:
        taken = list(inspect.signature(pkgutil.resolve_name(f"notetune.study.{maker}")).parameters)
        assert taken[1:2] == ["notes"]
        assert ("track" in taken) == kind.shows_steps
