"""Labels and codes from other tables, by any id."""

import json
from datetime import datetime

import polars as pl
import pytest
from table_of_visits import cohort_of, counts_of, labels_of, notices_of, source_of

from notetune.audit import FlowCount
from notetune.errors import ConfigError, DataError
from notetune.notes.outcomes import label_matrix
from notetune.sources import read

SITES = pl.DataFrame({"visit": ["v0", "v1", "v9"], "died": [True, False, True]})


def test_labels_come_from_another_table_by_any_id(tmp_path):
    SITES.write_parquet(tmp_path / "labels.parquet")
    labels = {"path": tmp_path / "labels.parquet", "id_column": "visit", "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": "visit", "labels": labels}
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort) == {"n0": ["death"], "n1": []}
    assert cohort.flow[1:] == (
        FlowCount("rows of the table for task death", 3, 3, {}),
        FlowCount("ids of the table for task death", 3, 2, {"no such note": 1}),
        FlowCount("task death", 4, 2, {"missing label": 2}),
    )
    assert label_matrix(*cohort.tasks[0]).tolist() == [[1], [0]]


def test_a_label_table_can_bring_the_prediction_time(tmp_path):
    frame = pl.DataFrame({"subject": ["p0"], "at": [datetime(2150, 1, 1, 12)], "value": [1]})  # noqa: DTZ001
    frame.write_parquet(tmp_path / "labels.parquet")
    labels = {"path": tmp_path / "labels.parquet", "id_column": "subject", "label_column": "value"}
    task = {"name": "death", "kind": "binary", "column": "patient", "labels": labels}
    cohort = cohort_of(tmp_path, tasks=[task | {"prediction_time": "at"}])
    ((_, table),) = cohort.tasks
    assert table["prediction_time"].to_list() == frame["at"].to_list() * 2
    own = {"name": "p", "kind": "multiclass", "column": "patient", "prediction_time": "when"}
    ((_, table),) = cohort_of(tmp_path, tasks=[own]).tasks
    assert table["prediction_time"].to_list()[1] == datetime(2150, 1, 2, 8)  # noqa: DTZ001


def test_the_prediction_time_can_be_hours_after_a_moment(tmp_path):
    frame = SITES.with_columns(at=pl.lit(datetime(2150, 1, 2)))  # noqa: DTZ001
    frame.write_parquet(tmp_path / "labels.parquet")
    labels = {"path": tmp_path / "labels.parquet", "id_column": "visit", "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": "visit", "labels": labels}
    task |= {"prediction_hours": 24}
    cohort = cohort_of(tmp_path, tasks=[task | {"prediction_time": "at"}])
    times = cohort.tasks[0][1]["prediction_time"]
    assert set(times) == {datetime(2150, 1, 3)}  # noqa: DTZ001
    with pytest.raises(ConfigError, match="prediction_hours counts from prediction_time"):
        cohort_of(tmp_path, tasks=[task])
    last = datetime(9999, 12, 31, 12)  # noqa: DTZ001
    frame.with_columns(at=pl.lit(last)).write_parquet(tmp_path / "labels.parquet")
    with pytest.raises(DataError, match="row 1: prediction time after the year 9999"):
        cohort_of(tmp_path, tasks=[task | {"prediction_time": "at"}])


def test_a_label_of_a_note_that_does_not_exist_stops_or_is_counted(tmp_path):
    (tmp_path / "labels.csv").write_text("id,died\nn0,1\nn1,0\n n2,0\n4,1\n5,1\n")
    labels = {"path": tmp_path / "labels.csv", "id_column": "id", "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": "id", "labels": labels}
    with pytest.raises(DataError, match="2 of the 5 notes with a label of task death do not exist"):
        cohort_of(tmp_path, tasks=[task])
    cohort = cohort_of(tmp_path, tasks=[task], policy="quarantine")
    assert FlowCount("ids of the table for task death", 5, 3, {"no such note": 2}) in cohort.flow
    (tmp_path / "labels.csv").write_text("id,died\n0,1\n1,0\n")
    with pytest.raises(DataError, match="no note has a label of task death"):
        cohort_of(tmp_path, tasks=[task], policy="quarantine")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("n0,1\nn0,0\n", "line 3: an earlier row gives this id another label of task death"),
        ("n0,1\nn1,2\n", "line 3: label of task death is neither positive nor negative"),
        ("n0,1\n,0\n", "line 3: missing row id"),
        ("n0,1\nn1\n", "line 3: short row"),
    ],
)
def test_a_faulty_label_table_stops(tmp_path, rows, problem):
    (tmp_path / "labels.csv").write_text(f"id,died\n{rows}")
    labels = {"path": tmp_path / "labels.csv", "id_column": "id", "label_column": "died"}
    task = {"name": "death", "kind": "binary", "column": "id", "labels": labels}
    with pytest.raises(DataError) as caught:
        cohort_of(tmp_path, tasks=[task])
    assert problem in str(caught.value)


