"""A drafted recipe says what columns are, or asks."""

import json
import unicodedata
from datetime import datetime, timedelta

import polars as pl
import pytest
import yaml

from notetune import config, sources
from notetune.errors import ConfigError
from notetune.recipe.draft import Choices, draft
from notetune.recipe.draft_codes import Codes
from notetune.recipe.recipe import Recipe
from notetune.sources import splits
from notetune.sources.tables.survey import survey

LONG = "Admitted with chest pain radiating to the left arm since the morning."


@pytest.fixture
def drafted(tmp_path):
    """Drafts of a table with these columns beside its texts."""

    def made(choices=None, **columns):
        path = tmp_path / "notes.parquet"
        texts = [f"{LONG} {row}" for row in range(40)]
        pl.DataFrame({"body": texts, **columns}).write_parquet(path)
        return draft(path, survey(path), choices or Choices(), "ours", "tiny")

    return made


def alternating(first, second):
    return [first if row % 4 == 0 else second for row in range(40)]


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


def test_ids_are_known_by_the_names_that_epic_gives_them(drafted):
    ids = {
        "PAT_MRN_ID": [row // 4 for row in range(40)],
        "PAT_ENC_CSN_ID": [row // 2 for row in range(40)],
    }
    columns = drafted(**ids, died=alternating(1, 0)).keys["prepare"]["source"]["columns"]
    assert (columns["patient_id"], columns["stay_id"]) == ("PAT_MRN_ID", "PAT_ENC_CSN_ID")


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
    ("cells", "expected"),
    [
        (alternating(True, False), {"kind": "binary"}),
        (alternating("No", "Yes"), {"kind": "binary", "positive": "Yes", "negative": "No"}),
        (
            alternating("home", "ward"),
            {"kind": "binary", "positive": "home", "negative": "ward", "classes": ["home"]},
        ),
        ([f"class {row % 3}" for row in range(40)], {"kind": "multiclass"}),
        ([["I10"] if row % 2 else [] for row in range(40)], {"kind": "multilabel"}),
        (
            [f"a{row};b{row % 7};c{row}{row}{row}" * 8 for row in range(40)],
            {"kind": "multilabel", "separator": ";"},
        ),
    ],
)
def test_the_kind_of_an_outcome_follows_from_its_values(drafted, cells, expected):
    found = drafted(Choices(text="body", outcomes={"outcome": None}), outcome=cells)
    (task,) = found.keys["prepare"]["source"]["tasks"]
    assert task == {"name": "outcome", "column": "outcome", **expected}
    assert found.recipe


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["I10;E11", "E11", "J18;I10", "J18;E11;N17", "N17"], ";"),
        (["I10, E11", "J18"], ","),
        (["401|250", "250", "401", "401|428"], "|"),
        (["pain; fever", "fever", "cough; pain", "cough"], ";"),
    ],
)
def test_labels_that_come_back_in_other_company_are_no_classes(drafted, cells, separator):
    found = drafted(icd_codes=(cells * 40)[:40])
    (task,) = found.recipe.prepare.source.tasks
    assert (task.kind, task.separator) == ("multilabel", separator)
    assert f"icd_codes: labels are taken to stand between {separator!r}." in found.remarks


@pytest.mark.parametrize(
    "cells",
    [
        ["Pain, chest", "Pain, back", "Stroke", "Fever, of unknown origin"],
        ["36,5", "37,5", "36,2", "37,2"],
        ["ward;", "ICU;", "home;", "hospice;"],
    ],
)
def test_words_with_a_comma_stay_classes_and_the_way_out_is_said(drafted, cells):
    found = drafted(outcome=cells * 10)
    (task,) = found.recipe.prepare.source.tasks
    assert (task.kind, task.separator) == ("multiclass", None)
    assert found.remarks[-1].startswith("outcome: each cell is taken for one class. If ")
    said = drafted(Choices(outcomes={"outcome": "multiclass"}), outcome=cells * 10).remarks
    assert not any("for one class" in remark for remark in said)


def test_arrays_of_postgres_are_no_outcome_and_how_to_export_them_is_said(drafted):
    cells = ["{I10,E11}", "{I10}", "{}", "{E11,J18}"] * 10
    said = "icd_codes: arrays in braces, as Postgres prints them, are not read; export the column"
    found = drafted(icd_codes=cells, died=alternating(1, 0))
    assert [task.name for task in found.recipe.prepare.source.tasks] == ["died"]
    assert found.remarks[-1].startswith(said)
    for choices in (Choices(), Choices(outcomes={"icd_codes": "multilabel"})):
        with pytest.raises(ConfigError, match=said):
            drafted(choices, icd_codes=cells)


