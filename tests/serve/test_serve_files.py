"""A file of notes is scored as it is read; that of scores is harmless in a spreadsheet."""

import csv

import numpy as np
import polars as pl
from small_study import notetune

from notetune import runs
from notetune.model.cards import save_card
from notetune.plain.bundles import WordsBundle, WordsCard
from notetune.plain.linear import Linear
from notetune.plain.words import Words
from notetune.serve.files import write_predictions


def test_predict_refuses_a_file_it_could_not_write_before_it_reads_anything(tmp_path):
    done = notetune("predict", tmp_path / "none", tmp_path / "none.csv", "-o", tmp_path / "x.tsv")
    assert done.returncode == 2
    assert "x.tsv is neither .csv nor .parquet" in done.stderr


def test_scores_are_harmless_in_a_spreadsheet(tmp_path):
    table = pl.DataFrame({"note_id": ["=cmd()", "-7", "n1"], "score": [-0.5, 0.25, 1.0]})
    write_predictions(table, tmp_path / "scores.csv")
    rows = list(csv.reader((tmp_path / "scores.csv").read_text().splitlines()))
    assert rows[1:] == [["'=cmd()", "-0.5"], ["'-7", "0.25"], ["n1", "1.0"]]
    write_predictions(table, tmp_path / "scores.parquet")
    assert pl.read_parquet(tmp_path / "scores.parquet").equals(table)


def words_bundle(folder):
    """TF-IDF that knows hypertension, 10 and 120."""
    terms = ("hypertension", "10", "120")
    card = WordsCard(task="died", kind="binary", classes=("yes",), min_patients=1, holds="terms")
    linear = Linear(np.array([[1, 2, 4]], np.float32), np.zeros(1, np.float32))
    with runs.new_folder(folder, "test") as temporary:
        save_card(temporary, card)
        WordsBundle(card, Words(terms, np.ones(3)), linear).save(temporary)
    return folder


def predicted(folder, *texts):
    """Scores of a CSV file, and what is said on standard error."""
    pl.DataFrame({"text": texts}).write_csv(folder / "notes.csv")
    done = notetune("predict", words_bundle(folder / "bundle"), folder / "notes.csv")
    assert done.returncode == 0
    return [row["score"] for row in csv.DictReader(done.stdout.splitlines())], done.stderr


def test_predict_cleans_notes_as_a_study_does_and_says_in_one_line_how_many(tmp_path):
    dirty = ("hyper\u00adtension", "5\x9610", "\uff11\uff12\uff10 5\u00a010", "a")
    for name in ("dirty", "clean"):
        (tmp_path / name).mkdir()
    scores, said = predicted(tmp_path / "dirty", *dirty)
    expected = predicted(tmp_path / "clean", "hypertension", "5\u201310", "120 5 10", "a")
    assert (scores, "") == expected
    assert len({*scores}) == 4
    assert " ".join(said.split()) == (
        "warning: notes: characters changed in 3 of 4 (soft hyphens and joiners taken out: 1; "
        "control characters replaced: 1; full-width characters narrowed: 1; "
        "unusual spaces made plain: 1)."
    )
