"""Cells of the tables are written as each hospital writes them."""

import datetime as dt
import gzip

from notetune.hospital.tables import CsvTable


def test_cells_are_written_as_each_hospital_writes_them(tmp_path):
    cells = ('a "b",\nc', "0066", 7, 1.5, None, dt.date(2101, 2, 3), dt.datetime(2101, 2, 3, 4, 5))  # noqa: DTZ001
    columns = ("Text", "Code", "N", "X", "Nothing", "Day", "Time")
    for name, dialect in (("three.csv", 3), ("four.csv.gz", 4)):
        with CsvTable(tmp_path / name, columns, dialect) as table:
            assert [table.append(*cells), table.append(*cells)] == [1, 2]
    line = '"a ""b"",\nc","0066",7,1.5000,,2101-02-03,2101-02-03 04:05:00\n'
    header = '"TEXT","CODE","N","X","NOTHING","DAY","TIME"\n'
    assert (tmp_path / "three.csv").read_bytes().decode() == header + line * 2
    newer = gzip.decompress((tmp_path / "four.csv.gz").read_bytes()).decode()
    assert newer == "text,code,n,x,nothing,day,time\n" + line.replace('"0066"', "0066") * 2