@pytest.mark.parametrize(
    ("first", "second", "positive"),
    [
        ("died", "survived", "died"),
        ("dead", "alive", "dead"),
        ("survived", "lost", "survived"),
        ("2", "1", "2"),
        ("yes", "unknown", "yes"),
        ("negative", "positive", "positive"),
    ],
)
def test_a_class_is_named_by_the_value_that_counts_where_it_says_neither_yes_nor_no(
    drafted, first, second, positive
):
    found = drafted(Choices(outcomes={"survived": None}), survived=alternating(first, second))
    (task,) = found.recipe.prepare.source.tasks
    negative = second if positive == first else first
    assert (task.positive, task.negative, task.classes) == (positive, negative, (positive,))
    said = f"survived: {positive!r} counts as positive, {negative!r} as negative. To turn it, swap"
    assert sum(remark.startswith(said) for remark in found.remarks) == 1


@pytest.mark.parametrize(
    ("positive", "negative"),
    [("TRUE", "False"), ("Y", "n"), ("1.0", "0.0"), ("J", "N"), ("sì", "no"), ("t", "f")],
)
def test_a_column_that_says_yes_or_no_is_named_by_itself_without_a_remark(
    drafted, positive, negative
):
    for pair in ((positive, negative), (negative, positive)):
        found = drafted(died=alternating(*pair))
        (task,) = found.recipe.prepare.source.tasks
        assert (task.positive, task.negative, task.classes) == (positive, negative, None)
        assert not any("counts as positive" in remark for remark in found.remarks)


def test_answers_are_told_in_every_unicode_form(drafted):
    no = unicodedata.normalize("NFD", "não")
    source = drafted(died=["sim", no, no, no] * 10).recipe.prepare.source
    assert (source.tasks[0].positive, source.tasks[0].negative) == ("sim", "não")
    assert sources.read(source).tasks[0][1].height == 40


def test_outcomes_whose_names_would_be_the_same_are_numbered(drafted):
    names = ("Died (30 d)", "died_30_d", "死亡", "入院")
    found = drafted(Choices(outcomes=dict.fromkeys(names)), **{n: alternating(1, 0) for n in names})
    tasks = {task.name: task.column for task in found.recipe.prepare.source.tasks}
    assert tasks == dict(
        zip(("died_30_d", "died_30_d-2", "outcome", "outcome-2"), names, strict=True)
    )


