"""The table of the deletion test."""

from report_values import full_results

from notetune.metrics.results import DeletionRow
from notetune.report.deletions import deletions_table
from notetune.report.page import report_sections
from notetune.report.table import markdown

MADE = DeletionRow(
    task="died",
    model="tf-idf",
    notes=20,
    left_out=3,
    sentences=12.25,
    score=0.61,
    top=0.31,
    others=0.04,
    low=0.2,
    high=0.35,
)
TOO_SHORT = DeletionRow(task="died", model="head-only", notes=1, left_out=3)


def test_each_model_has_its_row_and_what_was_not_measured_is_no_zero():
    lines = markdown(deletions_table([MADE, TOO_SHORT])).splitlines()
    assert "Without the top 3 | Without 3 at random" in lines[2]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:6]]
    assert cells == [
        ["died", "tf-idf", "20", "12.2", "0.610", "0.310", "0.040", "[0.200, 0.350]"],
        ["died", "head-only", "1", "n/a", "n/a", "n/a", "n/a", "n/a"],
    ]


def test_the_page_has_it_where_it_was_made():
    without = {section.anchor for section in report_sections(full_results())}
    made = report_sections(full_results(deletions=(MADE,)))
    assert {section.anchor for section in made} - without == {"deletions"}
