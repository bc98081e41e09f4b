"""A file of notes is scored as it is read; that of scores is harmless in a spreadsheet."""

import csv
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from small_study import notetune

from notetune import runs
from notetune.errors import BundleError
from notetune.model.cards import read_card, save_card
from notetune.plain.bundles import WordsBundle, WordsCard
from notetune.plain.linear import Linear
from notetune.plain.tfidf import Words
from notetune.serve.files import source_of, write_predictions


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


def words_bundle(folder, said=None, **note_columns):
    """TF-IDF that knows hypertension, 10 and 120."""
    terms = ("hypertension", "10", "120")
    card = WordsCard(
        task="died",
        kind="binary",
        classes=("yes",),
        min_patients=1,
        holds="terms",
        note_columns=note_columns,
        **(said or {}),
    )
    linear = Linear(np.array([[1, 2, 4]], np.float32), np.zeros(1, np.float32))
    with runs.new_folder(folder, "test") as temporary:
        save_card(temporary, card)
        WordsBundle(card, Words(terms, np.ones(3)), linear).save(temporary)
    return folder


def test_the_bundle_inside_a_folder_is_told(tmp_path):
    words_bundle(tmp_path / "cell" / "seed-0")
    with pytest.raises(BundleError, match=r"is not a bundle: .* There is no such folder"):
        read_card(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"is not a bundle: .* Is .*cell/seed-0 meant\?"):
        read_card(tmp_path / "cell")
    words_bundle(tmp_path / "run" / "backbones" / "tiny" / "cells" / "died" / "tf-idf" / "seed-0")
    with pytest.raises(BundleError, match=r"Is .*died/tf-idf/seed-0 meant\?"):
        read_card(tmp_path / "run")


def test_a_cell_of_scores_alone_is_told_from_a_folder_of_anything(tmp_path):
    for name, said in (("test.parquet", "scores alone, as of prevalence"), ("x", "downstream")):
        with runs.new_folder(tmp_path / name, "test") as temporary:
            (temporary / name).touch()
        with pytest.raises(BundleError, match=said):
            read_card(tmp_path / name)


def test_scores_and_explanations_are_not_written_into_one_file(tmp_path):
    paths = tmp_path / "one.csv", tmp_path / "." / "one.csv"
    done = notetune("predict", tmp_path, "none.csv", "-o", paths[0], "--explain", paths[1])
    assert done.returncode == 2
    assert "--output and --explain are both" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "--text: "),
        (("--text", "body", "--note-id", "nr"), "--note-id: "),
        (("--text", "body", "--note-id", "id"), "(`predict --policy quarantine`)"),
    ],
)
def test_an_error_of_predict_names_its_options(tmp_path, given, said):
    notes = tmp_path / "notes.csv"
    pl.DataFrame({"id": ["n1", "n2"], "body": ["a", ""]}).write_csv(notes)
    done = notetune("predict", words_bundle(tmp_path / "bundle"), notes, *given)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "columns.text" not in done.stderr


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("output", 2, "scores.csv exists already"),
        ("bundle", 2, "is not a bundle"),
        ("column", 2, "no column 'text'"),
    ],
)
def test_a_fault_of_the_files_is_said_before_torch_is_loaded(tmp_path, fault, code, said):
    bundle = words_bundle(tmp_path / "bundle")
    pl.DataFrame({"text" if fault != "column" else "note": ["a"]}).write_csv(tmp_path / "n.csv")
    if fault == "output":
        (tmp_path / "scores.csv").touch()
    words = ("predict", bundle.parent if fault == "bundle" else bundle, tmp_path / "n.csv")
    arguments = ["notetune", *map(str, words), "-o", str(tmp_path / "scores.csv")]
    run = (
        f"import sys; sys.argv = {arguments}\n"
        "from notetune.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert said in done.stderr
    assert done.stdout.split() == [str(code), "False"]


def test_a_file_like_that_of_the_study_needs_no_columns_named(tmp_path):
    studied = {"text": "body", "note_id": "doc", "patient_id": "mrn"}
    bundle, path = words_bundle(tmp_path / "bundle", **studied), tmp_path / "notes.csv"
    card = read_card(bundle)

    def columns(**given):
        return source_of(card, path, given, "strict").columns.model_dump(exclude_none=True)

    table = pl.DataFrame({"body": ["a"], "doc": ["d1"], "mrn": ["p1"], "other": ["o"]})
    table.write_csv(path)
    assert columns(note_id=None) == studied
    assert columns(note_id="other") == {**studied, "note_id": "other"}
    table.rename({"body": "BODY", "doc": "Doc"}).write_csv(path)
    assert columns() == {"text": "BODY", "note_id": "Doc", "patient_id": "mrn"}
    table.select("doc", text="body").write_csv(path)
    assert columns() == {"text": "text", "note_id": "doc"}
    assert notetune("predict", bundle, path).stdout.splitlines()[1].startswith("d1,d1,died,yes")


def test_cells_that_were_empty_to_the_study_are_empty_to_predict(tmp_path):
    notes = tmp_path / "notes.csv"
    pl.DataFrame({"id": ["n1", "n2", "n3"], "text": ["a", "-9", "N/A"]}).write_csv(notes)
    words = ("--note-id", "id", "--policy", "quarantine")
    usual = notetune("predict", words_bundle(tmp_path / "usual"), notes, *words)
    ids = [row["note_id"] for row in csv.DictReader(usual.stdout.splitlines())]
    assert ids == ["n1", "n2", "n3"]
    missing = ("-9", "N/A")
    own = notetune("predict", words_bundle(tmp_path / "own", {"missing": missing}), notes, *words)
    assert [row["note_id"] for row in csv.DictReader(own.stdout.splitlines())] == ["n1"]
    assert "2 rows are left out" in own.stderr


def test_times_with_slashes_are_read_as_in_the_study(tmp_path):
    notes = tmp_path / "notes.csv"
    table = {"id": ["n1"], "text": ["a"], "day": ["3/14/2150 9:09 PM"]}
    pl.DataFrame(table).write_csv(notes)
    words = ("--note-id", "id", "--time", "day")
    done = notetune("predict", words_bundle(tmp_path / "own", {"day_first": False}), notes, *words)
    assert [row["note_id"] for row in csv.DictReader(done.stdout.splitlines())] == ["n1"]
    refused = notetune("predict", words_bundle(tmp_path / "other"), notes, *words)
    assert "day_first" in refused.stderr


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("", None),
        ("omop", None),
        ("mimic4", "admission notes, cut from discharge summaries"),
        ("eicu", "texts written from the entries of a stay's first day"),
    ],
)
def test_a_bundle_of_notes_that_its_source_made_says_so(tmp_path, kind, made):
    notes = tmp_path / "notes.csv"
    pl.DataFrame({"id": ["n1"], "text": ["a"]}).write_csv(notes)
    bundle = words_bundle(tmp_path / "bundle", {"source": kind})
    done = notetune("predict", bundle, notes, "--note-id", "id")
    said = " ".join(done.stderr.split())
    assert said.startswith(f"warning: the bundle was trained on {made}, and") if made else not said
    assert ("`notetune prepare` with a recipe whose source is of kind" in said) is bool(made)


