"""Encounter and Condition as tables of labels and codes."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime

import pytest

from notetune.errors import DataError
from notetune.sources.rejections import ReadingPolicy, Rejections
from notetune.sources.tables.resources import (
    discharge_notice,
    export_files,
    read_resources,
    resource_files,
)

CANARY = "zygomorphic"
ICD10, ICD9 = "http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/icd-9-cm"
SNOMED = "http://snomed.info/sct"


def encounter(
    name="e1", *codings, start="2150-01-01T08:00:00Z", end="2150-01-03T20:00:00Z", **more
):
    return {
        "resourceType": "Encounter",
        "id": name,
        "status": "finished",
        "subject": {"reference": "Patient/p1"},
        "period": {"start": start, "end": end},
        "hospitalization": {"dischargeDisposition": {"coding": list(codings)}},
    } | more


def condition(*codings, **more):
    return {
        "resourceType": "Condition",
        "encounter": {"reference": "Encounter/e1"},
        "subject": {"reference": "Patient/p1"},
        "code": {"coding": [{"system": system, "code": code} for system, code in codings]},
    } | more


def rows_of(folder, wanted, *resources, rejections=None):
    file = folder / "export.ndjson"
    file.write_text("\n".join(map(json.dumps, resources)))
    rejections = rejections or Rejections(ReadingPolicy())
    read = read_resources([file], wanted, rejections)
    return [tuple(record.cells[name] for name in wanted) for record in read]


@pytest.mark.parametrize(
    ("codings", "codes", "expired"),
    [
        (
            [{"system": "https://www.nubc.org/CodeSystem/PatDischargeStatus", "code": "20"}],
            ["20"],
            1,
        ),
        (
            [{"system": "https://www.nubc.org/CodeSystem/PatDischargeStatus", "code": "01"}],
            ["01"],
            0,
        ),
        ([{"system": "urn:local", "code": "20"}], ["20"], 0),
        ([{"code": "exp", "display": "Expired"}], ["exp"], 1),
        ([{"code": "home"}], ["home"], 0),
        ([{"code": "20", "display": "Expired"}, {"code": "x"}], ["20", "x"], 1),
        ([{"code": "DIED"}], ["DIED"], 1),
        ([{"code": "40", "display": "Expired at home"}], ["40"], 1),
        ([{"code": "expert-care"}], ["expert-care"], 0),
        ([{"code": "EXP"}], ["EXP"], 1),
        ([{"code": "exp", "display": "Home"}], ["exp"], 1),
        ([{"code": "x", "display": "Died in hospital"}], ["x"], 1),
        ([{"code": "20 - Expired"}], ["20 - Expired"], 1),
        ([{"system": SNOMED, "code": "371828006"}], ["371828006"], 1),
        ([{"system": SNOMED, "code": "306689006"}], ["306689006"], 0),
        ([{"system": "a"}], [], None),
        ([], [], None),
    ],
)
def test_a_discharge_is_its_codes_and_whether_it_is_death(tmp_path, codings, codes, expired):
    wanted = ("encounter", "patient", "disposition", "expired")
    rows = rows_of(tmp_path, wanted, encounter("e1", *codings))
    assert rows == [("e1", "p1", codes, expired)]


DEATHS = (
    "Patient died|Died in hospital|Dead|Death|Hospital death|Patient deceased|Deceased/Expired|"
    "20 - Expired|Discharged: expired|Dead on arrival|Patient\nDIED|Expired, autopsy not done"
)
SURVIVALS = (
    "Home|Not expired|Alive, not dead|Non-deceased|No death|Experimental ward|diediest|"
    "Home; prescription expired|Insurance expired - discharged home|Hospice - home, death expected|"
    "Death not expected|Death expected, hospice|non expired|patient not yet expired|isn't dead|"
    "Left AMA, wife's death"
)


@pytest.mark.parametrize(
    ("text", "expired"),
    [*((text, 1) for text in DEATHS.split("|")), *((text, 0) for text in SURVIVALS.split("|"))],
)
def test_a_death_is_seen_in_the_words_of_a_discharge_and_not_where_they_deny_it(
    tmp_path, text, expired
):
    in_words = encounter(hospitalization={"dischargeDisposition": {"text": text}})
    displayed = encounter("e2", {"code": "x", "display": text.upper()})
    assert rows_of(tmp_path, ("expired",), in_words, displayed) == [(expired,)] * 2


def test_discharges_are_told_apart_by_what_many_stays_say_and_what_few_say_stays_unsaid(tmp_path):
    rejections = Rejections(ReadingPolicy())
    stays = [encounter(f"e{n}", {"code": "home", "display": "Home"}) for n in range(10)]
    stays += [
        *(encounter(f"d{number}", {"code": "exp"}) for number in range(11)),
        encounter("e3", {"code": "07", "display": f"verstorben {CANARY}"}),
        encounter("e5"),
        encounter("e6", {"code": f"died {CANARY}"}),
        encounter("e7", status="cancelled"),
    ]
    rows_of(tmp_path, ("expired",), *stays, rejections=rejections)
    assert discharge_notice("died", rejections.discharges) == (
        "Task died: discharges taken for death, 12: exp (11), 1 not named; for survival, 11: "
        "home / Home (10), 1 not named (named is what 10 stays share). If one stands on "
        "the wrong side, take `label_column: disposition` and name the deaths by `positive`."
    )
    rejections = Rejections(ReadingPolicy())
    rows_of(tmp_path, ("days",), *stays, rejections=rejections)
    assert discharge_notice("died", rejections.discharges) == ""
    many = Counter({(f"ward {number}", False): 10 for number in range(100)})
    assert discharge_notice("died", many).count("ward") == 12
    assert ", 88 not named" in discharge_notice("died", many)


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2150-01-01T08:00:00Z", "2150-01-03T20:00:00Z", 2.5),
        ("2150-01-01T08:00:00+01:00", "2150-01-01T08:00:00Z", 1 / 24),
        ("2150-01-01", "2150-01-03", 2.0),
        ("2150-01-02", "2150-01-02T00:30:00+01:00", 0.0),
        ("2150-01-01", None, None),
        ("2150-01-01", "9999-12-31", None),
        ("2150-01-01T08:00:00Z", "9999-12-31T23:59:59Z", None),
        (None, "2150-01-01", None),
    ],
)
def test_a_stay_is_the_days_between_both_ends(tmp_path, start, end, days):
    assert rows_of(tmp_path, ("days",), encounter(start=start, end=end)) == [(days,)]


def test_both_ends_of_a_stay_are_times(tmp_path):
    start, end = datetime(2150, 1, 1, 8, tzinfo=UTC), datetime(2150, 1, 3, 20, tzinfo=UTC)
    assert rows_of(tmp_path, ("start", "end"), encounter()) == [(start, end)]
    days = encounter(start="2150-01-01", end="2150-01-03")
    assert rows_of(tmp_path, ("start",), days) == [(datetime(2150, 1, 1, tzinfo=UTC),)]


@pytest.mark.parametrize(
    ("period", "problem"),
    [
        ({"start": "2150-01-03", "end": "2150-01-01"}, "period ends before it begins"),
        ({"start": "2150-01-01T08:00:00Z", "end": "2150-01-01T08:30:00+01:00"}, "period ends"),
        ({"start": "2150-01-01T08:00:00Z", "end": "2150-01-02T08:30:00"}, "period with and with"),
        ({"start": CANARY, "end": "2150-01-01"}, "unreadable time"),
    ],
)
def test_an_impossible_period_stops_or_is_counted(tmp_path, period, problem):
    resources = [encounter(), encounter("e2", period=period)]
    with pytest.raises(DataError, match=f"line 2: {problem}") as caught:
        rows_of(tmp_path, ("days",), *resources)
    assert CANARY not in str(caught.value)
    rejections = Rejections(ReadingPolicy(policy="quarantine"))
    assert rows_of(tmp_path, ("days",), *resources, rejections=rejections) == [(2.5,)]
    assert sum(rejections.counts().values()) == 1
    assert len(rows_of(tmp_path, ("expired",), *resources)) == 2


@pytest.mark.parametrize(
    ("column", "codes"),
    [("icd10", ["E11.9", "I10"]), ("icd9", ["250.00"]), ("snomed", ["44054006"])],
)
def test_codes_are_found_by_the_uri_of_their_system(tmp_path, column, codes):
    rejections = Rejections(ReadingPolicy())
    resources = [
        condition((ICD10, "E11.9"), (ICD9, "250.00"), (SNOMED, "44054006"), ("urn:local", "x")),
        condition(("urn:oid:2.16.840.1.113883.6.3", "I10")),
    ]
    rows = rows_of(tmp_path, ("encounter", column), *resources, rejections=rejections)
    assert rows == [("e1", code) for code in codes]
    assert rejections.rows_read == 2


def test_codes_of_a_system_that_is_not_known_are_asked_for_as_code(tmp_path):
    local = condition(("urn:local", "x"))
    with pytest.raises(
        DataError, match=r"no Condition has a code of a system.*encounter, icd10.*column code"
    ):
        rows_of(tmp_path, ("encounter", "icd10"), local)
    both = condition(("urn:local", "y"), (SNOMED, "1"))
    assert rows_of(tmp_path, ("encounter", "code"), local, both) == [
        ("e1", "x"),
        ("e1", "y"),
        ("e1", "1"),
    ]
    japanese = "http://jpfhir.jp/fhir/core/mhlw/CodeSystem/ICD10-2013-full"
    assert rows_of(tmp_path, ("icd10",), condition((japanese, "J13"))) == [("J13",)]


def test_both_versions_come_with_their_number_and_count_as_rows(tmp_path):
    rejections = Rejections(ReadingPolicy())
    wanted = ("patient", "icd", "version")
    both = condition((ICD10, "E11.9"), (ICD9, "250.00"), (SNOMED, "44054006"))
    rows = rows_of(tmp_path, wanted, both, condition((SNOMED, "1")), rejections=rejections)
    assert rows == [("p1", "E11.9", "10"), ("p1", "250.00", "9")]
    assert rejections.rows_read == 3
    assert rejections.counts() == {"no code of the asked system": 1}


def test_what_was_not_meant_and_other_resources_are_left_out_and_counted(tmp_path):
    rejections = Rejections(ReadingPolicy())
    refuted = {"verificationStatus": {"coding": [{"code": "refuted"}]}}
    wrong = {"verificationStatus": {"coding": [{"code": "entered-in-error"}]}}
    resources = [
        condition((ICD10, "E11.9"), **refuted),
        condition((ICD10, "E11.9"), **wrong),
        encounter(),
        condition((ICD10, "I10")),
    ]
    rows = rows_of(tmp_path, ("encounter", "icd10"), *resources, rejections=rejections)
    assert rows == [("e1", "I10")]
    left_out = {"refuted": 1, "entered in error": 1, "another kind of resource": 1}
    assert rejections.counts() == left_out
    rejections = Rejections(ReadingPolicy())
    resources = [encounter(status="cancelled"), encounter("e2")]
    assert rows_of(tmp_path, ("encounter",), *resources, rejections=rejections) == [("e2",)]
    assert rejections.counts() == {"cancelled": 1}


def test_unknown_columns_and_absent_resources_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"no FHIR resource has the columns encounter, who.*days"):
        rows_of(tmp_path, ("encounter", "who"), encounter())
    with pytest.raises(DataError, match="the 1 files hold no Condition"):
        rows_of(tmp_path, ("encounter", "icd10"), encounter())


def test_a_folder_is_an_export_where_it_holds_no_parquet(tmp_path):
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(b"{}"))
    assert resource_files(tmp_path) == [tmp_path / "a.ndjson.gz"]
    assert resource_files(tmp_path / "*.ndjson.gz") == [tmp_path / "a.ndjson.gz"]
    assert resource_files(tmp_path / "labels.csv") == []
    (tmp_path / "b.parquet").touch()
    assert resource_files(tmp_path) == []


def test_json_is_an_export_where_there_is_no_ndjson(tmp_path):
    (tmp_path / "p1.json").touch()
    assert (
        resource_files(tmp_path) == resource_files(tmp_path / "p1.json") == [tmp_path / "p1.json"]
    )
    (tmp_path / "a.ndjson").touch()  # beside it, a .json file is a manifest
    assert export_files(tmp_path) == [tmp_path / "a.ndjson"]
    with pytest.raises(DataError, match=r"none is missing; check the path"):
        list(read_resources([tmp_path / "none"], ("encounter",), Rejections(ReadingPolicy())))


def bundle(*entries):
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


@pytest.mark.parametrize("name", ["export.ndjson", "p1.json"])
def test_a_bundle_is_its_resources_under_the_ids_that_they_are_referred_to_by(tmp_path, name):
    ill = condition((ICD10, "I10"), subject={"reference": "urn:uuid:a1"})
    ill["encounter"] = {"reference": "urn:uuid:b2"}
    stay = encounter("another", subject={"reference": "urn:uuid:a1"})
    entries = [
        {"resource": {"resourceType": "Patient"}, "fullUrl": "urn:uuid:a1"},
        {"resource": stay, "fullUrl": "urn:uuid:b2"},
        {"request": {"method": "DELETE"}},
        {"resource": ill},
    ]
    file = tmp_path / name
    spaces = 2 if name.endswith(".json") else None
    file.write_text("\ufeff" + json.dumps(bundle(*entries), indent=spaces))
    rejections = Rejections(ReadingPolicy())
    stays = list(read_resources([file], ("encounter", "patient"), rejections))
    assert [record.cells for record in stays] == [{"encounter": "b2", "patient": "a1"}]
    assert stays[0].where == f"{file}, {'entry 2' if spaces else 'line 1'}"
    assert rejections.rows_read == 4
    assert rejections.counts() == {"another kind of resource": 2, "entry without a resource": 1}
    codes = read_resources([file], ("encounter", "icd10"), Rejections(ReadingPolicy()))
    assert [record.cells for record in codes] == [{"encounter": "b2", "icd10": "I10"}]


def test_a_json_file_without_an_object_or_too_long_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "p1.json"
    file.write_text(f'["{CANARY}"]')
    with pytest.raises(DataError, match=r"p1\.json, entry 1: not a JSON object in UTF-8") as caught:
        list(read_resources([file], ("encounter",), Rejections(ReadingPolicy())))
    assert CANARY not in str(caught.value)
    monkeypatch.setattr("notetune.sources.tables.resources._MOST_BYTES", 5)
    with pytest.raises(DataError, match=r"which are read at once; export one Bundle per patient"):
        list(read_resources([file], ("encounter",), Rejections(ReadingPolicy())))
