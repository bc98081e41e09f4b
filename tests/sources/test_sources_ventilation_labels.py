import os
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mimic3_tables import flow_of, labels_of, small, summary

from notetune.errors import DataError
from notetune.sources import read
from notetune.sources.mimic.ventilation_labels import read_plain_pickle, read_ventilation_labels

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(st.integers() | st.text(), inner, max_size=5)
    ),
    max_leaves=30,
)


@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_values_come_back_from_every_protocol(tmp_path_factory, value, protocol):
    path = tmp_path_factory.getbasetemp() / "plain.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    got = read_plain_pickle(path)
    # Protocol 0 spells a boolean as a number.
    assert got == value
    assert protocol == 0 or repr(got) == repr(value)


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def attacks(marker):
    """Pickles that would make a file if they were run, or build what is no plain value."""
    command = f"touch {marker}"
    yield from (
        pickle.dumps({100: (Attack(os.system, command), "train")}, protocol=protocol)
        for protocol in range(6)
    )
    yield pickle.dumps(Attack(exec, f"open({str(marker)!r}, 'w')"))
    yield pickle.dumps({1: [1, {"train"}]})
    yield pickle.dumps({1: (b"1", "train")})
    yield pickle.dumps(Attack)
    yield f"cos\nsystem\n(S'{command}'\ntR.".encode()
    yield f"(S'{command}'\nios\nsystem\n.".encode()
    yield f"(cos\nsystem\nS'{command}'\no.".encode()
    yield b"\x80\x02\x82\x01."
    yield b"\x80\x04P1\n."


def test_code_is_refused_before_it_runs(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "pmv_labels.pkl"
    seen = 0
    for attack in attacks(marker):
        path.write_bytes(attack)
        with pytest.raises(DataError, match=r"pmv_labels\.pkl is refused: it asks for the instr"):
            read_ventilation_labels(path)
        seen += 1
    assert seen == 15
    assert not marker.exists()


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"no pickle at all",
        b".",
        b"\x80\x02}",
        b"\x80\x02K\x01K\x02.",
        b"\x80\x02(K\x01K\x02K\x03d.",
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02]K\x01K\x02s.",
        b"\x80\x02h\x07.",
        b"\x80\x02u.",
        b"\x80\x02\x87.",
        b"\x80\x02]}K\x01s.",
        b"\x80\x02}]K\x01s.",
        b"I99999x\n.",
    ],
)
def test_a_damaged_file_is_refused_without_its_content(tmp_path, damaged):
    path = tmp_path / "pmv_labels.pkl"
    path.write_bytes(damaged)
    with pytest.raises(
        DataError, match=r"is refused: it (is damaged or no|asks for the|holds no)"
    ) as caught:
        read_ventilation_labels(path)
    assert caught.value.__cause__ is None


def test_a_huge_memory_place_is_refused(tmp_path):
    path = tmp_path / "pmv_labels.pkl"
    path.write_bytes(b"\x80\x02}r" + struct.pack("<I", 0xFFFFFFFF) + b".")
    with pytest.raises(DataError, match="is damaged or no pickle"):
        read_ventilation_labels(path)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([1], "it holds no dict"),
        ({"100": (1, "train")}, "a key is no whole number"),
        ({True: (1, "train")}, "a key is no whole number"),
        ({100: "train"}, "a value is no sequence"),
        ({100: ("train",)}, "a value is no sequence"),
        ({100: (2, "train")}, "a label is not 0 or 1"),
        ({100: (1, "dev")}, "a label is not 0 or 1, or a split"),
        ({100: ([1], "test")}, "a label is not 0 or 1, or a split"),
    ],
)
def test_other_contents_are_refused(tmp_path, value, problem):
    path = tmp_path / "pmv_labels.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=problem):
        read_ventilation_labels(path)


def test_a_missing_or_too_long_file_stops(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="is missing"):
        read_plain_pickle(tmp_path / "none.pkl")
    monkeypatch.setattr("notetune.sources.mimic.ventilation_labels._MAX_BYTES", 5)
    (tmp_path / "long.pkl").write_bytes(pickle.dumps(list(range(99))))
    with pytest.raises(DataError, match="it is over 5 bytes"):
        read_plain_pickle(tmp_path / "long.pkl")


def published(tmp_path, table, **settings):
    folder = small().admit(300, 3, died=1)
    death = "Chief Complaint:\nhe expired\n\nPhysical Exam:\nwell\n\nSex:\nF"
    folder.note(300, death).admit(400, 4)
    exam = "Physical Exam:\npatient expired\n\nSex:\nF"
    folder.note(400, summary("pain").split("\n\n")[0] + f"\n\n{exam}")
    source = folder.write(tmp_path, **settings)
    (tmp_path / "pmv_labels.pkl").write_bytes(pickle.dumps(table))
    return source


LABELS = {
    100: [1, "x", "train"],
    300: (0, "val"),
    400: [0, 3.5, "test"],
    999: (1, "test"),
}


def test_the_published_labels_are_joined_to_the_cohort(tmp_path):
    cohort = read(published(tmp_path, LABELS))
    assert labels_of(cohort, "ventilation") == {
        "admission-100": ["prolonged"],
        "admission-300": [],
        "admission-400": [],
    }
    assert flow_of(cohort, "task ventilation").rejected == {"not in the published labels": 1}


def test_in_2021_they_are_joined_to_the_text_of_the_mortality_task(tmp_path):
    cohort = read(published(tmp_path, LABELS, labels="core-2021"))
    assert labels_of(cohort, "ventilation") == {
        "admission-100": ["prolonged"],
        "admission-400-mortality": [],
    }
    assert flow_of(cohort, "task ventilation").rejected == {
        "not in the published labels": 1,
        "the text states the death": 1,
    }


def test_in_2021_the_published_labels_come_before_the_durations(tmp_path):
    source = published(tmp_path, LABELS, labels="core-2021")
    (tmp_path / "VENTDURATIONS.csv").write_text(
        "icustay_id,starttime,endtime\n1,2150-01-01 00:00:00,2150-02-01 00:00:00\n"
    )
    (tmp_path / "ICUSTAYS.csv").write_text("HADM_ID,ICUSTAY_ID,INTIME\n200,1,2150-01-01 00:00:00\n")
    assert len(labels_of(read(source), "ventilation")) == 2
    correct = source.model_copy(update={"labels": "correct"})
    assert labels_of(read(correct), "ventilation") == {"admission-200": ["prolonged"]}


def test_labels_of_another_data_set_stop(tmp_path):
    with pytest.raises(DataError, match="none of its 1 admissions is in the cohort of 4"):
        read(published(tmp_path, {77: (1, "train")}))
