import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notetune import config
from notetune.config import Config
from notetune.errors import ConfigError, DataError
from notetune.sources import read
from notetune.sources.splits import (
    ColumnSplit,
    OfficialSplit,
    Split,
    SplitConfig,
    split_patients,
    split_table,
)
from notetune.sources.tables.source import TableSource

DATA = Path(os.environ.get("NOTETUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))
PATIENTS = [f"p{n}" for n in range(40)]


class Recipe(Config):
    split: Split


def official(folder, train="1\n2\n2\n", validation="3\n", test="4\n"):
    parts = {"train": train, "validation": validation, "test": test}
    for name, ids in parts.items():
        (folder / f"{name}.csv").write_text(f"SUBJECT_ID\n{ids}")
    return OfficialSplit(kind="files", **{name: folder / f"{name}.csv" for name in parts})


@given(st.permutations(PATIENTS), st.integers(0, 3), st.integers(1, 15), st.integers(1, 15))
@settings(max_examples=40)
def test_counts_are_exact_and_row_order_does_not_matter(patients, seed, validation, test):
    split = SplitConfig(validation=validation / 40, test=test / 40, seed=seed)
    assignment = split_patients([*patients, *patients[:7]], split)
    assert assignment.equals(split_patients(PATIENTS, split))
    counts = dict(assignment["split"].value_counts().iter_rows())
    assert counts == {"train": 40 - validation - test, "validation": validation, "test": test}
    assert assignment["patient_id"].to_list() == sorted(PATIENTS)


def test_the_seed_changes_who_is_where():
    tests = {
        tuple(split_patients(PATIENTS, SplitConfig(seed=seed)).filter(split="test")["patient_id"])
        for seed in range(20)
    }
    assert len(tests) == 20


def test_each_patient_is_in_test_about_as_often_as_the_fraction_says():
    times = 0
    for seed in range(400):
        assignment = split_patients(PATIENTS, SplitConfig(test=0.2, seed=seed))
        times += assignment.filter(patient_id="p0")["split"][0] == "test"
    assert 0.14 < times / 400 < 0.26


def test_a_split_of_zero_is_empty_and_a_split_that_rounds_to_zero_stops():
    no_validation = SplitConfig(validation=0, test=0.5)
    assert split_patients(["a", "b"], no_validation)["split"].sort().to_list() == ["test", "train"]
    with pytest.raises(DataError, match="2 patients are too few: validation would get none"):
        split_patients(["a", "b"], SplitConfig())
    with pytest.raises(DataError, match="1 patients are too few: test would get none"):
        split_patients(["a"], SplitConfig(validation=0, test=0.4))


def test_a_recipe_chooses_the_kind_and_refuses_impossible_fractions():
    assert config.parse(Recipe, {"split": {"kind": "fractions", "seed": 3}}, "r").split.seed == 3
    with pytest.raises(ConfigError, match="validation \\+ test must be below 1"):
        config.parse(Recipe, {"split": {"kind": "fractions", "test": 0.9}}, "r")


def test_an_official_split_assigns_our_patients_and_leaves_out_the_others(tmp_path):
    assignment = split_patients(["9", "4", "3", "2", "2"], official(tmp_path))
    assert assignment.rows() == [("2", "train"), ("3", "validation"), ("4", "test")]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"test": "4\n2\n"}, r"test\.csv, line 3: this patient is already in .*train\.csv"),
        ({"test": "5\n"}, r"test\.csv names none of the 4 patients"),
        ({"validation": '""\n'}, r"validation\.csv, line 2: no patient id"),
        ({"train": ""}, r"train\.csv has a header and no rows"),
    ],
)
def test_a_faulty_official_split_stops(tmp_path, files, problem):
    with pytest.raises(DataError, match=problem):
        split_patients(["1", "2", "3", "4"], official(tmp_path, **files))


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "core_splits").is_dir(), reason="open data not found")
def test_the_published_split_has_its_published_numbers_of_patients():
    folder = DATA / "core_splits"
    parts = {"train": "train", "validation": "val", "test": "test"}
    paths = {name: folder / f"mimic_{part}.csv" for name, part in parts.items()}
    ids = [line for path in paths.values() for line in path.read_text().split()[1:]]
    assignment = split_patients(ids, OfficialSplit(kind="files", **paths))
    assert len(ids) == 48_745
    assert dict(assignment["split"].value_counts().iter_rows()) == {
        "train": 26_124,
        "validation": 3_732,
        "test": 7_465,
    }


