"""A study of several backbones, whose step 1 reads other notes than step 2."""

import json
import shutil
import warnings

import pytest
from builders import random_encoder, random_llama
from small_study import write_word_notes

from notetune import config
from notetune.cli import main
from notetune.cli.load import study
from notetune.errors import ConfigError
from notetune.metrics.scores import read_scores
from notetune.prepare.prepared import inputs, open_prepared
from notetune.recipe.recipe import Recipe
from notetune.study.costs import costs
from notetune.study.evaluate import evaluate
from notetune.study.last_recipe import other_keys
from notetune.study.run import prepare_notes, run_study
from notetune.study.status import progress

RECIPE = """
name: several
runs: {place}/runs
backbones:
  one: {place}/one
  two:
    backbone: {place}/two
    pretrain: {{adapter: {{rank: 1}}, compare: {{prompts: {{adapter: {{virtual_tokens: 2}}}}}}}}
  one-whole:
    backbone: {place}/one
    pretrain: {{adapter: {{kind: full}}, compare: {{}}}}
    downstream: {{variants: [full-domain]}}
device: cpu
prepare:
  source: &notes
    kind: table
    path: {place}/notes.csv
    columns: {{text: text, note_id: note, patient_id: patient}}
    tasks:
      - {{name: died, kind: binary, column: died}}
      - {{name: stay, kind: binary, column: stay}}
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  max_tokens: 48
pretrain:
  perplexity_documents: 20
  adapter: {{kind: lora, rank: 2, alpha: 4}}
  compare: {{prompts: {{adapter: {{kind: prompt, virtual_tokens: 3}}}}}}
  corpus:
    source: {{<<: *notes, path: {place}/corpus.csv, tasks: []}}
  tokens_per_row: 256
  optim: {{targets_per_step: 1024, peak_lr: 5e-3}}
downstream:
  variants: [head-only, domain-trainable+task-lora]
  tokens_per_row: 256
  epochs: 0.5
encoders: {{models: {{small: {place}/small}}, variants: [full], epochs: 0.5, tokens_per_row: 256}}
evaluate: {{draws: 100, baselines: [tf-idf], hybrid: two/head-only}}
"""
MODELS = [
    "tf-idf",
    "one/head-only",
    "one/domain-trainable+task-lora",
    "small+full",
    "two/head-only",
    "two/domain-trainable+task-lora",
    "two/hybrid",
    "one-whole/full-domain",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbones")
    random_llama(folder / "one")
    random_llama(folder / "two", seed=1)
    random_encoder(folder / "small")
    write_word_notes(folder / "notes.csv", 60)
    write_word_notes(folder / "corpus.csv", 70, first=1000)
    (folder / "recipe.yaml").write_text(RECIPE.format(place=folder))
    return folder


def load(place, *overrides):
    return config.load(Recipe, place / "recipe.yaml", overrides)


@pytest.fixture(scope="module")
def results(place):
    return run_study(load(place))


def test_each_entry_is_the_recipe_with_its_own_changes(place):
    recipe = load(place)
    one, two, whole = recipe.studies.values()
    assert list(recipe.studies) == ["one", "two", "one-whole"]
    assert (one.pretrain, one.downstream) == (recipe.pretrain, recipe.downstream)
    assert (two.pretrain.adapter.rank, two.pretrain.adapter.alpha) == (1, 4)
    assert two.pretrain.compare["prompts"].adapter.virtual_tokens == 2
    assert two.pretrain.compare["prompts"].adapter.kind == "prompt"
    assert (whole.pretrain.adapter.kind, whole.pretrain.compare) == ("full", {})
    assert (whole.backbone, whole.downstream.variants) == (one.backbone, ("full-domain",))
    assert [list(study.encoders.models) for study in recipe.studies.values()] == [["small"], [], []]
    assert whole.folder.root == recipe.folder.root / "backbones/one-whole"
    assert whole.folder.prepared == one.folder.prepared == one.folder.root / "prepared"
    assert two.folder.prepared == two.folder.root / "prepared"
    alone = load(place, "backbones={}", "evaluate.hybrid=null")
    assert alone.studies == {"": alone}


@pytest.mark.parametrize(
    ("opener", "changed", "shares"),
    [
        ("auto", "dtype: bfloat16", False),  # weights may choose another opener
        ("none", "dtype: bfloat16", True),
        ("none", "pretrain: {leaked_texts: drop}", False),
        ("none", "pretrain: {epochs: 2}", True),
    ],
)
def test_entries_share_notes_exactly_where_these_are_prepared_alike(place, opener, changed, shares):
    other = f"backbones.other={{backbone: {place}/one, {changed}}}"
    studies = load(place, other, f"prepare.opener={opener}").studies
    one, other = studies["one"], studies["other"]
    assert (one.folder.prepared == other.folder.prepared) is shares
    pairs = ((one.preparation, other.preparation), (one.corpus, other.corpus))
    assert all(inputs(a) == inputs(b) for a, b in pairs) is shares


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone=tiny", "give either backbone or backbones"),
        ("backbones.two={pretrain: {epochs: 1}}", "backbones.two.backbone is missing"),
        ("backbones.two={backbone: a, device: cpu}", "backbones.two: device is the same for all"),
        (
            "backbones.two={backbone: a, pretrain: {adaptor: {}}}",
            "backbones.two: unknown key pretrain.adaptor; did you mean pretrain.adapter",
        ),
        ("backbones.one-whole.pretrain={}", "full-domain needs pretrain.adapter of kind full"),
    ],
)
def test_an_entry_that_cannot_be_is_named(place, override, message):
    with pytest.raises(ConfigError) as raised:
        load(place, override)
    assert message in str(raised.value)


