"""Several notes of one stay: joined or combined, scored and predicted the same, and said."""

import csv
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from builders import random_encoder, random_llama
from one_job import jobs_on, run_jobs
from sklearn.metrics import roc_auc_score
from small_study import files_below, notetune

from notetune import config
from notetune.errors import ConfigError, DataError, RunWarning
from notetune.metrics.scores import read_scores
from notetune.model.cards import read_card
from notetune.prepare.build import prepare
from notetune.recipe.recipe import Recipe
from notetune.report.tables import task_table
from notetune.serve.files import predict_file
from notetune.sources.tables.source import TableSource
from notetune.study.evaluate import evaluate
from notetune.study.run import prepare_notes
from notetune.tokens.edges import read_declared

MODELS = ("head-only", "tf-idf", "tf-idf-cut", "columns", "hybrid", "bert+head-only")
MAX_TOKENS = 24
RECIPE = """
name: stays
runs: {folder}/runs
backbone: {folder}/backbone
device: cpu
prepare:
  source:
    kind: table
    path: {folder}/notes.csv
    columns: {{text: text, note_id: note, patient_id: patient, stay_id: stay, time: written}}
    features: [age]
    tasks:
      - {{name: died, kind: binary, column: died}}
  split: {{kind: fractions, validation: 0.2, test: 0.3}}
  max_tokens: 24
  long_notes: pieces
downstream: {{variants: [head-only], tokens_per_row: 256, max_pieces: 2}}
pretrain: {{leaked_texts: drop, tokens_per_row: 256, epochs: 0.1}}
encoders: {{models: {{bert: {folder}/bert}}, variants: [head-only], tokens_per_row: 256}}
evaluate: {{draws: 100, tfidf_min_patients: 2}}
"""
COLUMNS = {"text": "text", "note_id": "note", "patient_id": "patient"}
BY_STAY = COLUMNS | {"stay_id": "stay", "time": "written"}


def write_notes(path, patients=50):
    """Stays of one to four notes in any order; the last of each tells its outcome best."""
    rng = np.random.default_rng(0)
    rows = []
    for stay in range(2 * patients):
        died, start = int(rng.random() < 0.4), datetime(2150, 1, 1)  # noqa: DTZ001
        for number in range(last := int(rng.integers(1, 5))):
            is_told = rng.random() < (0.9 if number == last - 1 else 0.3)
            words = ["shock" if died and is_told else "well", *rng.choice(["pain", "fever"], 4)]
            written = start + timedelta(hours=number)
            age = 50 + 10 * died + int(rng.integers(20))
            row = [f"p{stay // 2}", f"s{stay}", written, " ".join(words), died, age]
            rows.append(row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "patient", "stay", "written", "text", "died", "age"])
        writer.writerows([f"n{n}", *rows[k]] for n, k in enumerate(rng.permutation(len(rows))))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stays")
    random_llama(folder / "backbone")
    random_encoder(folder / "bert")
    write_notes(folder / "notes.csv")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return folder


def load(place, *settings):
    return config.load(Recipe, place / "recipe.yaml", settings)


def made(recipe):
    """The folder of each model of a study that is run."""
    notes = prepare_notes(recipe)
    jobs = jobs_on(recipe, notes)
    run_jobs(jobs, notes)
    return {job.model.name: job.folder for job in jobs if job.model and job.task == "died"}


@pytest.fixture(scope="module")
def joined(place):
    recipe = load(place, "name=joined", "prepare.join=by time")
    return recipe, made(recipe)


@pytest.fixture(scope="module")
def apart(place):
    recipe = load(place)
    return recipe, made(recipe)


def asked(place, stays, columns=BY_STAY):
    """A file of the notes of some stays, without their outcome, in another order."""
    notes = pl.read_csv(place / "notes.csv", infer_schema=False).drop("died")
    notes = notes.filter(pl.col("stay").is_in([*stays])).reverse()
    notes.write_csv(place / "asked.csv")
    source = {"kind": "table", "path": place / "asked.csv", "columns": columns}
    return notes, TableSource(**source)