@pytest.mark.parametrize("drops_late", [True, False])
def test_a_bundle_trained_without_late_notes_says_that_the_file_may_hold_none(tmp_path, drops_late):
    notes = tmp_path / "notes.csv"
    pl.DataFrame({"id": ["n1"], "text": ["a"]}).write_csv(notes)
    bundle = words_bundle(tmp_path / "bundle", {"drops_late": drops_late})
    done = notetune("predict", bundle, notes, "--note-id", "id")
    said = "trained without notes from after the prediction time, and reads every note of this file"
    assert (said in " ".join(done.stderr.split())) is drops_late


@pytest.mark.parametrize(
    ("given", "is_told"),
    [(("last",), True), (("last", "--time", "t"), False), (("mean",), False)],
)
def test_the_last_score_of_a_stay_without_times_is_that_of_its_last_row(tmp_path, given, is_told):
    notes = tmp_path / "notes.csv"
    frame = {"id": ["n1", "n2"], "s": ["s", "s"], "t": ["2150-01-02", "2150-01-01"]}
    pl.DataFrame(frame | {"text": ["hypertension", "well"]}).write_csv(notes)
    words = ("--note-id", "id", "--patient-id", "s", "--stay-id", "s", "--combine", *given)
    done = notetune("predict", words_bundle(tmp_path / "bundle"), notes, *words)
    said = "the last note of a stay is here the one in the last of its rows; --time names"
    assert (said in " ".join(done.stderr.split())) is is_told
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert (float(row["score"]) > 0.5) is not is_told


def test_notes_without_ids_are_named_after_lines_and_that_is_said(tmp_path):
    pl.DataFrame({"text": ["a"]}).write_csv(tmp_path / "notes.csv")
    done = notetune("predict", words_bundle(tmp_path / "bundle"), tmp_path / "notes.csv")
    assert "note-2,died" in done.stdout
    assert "notes are named after their lines in the file; --note-id names" in done.stderr


def test_a_file_without_the_column_of_patients_is_said(tmp_path):
    bundle = words_bundle(tmp_path / "bundle", text="text", patient_id="mrn")
    pl.DataFrame({"text": ["a"], "who": ["p"]}).write_csv(tmp_path / "notes.csv")
    said = "no column mrn: patients are named after notes; --patient-id names another."
    for given, is_said in (((), True), (("--patient-id", "who"), False)):
        done = notetune("predict", bundle, tmp_path / "notes.csv", *given)
        assert (said in " ".join(done.stderr.split())) is is_said


def predicted(folder, *texts):
    """Scores of a CSV file, and what is said on standard error."""
    named = {"id": [f"n{row}" for row in range(len(texts))], "text": texts}
    pl.DataFrame(named).write_csv(folder / "notes.csv")
    bundle = words_bundle(folder / "bundle")
    done = notetune("predict", bundle, folder / "notes.csv", "--note-id", "id")
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