def test_one_report_compares_all_models_of_a_task(results):
    assert [[row.model for row in task.rows] for task in results.tasks] == [MODELS, MODELS]
    assert [row.model for row in results.headline] == MODELS
    assert [row.method for row in results.methods] == [
        *("one/none", "one/lora", "one/prompts"),
        *("two/none", "two/lora", "two/prompts"),
        *("one-whole/none", "one-whole/full"),
    ]
    compared = {(item.model, item.against) for item in results.tasks[0].exploratory}
    assert ("two/head-only", "one/head-only") in compared
    assert ("one-whole/full-domain", "tf-idf") in compared
    primary = [(item.model, item.against, item.about) for item in results.tasks[0].primary]
    assert primary == [
        ("one-whole/full-domain", "one/head-only", "domain adapter"),
        ("best-validated", "tf-idf", "best validated"),
        ("two/hybrid", "tf-idf", "hybrid"),
    ]
    assert set(MODELS) - {cost.model for cost in results.costs} == {"tf-idf", "two/hybrid"}
    features = [cost for cost in results.costs if cost.stage == "features"]
    assert [cost.model for cost in features] == [
        *("one/head-only", "one/domain-trainable+task-lora", "small+full"),
        *("two/head-only", "two/domain-trainable+task-lora", "one-whole/full-domain"),
    ]
    assert all(cost.trainable_parameters == 0 < cost.tokens_per_second for cost in features)


def test_step_1_reads_the_corpus_and_step_2_the_notes_of_the_tasks(place, results):
    root = place / "runs/several/backbones"
    known = json.loads((root / "one/domain/seed-0/provenance.json").read_text())
    corpus = open_prepared(root / "one/prepared-corpus")
    in_training = corpus.store.corpus_documents()
    notes = set(corpus.store.note_number_D[in_training].tolist())
    assert known["corpora"][0]["notes"] == len(notes)
    assert 40 < len(notes) < 60
    assert corpus.tasks == {}
    assert set(open_prepared(root / "one/prepared").tasks) == {"died", "stay"}
    scores = read_scores(root / "one/cells/died/head-only/seed-0/test.parquet")
    assert all(int(note[1:]) < 60 for note in scores.note_ids_N)
    (other,) = (notice for notice in results.notices if "read other notes" in notice)
    assert "MIMIC" not in other
    assert any(stage.stage.startswith("corpus of step 1: ") for stage in results.flow)