def test_a_stay_is_one_document_whose_newest_text_is_read(place, joined):
    prepared = prepare(joined[0].preparation)
    notes = pl.read_csv(place / "notes.csv", infer_schema=False).sort(
        "written", maintain_order=True
    )
    stays = {stay: part for (stay,), part in notes.group_by("stay", maintain_order=True)}
    store = prepared.store
    assert sorted(store.note_ids.tolist()) == sorted(stays)
    tokenizer = read_declared(place / "backbone").tokenizer
    room, cut = MAX_TOKENS - (store.edges.opener_id is not None), 0
    for stay, text in zip(store.note_ids, prepared.texts(store.note_ids), strict=True):
        assert text == "\n\n".join(stays[str(stay)]["text"])
        (first,) = store.first_documents([str(stay)])
        tokens = store.document(first)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) > room:
            cut += 1
            ended = ids if len(ids) % room == 0 else [*ids, store.edges.end_id]
            assert tokens[-room:].tolist() == ended[-room:]
        reading = store.reading(np.array([first]), 2)
        (read,) = store.read_texts([text], np.array([first]), 2)
        assert text.endswith(read)
        assert reading.truncated_N[0] == (read != text)
    assert cut > 20
    (flow,) = [one for one in prepared.flow if one.stage.startswith("notes of one stay joined")]
    assert (flow.read, flow.kept) == (notes.height, len(stays))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model", MODELS)
def test_a_bundle_of_joined_notes_predicts_a_stay_as_it_was_scored(place, joined, model):
    bundle = joined[1][model]
    assert read_card(bundle).join == "by time"
    test = read_scores(bundle / "test.parquet")
    _, source = asked(place, test.note_ids_N)
    got = predict_file(bundle, source, place_of(place, model)).scores
    expected = dict(zip(test.note_ids_N.tolist(), test.scores_NK[:, 0], strict=True))
    assert len(expected) > 20
    assert dict(got.select("note_id", "score").iter_rows()) == pytest.approx(expected, abs=1e-5)


def test_the_command_takes_the_columns_of_stay_and_time(place, joined, apart):
    test = read_scores(joined[1]["tf-idf"] / "test.parquet")
    asked(place, test.note_ids_N)
    given = (
        "--note-id",
        "note",
        "--patient-id",
        "patient",
        "--stay-id",
        "stay",
        "--time",
        "written",
    )
    one = notetune("predict", joined[1]["tf-idf"], place / "asked.csv", *given)
    assert (one.returncode, one.stderr) == (0, "")
    expected = dict(zip(test.note_ids_N.tolist(), test.scores_NK[:, 0], strict=True))
    assert scores_in(one.stdout) == pytest.approx(expected)
    bundle = apart[1]["tf-idf"]
    other = notetune("predict", bundle, place / "asked.csv", *given, "--combine", "last")
    assert scores_in(other.stdout).keys() == expected.keys()


def scores_in(text):
    return {row["note_id"]: float(row["score"]) for row in csv.DictReader(text.splitlines())}


def place_of(place, model):
    return str(place / ("bert" if model.startswith("bert") else "backbone"))


def test_a_file_that_names_no_stay_or_time_is_predicted_and_that_is_said(place, joined):
    bundle = joined[1]["tf-idf"]
    test = read_scores(bundle / "test.parquet")
    notes, source = asked(place, test.note_ids_N, COLUMNS)
    with pytest.warns(RunWarning, match="each row is read as one; --stay-id and --time"):
        assert predict_file(bundle, source, None).scores.height == notes.height
    untimed = {name: column for name, column in BY_STAY.items() if name != "time"}
    _, source = asked(place, test.note_ids_N, untimed)
    with pytest.warns(RunWarning, match="its notes are in the order of the rows"):
        assert predict_file(bundle, source, None).scores.height == len(test.note_ids_N)


