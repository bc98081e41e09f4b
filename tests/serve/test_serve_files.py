"""A file of scores is refused early, and harmless in a spreadsheet."""

import csv

import polars as pl
from small_study import notetune

from notetune.serve.files import write_predictions


def test_predict_refuses_a_file_it_could_not_write_before_it_reads_anything(tmp_path):
    done = notetune("predict", tmp_path / "none", tmp_path / "none.csv", "-o", tmp_path / "x.tsv")
    assert done.returncode == 2
    assert "x.tsv is neither .csv nor .parquet" in done.stderr


def test_scores_are_harmless_in_a_spreadsheet(tmp_path):
    table = pl.DataFrame({"note_id": ["=cmd()", "-7", "n1"], "score": [-0.5, 0.25, 1.0]})
    write_predictions(table, tmp_path / "scores.csv")
    rows = list(csv.reader((tmp_path / "scores.csv").read_text().splitlines()))
    assert rows[1:] == [["'=cmd()", "-0.5"], ["'-7", "0.25"], ["n1", "1.0"]]
    write_predictions(table, tmp_path / "scores.parquet")
    assert pl.read_parquet(tmp_path / "scores.parquet").equals(table)
