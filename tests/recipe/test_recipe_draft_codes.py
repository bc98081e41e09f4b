"""A drafted recipe finds the codes beside the notes, or asks."""

import polars as pl
import pytest
from draft_tables import LONG, alternating

from notetune.errors import ConfigError
from notetune.recipe.draft import Choices, draft
from notetune.recipe.draft_codes import Codes
from notetune.sources.tables.survey import survey

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


def test_codes_of_a_whole_hospital_are_of_the_id_that_both_tables_name(coded):
    stays = {"visit": list(range(800, 1400)), "seq_num": [1 + row % 60 for row in range(600)]}
    columns = {**stays, "code": ["I10", "E11", "Z99"] * 200}
    assert coded(notes={"age": [20 + row for row in range(40)]}, **columns)[:2] == ("visit",) * 2
    elsewhere = {"visit": list(range(600)), "code": ["I10", "E11", "Z99"] * 200}
    assert coded({"id_column": "visit"}, **elsewhere)[:2] == ("visit", "visit")


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