UNMET = {"no such note": 1}
CODES = """visit,code,version
v0,00845,9
v0,0084,9
v0,V3000,9
v1,E8497,9
v1,e11.9,10
v1,,9
,0010,9
v9,9999,9
"""
CODE_CASES = {
    "ICD-9": ({"version": "icd9"}, {"n0": ["008", "V30"], "n1": ["E11", "E849"]}),
    "as they are": (
        {"version": "as-is"},
        {"n0": ["0084", "00845", "V3000"], "n1": ["E8497", "e11.9"]},
    ),
    "both": (
        {"version_column": "version"},
        {"n0": ["ICD-9 008", "ICD-9 V30"], "n1": ["ICD-10 E11", "ICD-9 E849"]},
    ),
    "procedures": (
        {"version": "icd9", "of": "procedures"},
        {"n0": ["008", "V30"], "n1": ["E84", "e11"]},
    ),
    "ICD-10 procedures": (
        {"version": "icd10", "of": "procedures"},
        {"n0": ["0084", "V300"], "n1": ["E11.", "E849"]},
    ),
}


@pytest.mark.parametrize("case", CODE_CASES)
def test_codes_become_categories_with_their_zeros(tmp_path, case):
    changes, expected = CODE_CASES[case]
    (tmp_path / "codes.csv").write_text(CODES)
    codes = {"path": tmp_path / "codes.csv", "id_column": "visit", "code_column": "code"}
    task = {"name": "icd", "kind": "multilabel", "column": "visit", "codes": codes | changes}
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort) == {**expected, "n2": [], "n3": []}
    rows = FlowCount("rows of the table for task icd", 8, 6, {"no id or no code": 2})
    ids = FlowCount("ids of the table for task icd; 2 others count as negative", 3, 2, UNMET)
    assert counts_of(cohort)[1:] == (rows, ids, FlowCount("task icd", 4, 4, {"missing label": 0}))
    task["codes"]["no_codes"] = "missing"
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort) == expected
    assert FlowCount("task icd", 4, 2, {"missing label": 2}) in cohort.flow


CONDITIONS = [
    ("v0", "http://hl7.org/fhir/sid/icd-10-cm", "E11.9"),
    ("v0", "http://hl7.org/fhir/sid/icd-10-cm", "E11.2"),
    ("v1", "http://hl7.org/fhir/sid/icd-9-cm", "250.00"),
    ("v1", "http://snomed.info/sct", "44054006"),
]
CONDITION_CASES = {
    "categories": ({"code_column": "icd10", "version": "icd10"}, {"n0": ["E11"]}),
    "whole codes": ({"code_column": "icd10", "version": "as-is"}, {"n0": ["E11.2", "E11.9"]}),
    "both versions": (
        {"code_column": "icd", "version_column": "version"},
        {"n0": ["ICD-10 E11"], "n1": ["ICD-9 250"]},
    ),
    "SNOMED": ({"code_column": "snomed", "version": "as-is"}, {"n1": ["44054006"]}),
}


