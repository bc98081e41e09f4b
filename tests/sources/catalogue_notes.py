"""Bad input, the cases of notes: their cells, ids, labels, splits and times."""

import csv
import json
import random
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from catalogue import (
    CANARY,
    COLUMNS,
    DEATH,
    GOOD,
    HEADER,
    POLICIES,
    QUARANTINE,
    Cases,
    assert_silent,
    fed,
    left_out,
    same_under_both,
    source_of,
    stops,
)

from notetune.errors import DataError
from notetune.metrics.ranking import auroc_score
from notetune.notes import outcomes, overlap
from notetune.notes.near_duplicates import signatures
from notetune.sources import read, splits
from notetune.sources.rejections import write_rejections

CASES = Cases()


@CASES.case(12, "empty text")
def _(folder):
    for cell in ("", '""', '"  "', '"\n\t\r\n"', "\u00a0\u2003", "\ufeff"):
        left_out(folder, f"d,4,0,{cell}\n", "empty text")


@CASES.case(13, "NA, None and NULL as text")
def _(folder):
    for word in ("NA", "None", " NULL ", "nan", "null", r"\N"):
        left_out(folder, f"d,4,0,{word}\n", "empty text")
    kept = ["-", "0", "NA.", "none", "NULL and void"]
    rows = "".join(f"{i},{i},{i % 2},{word}\n" for i, word in enumerate(kept))
    assert same_under_both(folder, HEADER + rows) == kept


@CASES.case(14, "ids such as 007")
def _(folder):
    cohort = fed(folder, HEADER + "007,007,0,x\n7,7,1,y\n7.0,1e3,0,z\n")
    assert cohort.notes["note_id"].to_list() == ["007", "7", "7.0"]
    assert cohort.notes["patient_id"].to_list() == ["007", "7", "1e3"]
    pl.DataFrame({"id": [7.5], "patient": ["1"], "died": ["0"], "text": [CANARY]}).write_parquet(
        folder / "ids.parquet"
    )
    with pytest.raises(DataError, match="column id holds a float"):
        read(source_of(folder / "ids.parquet"))


@CASES.case(17, "note id given twice")
def _(folder):
    left_out(folder, f"b,2,1,{CANARY} two\n", "note id repeated with the same text")
    left_out(folder, f"b,2,1,{CANARY} 2\n", "note id repeated with another text")


@CASES.case(18, "rows in another order")
def _(folder):
    rows = [f"n{i},p{i % 9},{i % 2},text {i}\n" for i in range(60)]
    seen = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        cohort = fed(folder, HEADER + "".join(rows))
        assignment = splits.split_patients(cohort.notes["patient_id"], splits.SplitConfig())
        tables = (cohort.notes, cohort.tasks[0][1], assignment)
        seen.append([table.sort(table.columns[0]).hash_rows().to_list() for table in tables])
    assert seen[0] == seen[1] == seen[2]


SITE = {"name": "site", "kind": "multiclass", "column": "died", "classes": ["0", "1", "2"]}


@CASES.case(23, "unknown label")
def _(folder):
    left_out(folder, f"d,4,{CANARY},x\n", "unknown class of task site", tasks=[SITE])


@CASES.case(24, "missing label")
def _(folder):
    stops(folder, GOOD + b"d,4,,x\n", "line 5: missing label of task death", policies=POLICIES[:1])
    cohort = fed(folder, GOOD + b"d,4,,x\n", **QUARANTINE)
    assert cohort.notes.height == 4
    assert cohort.flow[1].rejected == {"missing label": 1}
    assert cohort.tasks[0][1]["note_id"].to_list() == ["a", "b", "c"]


@CASES.case(25, "label that is neither of two")
def _(folder):
    for cell in ("2", "yes", "0.0", "-1", CANARY):
        reason = "label of task death is neither positive nor negative"
        left_out(folder, f"d,4,{cell},x\n", reason)


TASK = outcomes.Task("death", "binary", ("death",))


def labelled(**positives_by_split: list[bool]) -> pl.DataFrame:
    rows = [
        (f"{split}-{i}", ["death"] if is_positive else [], f"{split}-{i}", split)
        for split, positives in positives_by_split.items()
        for i, is_positive in enumerate(positives)
    ]
    names = ["note_id", "labels", "patient_id", "split"]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col("labels").cast(pl.List(pl.String))
    )


@CASES.case(26, "test split with one class")
def _(folder):
    table = labelled(train=[True, False], test=[False, False, False])
    outcomes.check_train_classes(TASK, table)
    score = auroc_score(np.zeros(3, dtype=np.int8), np.array([0.1, 0.2, 0.3]))
    assert np.isnan(score)


@CASES.case(27, "train split with one class")
def _(folder):
    for positives in ([], [True, True], [False]):
        with pytest.raises(DataError, match="train") as caught:
            outcomes.check_train_classes(TASK, labelled(train=positives, test=[True, False]))
        assert_silent(caught.value)


