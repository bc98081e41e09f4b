"""What opens a document and how much of a note is read: chosen on training notes, then the same."""

import csv
import json

import numpy as np
import polars as pl
import pytest
import torch
from builders import byte_tokenizer, random_encoder, random_llama
from small_study import notetune, small_study
from study.one_job import find, model_job, run, train
from transformers import AutoModelForCausalLM

from notetune import config
from notetune.errors import ConfigError
from notetune.metrics.scores import read_scores
from notetune.model.cards import read_card
from notetune.prepare import intake
from notetune.prepare.build import inputs, prepare
from notetune.recipe.recipe import Recipe
from notetune.serve.files import predict_file
from notetune.sources.tables.source import TableSource
from notetune.study import notices
from notetune.study.counts import _notes_of
from notetune.study.evaluate import Made
from notetune.study.features import store_of
from notetune.study.listing import facts_here
from notetune.study.run import _resolved, prepare_notes
from notetune.study.specs import Notes
from notetune.tokens.store import open_store

COLUMNS = {"text": "text", "note_id": "note", "patient_id": "patient"}
OPENER_IDS = {"none": None, "bos": 0, "separator": 1}
ALL_AUTO = [
    "prepare.opener=auto",
    "prepare.max_tokens=auto",
    "downstream.max_pieces=auto",
    *(f"{stage}.tokens_per_row=auto" for stage in ("pretrain", "downstream")),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small study whose tokenizer puts nothing in front of a text."""
    folder = small_study(tmp_path_factory.mktemp("intake"))
    byte_tokenizer().save(str(folder / "backbone/tokenizer.json"))
    return folder


def load(place, *settings):
    return config.load(Recipe, place / "recipe.yaml", settings)


def pieces_read(recipe, prepared):
    return recipe.max_pieces(prepared.intake.whole_pieces, prepared.store.max_tokens)


def inputs_of(place, *settings):
    return inputs(load(place, *settings).preparation)


def made_of(backbone, recipe, prepared):
    return Made(backbone, recipe, Notes(prepared, prepared), (), frozenset())


def texts_of(place, prepared, split):
    notes = pl.read_csv(place / "notes.csv", infer_schema=False)
    ids = prepared.store.note_ids[prepared.store.split_N == split].tolist()
    return notes.filter(pl.col("note").is_in(ids))["text"].to_list()


def plain_perplexities(backbone, texts):
    """By the name of the opener: over all tokens of the texts but their first ones."""
    model = AutoModelForCausalLM.from_pretrained(backbone).eval()
    tokenizer, found = byte_tokenizer(), {}
    for name, front in {"nothing": [], "<s>": [0], "</s>": [1]}.items():
        nats = []
        for text in texts:
            ids = torch.tensor([*front, *tokenizer.encode(text).ids])
            with torch.inference_mode():
                lost = torch.nn.functional.cross_entropy(
                    model(ids[None]).logits[0, :-1], ids[1:], reduction="none"
                )
            nats += lost[len(front) :].tolist()
        found[name] = float(np.exp(np.mean(nats)))
    return found


def few_notes(place, notes=36):
    """A study of so few notes that all training notes are tried."""
    rows = (place / "notes.csv").read_text().splitlines()
    (place / "few.csv").write_text("\n".join(rows[: notes + 1]))
    return [f"prepare.source.path={place}/few.csv", "downstream.tasks=[died]", "name=few"]


def test_the_opener_is_the_one_that_predicts_the_training_notes_best(place, tmp_path):
    chosen = set()
    for seed in range(12):
        backbone = random_llama(tmp_path / str(seed), seed=seed)
        byte_tokenizer().save(str(backbone / "tokenizer.json"))
        few = [*few_notes(place), f"backbone={backbone}", f"runs={tmp_path}/runs-{seed}"]
        prepared = prepare(load(place, *few).preparation)
        trained = texts_of(place, prepared, "train")
        assert len(trained) <= 30
        expected = plain_perplexities(backbone, trained)
        assert prepared.intake.perplexities == pytest.approx(expected, rel=1e-5)
        best = min(expected, key=expected.get)
        assert prepared.intake.edges.opener == prepared.store.edges.opener == best
        chosen.add(best)
        if len(chosen) == 3:
            break
    assert "</s>" in chosen
    assert len(chosen) >= 2


def test_notes_of_validation_and_test_patients_choose_nothing(place, tmp_path):
    few = [*few_notes(place), *ALL_AUTO, f"runs={tmp_path}"]
    before = prepare(load(place, *few).preparation)
    ids, split_N = before.store.note_ids, before.store.split_N
    others = pl.col("note").is_in(ids[split_N != "train"].tolist())
    text = pl.when(others).then(pl.lit("entirely different " * 20)).otherwise("text").alias("text")
    notes = pl.read_csv(place / "few.csv", infer_schema=False).with_columns(text)
    notes.write_csv(place / "few.csv")
    assert (notes["text"].str.len_bytes() > 300).sum() > 10
    after = prepare(load(place, *few, "prepare.allow_leaks=true", "name=after").preparation)
    assert after.intake.perplexities == before.intake.perplexities
    assert after.intake.max_tokens == before.intake.max_tokens
    assert len(after.store.ids) > len(before.store.ids)


@pytest.mark.parametrize("opener", OPENER_IDS)
def test_a_note_is_read_and_scored_by_predict_as_in_the_study(place, opener):
    recipe = load(
        place,
        f"prepare.opener={opener}",
        f"name={opener}",
        "prepare.max_tokens=24",
        "downstream.max_pieces=auto",
        "downstream.adapter={kind: prompt, virtual_tokens: 2}",
        "downstream.tasks=[died]",
    )
    prepared = prepare(recipe.preparation)
    bundle = train(recipe, "died", "task-lora")
    card = read_card(bundle)
    assert (card.opener_id, card.end_id, card.max_tokens) == (OPENER_IDS[opener], 1, 24)
    assert card.max_pieces == pieces_read(recipe, prepared) > 1
    test = read_scores(bundle / "test.parquet")
    told = pl.read_parquet(bundle / "test.parquet")
    notes = pl.read_csv(place / "notes.csv", infer_schema=False)
    notes.filter(pl.col("note").is_in(test.note_ids_N.tolist())).write_csv(place / "asked.csv")
    source = TableSource(kind="table", path=place / "asked.csv", columns=COLUMNS, tasks=())
    got = predict_file(bundle, source, str(place / "backbone")).scores
    both = got.join(told, on="note_id", suffix="_told")
    assert both.height == got.height == len(test.note_ids_N)
    assert np.abs(both["score"] - both["score_told"]).max() < 1e-5
    for column in ("tokens", "pieces", "truncated"):
        assert both[column].to_list() == both[f"{column}_told"].to_list()
    text_of = dict(zip(notes["note"], notes["text"], strict=True))
    front = int(opener != "none")
    for note_id, tokens, pieces, cut in told["note_id", "tokens", "pieces", "truncated"].rows():
        size = len(text_of[note_id].encode())
        whole = size + (size % (24 - front) > 0) + pieces * front
        assert tokens == (pieces * 24 if cut else whole)


def lengths(place, prepared, split, opener=1):
    """A byte is a token; one more ends a note, and one may open it."""
    return [len(text.encode()) + 1 + opener for text in texts_of(place, prepared, split)]


def test_as_much_is_read_as_holds_95_of_100_training_notes_whole(place):
    recipe = load(place, *ALL_AUTO, "prepare.opener=bos", "name=auto")
    prepared = prepare(recipe.preparation)
    trained = np.sort(lengths(place, prepared, "train"))
    wanted = trained[int(np.ceil(0.95 * len(trained))) - 1]
    assert 64 < wanted < 128  # the positions of the backbone
    assert prepared.store.max_tokens == prepared.intake.max_tokens == 128
    assert f"at most {wanted} tokens" in prepared.intake.max_tokens_why
    assert pieces_read(recipe, prepared) == 1
    store, reads = prepared.store, model_job(recipe, "died", "head-only").spec.features
    assert (store.max_tokens, reads.pieces_in(store), reads.row_in(store)) == (128, 1, 4096)
    fixed = _resolved(recipe, prepared.intake)
    assert (fixed.prepare.opener, fixed.prepare.max_tokens) == ("bos", 128)
    assert config.parse(Recipe, fixed.as_json(), "resolved") == fixed


@pytest.mark.parametrize(
    ("settings", "expected", "why"),
    [
        (["downstream.tokens_per_row=70"], (70, 1), "a row has no more room"),
        (["downstream.adapter={kind: prompt, virtual_tokens: 50}"], (78, 2), "no more positions"),
        (["downstream.adapter={kind: prefix, virtual_tokens: 50}"], (78, 2), "no more positions"),
        (["prepare.max_tokens=24"], (24, 4), "the recipe says so"),
        (["prepare.max_tokens=24", "downstream.tokens_per_row=75"], (24, 3), "the recipe says"),
        (["downstream.max_pieces=3", "pretrain.tokens_per_row=90"], (90, 3), "no more room"),
    ],
)
def test_what_is_read_stays_within_positions_and_rows(place, settings, expected, why):
    words = ("name=bound", "prepare.opener=bos", "pretrain.adapter={kind: lora, rank: 2}")
    recipe = load(place, *ALL_AUTO, *words, *settings)
    prepared = prepare(recipe.preparation)
    found = prepared.store.max_tokens, pieces_read(recipe, prepared)
    assert found == expected
    bodies = np.array(lengths(place, prepared, "train")) - 2
    pieces = np.ceil(bodies / (expected[0] - 1))
    wanted = int(np.sort(pieces)[int(np.ceil(0.95 * len(pieces))) - 1])
    assert prepared.intake.whole_pieces == wanted
    assert why in prepared.intake.max_tokens_why


@pytest.mark.parametrize("virtual", [121, 127, 500])
def test_virtual_tokens_that_leave_no_room_for_a_document_are_refused(place, virtual):
    adapter = f"downstream.adapter={{kind: prefix, virtual_tokens: {virtual}}}"
    words = ("name=no-room", "prepare.opener=bos", "pretrain.adapter={kind: lora, rank: 2}")
    left = max(0, 128 - virtual)
    with pytest.raises(ConfigError, match=f"leave {left} positions of the backbone to a document"):
        prepare(load(place, *ALL_AUTO, *words, adapter).preparation)


def test_an_encoder_has_its_own_limit_and_its_own_pieces(place):
    random_encoder(place / "bert")
    models = f"encoders={{models: {{bert: {place / 'bert'}}}, variants: [lora]}}"
    recipe = load(place, *ALL_AUTO, "prepare.opener=bos", "name=encoder", models)
    run(recipe, find(recipe, "encode"))
    store = open_store(recipe.folder.prepared / "encoders/bert")
    assert store.max_tokens == 64
    assert store.edges.ends_every_piece
    of_notes = np.bincount(store.note_number_D)[store.split_N == "train"]
    wanted = int(np.sort(of_notes)[int(np.ceil(0.95 * len(of_notes))) - 1])
    job = model_job(recipe, "died", "bert+lora")
    read = store_of(job, prepare_notes(recipe).prepared)
    assert (read.max_tokens, job.spec.features.pieces_in(read)) == (64, wanted)
    assert wanted > 1


def test_the_corpus_of_step_1_is_read_as_the_notes_of_the_tasks(place):
    with (place / "corpus.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "patient"])
        writer.writerows([[f"other words {n} " * 40, f"c{n}"] for n in range(40)])
    source = (
        f"{{kind: table, path: {place}/corpus.csv, columns: {{text: text, patient_id: patient}}}}"
    )
    recipe = load(place, *ALL_AUTO, "name=corpus", f"pretrain.corpus={{source: {source}}}")
    prepared = prepare(recipe.preparation)
    assert facts_here(recipe) is None
    corpus = prepare_notes(recipe).corpus
    assert facts_here(recipe) is not None
    assert corpus.store.edges == prepared.store.edges
    assert corpus.store.max_tokens == prepared.store.max_tokens == 128
    assert corpus.store.lengths_D.max() == 128
    assert facts_here(load(place, *ALL_AUTO, "name=corpus", "prepare.max_tokens=100")) is None


@pytest.mark.parametrize(
    "setting", ["prepare.opener=none", "prepare.max_tokens=16", "pretrain.tokens_per_row=99"]
)
def test_prepared_notes_depend_on_what_decides_how_they_are_read(place, setting):
    assert inputs_of(place, *ALL_AUTO) != inputs_of(place, *ALL_AUTO, setting)
    fixed = [*ALL_AUTO, "prepare.opener=bos", "prepare.max_tokens=32"]
    rows = [*fixed, "pretrain.tokens_per_row=99", "downstream.max_pieces=2"]
    assert inputs_of(place, *fixed) == inputs_of(place, *rows)


def test_a_dry_run_scores_no_openers(place, monkeypatch):
    monkeypatch.setattr(intake, "load_backbone", None)
    recipe = load(place, *ALL_AUTO, "name=dry")
    with _notes_of(recipe) as (_, notes):
        assert notes.prepared is notes.corpus
        assert notes.prepared.store.edges.opener_id is None
    assert not recipe.folder.root.exists()


def test_the_report_says_what_was_chosen_and_why(place, tmp_path):
    few = [*few_notes(place), *ALL_AUTO, f"runs={tmp_path}"]
    recipe = load(place, *few)
    prepared = prepare(recipe.preparation)
    said = list(notices._intake(made_of("tiny", recipe, prepared)))
    assert len(said) == 2
    tried = ", ".join(f"{n} {v:.2f}" for n, v in prepared.intake.perplexities.items())
    assert said[0].startswith(f"What opens every document is {prepared.intake.edges.opener}")
    assert f"({tried})" in said[0]
    assert said[1].startswith("The first 128 tokens of a note are read (95% of ")
    fixed = _resolved(recipe, prepared.intake)
    assert not list(notices._intake(made_of("", fixed, prepared)))


def test_a_whole_study_runs_where_the_recipe_leaves_it_all_open(place):
    random_encoder(place / "bert")
    models = f"{{bert: {place / 'bert'}}}"
    done = notetune(
        *("study", "run", place / "recipe.yaml", *ALL_AUTO, "name=whole"),
        *("downstream.tasks=[died]", "seeds=1", "evaluate.hybrid=null"),
        "downstream.variants=[head-only, domain-frozen+task-lora]",
        f"encoders={{models: {models}, variants: [lora], epochs: 0.5}}",
    )
    assert done.returncode == 0, done.stderr
    root = place / "runs/whole"
    recipe = json.loads((root / "recipe.json").read_text())
    facts = json.loads((root / "prepared/facts.json").read_text())["intake"]
    names = {None: "none", 0: "bos", 1: "separator"}
    assert recipe["prepare"]["opener"] == names[facts["edges"]["opener_id"]]
    assert (recipe["prepare"]["max_tokens"], recipe["downstream"]["max_pieces"]) == (128, 1)
    said = json.loads((root / "report/report.json").read_text())["notices"]
    assert [text[:24] for text in said if "of a note are read" in text] == [
        "The first 128 tokens of "
    ]
    cards = [json.loads(path.read_text()) for path in root.glob("cells/*/*/*/bundle.json")]
    (words,) = [card for card in cards if card["model"] == "tf-idf" and card["limit"]]
    own = facts["edges"]["opener_id"]
    assert (words["limit"]["opener_id"], words["limit"]["max_tokens"]) == (own, 128)
    cards = [card for card in cards if card["model"] == "language-model"]
    assert len(cards) == 3
    opened_by = {card["variant"]: card["opener_id"] for card in cards}
    assert opened_by == {
        "head-only": own,
        "domain-frozen+task-lora": own,
        "bert+lora": 2,
    }