@pytest.mark.parametrize("case", CONDITION_CASES)
def test_codes_come_from_fhir_conditions(tmp_path, case):
    changes, expected = CONDITION_CASES[case]
    resources = (
        {
            "resourceType": "Condition",
            "encounter": {"reference": f"Encounter/{visit}"},
            "code": {"coding": [{"system": system, "code": code}]},
        }
        for visit, system, code in CONDITIONS
    )
    path = tmp_path / "Condition.ndjson"
    path.write_text("\n".join(map(json.dumps, resources)))
    codes = {"path": path, "id_column": "encounter", "no_codes": "missing"} | changes
    task = {"name": "icd", "kind": "multilabel", "column": "visit", "codes": codes}
    assert labels_of(cohort_of(tmp_path, tasks=[task])) == expected
    if changes.get("version") == "as-is":
        cut = cohort_of(tmp_path, tasks=[task | {"first_characters": 3}])
        short = {note: sorted({code[:3] for code in codes}) for note, codes in expected.items()}
        assert labels_of(cut) == short


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"kind": "binary", "label": "expired"}, {"n0": ["stay"], "n1": []}),
        (
            {"kind": "binary", "label": "disposition", "positive": ["hosp"], "negative": None},
            {"n0": [], "n1": ["stay"]},
        ),
        (
            {"kind": "multiclass", "label": "days", "borders": [3]},
            {"n0": ["<=3"], "n1": [">3"]},
        ),
    ],
)
def test_labels_come_from_fhir_encounters(tmp_path, task, expected):
    resources = (
        {
            "resourceType": "Encounter",
            "id": visit,
            "period": {"start": "2150-01-01", "end": end},
            "hospitalization": {"dischargeDisposition": {"coding": [{"code": code}]}},
        }
        for visit, end, code in (("v0", "2150-01-04", "exp"), ("v1", "2150-01-05", "hosp"))
    )
    path = tmp_path / "Encounter.ndjson"
    path.write_text("\n".join(map(json.dumps, resources)))
    labels = {"path": path, "id_column": "encounter", "label_column": task.pop("label")}
    task = {"name": "stay", "column": "visit", "labels": labels} | task
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort) == expected
    assert FlowCount("rows of the table for task stay", 2, 2, {}) in counts_of(cohort)
    told = "Task stay: discharges taken for death, 1: 1 not named; for survival, 1: "
    is_told = [notice.startswith(told) for notice in notices_of(cohort)]
    assert is_told == [True] * (labels["label_column"] == "expired")


def test_codes_of_none_of_the_notes_are_no_negatives(tmp_path):
    (tmp_path / "codes.csv").write_text("visit,code\nV-0,0084\nV-1,0085\n")
    codes = {"path": tmp_path / "codes.csv", "id_column": "visit", "code_column": "code"}
    codes |= {"version": "icd9"}
    task = {"name": "icd", "kind": "multilabel", "column": "visit", "codes": codes}
    with pytest.raises(DataError, match="none of the 2 ids of the table for task icd has a note"):
        cohort_of(tmp_path, tasks=[task])


def test_ids_that_differ_by_zeros_alone_are_counted_in_a_notice(tmp_path):
    (tmp_path / "labels.csv").write_text("id,died\n1.0,1\n02,0\n3,0\n")
    labels = {"path": tmp_path / "labels.csv", "id_column": "id", "label_column": "died"}
    task = {"name": "died", "kind": "binary", "column": "visit", "labels": labels}
    (tmp_path / "notes.csv").write_text("id,visit,text\na,1,a\nb,2,b\nc,003,c\nd,3,d\ne,4,e\n")
    columns = {"text": "text", "note_id": "id"}
    cohort = read(source_of(tmp_path / "notes.csv", columns=columns, tasks=[task]))
    assert notices_of(cohort) == [
        "Task died: 3 of 5 notes have no row, but one whose id differs by zeros before it or .0 "
        "behind it alone; write ids alike in both tables."
    ]


def test_a_rounded_id_of_a_table_beside_the_notes_is_refused(tmp_path):
    (tmp_path / "codes.csv").write_text("visit,code\n1.00E+11,I10\n")
    codes = {"path": tmp_path / "codes.csv", "id_column": "visit", "code_column": "code"}
    task = {"name": "icd", "kind": "multilabel", "column": "visit"}
    task["codes"] = codes | {"version": "icd10"}
    with pytest.raises(DataError, match=r"codes\.csv, line 2: column visit holds a number with"):
        cohort_of(tmp_path, tasks=[task])


def test_a_table_of_events_alone_says_who_is_positive(tmp_path):
    (tmp_path / "death.csv").write_text("person_id,when\np1,2150-01-02\np9,2150-01-03\n")
    labels = {"path": tmp_path / "death.csv", "id_column": "person_id", "absent": "negative"}
    task = {"name": "death", "kind": "binary", "column": "patient", "labels": labels}
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort) == {"n0": [], "n1": [], "n2": ["death"], "n3": ["death"]}
    ids = FlowCount("ids of the table for task death; 1 others count as negative", 2, 1, UNMET)
    assert ids in cohort.flow
    timed = {"prediction_time": "when"}  # which who has no row would not have
    for changes in ({"kind": "multiclass"}, {"labels": labels | {"absent": "missing"}}, timed):
        with pytest.raises(ConfigError, match="absent: negative"):
            cohort_of(tmp_path, tasks=[task | changes])


