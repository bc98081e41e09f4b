"""Text in Markdown stands there as it is."""

import pytest

from notetune.report.table import Cell, Table, markdown, markdown_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HLA-A*02; HLA-B*57", r"HLA-A\*02; HLA-B\*57"),
        ("_c_ and length_of_stay", r"\_c\_ and length_of_stay"),
        ("`x` [a](http://b)", r"\`x\` [a]\(http://b)"),
        ("0.7 [0.6, 0.8] (3 < 4)", "0.7 [0.6, 0.8] (3 < 4)"),
        ("<b>|\n", r"\<b>\| "),
    ],
)
def test_what_would_be_markup_is_text(text, shown):
    assert markdown_text(text) == shown


def test_a_strong_cell_is_bold_in_markdown_and_markup_in_it_is_not():
    table = Table("Rows.", ("a",), ((Cell("1*2", is_strong=True),), (Cell("3"),)), text_columns=0)
    assert markdown(table).splitlines()[-2:] == [r"| **1\*2** |", "| 3 |"]
