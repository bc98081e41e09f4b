"""What is not known of an id is no negative: label rows that are empty or rejected."""

import pytest
from table_of_visits import cohort_of, labels_of, notices_of

from notetune.audit import FlowCount


def test_an_id_whose_row_has_no_label_or_was_rejected_is_unknown_and_not_negative(tmp_path):
    (tmp_path / "labels.csv").write_text("id,died\nn0,1\nn1,\n")
    labels = {"path": tmp_path / "labels.csv", "id_column": "id", "label_column": "died"}
    labels["absent"] = "negative"
    task = {"name": "death", "kind": "binary", "column": "id", "labels": labels}
    cohort = cohort_of(tmp_path, tasks=[task])
    assert labels_of(cohort) == {"n0": ["death"], "n2": [], "n3": []}
    assert FlowCount("task death", 4, 3, {"missing label": 1}) in cohort.flow
    (tmp_path / "labels.csv").write_text("id,died\nn0,1\nn1,\nn2,perhaps\n,0\nn3\n")
    cohort = cohort_of(tmp_path, tasks=[task], policy="quarantine", max_rejected_share=0.9)
    assert labels_of(cohort) == {"n0": ["death"], "n3": []}
    assert notices_of(cohort) == [
        "Task death: 1 of 4 notes have no row in the table of labels and count as negative; "
        "`labels.absent: missing` leaves them out. Of 2 rejected rows of the table nobody knows "
        "the id: it may be one of those that count as negative."
    ]


def test_an_event_of_an_unreadable_kind_is_unknown_and_not_negative(tmp_path):
    (tmp_path / "death.csv").write_text("patient,kind\np0,death\np1,dea\x07th\np1\n")
    labels = {"path": tmp_path / "death.csv", "id_column": "patient", "absent": "negative"}
    labels["where"] = {"kind": "death"}
    task = {"name": "death", "kind": "binary", "column": "patient", "labels": labels}
    cohort = cohort_of(tmp_path, tasks=[task], policy="quarantine", max_rejected_share=0.9)
    assert labels_of(cohort) == {"n0": ["death"], "n1": ["death"]}


@pytest.mark.parametrize("no_codes", ["negative", "missing"])
def test_an_id_with_a_rejected_code_is_unknown_whatever_its_other_codes(tmp_path, no_codes):
    rows = "v0,I10,10\nv1,I10,10\nv1,E11,1O\nv2,E11,1O\nv3,,10\n"
    (tmp_path / "codes.csv").write_text(f"visit,code,version\n{rows}")
    codes = {"path": tmp_path / "codes.csv", "id_column": "visit", "code_column": "code"}
    codes |= {"version_column": "version", "no_codes": no_codes}
    task = {"name": "icd", "kind": "multilabel", "column": "visit", "codes": codes}
    cohort = cohort_of(tmp_path, tasks=[task], policy="quarantine", max_rejected_share=0.9)
    none = {"n3": []} if no_codes == "negative" else {}
    assert labels_of(cohort) == {"n0": ["ICD-10 I10"], **none}
    assert len(notices_of(cohort)) == len(none)
