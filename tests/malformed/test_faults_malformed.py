"""Malformed inputs through the command line: read rightly, or refused in one line that helps."""

import shutil

import pytest

from malformed.bundles import BUNDLES, PREDICT
from malformed.cases import Case
from malformed.disk import DISK
from malformed.exports import FHIR, FHIR_FILES, MEDS, MEDS_FILES, OMOP, OMOP_FILES
from malformed.folders import FOLDERS, STATUS
from malformed.recipes import PREPARE, RECIPES
from malformed.tables import CSV, JSON_LINES, JSONL, PARQUET, PARQUET_FILES
from malformed.valid import NOTES, notes_in

CASES: dict[str, list[Case]] = {
    "recipe": RECIPES,
    "csv": CSV,
    "jsonl": JSON_LINES,
    "parquet": PARQUET_FILES,
    "fhir": FHIR_FILES,
    "meds": MEDS_FILES,
    "omop": OMOP_FILES,
    "bundle": BUNDLES,
    "run folder": FOLDERS,
    "disk": DISK,
}
COMMANDS = {
    "recipe": PREPARE,
    "csv": PREPARE,
    "jsonl": JSONL,
    "parquet": PARQUET,
    "fhir": FHIR,
    "meds": MEDS,
    "omop": OMOP,
    "bundle": PREDICT,
    "run folder": STATUS,
    "disk": PREPARE,
}
COUNTS = {
    "recipe": 88,
    "csv": 78,
    "jsonl": 37,
    "parquet": 36,
    "fhir": 48,
    "meds": 21,
    "omop": 16,
    "bundle": 52,
    "run folder": 44,
    "disk": 9,
}
_QUICK = 3


def _parameters():
    for kind, cases in CASES.items():
        for number, case in enumerate(cases):
            is_quick = number < _QUICK and kind != "run folder"
            marks = () if is_quick else pytest.mark.slow
            yield pytest.param(kind, case, id=f"{kind}: {case.name}", marks=marks)


def test_every_kind_has_its_cases_each_under_its_own_name():
    counts = {kind: len({case.name for case in cases}) for kind, cases in CASES.items()}
    assert counts == {kind: len(cases) for kind, cases in CASES.items()}
    assert counts == COUNTS


@pytest.mark.parametrize(("kind", "case"), list(_parameters()))
def test_is_read_rightly_or_refused_in_one_line(kind, case, place, worker, request):
    if kind == "run folder":
        shutil.copytree(request.getfixturevalue("finished"), place, dirs_exist_ok=True)
    case.make(place)
    command = case.command or COMMANDS[kind]
    done = worker.run(place, command, case.most_file_bytes)
    assert done.faults() == [], done
    assert done.status == case.status, done.complaints
    shown = done.complaints[-1] if case.status else done.out + done.err
    assert case.said in shown
    if case.status and kind not in ("run folder", "disk"):
        left = [path for path in (place / "runs").rglob("*") if path.is_file()]
        assert [path for path in left if path.suffix != ".lock"] == []
    if case.status == 0 and command.startswith("prepare"):
        expected = {**NOTES, **case.notes}
        assert notes_in(place) == {name: row for name, row in expected.items() if row}