def test_a_task_table_gets_patients_and_splits_in_its_own_order():
    rows = pl.DataFrame({"note_id": ["c", "a", "b"], "labels": [["x"], [], ["x"]]})
    notes = pl.DataFrame({"note_id": ["a", "b", "c"], "patient_id": ["1", "2", "9"], "text": ""})
    assignment = pl.DataFrame({"patient_id": ["1", "2"], "split": ["train", "test"]})
    table, outside = split_table(rows, notes, assignment)
    assert outside == 1
    assert table.columns == ["note_id", "labels", "patient_id", "split"]
    assert table.rows() == [("a", [], "1", "train"), ("b", ["x"], "2", "test")]


def test_labels_of_a_note_that_does_not_exist_stop():
    rows = pl.DataFrame({"note_id": ["a", "z"], "labels": [["x"], []]})
    notes = pl.DataFrame({"note_id": ["a"], "patient_id": ["1"]})
    assignment = pl.DataFrame({"patient_id": ["1"], "split": ["train"]})
    with pytest.raises(DataError, match=r"note z has labels but no patient \(1 of 2 notes\)"):
        split_table(rows, notes, assignment)


def column_split(folder, rows, **changes):
    lines = "".join(f'{{"who": "{who}", "part": "{part}"}}\n' for who, part in rows)
    (folder / "table.jsonl").write_text(lines)
    given = {"kind": "column", "path": folder / "table.jsonl", "patient_id": "who"}
    return ColumnSplit(**{**given, "column": "part", **changes})


ROWS = [*((f"p{n}", "train") for n in range(20)), ("p20", "dev"), ("p21", "test"), ("p22", "test")]


def test_a_column_says_the_split_in_its_own_words(tmp_path):
    found = split_patients([*PATIENTS, "p0"], column_split(tmp_path, [*ROWS, ROWS[0]]))
    expected = {who: {"dev": "validation"}.get(part, part) for who, part in ROWS}
    assert dict(found.iter_rows()) == expected  # patients whom the table does not name are absent
    assert len(expected) == 23


def test_the_usual_words_are_understood_in_any_letter_case(tmp_path):
    words = {
        "train": ("train", "Training"),
        "validation": ("dev", "Development", "val", "VALID", "validation", "tuning"),
        "test": ("test", "Testing", "held_out", "Held-Out", "eval", "EVALUATION"),
    }
    expected = {word: split for split, words in words.items() for word in words}
    assert len(expected) == 14
    rows = [(f"of {word}", word) for word in expected]
    found = dict(split_patients([who for who, _ in rows], column_split(tmp_path, rows)).iter_rows())
    assert found == {f"of {word}": split for word, split in expected.items()}