@pytest.mark.parametrize("how", ["mean", "max", "last"])
def test_a_report_is_of_stays_where_scores_are_combined_and_nothing_is_trained(place, apart, how):
    _, folders = apart
    recipe = load(place, f"evaluate.combine={how}")
    before = {path: path.stat().st_mtime_ns for path in files_below(recipe.folder.root / "cells")}
    assert all(job.is_made() for job in jobs_on(recipe))
    results = evaluate(recipe)
    (task,) = results.tasks
    rows = {row.model: row.auroc.value for row in task.rows}
    times = pl.read_csv(place / "notes.csv").select("note", "stay", "written", "died")
    for model in MODELS:
        scores = pl.read_parquet(folders[model] / "test.parquet")
        notes = scores.join(times, left_on="note_id", right_on="note").sort("written")
        score = getattr(pl.col("score"), how)()
        stays = notes.group_by("stay").agg(score, pl.col("died").first())
        assert rows[model] == pytest.approx(roc_auc_score(stays["died"], stays["score"]))
        assert task.notes == stays.height < scores.height
        _, source = asked(place, stays["stay"])
        got = predict_file(folders[model], source, place_of(place, model), combine=how).scores
        expected = dict(stays.select("stay", "score").iter_rows())
        assert dict(got.select("note_id", "score").iter_rows()) == pytest.approx(expected, abs=1e-5)
        assert not {"tokens", "pieces"} & {*got.columns}
    assert f"scores on {task.notes} stays of" in task_table(task).caption
    assert any(said.startswith("Each score is that of a stay: ") for said in results.notices)
    after = {path: path.stat().st_mtime_ns for path in files_below(recipe.folder.root / "cells")}
    assert after == before
    splits = pl.read_parquet(recipe.folder.prepared / "notes.parquet")
    assert splits.group_by("patient_id").agg(pl.col("split").n_unique())["split"].max() == 1


def test_scores_are_combined_only_where_there_are_stays_that_are_not_joined(place, joined, apart):
    _, source = asked(place, ["s1"], COLUMNS)
    with pytest.raises(
        ConfigError, match=r"--combine mean: the file must name the stay .* --stay-id"
    ):
        predict_file(apart[1]["tf-idf"], source, None, combine="mean")
    _, source = asked(place, ["s1"])
    with pytest.raises(ConfigError, match="--combine max: the bundle reads the notes of a stay as"):
        predict_file(joined[1]["tf-idf"], source, None, combine="max")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            ["prepare.join=by time"],
            r"prepare\.join needs the stay .* prepare\.source\.columns\.stay",
        ),
        (["evaluate.combine=max"], r"evaluate\.combine needs the stay .* give prepare\.source\.co"),
        (
            ["prepare.join=by time", "evaluate.combine=max"],
            r"evaluate\.combine: with prepare\.join a stay is one document",
        ),
        (
            [
                "prepare.join=by time",
                "prepare.source.columns.stay_id=stay",
                "prepare.source.columns.time=null",
            ],
            r"prepare\.join needs the time of each note; give prepare\.source\.columns\.time",
        ),
        (["prepare.join=by time", "prepare.long_notes=first"], "leave one out"),
        (
            [
                "prepare.join=by time",
                "prepare.source.tasks=[{name: died, kind: binary, column: patient, "
                "samples: {path: labels.csv}}]",
            ],
            "task .* has samples, each read from one note; leave one of the two out",
        ),
    ],
)
def test_a_recipe_that_cannot_know_its_stays_is_refused(place, settings, told):
    with pytest.raises(ConfigError, match=told):
        load(place, "prepare.source.columns.stay_id=null", *settings)


@pytest.mark.parametrize("how", ["last", "mean"])
def test_the_last_score_of_a_stay_needs_the_times_of_its_notes(place, how):
    settings = ("prepare.source.columns.time=null", f"evaluate.combine={how}")
    if how == "mean":
        assert load(place, *settings).evaluate.combine == "mean"
        return
    with pytest.raises(ConfigError, match=r"last needs .* give prepare\.source\.columns\.time"):
        load(place, *settings)


def test_a_corpus_is_joined_too_and_must_know_its_stays(place):
    corpus = f"{{kind: table, path: {place}/notes.csv, columns: {{text: text}}}}"
    with pytest.raises(ConfigError, match=r"give pretrain\.corpus\.source\.columns\.stay_id"):
        load(place, "prepare.join=by time", f"pretrain.corpus={{source: {corpus}}}")


def test_no_stay_at_all_stops(place):
    notes = pl.read_csv(place / "notes.csv", infer_schema=False)
    notes.with_columns(stay=pl.lit("")).write_csv(place / "none.csv")
    recipe = load(place, "name=none", f"prepare.source.path={place}/none.csv")
    joined = recipe.model_copy(
        update={"prepare": recipe.prepare.model_copy(update={"join": "by time"})}
    )
    with pytest.raises(DataError, match="notes names its stay"):
        prepare(joined.preparation)
