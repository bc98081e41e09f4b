"""Ids in the tables of MIMIC are whole numbers."""

import pytest
from mimic3_tables import small

from notetune.errors import DataError
from notetune.sources import read


@pytest.mark.parametrize("table", ["NOTEEVENTS", "DIAGNOSES_ICD", "PROCEDURES_ICD"])
@pytest.mark.parametrize("cell", ["100.0", "²", "9" * 20])
def test_an_id_that_is_no_number_of_64_bits_stops_in_every_table(tmp_path, table, cell):
    folder = small()
    folder.tables[table][0]["HADM_ID"] = cell
    with pytest.raises(DataError, match=rf"{table}\.csv, line 2: HADM_ID is not a whole"):
        read(folder.write(tmp_path))
