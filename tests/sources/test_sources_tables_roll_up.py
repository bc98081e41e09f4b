"""Codes become chapters, or the groups of a table, with words for each."""

import json

import polars as pl
import pytest
from table_of_visits import cohort_of, counts_of, labels_of, source_of

from notetune.audit import FlowCount
from notetune.errors import ConfigError, DataError

CODES = """visit,code,version
v0,00845,9
v0,V3000,9
v0,401.9,9
v1,E8497,9
v1,e11.9,10
v1,0X0,9
v1,,9
"""
GROUPS = """code,group,words
E11.9,DIA,Diabetes
e119,RISK,"Risk, whatever its cause"
I10,CVD,
"""


def codes_task(folder, codes=CODES, **changes):
    (folder / "codes.csv").write_text(codes)
    table = {"path": folder / "codes.csv", "id_column": "visit", "code_column": "code"}
    table |= changes.pop("of_codes", {"version": "icd9"})
    return {"name": "icd", "kind": "multilabel", "column": "visit", "codes": table} | changes


def by_table(folder, text=GROUPS, **changes):
    (folder / "groups.csv").write_text(text)
    columns = {"code_column": "code", "group_column": "group"}
    return {"path": folder / "groups.csv"} | columns | changes


def cells_task(folder, cells, **changes):
    """A task of labels by note, and its cohort; a note without a cell has no label."""
    lines = [{"id": name, "codes": codes} for name, codes in cells.items()]
    (folder / "cells.jsonl").write_text("\n".join(map(json.dumps, lines)))
    labels = {"path": folder / "cells.jsonl", "id_column": "id", "label_column": "codes"}
    task = {"name": "icd", "kind": "multilabel", "column": "id", "labels": labels}
    return cohort_of(folder, tasks=[task | changes])


def test_codes_become_chapters_with_their_titles(tmp_path):
    cohort = cohort_of(tmp_path, tasks=[codes_task(tmp_path, roll_up="chapter")])
    nine = {"n0": ["001-139", "390-459", "V01-V91"], "n1": ["E000-E999"]}
    assert labels_of(cohort) == nine | {"n2": [], "n3": []}
    left_out = {"no id or no code": 1, "not in the roll-up": 2}
    assert FlowCount("rows of the table for task icd", 7, 4, left_out) in counts_of(cohort)
    words = cohort.tasks[0][0].class_descriptions
    assert list(words) == ["001-139", "390-459", "E000-E999", "V01-V91"]
    assert words["E000-E999"] == "External causes of injury and poisoning"


def test_chapters_of_two_versions_stay_apart(tmp_path):
    task = codes_task(tmp_path, roll_up="chapter", of_codes={"version_column": "version"})
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort)["n1"] == ["ICD-10 E00-E89", "ICD-9 E000-E999"]
    words = cohort.tasks[0][0].class_descriptions
    assert words["ICD-10 E00-E89"] == "Endocrine, nutritional and metabolic diseases"
    task = codes_task(tmp_path, CODES.replace("e11.9,10", "e11.9,11"), roll_up="chapter")
    task["codes"] = task["codes"] | {"version": None, "version_column": "version"}
    with pytest.raises(DataError, match="line 6: ICD version is neither 9 nor 10"):
        cohort_of(tmp_path, tasks=[task])


def test_labels_become_chapters_and_what_is_no_code_is_counted(tmp_path):
    cells = {"n0": ["E11.9", "e10", "c4a9"], "n1": ["sepsis"], "n2": None, "n3": []}
    cohort = cells_task(tmp_path, cells, roll_up="icd10-chapter")
    assert labels_of(cohort) == {"n0": ["C00-D49", "E00-E89"], "n1": [], "n3": []}
    stage = FlowCount("codes in the cells of task icd", 4, 3, {"not in the roll-up": 1})
    assert stage in counts_of(cohort)
    with pytest.raises(DataError, match="none of the 4 codes of task icd is in its roll-up"):
        cells_task(tmp_path, cells, roll_up="icd9-chapter")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_gives_each_code_its_groups(tmp_path, suffix):
    table = by_table(tmp_path, description_column="words")
    frame = pl.read_csv(tmp_path / "groups.csv")
    table["path"] = tmp_path / f"groups.{suffix}"
    write = {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}
    write[suffix](table["path"])
    codes = "visit,code\nv0,E119\nv0,i10!\nv1,e11.9+\nv2,E1\n"  # with marks of ICD-10-GM
    task = codes_task(tmp_path, codes, roll_up=table)
    cohort = cohort_of(tmp_path, tasks=[task])
    expected = {"n0": ["CVD", "DIA", "RISK"], "n1": ["DIA", "RISK"], "n2": [], "n3": []}
    assert labels_of(cohort) == expected
    assert cohort.tasks[0][0].class_descriptions == {
        "DIA": "Diabetes",
        "RISK": "Risk, whatever its cause",
    }
    assert FlowCount("rows of the roll-up of task icd", 3, 3, {}) in counts_of(cohort)
    rows = FlowCount("rows of the table for task icd", 4, 3, {"not in the roll-up": 1})
    assert rows in counts_of(cohort)


