import itertools
from datetime import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from leak_oracle import split_findings

from notetune.audit import Finding
from notetune.errors import DataError
from notetune.notes.near_duplicates import signatures
from notetune.notes.overlap import (
    OUTCOME_WORDS,
    late_notes,
    near_duplicate_texts,
    notes_of_listed_patients,
    outcome_words,
    shared_patients,
    without_moment,
    words_of,
)
from notetune.notes.overlap_text import normalised_text, text_hashes

TEXTS = ["Chest pain.", "chest  PAIN.\n", "Chest [**Known lastname 1**] pain.", "Fever", "Cough"]
SPLITS = ["train", "validation", "test"]


def test_clean_splits_give_nine_findings_of_zero():
    table = pl.DataFrame({"patient_id": ["1", "2", "3"], "split": SPLITS, "text": TEXTS[2:]})
    findings = split_findings(table)
    assert len(findings) == 9
    assert {(f.split_a, f.split_b) for f in findings} == set(itertools.combinations(SPLITS, 2))
    assert all(f.count == 0 and f.share == 0.0 and not f.blocks for f in findings)


def test_one_patient_on_two_sides_blocks_and_a_repeated_text_does_not():
    table = pl.DataFrame(
        {
            "patient_id": ["1", "2", "1", "3", "4", "4"],
            "split": ["train", "train", "test", "test", "test", "test"],
            "text": [TEXTS[0], "Fever", "Cough", TEXTS[1], TEXTS[2], "Rash"],
        }
    )
    found = [finding for finding in split_findings(table) if finding.count]
    assert found == [
        Finding("same patient", "train", "test", 1, 1 / 3, blocks=True),
        Finding("same text", "train", "test", 2, 2 / 4, blocks=False),
        Finding("near-duplicate text", "train", "test", 2, 2 / 4, blocks=False),
    ]


@given(st.lists(st.sampled_from(TEXTS)), st.lists(st.sampled_from(TEXTS)))
def test_texts_are_the_same_by_hash_as_by_comparing_every_pair(ours, theirs):
    known = text_hashes(theirs)
    same = [any(normalised_text(a) == normalised_text(b) for b in theirs) for a in ours]
    assert [digest in known for digest in text_hashes(ours)] == same


def test_patients_are_counted_once_however_many_notes_they_have():
    finding = shared_patients("corpus", ["1", "1", "2"], "test", ["2", "2", "2", "3"])
    assert finding == Finding("same patient", "corpus", "test", 1, 0.5, blocks=True)


LONG = "the patient was seen and examined and is doing well on the current regimen of drugs " * 5


def test_an_edited_copy_is_a_near_duplicate_and_not_the_same_text():
    corpus, test = [LONG + "today", "Fever"], [LONG + "yesterday", "Cough", "fever"]
    assert sum(digest in text_hashes(corpus) for digest in text_hashes(test)) == 1
    finding = near_duplicate_texts("corpus", signatures(corpus), "test", signatures(test))
    assert finding == Finding("near-duplicate text", "corpus", "test", 2, 2 / 3, blocks=False)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("He EXPIRED at noon", 1),
        ("Father died\n of cancer", 1),
        ("pronounced\n  dead", 1),
        ("Time  of\nDeath: 04:00", 1),
        ("the inexpiredness of the diedre", 0),
        ("alive and well", 0),
        ("", 0),
    ],
)
def test_outcome_words_are_found_as_whole_words_in_any_case_and_across_lines(text, count):
    finding = outcome_words("mortality", "test", [text, "nothing to see"])
    assert finding == Finding("outcome words", "mortality", "test", count, count / 2, blocks=False)


def test_words_are_per_task():
    texts = ["he died", "length of stay: 3 days"]
    assert outcome_words("mortality", "test", texts).count == 1
    assert outcome_words("length_of_stay", "test", texts).count == 1
    assert outcome_words("unknown", "test", texts).count == 0
    assert outcome_words("mortality", "test", []).share == 0.0
    assert len(OUTCOME_WORDS) >= 5
    for words in OUTCOME_WORDS.values():
        assert all(word == normalised_text(word) for word in words)


@pytest.mark.parametrize(
    ("task", "outcome"),
    [
        ("died_in_hospital", "mortality"),
        ("in-hospital-death", "mortality"),
        ("hospital_expire_flag", "mortality"),
        ("los_days", "length_of_stay"),
        ("ventilated", "ventilation"),
        ("diagnosis", "diagnoses"),
    ],
)
def test_the_name_of_a_task_tells_its_outcome(task, outcome):
    assert words_of(task) == words_of(outcome)


@pytest.mark.parametrize("task", ["studied", "closed", "readmitted", "specialty", "deadline"])
def test_a_name_that_only_holds_the_letters_of_one_tells_none(task):
    assert words_of(task) == ()


