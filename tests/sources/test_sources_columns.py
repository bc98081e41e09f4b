"""Ids in the tables of MIMIC are whole numbers."""

import pytest
from mimic3_tables import small

from notetune.errors import DataError
from notetune.sources import read


def test_an_id_written_as_a_decimal_stops_in_every_table(tmp_path):
    for number, (table, column) in enumerate(
        [("NOTEEVENTS", "HADM_ID"), ("DIAGNOSES_ICD", "HADM_ID"), ("PROCEDURES_ICD", "HADM_ID")]
    ):
        folder = small()
        folder.tables[table][0][column] = "100.0"
        with pytest.raises(DataError, match=rf"{table}\.csv, line 2: HADM_ID is not a whole"):
            read(folder.write(tmp_path / str(number)))