def test_the_second_run_keeps_everything_and_reads_the_same(place, results):
    recipe = load(place)
    manifests = sorted((place / "runs/several").rglob("manifest.json"))
    # Two prepared twice; 3 domain adapters and 2 prompts, each measured, and 3 measured without;
    # the tokens of an encoder; per task a baseline and 6; features of a head alone on each, and of
    # the three models that train more as they start; per task the hybrid, what the baseline of the
    # first backbone gives to notes it did not see, and two parts with a manifest each.
    assert len(manifests) == 4 + 2 * 5 + 3 + 1 + 2 * 7 + 3 + 3 + 2 * (2 + 2)
    before = [path.stat().st_mtime_ns for path in manifests]
    assert run_study(recipe).tasks == results.tasks
    assert [path.stat().st_mtime_ns for path in manifests] == before
    assert evaluate(recipe).headline == results.headline
    stages = progress(recipe).jobs
    assert all(stage.state == "done" for stage in stages)
    assert len([s for s in stages if s.name.startswith("one-whole · died · full-domain")]) == 1


def test_other_notes_for_the_tasks_leave_the_domain_adapter_and_train_the_cells_anew(
    place, results, tmp_path
):
    runs = tmp_path / "runs"
    shutil.copytree(place / "runs", runs)
    write_word_notes(tmp_path / "notes.csv", 64)
    recipe = load(place, f"runs={runs}", f"prepare.source.path={tmp_path}/notes.csv")
    one = recipe.studies["one"]
    prepare_notes(one)
    finished = {job.name: job.state == "done" for job in progress(one).jobs}
    assert finished["prepare"]
    assert finished["pretrain · seed 0"]
    assert not finished["died · domain-trainable+task-lora · seed 0"]
    assert not finished["died · head-only · seed 0"]


def test_one_backbone_by_itself_has_the_baselines_that_the_first_has_for_all(place, results):
    recipe = load(place)
    assert recipe.studies["two"].baselines == ()
    assert recipe.only("two").baselines == ("tf-idf",)
    assert other_keys(recipe.only("two")) == ()  # than the whole study worked with
    states = {job.name: job.state for job in progress(recipe.only("two")).jobs}
    assert states["died · tf-idf"] == "open"
    assert states["died · head-only · seed 0"] == "done"


def test_a_stage_command_asks_which_backbone_and_takes_one(place, capsys, monkeypatch):
    def notetune(*words):
        monkeypatch.setattr("sys.argv", ["notetune", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code or 0, capsys.readouterr()

    code, said = notetune("prepare", place / "recipe.yaml")
    assert code == 2
    assert "say which one with --only one" in " ".join(said.err.split())
    code, said = notetune("prepare", place / "recipe.yaml", "--only", "three")
    assert "the recipe's backbones are one, two, one-whole" in " ".join(said.err.split())
    code, said = notetune("prepare", place / "recipe.yaml", "--only", "two", "--json")
    assert code == 0
    shown = json.loads(said.out)
    assert shown["folder"].endswith("two/prepared")
    assert shown["corpus"]["folder"].endswith("two/prepared-corpus")


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize(
    ("key", "only", "warned"),
    [
        ("pretrain.adapter.rank=3", "two", ["pretrain.adapter.rank changes nothing for two"]),
        ("pretrain.adapter.rank=3", "one", []),
        ("pretrain.adapter.alpha=3", "two", []),
        ("downstream.variants=[head-only]", None, ["downstream.variants changes nothing for one"]),
        ("backbones.two.pretrain.adapter.rank=3", None, []),
    ],
)
def test_a_changed_key_that_a_backbone_has_itself_is_warned_of(place, key, only, warned):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        study(place / "recipe.yaml", [key], None, only)
    assert len(told) == len(warned)
    for warning, text in zip(told, warned, strict=True):
        assert text in str(warning.message)


def test_a_dry_run_has_the_trainings_of_all_backbones_and_counts_the_corpus(place, tmp_path):
    found = costs(load(place, f"runs={tmp_path}"))
    names = [(training.backbone, training.name) for training in found.trainings]
    assert sum(len(training.seeds) for training in found.trainings) == 3 + 2 + 2 * 6
    assert names[:2] == [("one", "pretrain · lora"), ("one", "pretrain · prompts")]
    assert ("two", "stay · domain-trainable+task-lora") in names
    assert [t.documents for t in found.trainings if (t.backbone, t.name) == names[0]] == [
        len(
            open_prepared(
                place / "runs/several/backbones/one/prepared-corpus"
            ).store.corpus_documents()
        )
    ]
    assert list(tmp_path.iterdir()) == []