@CASES.case(28, "class of one note")
def _(folder):
    rows = "".join(f"n{i},p{i},{int(i == 0)},x\n" for i in range(20))
    cohort = fed(folder, HEADER + rows)
    homes = set()
    for seed in range(30):
        assignment = splits.split_patients(
            cohort.notes["patient_id"], splits.SplitConfig(seed=seed)
        )
        table, _ = splits.split_table(cohort.tasks[0][1], cohort.notes, assignment)
        (home,) = table.filter(pl.col("labels").list.len() == 1)["split"]
        homes.add(home)
        if home == "train":
            outcomes.check_train_classes(TASK, table)
        else:
            with pytest.raises(DataError, match="have the same label"):
                outcomes.check_train_classes(TASK, table)
    assert homes == set(outcomes.SPLITS)


@CASES.case(29, "patient in train and test")
def _(folder):
    finding = overlap.shared_patients("train", ["1", "2"], "test", ["1"])
    assert (finding.count, finding.blocks) == (1, True)
    for part in ("train", "validation", "test"):
        (folder / f"{part}.csv").write_text(f"SUBJECT_ID\n1\n{part}\n")
    files = {part: folder / f"{part}.csv" for part in ("train", "validation", "test")}
    with pytest.raises(DataError, match="this patient is already in"):
        splits.split_patients(["1"], splits.OfficialSplit(kind="files", **files))


@CASES.case(30, "near-duplicate across splits")
def _(folder):
    note = f"{CANARY} was admitted with chest pain and ruled out for infarction by enzymes " * 4
    found = overlap.near_duplicate_texts(
        "train", signatures([note + "today"]), "test", signatures([note + "tonight", "other"])
    )
    assert (found.count, found.share, found.blocks) == (1, 0.5, False)
    assert CANARY not in str(found)


@CASES.case(31, "note after the prediction time")
def _(folder):
    header = "id,patient,died,text,time,from\n"
    rows = "a,1,0,x,2150-01-01,2150-01-02\nb,2,1,y,2150-01-03,2150-01-02\n"
    cohort = fed(
        folder,
        header + rows,
        columns=COLUMNS | {"time": "time"},
        tasks=[DEATH | {"prediction_time": "from"}],
    )
    ((task, table),) = cohort.tasks
    assert table["prediction_time"][0] == datetime(2150, 1, 2)  # noqa: DTZ001
    found = overlap.late_notes(task.name, "test", cohort.notes, table)
    assert (found.count, found.blocks) == (1, True)


@CASES.case(32, "labels that meet no note")
def _(folder):
    (folder / "labels.csv").write_text("id,died\na,1\nb,0\n07,1\n")
    table = {"path": folder / "labels.csv", "id_column": "id", "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": "id", "labels": table}
    rule = "1 of the 3 notes with a label of task death do not exist"
    stops(folder, GOOD, rule, policies=POLICIES[:1], tasks=[task])
    lost = pl.DataFrame({"note_id": ["a", "7"], "labels": [[], []]})
    notes = fed(folder, GOOD).notes
    assignment = pl.DataFrame({"patient_id": ["1"], "split": ["train"]})
    with pytest.raises(DataError, match="note 7 has labels but no patient"):
        splits.split_table(lost, notes, assignment)


@CASES.case(33, "halves of characters, other forms, controls, right-to-left")
def _(folder):
    texts = {
        "half \ud800": "half \ufffd",
        "cafe\u0301": "cafe\u0301",
        "bell\a and\x1b[31m red": "bell  and [31m red",
        "\u202e\u05e9\u05dc\u05d5\u05dd": "\u202e\u05e9\u05dc\u05d5\u05dd",
    }
    lines = [
        json.dumps({"id": f"e\u0301{i}", "patient": str(i), "died": i % 2, "text": text})
        for i, text in enumerate(texts)
    ]
    cohort = fed(folder, "\n".join(lines), "notes.jsonl")
    assert cohort.notes["text"].to_list() == list(texts.values())
    assert cohort.notes["note_id"].to_list() == [f"\xe9{i}" for i in range(4)]
    for name in ("a\ud800", "a\nb", "a\x07", "a\u202eb"):
        bad = json.dumps({"id": name, "patient": "1", "died": 0, "text": CANARY})
        rule = "line 5: control characters in column id"
        stops(folder, "\n".join([*lines, bad]), rule, "notes.jsonl", POLICIES[:1])
        cohort = fed(folder, "\n".join([*lines, bad]), "notes.jsonl", **QUARANTINE)
        assert cohort.notes.height == 4


@CASES.case(34, "formula in a cell")
def _(folder):
    formula = '=cmd|"/c calc"!A1'
    quoted = formula.replace('"', '""')
    cohort = fed(folder, HEADER + f'"{quoted}",1,0,"{quoted}"\nb,2,1,y\n')
    assert cohort.notes["note_id"][0] == cohort.notes["text"][0] == formula
    cohort = fed(folder, HEADER + f'"{quoted}",1,0,\nb,2,1,y\n', **QUARANTINE)
    write_rejections(cohort.rejections, folder / "out.csv")
    with (folder / "out.csv").open(newline="") as file:
        assert [row["note_id"] for row in csv.DictReader(file)] == [f"'{formula}"]