def test_a_roll_up_that_knows_no_code_stops(tmp_path):
    task = codes_task(tmp_path, roll_up=by_table(tmp_path, "code,group\nA00,G\n"))
    with pytest.raises(DataError, match="none of the 6 codes of task icd is in its roll-up"):
        cohort_of(tmp_path, tasks=[task])
    (tmp_path / "groups.csv").write_text(f"code,group\nA00,{'g' * 121}\n")
    with pytest.raises(DataError, match=r"line 2: column group holds 121 characters"):
        cohort_of(tmp_path, tasks=[task])


def test_classes_restrict_after_the_roll_up(tmp_path):
    cells = {"n0": ["E11.9", "I10"], "n1": ["i10"]}
    table = by_table(tmp_path)
    cohort = cells_task(tmp_path, cells, roll_up=table, classes=["RISK", "DIA"])
    assert labels_of(cohort) == {"n0": ["DIA", "RISK"], "n1": []}
    assert cohort.tasks[0][0].classes == ("RISK", "DIA")
    left_out = {"not among the classes of the task": 2}
    assert FlowCount("codes in the cells of task icd", 3, 1, left_out) in counts_of(cohort)


def test_a_column_of_the_notes_rolls_up_after_its_first_characters(tmp_path):
    table = by_table(tmp_path, "code,group\n'v0','GRP 1'\nv1,' '\n")
    task = {"name": "g", "kind": "multilabel", "column": "visit", "roll_up": table}
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort) == {"n0": ["GRP 1"], "n1": [], "n2": [], "n3": []}
    cohort = cohort_of(
        tmp_path,
        tasks=[task | {"first_characters": 1, "roll_up": by_table(tmp_path, "code,group\nV,G\n")}],
    )
    assert set(map(tuple, labels_of(cohort).values())) == {("G",)}


def described(folder, text, **changes):
    (folder / "words.csv").write_text(text)
    words = {"path": folder / "words.csv", "code_column": "code", "description_column": "words"}
    task = codes_task(folder, descriptions=words)
    return cohort_of(folder, tasks=[task], **changes)


def test_descriptions_are_one_short_line_and_unknown_classes_have_none(tmp_path):
    long = "intestinal infections " * 7
    cohort = described(tmp_path, f"code,words\n008,{long}\nv30,Liveborn\n999,Unused\n")
    words = cohort.tasks[0][0].class_descriptions
    assert words == {"008": f"{('intestinal infections ' * 5).strip()}…", "V30": "Liveborn"}
    assert len(words["008"]) <= 120
    cohort = described(tmp_path, f"code,words\n008,{'x' * 121}\nV30,{'y' * 120}\n")
    words = cohort.tasks[0][0].class_descriptions
    assert words == {"008": "x" * 119 + "…", "V30": "y" * 120}
    assert "401" in cohort.tasks[0][0].classes


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("V30,a\x07b", "control characters in column words"),
        ("v30,Other", "another description of the same code or group"),
    ],
)
def test_a_faulty_description_is_refused_by_its_row(tmp_path, row, reason):
    text = f"code,words\nV30,Liveborn\n{row}\n"
    with pytest.raises(DataError, match=rf"words\.csv, line 3: {reason}"):
        described(tmp_path, text)
    cohort = described(tmp_path, text, policy="quarantine", max_rejected_share=0.5)
    assert cohort.tasks[0][0].class_descriptions == {"V30": "Liveborn"}
    assert cohort.rejections["reason"].to_list() == [reason]


@pytest.mark.parametrize(
    "change",
    [
        {"roll_up": "chapter"},
        {"roll_up": "chapters"},
        {"roll_up": "icd9-chapter", "of_codes": {"version": "icd9"}},
        {"roll_up": "chapter", "of_codes": {"version": "as-is"}},
        {"roll_up": "chapter", "of_codes": {"version": "icd9", "of": "procedures"}},
        {"roll_up": "icd9-chapter", "kind": "multiclass"},
        {"roll_up": {"path": "g.csv", "code_column": "c"}},
        {
            "roll_up": {"path": "g.csv", "code_column": "c", "group_column": "g"},
            "of_codes": {"version_column": "v"},
        },
        {
            "kind": "binary",
            "descriptions": {"path": "g.csv", "code_column": "c", "description_column": "d"},
        },
    ],
)
def test_an_impossible_roll_up_is_refused(tmp_path, change):
    task = {"name": "t", "kind": "multilabel", "column": "x"} | change
    if "of_codes" in change:
        task = codes_task(tmp_path, **change)
    with pytest.raises(ConfigError, match=r"roll_up|chapter|description"):
        source_of("a.csv", tasks=[task])
