import pytest

from notetune.missing_column import missing_column, seems_header

NAMES = ["Case No", "Code", "Kind"]


def test_the_nearest_column_and_all_of_them_are_named():
    said = missing_column("Case", NAMES)
    assert (
        said == "no column 'Case' among 3; the nearest is 'Case No'; there are Case No, Code, Kind"
    )
    assert missing_column("zzz", NAMES).startswith("no column 'zzz' among 3; there are Case No")


def test_of_many_columns_twelve_are_named_each_cut():
    names = ["n" * 50, "", *(f"c{number}" for number in range(20))]
    said = missing_column("zzz", names)
    assert said.endswith(
        f"; there are {'n' * 39}…, c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 10 more"
    )


@pytest.mark.parametrize("names", [["a", "b" * 61], ["a", "b\nc"], NAMES])
def test_what_may_be_cells_is_not_shown(names):
    assert missing_column("zzz", names, is_header=names is not NAMES) == (
        f"no column 'zzz' among {len(names)}"
    )


def test_of_a_line_that_may_be_cells_one_very_near_is_shown():
    assert missing_column("Case", NAMES, is_header=False) == "no column 'Case' among 3"
    said = missing_column("Case N", NAMES, is_header=False)
    assert said == "no column 'Case N' among 3; the nearest is 'Case No'"


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (NAMES, ["Case No", "ICD"], True),
        (["", *NAMES], ["case no", "KIND", "ICD"], True),
        (NAMES, ["Case", "ICD"], False),  # a word of a patient may be near a name
        (NAMES, ["case no", "ICD"], False),
        (NAMES, ["Case No", "ICD", "visit"], False),
        (NAMES, ["ICD", "visit"], False),  # nothing tells that these are names
        ([*NAMES, "17"], ["Case No", "ICD"], False),
        ([*NAMES, "2150-01-01"], ["Case No", "ICD"], False),
        ([*NAMES, "x" * 61], ["Case No", "ICD"], False),
        ([*NAMES, "x\ny"], ["Case No", "ICD"], False),
    ],
)
def test_a_first_line_names_columns_if_one_that_is_wanted_is_there(names, wanted, expected):
    assert seems_header(names, wanted) is expected