def test_validation_can_be_cut_from_the_training_patients_of_a_column(tmp_path):
    words = {"validation": (), "test": ("dev", "test"), "validation_share": 0.25}
    found = split_patients(PATIENTS, column_split(tmp_path, ROWS, **words))
    counts = dict(found["split"].value_counts().iter_rows())
    assert counts == {"train": 15, "validation": 5, "test": 3}
    again = split_patients(PATIENTS[::-1], column_split(tmp_path, ROWS[::-1], **words))
    assert found.equals(again)
    other = split_patients(PATIENTS, column_split(tmp_path, ROWS, **words, seed=1))
    assert not found.equals(other)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [*ROWS, ("p1", "unknown")],
            "line 24: column part names no split; known are tr",
        ),
        (
            [*ROWS, ("p1", "two words"), ("p2", "other"), ("p3", "")],
            "line 24: column part names no split, nor do 2 other rows",
        ),
        ([*ROWS, ("p1", "test")], "line 24: this patient is in another split in an earlier row"),
        ([*ROWS, ("", "test")], "line 24: missing patient id"),
        (ROWS[:20], "no patient of the notes is in test"),
        ([("other", "train"), ("p1", "test")], "no patient of the notes is in train"),
    ],
)
def test_a_faulty_column_is_refused_by_its_row(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        split_patients(PATIENTS, column_split(tmp_path, rows))


def test_ids_that_two_tables_spell_otherwise_are_refused(tmp_path):
    rows = [*((f"{n}", "train") for n in range(20)), ("20", "dev"), ("21", "test")]
    spelt = [f"{n:04}" for n in range(22)]
    with pytest.raises(DataError, match="22 of 22 patients of the notes are in column who of the"):
        split_patients(spelt, column_split(tmp_path, rows))
    with pytest.raises(DataError, match="1 of 3 patients of the notes are in column SUBJECT_ID"):
        split_patients(["1", "3", "4.0"], official(tmp_path))


def test_a_word_stands_for_one_split():
    with pytest.raises(ConfigError, match="dev stands for two splits"):
        config.parse(
            Recipe,
            {"split": {"kind": "column", "path": "x.csv", "patient_id": "who", "test": ["dev"]}},
            "r",
        )


def notes_with_a_split(folder, rows, **changes):
    """The source of a table of notes, what its column says, and the patients of its notes."""
    (folder / "notes.csv").write_bytes(b"id,stay,who,part,text\n" + rows)
    columns = {"text": "text", **changes.pop("columns", {"note_id": "id", "patient_id": "who"})}
    values = {"kind": "table", "path": folder / "notes.csv", "columns": columns, **changes}
    source = config.parse(TableSource, values, "recipe")
    patients = read(source).notes["patient_id"]
    split = ColumnSplit(kind="column", column="part", **source.split_table)
    return split_patients(patients, split, source).rows(), patients.to_list()


NOTES = b"1,v1,a,train,x\n2,v2,b,test,x\n3,,c,train,x\n"


@pytest.mark.parametrize(
    "row",
    [b"4,,d,train,\xff\n", b"4,,d,train\n", b"4,,,train,x\n", b"4,,d,,x\n", b"4,,d\x07,e,x\n"],
)
def test_what_becomes_of_a_bad_row_of_the_notes_is_up_to_their_policy(tmp_path, row):
    lenient = {"policy": "quarantine", "max_rejected_share": 0.25}
    found, _ = notes_with_a_split(tmp_path, NOTES + row, **lenient)
    assert found == [("a", "train"), ("b", "test"), ("c", "train")]
    with pytest.raises(DataError, match=r"notes\.csv, line 5"):
        notes_with_a_split(tmp_path, NOTES + row)
    with pytest.raises(DataError, match="1 of 4 rows cannot be used"):
        notes_with_a_split(tmp_path, NOTES + row, policy="quarantine")


@pytest.mark.parametrize("note_id", ["3", "note-4"])
def test_a_note_of_no_stay_is_in_its_own_split_where_patients_are_stays(tmp_path, note_id):
    columns = {"stay_id": "stay"} | ({"note_id": "id"} if note_id == "3" else {})
    found, patients = notes_with_a_split(tmp_path, NOTES, columns=columns)
    assert found == [(note_id, "train"), ("v1", "train"), ("v2", "test")]
    assert sorted(patients) == [patient for patient, _ in found]


def test_the_words_of_the_recipe_for_a_missing_cell_hold_for_the_split_too(tmp_path):
    rows = NOTES + b"4,-,d,test,x\n5,-,e,train,x\n"
    columns = {"stay_id": "stay", "note_id": "id"}
    found, _ = notes_with_a_split(tmp_path, rows, columns=columns, missing=["-"])
    assert found[:3] == [("3", "train"), ("4", "test"), ("5", "train")]
    source = config.parse(
        TableSource,
        {"kind": "table", "path": "x.csv", "columns": {"text": "text"}, "missing": ["p0"]},
        "recipe",
    )
    with pytest.raises(DataError, match="line 1: missing patient id"):
        split_patients(PATIENTS, column_split(tmp_path, ROWS), source)