IDS = {"patient": [row // 2 for row in range(40)], "visit": [900 + row for row in range(40)]}


@pytest.fixture
def coded(tmp_path):
    """Drafts of notes without an outcome, beside a table of codes with these columns."""

    def made(said=None, notes=None, **columns):
        further = notes or {}
        notes, path = tmp_path / "notes.parquet", tmp_path / "codes.csv"
        texts = [f"{LONG} {row}" for row in range(40)]
        pl.DataFrame({"body": texts, **IDS, **further}).write_parquet(notes)
        pl.DataFrame(columns).write_csv(path)
        codes = Codes(path, survey(path), **(said or {}))
        found = draft(notes, survey(notes), Choices(), "ours", "tiny", codes)
        assert found.recipe
        (task,) = found.keys["prepare"]["source"]["tasks"]
        beside = task["codes"]
        return task["column"], beside["id_column"], beside["code_column"], beside["version"]

    return made


@pytest.mark.parametrize(
    ("cells", "version"),
    [
        (["401.9", "V3000", "25000", "E849"], "icd9"),
        (["I10", "v30.0", "e11.9", "Z99"], "icd10"),
        (["I10", "401.9", "sepsis", "flu"], "as-is"),
    ],
)
def test_codes_are_found_by_their_form_and_the_finest_id(coded, cells, version):
    columns = {**IDS, "rank": [row % 5 for row in range(40)], "icd_code": cells * 10}
    assert coded(**columns) == ("visit", "visit", "icd_code", version)
    said = {"id_column": "patient", "code_column": "icd_code", "version": "as-is"}
    assert coded(said, **columns) == ("patient", "patient", "icd_code", "as-is")


def test_a_column_of_versions_says_of_which_each_code_is(tmp_path):
    notes, path = tmp_path / "notes.parquet", tmp_path / "diagnoses_icd.csv"
    pl.DataFrame({"body": [f"{LONG} {row}" for row in range(40)], **IDS}).write_parquet(notes)
    cells = {"icd_code": ["E119", "E8490", "I10", "4019"] * 10, "icd_version": [10, 9] * 20}
    pl.DataFrame({"visit": IDS["visit"], **cells}).write_csv(path)

    def codes_of(**said):
        codes = Codes(path, survey(path), **said)
        found = draft(notes, survey(notes), Choices(), "ours", "tiny", codes)
        return found, found.recipe.prepare.source.tasks[0].codes

    found, codes = codes_of()
    assert (codes.version, codes.version_column) == (None, "icd_version")
    assert any(
        "icd_code is taken for diagnoses, version by icd_version." in r for r in found.remarks
    )
    assert found.beside["icd_version"] == "version of the codes"
    found, codes = codes_of(version="icd10")
    assert (codes.version, codes.version_column) == ("icd10", None)
    assert "icd_version" not in found.beside


def test_a_table_of_several_kinds_of_codes_is_told_and_how_to_pick_rows(tmp_path):
    notes, path = tmp_path / "notes.parquet", tmp_path / "codes.csv"
    pl.DataFrame({"body": [f"{LONG} {row}" for row in range(40)], **IDS}).write_parquet(notes)
    cells = {"Kode": ["I10", "0BJ08ZZ", "E11.9", "Z99"] * 10, "Art": alternating("DIA", "PROZ")}
    pl.DataFrame({"visit": IDS["visit"], **cells}).write_csv(path)
    found = draft(notes, survey(notes), Choices(), "ours", "tiny", Codes(path, survey(path)))
    (codes,) = [task["codes"] for task in found.keys["prepare"]["source"]["tasks"]]
    assert (codes["code_column"], codes["version"]) == ("Kode", "icd10")
    assert found.remarks[-1] == (
        "10 of the first 40 cells of Kode do not look like diagnoses, icd10. If the table has "
        "codes of several kinds, `where` in its `codes` picks rows, by Art."
    )


def test_a_count_of_rows_that_both_tables_have_is_no_id_of_the_codes(coded):
    rows = {"row_id": list(range(120)), "visit": [IDS["visit"][row % 30] for row in range(120)]}
    columns = {**rows, "code": ["I10", "E11", "Z99"] * 40}
    assert coded(notes={"row_id": list(range(40))}, **columns)[:2] == ("visit", "visit")


def test_the_task_of_codes_has_a_name_of_its_own(tmp_path):
    notes, path = tmp_path / "notes.parquet", tmp_path / "beside.csv"
    texts = [f"{LONG} {row}" for row in range(40)]
    own = {"codes": alternating("a", "b"), **IDS}
    pl.DataFrame({"body": texts, **own}).write_parquet(notes)
    pl.DataFrame({"visit": IDS["visit"], "icd": ["I10", "E11"] * 20}).write_csv(path)
    codes = Codes(path, survey(path))
    found = draft(notes, survey(notes), Choices(), "ours", "tiny", codes)
    names = {task.name for task in found.recipe.prepare.source.tasks}
    assert names == {"codes-beside", "codes"}


def test_codes_are_found_under_any_name(coded):
    columns = {"who": IDS["visit"], "what": ["I10", "E11"] * 20}
    assert coded(**columns) == ("visit", "who", "what", "icd10")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"who": ["x", "y"], "code": ["I10", "E11"]}, "name it with --codes-id COLUMN"),
        (
            {"visit": [900, 901], "what": ["flu", "sepsis"]},
            "name it with --code-column. There are what",
        ),
    ],
)
def test_codes_that_cannot_be_told_are_asked_for(coded, columns, said):
    with pytest.raises(ConfigError, match=said) as error:
        coded(**columns)
    assert "sepsis" not in str(error.value)


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
            "column died is named as an outcome and as a feature",
        ),
        (Choices(outcomes={"body": None}), {}, "column body holds text; an outcome has 2 to"),
        (Choices(text="died"), {"died": alternating(1, 0)}, "no column seems to be an outcome"),
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