def test_codes_can_be_restricted_to_classes_and_need_a_known_version(tmp_path):
    (tmp_path / "codes.csv").write_text(CODES)
    codes = {"path": tmp_path / "codes.csv", "id_column": "visit", "code_column": "code"}
    codes |= {"version": "icd9"}
    task = {"name": "icd", "kind": "multilabel", "column": "visit", "codes": codes}
    cohort = cohort_of(tmp_path, tasks=[task | {"classes": ["V30", "008", "X"]}])
    assert labels_of(cohort) == {"n0": ["008", "V30"], "n1": [], "n2": [], "n3": []}
    assert cohort.tasks[0][0].classes == ("V30", "008", "X")
    (tmp_path / "codes.csv").write_text(CODES.replace("e11.9,10", "e11.9,11"))
    del codes["version"]
    task["codes"] = codes | {"version_column": "version"}
    with pytest.raises(DataError, match="line 6: ICD version is neither 9 nor 10"):
        cohort_of(tmp_path, tasks=[task])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "binary", "codes": {"version": "icd9"}},
        {"codes": {}},
        {"codes": {"version": "icd9", "version_column": "v"}},
        {"codes": {"version": "icd11"}},
        {"codes": {"version": "icd10"}, "first_characters": 3},
        {"codes": {"version": "icd9", "code_column": "icd10"}},
        {"codes": {"version": "icd10", "code_column": "snomed"}},
        {"codes": {"version_column": "v", "code_column": "snomed"}},
        {"codes": {"version": "icd9"}, "labels": {"path": "l.csv", "label_column": "l"}},
    ],
)
def test_an_impossible_code_or_label_table_is_refused(tmp_path, change):
    for name in {"codes", "labels"} & set(change):
        change[name] = {"path": "c.csv", "id_column": "i"} | change[name]
    if "codes" in change:
        change["codes"].setdefault("code_column", "c")
    with pytest.raises(ConfigError):
        source_of("a.csv", tasks=[{"name": "t", "kind": "multilabel", "column": "x"} | change])


KINDS = """visit,Kind,code
v0, diag ,I10
v0,proc,0BJ08ZZ
v1,main,E11.9
v1,Diag,009430Z
v2,proc,07TP0ZZ
v3,diag,
"""


def kinds_task(folder, **changes):
    (folder / "kinds.csv").write_text(KINDS)
    codes = {"path": folder / "kinds.csv", "id_column": "visit", "code_column": "code"}
    codes |= {"version": "icd10"} | changes
    return {"name": "icd", "kind": "multilabel", "column": "visit", "codes": codes}


def test_where_picks_the_rows_of_a_table_of_codes(tmp_path):
    task = kinds_task(tmp_path, where={"Kind": ["diag", "main"]})
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort) == {"n0": ["I10"], "n1": ["E11"], "n2": [], "n3": []}
    left_out = {"not asked for (where)": 3, "no id or no code": 1}
    assert FlowCount("rows of the table for task icd", 6, 2, left_out) in cohort.flow
    one = cohort_of(tmp_path, tasks=[kinds_task(tmp_path, where={"kind": "diag"})])
    assert labels_of(one) == {"n0": ["I10"], "n1": [], "n2": [], "n3": []}


def test_where_picks_the_rows_of_a_table_of_labels_by_every_column(tmp_path):
    table = pl.DataFrame({"visit": ["v0", "v0", "v1"], "y": [0, 1, 1], "n": [1.0, 2.0, 1.0]})
    table.write_parquet(tmp_path / "labels.parquet")
    labels = {"path": tmp_path / "labels.parquet", "id_column": "visit", "label_column": "y"}
    labels |= {"where": {"n": "1", "y": ["0", "1"]}}
    task = {"name": "death", "kind": "binary", "column": "visit", "labels": labels}
    assert labels_of(cohort_of(tmp_path, tasks=[task])) == {"n0": [], "n1": ["death"]}


def test_a_where_that_no_row_fits_or_no_column_has_stops(tmp_path):
    task = kinds_task(tmp_path, where={"Kind": "DIAG"})
    with pytest.raises(DataError, match=r"task icd, codes.where: none of the 6 rows of .* in Kind"):
        cohort_of(tmp_path, tasks=[task])
    task = kinds_task(tmp_path, where={"Sort": "diag"})
    expected = r"task icd, codes.where: .*kinds.csv, line 1: no column 'Sort' among 3"
    with pytest.raises(DataError, match=expected):
        cohort_of(tmp_path, tasks=[task])