def test_every_task_of_the_paper_has_the_words_of_one_outcome():
    tasks = ("mortality", "length_of_stay", "diagnoses", "procedures", "ventilation")
    assert [words_of(task) for task in tasks] == list(OUTCOME_WORDS.values())


def test_a_note_after_the_prediction_time_blocks_and_one_without_time_is_not_judged():
    def hour(number):
        return datetime(2150, 1, 1, number)  # noqa: DTZ001

    notes = pl.DataFrame(
        {"note_id": ["a", "b", "c", "d"], "time": [hour(1), hour(2), hour(3), None]}
    )
    table = pl.DataFrame({"note_id": ["a", "b", "c", "d"], "prediction_time": [hour(2)] * 4})
    finding = late_notes("mortality", "test", notes, table)
    check = "later than the prediction time"
    said = "1 notes lack a time"
    assert finding == Finding(check, "mortality", "test", 1, 1 / 3, blocks=True, not_judged=said)
    clean = late_notes("mortality", "test", notes, table.head(2))
    assert clean == Finding(check, "mortality", "test", 0, 0.0, blocks=False)
    untimed = late_notes("mortality", "test", notes, table.tail(1))
    assert not untimed.is_judged
    assert untimed.sentence == f"{check} (mortality, test): not judged, {said}"


def test_a_prediction_time_that_only_some_notes_have_blocks_and_is_told_from_an_undated_note():
    hours = [datetime(2150, 1, 1, hour) for hour in (1, 2)]  # noqa: DTZ001
    notes = pl.DataFrame({"note_id": ["a", "b", "c"], "time": [*hours, None]})
    schema = {"note_id": pl.String, "prediction_time": pl.Datetime("us")}
    table = pl.DataFrame([("a", hours[1]), ("b", None), ("c", hours[1])], schema, orient="row")
    said = late_notes("died", "test", notes, table).not_judged.split("; ")
    assert sorted(said) == ["1 notes lack a prediction time", "1 notes lack a time"]
    found = without_moment("died", table)
    assert (found.count, found.share, found.blocks) == (1, 1 / 3, True)
    assert found.sentence == "1 of all labelled notes lack the prediction time of died"
    for alike in (table[1:2], table[::2]):
        assert not without_moment("died", alike).blocks


def test_a_day_alone_is_not_judged_on_the_day_of_the_prediction_time():
    days = [datetime(2150, 1, day) for day in (4, 5, 6)]  # noqa: DTZ001
    notes = pl.DataFrame({"note_id": ["a", "b", "c"], "time": days})
    moment = days[1].replace(hour=8)
    table = pl.DataFrame({"note_id": ["a", "b", "c"], "prediction_time": [moment] * 3})
    finding = late_notes("mortality", "test", notes, table)
    said = "1 notes have the day of the prediction time and no hour"
    assert (finding.count, finding.share, finding.not_judged) == (1, 1 / 2, said)
    alone = late_notes("mortality", "test", notes, table[1:2])
    assert (alone.is_judged, alone.count, alone.not_judged) == (False, 0, said)


def test_a_joined_note_that_holds_some_without_a_time_is_not_judged_unless_it_is_late():
    days = [datetime(2150, 1, day, 7) for day in (4, 4, 6)]  # noqa: DTZ001
    notes = pl.DataFrame({"note_id": ["a", "b", "c"], "time": days})
    held = pl.Series([None, "without a time", "without a time"])
    table = pl.DataFrame({"note_id": ["a", "b", "c"], "prediction_time": [days[0]] * 3})
    finding = late_notes("mortality", "test", notes, table.with_columns(unjudged=held))
    said = "1 notes hold notes without a time"
    assert (finding.count, finding.share, finding.not_judged) == (1, 1 / 2, said)


def test_scores_can_be_restricted_to_the_patients_in_a_file(tmp_path):
    notes = pl.DataFrame({"note_id": ["a", "b", "c"], "patient_id": ["1", "2", "1"]})
    path = tmp_path / "PATIENTS.csv"
    path.write_text("ROW_ID,SUBJECT_ID\n5,1\n6,9\n")
    assert notes_of_listed_patients(notes, path).to_list() == ["a", "c"]
    path.write_text("ROW_ID,SUBJECT_ID\n5,01\n")
    assert notes_of_listed_patients(notes, path).to_list() == ["a", "c"]
    path.write_text("ROW_ID,SUBJECT_ID\n5,10\n")
    assert notes_of_listed_patients(notes, path).to_list() == []
    with pytest.raises(DataError, match="no column 'other'"):
        notes_of_listed_patients(notes, path, column="other")