@pytest.mark.parametrize(
    ("cells", "positive", "negative", "labels"),
    [
        (["Yes", "No", "NO", "yes"], ("Yes", "yes"), None, [1, 0, 0, 1]),
        (["TRUE", "False", "False", "true"], ("TRUE", "true"), "False", [1, 0, 0, 1]),
        (["Died", "lived", "Lived", "lived"], "Died", None, [1, 0, 0, 0]),
        (["Yes", "No", "Unknown", "unknown"], "Yes", "No", [1, 0, None, None]),
        (["Ja", "Nein", "k.A.", "Nein"], "Ja", "Nein", [1, 0, None, 0]),
    ],
)
def test_answers_in_any_case_and_words_that_are_none_are_read_so(
    drafted, cells, positive, negative, labels
):
    found = drafted(died=cells * 10)
    source = found.recipe.prepare.source
    (task,) = source.tasks
    assert (task.kind, task.positive, task.negative) == ("binary", positive, negative)
    read = {
        int(row["note_id"].split("-")[1]) - 1: len(row["labels"])
        for row in sources.read(source).tasks[0][1].to_dicts()
    }
    assert [read.get(row) for row in range(4)] == labels
    words = [word for word, label in zip(cells, labels, strict=True) if label is None]
    for word in words:
        assert any(f"{word!r}" in said and "no value" in said for said in found.remarks)
    if not words:
        assert any(f"died: {cells[0]!r}" in said for said in found.remarks)


def test_a_third_value_is_no_answer_where_one_says_that_there_are_two(drafted):
    cells = (["yes", "no", "sometimes"] * 14)[:40]
    (task,) = drafted(died=cells).recipe.prepare.source.tasks
    assert task.kind == "multiclass"
    source = drafted(Choices(outcomes={"died": "binary"}), died=cells).recipe.prepare.source
    assert (source.tasks[0].kind, source.missing[-1]) == ("binary", "sometimes")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["0", "1", "9"], "died: two of its 3 values say yes and no. For a binary task, empty"),
        (["yes", "no", "at times"], "died: two of its 3 values say yes and no. For a binary"),
        (["mild", "Mild", "some", "none"], "died: some classes differ by letter case alone; write"),
        (["0", "1", "2"], None),
        (["mild", "some", "none"], None),
    ],
)
def test_what_to_check_of_classes_is_said(drafted, cells, said):
    found = drafted(died=(cells * 40)[:40])
    assert found.recipe.prepare.source.tasks[0].kind == "multiclass"
    assert [remark for remark in found.remarks if remark.startswith("died:")] == (
        [remark for remark in found.remarks if remark.startswith(said)] if said else []
    )
    assert len(found.remarks) == (2 if said else 1)


def test_a_class_that_looks_like_an_empty_cell_is_told(drafted):
    found = drafted(outcome=(["None", "Mild", "Severe", "None"] * 10))
    said = (
        "outcome: 20 of the first 40 notes have no value, 'None' among them; where that is a class"
    )
    assert found.remarks[-1].startswith(said)


def test_notes_without_a_label_are_left_out_of_its_task_and_that_is_said(drafted):
    found = drafted(died=[None, *alternating("ja", "nein")[1:]])
    assert found.recipe.prepare.source.policy == "quarantine"
    (task,) = found.recipe.prepare.source.tasks
    assert (task.positive, task.negative) == ("ja", "nein")
    assert found.remarks[-1].startswith("died: 1 of the first 40 notes have no value. `policy:")
    assert drafted(died=alternating(1, 0)).recipe.prepare.source.policy == "strict"


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


DAYS = [f"2150-01-{1 + row % 28:02}" for row in range(40)]


@pytest.mark.parametrize(
    ("names", "time"),
    [
        (("birth_date", "note_datetime", "date_of_death"), "note_datetime"),
        (("admittime", "dischtime", "deathtime", "storetime", "charttime"), "charttime"),
        (("storetime", "some_date"), "some_date"),
        (("admittime", "dischtime"), "admittime"),
        (("dob_date", "deathtime"), None),
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


def test_times_are_no_outcome(drafted):
    with pytest.raises(ConfigError, match="no column seems to be an outcome"):
        drafted(date_of_death=DAYS)
    with pytest.raises(ConfigError, match="column date_of_death holds times; an outcome has"):
        drafted(Choices(outcomes={"date_of_death": None}), date_of_death=DAYS)


def test_notes_in_several_rows_are_told(drafted):
    said = "NOTE_ID names 4 rows each, and each row is read as a note: if notes go over several"
    found = drafted(NOTE_ID=[row // 4 for row in range(40)], died=alternating(1, 0))
    assert any(remark.startswith(said) for remark in found.remarks)
    found = drafted(Choices(note_id="key"), key=[row // 4 for row in range(40)], died=[0, 1] * 20)
    assert any(remark.startswith("key names 4 rows each") for remark in found.remarks)
    found = drafted(NOTE_ID=list(range(40)), died=alternating(1, 0))
    assert not any("names" in remark and "rows" in remark for remark in found.remarks)