def test_codes_of_another_form_are_counted_in_a_notice_and_kept(tmp_path):
    cohort = cohort_of(tmp_path, tasks=[kinds_task(tmp_path)])
    assert labels_of(cohort) == {
        "n0": ["0BJ", "I10"],
        "n1": ["009", "E11"],
        "n2": ["07T"],
        "n3": [],
    }
    assert notices_of(cohort)[0] == (
        "Task icd: 3 of 5 codes do not look like ICD-10 diagnoses; they count all the same. Is the "
        "table of one kind? `codes.where` picks rows."
    )
    for changes in ({"where": {"Kind": ["diag", "main"]}}, {"version": "as-is"}):
        notices = notices_of(cohort_of(tmp_path, tasks=[kinds_task(tmp_path, **changes)]))
        assert not any("look like" in notice for notice in notices)


def test_codes_of_both_versions_are_judged_each_by_its_own_form(tmp_path):
    (tmp_path / "codes.csv").write_text("visit,code,version\nv0,E11,9\nv0,250,10\nv1,I10,10\n")
    codes = {"path": tmp_path / "codes.csv", "id_column": "visit", "code_column": "code"}
    codes |= {"version_column": "version", "no_codes": "missing"}
    task = {"name": "icd", "kind": "multilabel", "column": "visit", "codes": codes}
    (notice,) = notices_of(cohort_of(tmp_path, tasks=[task]))
    assert "1 of 1 codes do not look like ICD-9 diagnoses and 1 of 2 codes do not" in notice


def test_notes_without_a_code_are_counted_in_a_notice(tmp_path):
    task = kinds_task(tmp_path, where={"Kind": ["diag", "main"]})
    assert notices_of(cohort_of(tmp_path, tasks=[task])) == [
        "Task icd: 2 of 4 notes have no usable code and count as having none of the classes; "
        "`codes.no_codes: missing` leaves them out."
    ]
    merged = source_of(tmp_path / "notes.csv", tasks=[task], duplicate_texts="merge")
    (tmp_path / "notes.csv").write_text(
        "id,patient,visit,text\nn2,p,v2,a\nn0,p,v0,a\nn1,p,v1,a\nn3,p,v3,b\nn4,p,v9,b\n"
    )
    assert notices_of(read(merged))[0].startswith("Task icd: 1 of 2 notes have no usable code")
    task["codes"]["no_codes"] = "missing"
    assert notices_of(cohort_of(tmp_path, tasks=[task])) == []


def test_a_stay_whose_codes_are_of_no_class_has_none_and_is_not_missing(tmp_path):
    task = kinds_task(tmp_path, where={"Kind": ["diag", "main"]}, no_codes="missing")
    assert labels_of(cohort_of(tmp_path, tasks=[task | {"classes": ["I10"]}])) == {
        "n0": ["I10"],
        "n1": [],
    }


def test_notes_without_a_label_that_count_as_negative_are_counted_in_a_notice(tmp_path):
    (tmp_path / "labels.csv").write_text("patient,y\np0,1\n")
    labels = {"path": tmp_path / "labels.csv", "id_column": "patient", "label_column": "y"}
    task = {"name": "death", "kind": "binary", "column": "patient", "labels": labels}
    labels["absent"] = "negative"
    assert notices_of(cohort_of(tmp_path, tasks=[task])) == [
        "Task death: 2 of 4 notes have no row in the table of labels and count as negative; "
        "`labels.absent: missing` leaves them out."
    ]
    del labels["label_column"]  # a table of events: all others are negative by its nature
    assert notices_of(cohort_of(tmp_path, tasks=[task])) == []


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_missing_column_is_named_with_its_key_the_nearest_and_all_others(tmp_path, suffix):
    frame = pl.DataFrame({"Case No": ["v0"], "Code": ["I10"], "Kind": ["diag"]})
    path = tmp_path / f"codes.{suffix}"
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[suffix](
        path
    )
    codes = {"path": path, "id_column": "Case", "code_column": "Code", "version": "icd10"}
    task = {"name": "icd", "kind": "multilabel", "column": "visit", "codes": codes}
    with pytest.raises(DataError) as caught:
        cohort_of(tmp_path, tasks=[task])
    said = "no column 'Case' among 3; the nearest is 'Case No'; there are Case No, Code, Kind"
    assert said in str(caught.value)
    if suffix != "jsonl":
        assert str(caught.value).startswith(f"task icd, codes.id_column: {path}")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"columns": {"text": "body"}}, "columns.text"),
        ({"features": ["age"]}, "source.features"),
        ({"tasks": [{"name": "y", "kind": "binary", "column": "y"}]}, "task y.column"),
    ],
)
def test_a_column_that_the_notes_lack_is_named_with_its_key(tmp_path, changes, key):
    with pytest.raises(DataError) as caught:
        cohort_of(tmp_path, **changes)
    assert str(caught.value).startswith(f"{key}: {tmp_path / 'notes.csv'}, line 1: no column")
