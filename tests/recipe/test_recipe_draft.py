"""A drafted recipe says what columns are, or asks."""

import json
from datetime import datetime, timedelta

import pytest
import yaml
from draft_tables import DAYS, LONG, alternating, drafts_in

from notetune import config, sources
from notetune.errors import ConfigError, DataError
from notetune.recipe.draft import Choices, draft
from notetune.recipe.recipe import Recipe
from notetune.sources import splits
from notetune.sources.tables.survey import survey


@pytest.fixture
def drafted(tmp_path):
    return drafts_in(tmp_path)


def test_columns_are_guessed_by_what_they_hold_and_are_called(drafted):
    found = drafted(
        Note_ID=[f"n{row}" for row in range(40)],
        SUBJECT_ID=[row // 2 for row in range(40)],
        charttime=["2150-01-01 10:00:00"] * 40,
        hospital_expire_flag=alternating(1, 0),
        sex=alternating("F", "M"),
    )
    source = found.recipe.prepare.source
    columns = source.columns
    assert (columns.text, columns.note_id, columns.patient_id, columns.time) == (
        "body",
        "Note_ID",
        "SUBJECT_ID",
        "charttime",
    )
    assert [(task.name, task.kind, task.positive) for task in source.tasks] == [
        ("hospital_expire_flag", "binary", "1")
    ]
    assert found.remarks == ("These could be outcomes too: sex.",)
    assert "sex" not in found.uses


@pytest.mark.parametrize(
    ("words", "is_split"),
    [(("Train", "TEST"), True), (("train", "dev"), False), (("a", "b"), False)],
)
def test_a_column_that_splits_the_notes_is_used_so(drafted, words, is_split):
    ids = [f"n{row}" for row in range(40)]
    found = drafted(note_id=ids, died=alternating(1, 0), part=alternating(*words))
    assert (found.uses.get("part") == "split") == is_split
    assert any("part" in remark for remark in found.remarks) != is_split
    assert found.recipe.prepare.split.kind == ("column" if is_split else "fractions")


def test_a_column_splits_the_notes_of_a_stay_and_notes_without_ids(drafted):
    parts = [("train", "train", "validation", "test")[row // 4 % 4] for row in range(40)]
    columns = {"died": alternating(1, 0), "split": parts}
    prepare = drafted(stay=[row // 4 for row in range(40)], **columns).recipe.preparation
    notes = sources.read(prepare.source).notes["patient_id"]
    split_of = splits.split_patients(notes, prepare.split, prepare.source)
    assert dict(split_of.rows()) == dict(zip(notes, parts, strict=True))
    assert split_of.height == 10
    alone = drafted(**columns).recipe.preparation
    notes = sources.read(alone.source).notes["patient_id"]
    split_of = splits.split_patients(notes, alone.split, alone.source)
    assert dict(split_of.rows()) == dict(zip(notes, parts, strict=True))
    assert split_of.height == 40


@pytest.mark.parametrize(
    ("name", "cells", "what"),
    [
        ("part", ["train", "test", "train"] * 13, "split"),
        ("patient_id", [f"p{row // 2}" for row in range(39)], "patient id"),
        ("note", [f"{LONG} {LONG} {row}" for row in range(39)], "text"),
    ],
)
def test_rows_without_what_each_needs_are_told(drafted, name, cells, what):
    found = drafted(**{name: [None, *cells]}, died=alternating(1, 0))
    said = f"{name}: 1 of the first 40 rows have no {what}, which stops the study; fill it in, or"
    assert found.remarks[-1].startswith(said)
    prepare = found.recipe.preparation
    with pytest.raises(DataError, match=f"column part names no split|missing {what}|empty {what}"):
        splits.split_patients(
            sources.read(prepare.source).notes["patient_id"], prepare.split, prepare.source
        )
    assert not any(said[-40:] in remark for remark in drafted(died=[0, 1] * 20).remarks)


@pytest.mark.parametrize(
    ("patient", "stay"), [("PAT_MRN_ID", "PAT_ENC_CSN_ID"), ("patient_num", "encounter_num")]
)
def test_ids_are_known_by_the_names_that_epic_and_i2b2_give_them(drafted, patient, stay):
    ids = {patient: [row // 4 for row in range(40)], stay: [row // 2 for row in range(40)]}
    columns = drafted(**ids, died=alternating(1, 0)).keys["prepare"]["source"]["columns"]
    assert (columns["patient_id"], columns["stay_id"]) == (patient, stay)


@pytest.mark.parametrize("name", ["age", "Age (years)", "year_of_birth", "Geburtsjahr", "surname"])
def test_what_tells_of_a_person_is_no_id_of_a_note_where_it_happens_to_differ(drafted, name):
    died = alternating(1, 0)
    assert "note id" not in drafted(**{name: list(range(20, 60))}, died=died).uses.values()
    assert drafted(specimen=list(range(20, 60)), died=died).uses["specimen"] == "note id"


@pytest.mark.parametrize(
    "name",
    ["patient_mrn", "pt_id", "patient_uuid", "PatientenID", "Patientennummer", "paciente_id"],
)
def test_the_column_of_the_patient_is_known_by_many_names(drafted, name):
    found = drafted(**{name: [f"a{row // 2}" for row in range(40)]}, died=alternating(1, 0))
    assert found.uses[name] == "patient id"


def test_one_word_more_than_those_known_is_that_of_validation(drafted):
    ids, parts = [f"n{row}" for row in range(40)], ["Train", "Validierung", "Test", "Train"] * 10
    found = drafted(note_id=ids, died=alternating(1, 0), part=parts)
    assert found.recipe.prepare.split.validation == ("validierung",)
    assert "part: validierung is taken for validation." in found.remarks
    parts[1::4] = ["excluded"] * 10
    found = drafted(note_id=ids, died=alternating(1, 0), part=parts)
    assert "split" not in found.keys["prepare"]
    parts[::4] = ["Other"] * 10
    found = drafted(note_id=ids, died=alternating(1, 0), part=parts)
    assert "split" not in found.keys["prepare"]


def test_the_text_is_the_recipe(drafted, tmp_path):
    found = drafted(died=alternating("yes", "no"))
    (tmp_path / "ours.yaml").write_text(found.text)
    assert config.load(Recipe, tmp_path / "ours.yaml") == found.recipe
    assert found.text.startswith("# No column names the patient")
    assert yaml.safe_load(found.text) == found.keys


@pytest.mark.parametrize(
    ("choices", "columns", "said"),
    [
        (
            Choices(),
            {"sex": alternating("F", "M")},
            "with --codes FILE. It could be sex",
        ),
        (Choices(), {}, "no column seems to be an outcome"),
        (Choices(outcomes={"nope": None}), {}, "there is no column nope; the columns are body"),
        (
            Choices(outcomes={"died": None}, features=("age", "died")),
            {"died": alternating(1, 0), "age": alternating(1, 2)},
            "column died cannot be both outcome and feature; name it as one of them.",
        ),
        (
            Choices(outcomes={"died": None}, features=("body",)),
            {"died": alternating(1, 0)},
            "column body cannot be both text and feature",
        ),
        (
            Choices(patient_id="body"),
            {"died": alternating(1, 0)},
            "column body cannot be both text and patient id",
        ),
        (
            Choices(patient_id="mrn", note_id="mrn"),
            {"died": alternating(1, 0), "mrn": list(range(40))},
            "column mrn cannot be both patient id and note id",
        ),
        (
            Choices(outcomes={"died": None}, features=("mrn",)),
            {"died": alternating(1, 0), "mrn": list(range(40))},
            "column mrn seems to name the patient and is named as feature, so no patient is known",
        ),
        (
            Choices(text="body", outcomes={"plan": None}),
            {"plan": [f"{LONG} See us again in {row} weeks." for row in range(40)]},
            "column plan holds text; an outcome has 2 to",
        ),
        (Choices(text="died"), {"died": alternating(1, 0)}, "no column seems to be an outcome"),
        (
            Choices(outcomes={"ticked": "binary"}),
            {"ticked": alternating("Y", None)},
            "missing labels; write another value, such as N, into the empty cells if they say no.",
        ),
        (
            Choices(outcomes={"unit": "binary"}),
            {"unit": [f"{row % 3}" for row in range(40)]},
            "column unit holds 3 values; a binary outcome has two. For a binary task, empty the",
        ),
    ],
)
def test_what_cannot_be_told_is_asked(drafted, choices, columns, said):
    with pytest.raises(ConfigError) as error:
        drafted(choices, **columns)
    assert said in str(error.value)


def test_a_table_without_long_texts_asks_for_the_text(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("a,died\nshort,1\nbrief,0\nsmall,0\n")
    with pytest.raises(ConfigError, match="name it with --text COLUMN"):
        draft(path, survey(path), Choices(), "ours", "tiny")


def test_a_text_in_brackets_makes_no_list_of_the_column(drafted):
    notes = [f"{LONG} {LONG} {row}" for row in range(39)]
    found = drafted(note=["[REDACTED]", *notes], died=alternating(1, 0))
    assert found.uses["note"] == "text"
    lists = drafted(labels=[["I10", "I21", "J18", "J44", "N17", "N18", "R07", "Z51"]] * 40)
    assert lists.uses == {"body": "text", "labels": "outcome, multilabel"}


def test_an_id_of_no_known_name_is_the_one_column_that_differs_in_every_note(drafted):
    ids = [1000 + row for row in range(40)]
    assert drafted(Fall=ids, died=alternating(1, 0)).uses["Fall"] == "note id"
    others = {
        "Nummer": ids,
        "creatinine": [row + 0.5 for row in range(40)],
        "seen": [datetime(2150, 1, 1) + timedelta(row) for row in range(40)],  # noqa: DTZ001
    }
    for name, cells in others.items():
        columns = {name: cells} | ({"Fall": ids} if name == "Nummer" else {})
        found = drafted(died=alternating(1, 0), **columns)
        assert "note_id" not in found.keys["prepare"]["source"]["columns"]


def test_a_column_without_a_name_is_used_for_nothing_and_that_is_said(drafted):
    found = drafted(**{"": list(range(40)), "died": alternating(1, 0)})
    assert found.uses == {"body": "text", "died": "outcome, binary"}
    assert found.remarks[0] == (
        "Columns without a name of 1 to 60 printable characters are left out: 1."
    )
    assert found.recipe


def test_damaged_rows_are_told(tmp_path):
    path = tmp_path / "notes.csv"
    rows = "".join(f"{LONG} {row},{row % 2}\n" for row in range(40))
    path.write_text(f"text,died\n{rows}short\n")
    remarks = draft(path, survey(path), Choices(), "ours", "tiny").remarks
    assert remarks[0].startswith("1 of the first 41 rows are damaged and left out here. Mend them")


def test_a_key_that_some_objects_lack_is_told_where_it_is_used(tmp_path):
    path = tmp_path / "notes.jsonl"
    rows = [{"text": f"{LONG} {row}", "died": row % 2, "codes": ["I10"]} for row in range(40)]
    rows[0] = {"text": LONG, "died": 1, "ward": "ICU"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = draft(path, survey(path), Choices(), "ours", "tiny")
    assert [task.name for task in found.recipe.prepare.source.tasks] == ["died", "codes"]
    assert [remark for remark in found.remarks if "lack" in remark] == [
        "codes: 1 of the first 40 objects lack this key and are rejected; give it in every line, "
        "null if none."
    ]


def test_a_stay_of_several_notes_is_told(drafted):
    found = drafted(stay=[row // 2 for row in range(40)], died=alternating(1, 0))
    assert found.uses["stay"] == "stay id"
    said = "Several notes share one stay, 20 in 40 rows: prepare.join: by time makes one document"
    assert found.remarks[0].endswith("so each stay counts as its own patient's.")
    assert found.remarks[1].startswith(said)


@pytest.mark.parametrize(
    ("columns", "stay"),
    [
        ({"visit": [row % 3 for row in range(40)]}, None),
        ({"visit_id": [row // 10 for row in range(40)]}, "visit_id"),
        ({"admission": alternating("emergency", "elective")}, None),
        ({"admission": [f"{2110 + row}-01-01" for row in range(40)]}, None),
        ({"patient": [row // 2 for row in range(40)], "visit_id": [1, 2] * 20}, None),
        (
            {"patient": [row // 4 for row in range(40)], "visit": [n // 2 for n in range(40)]},
            "visit",
        ),
        ({"patient": [row // 2 for row in range(40)], "visit": [7] + [None] * 39}, "visit"),
    ],
)
def test_a_stay_is_no_kind_of_admission_and_no_count_of_visits(drafted, columns, stay):
    found = drafted(died=alternating(1, 0), **columns)
    assert found.keys["prepare"]["source"]["columns"].get("stay_id") == stay


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("subject", [f"RE: refill {row % 20}" for row in range(40)]),
        ("subject", ["refill", "appointment"] * 20),
        ("patient_name", [f"Mueller{row}" for row in range(40)]),
        ("Betreff", [f"Brief vom {row}." for row in range(40)]),
    ],
)
def test_words_and_names_are_no_ids(drafted, name, cells):
    found = drafted(died=alternating(1, 0), **{name: cells})
    assert found.uses == {"body": "text", "died": "outcome, binary"}
    assert drafted(Choices(note_id=name), died=alternating(1, 0), **{name: cells}).uses[name]


@pytest.mark.parametrize(
    ("names", "time"),
    [
        (("birth_date", "note_datetime", "date_of_death"), "note_datetime"),
        (("admittime", "dischtime", "deathtime", "storetime", "charttime"), "charttime"),
        (("storetime", "some_date"), "some_date"),
        (("admittime", "dischtime"), "admittime"),
        (("dob_date", "deathtime"), None),
        (("fecha_nacimiento", "fecha_defuncion", "fecha"), "fecha"),
        (("gebdatum", "geboortedatum", "date_naissance", "Ergebnisdatum"), "Ergebnisdatum"),
    ],
)
def test_the_time_of_a_note_is_told_from_those_of_lives_and_stays(drafted, names, time):
    found = drafted(died=alternating(1, 0), **dict.fromkeys(names, DAYS))
    assert found.keys["prepare"]["source"]["columns"].get("time") == time
    assert not any("could be outcomes" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("cells", "day_first"),
    [
        (["3/14/2150 9:09 PM", "2150-01-02"] * 20, False),
        (["14/3/2150", "1/2/2150"] * 20, True),
        (["3/4/2150 9:09 PM"] * 40, None),
        (["14/3/2150", "3/14/2150"] * 20, None),
    ],
)
def test_the_order_of_days_and_months_is_told_where_the_days_tell_it(drafted, cells, day_first):
    found = drafted(died=alternating(1, 0), note_date=cells)
    source = found.keys["prepare"]["source"]
    assert source.get("day_first") is day_first
    assert source["columns"].get("time") == (None if day_first is None else "note_date")
    named = drafted(Choices(time="note_date"), died=alternating(1, 0), note_date=cells)
    assert named.keys["prepare"]["source"].get("day_first") is day_first
    said = "say by day_first" if day_first is None else "in its times with slashes the"
    assert any(said in remark for remark in named.remarks)


def test_notes_in_several_rows_are_told(drafted):
    said = "NOTE_ID names 4 rows each, and each row is read as a note: if notes go over several"
    found = drafted(NOTE_ID=[row // 4 for row in range(40)], died=alternating(1, 0))
    assert any(remark.startswith(said) for remark in found.remarks)
    found = drafted(Choices(note_id="key"), key=[row // 4 for row in range(40)], died=[0, 1] * 20)
    assert any(remark.startswith("key names 4 rows each") for remark in found.remarks)
    found = drafted(NOTE_ID=list(range(40)), died=alternating(1, 0))
    assert not any("names" in remark and "rows" in remark for remark in found.remarks)
