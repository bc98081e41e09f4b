"""The catalogue of bad input: forty cases, what is fed and what must happen, under both policies.

The strict reader on the csv module is the only CSV reader of notetune, so that there is no faster
one to compare it with; what it reads is compared with the csv module itself. Every failing case
carries a canary word in its note text, which must be in no error, log, printed line or file.
"""

import csv
import io

import catalogue_files
import catalogue_notes
import pytest
from catalogue import CANARY, HEADER, assert_silent, encodings_of, source_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notetune.errors import DataError

CASES = {**catalogue_files.CASES, **catalogue_notes.CASES}


def test_the_catalogue_has_its_forty_cases():
    assert sorted(CASES) == list(range(1, 41))


@pytest.mark.parametrize("number", sorted(CASES), ids=lambda number: f"{number} {CASES[number][0]}")
def test_case(number, tmp_path, capfd, caplog):
    CASES[number][1](tmp_path)
    shown = "".join(capfd.readouterr()) + caplog.text
    assert not [form for form in encodings_of(CANARY) if form in shown]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(
        st.sampled_from(
            [b"a", b"1", b",", b",", b"\n", b"\n", b"\r", b'"', b'"', b"\0", b"\xff", b"\xc3\xa9"]
        ),
        max_size=60,
    )
)
def test_any_bytes_are_read_with_balanced_counts_or_refused_in_one_silent_line(tmp_path, pieces):
    data = HEADER.encode() + b"".join(pieces)
    (tmp_path / "notes.csv").write_bytes(data)
    for limit in (0.0, 1.0):
        policy = {"policy": "quarantine", "max_rejected_share": limit}
        source = source_of(tmp_path / "notes.csv", tasks=[], **policy)
        try:
            stream = source.open()
            kept = sum(chunk.height for chunk in stream.chunks)
        except DataError as error:
            assert_silent(error)
            continue
        flow = stream.finish().flow[0]
        assert flow.kept == kept
        assert flow.read == kept + stream.finish().rejections.height
        if limit == 0.0:  # then nothing was rejected, and the csv module must agree
            rows = list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))
            assert flow.read == len(rows)
