"""Columns beside the text, counted by hand."""

import numpy as np
import polars as pl
import pytest

from notetune.errors import DataError
from notetune.plain.columns import Columns, LevelColumn, NumberColumn, fit_columns, typed

CANARY = "zyxcanary"


def table(**columns):
    count = len(next(iter(columns.values())))
    ids = {"note_id": [f"n{number}" for number in range(count)]}
    return pl.DataFrame({**ids, **columns}, schema=dict.fromkeys([*ids, *columns], pl.String))


def test_a_column_of_numbers_alone_is_numbers_and_codes_stay_levels():
    frame = table(
        age=["7", "8.5", None, "-1e2"], ward=["1", "2", "1", None], sex=["f", "m", "1", "f"]
    )
    found = typed(frame, ("ward",))
    assert found.schema["age"] == pl.Float64
    assert found["age"].to_list() == [7.0, 8.5, None, -100.0]
    assert found.schema["ward"] == found.schema["sex"] == pl.String


@pytest.mark.parametrize("odd", [CANARY, "nan", "inf", "1,5", "1e308", "-1e200"])
def test_a_number_column_with_something_else_stops_without_showing_it(odd):
    frame = table(age=["1", "2", "3", odd])
    with pytest.raises(DataError) as caught:
        typed(frame, ())
    assert str(caught.value) == (
        "column age: 1 of 4 notes have something there that is no number of at most 1e+30, the "
        "first is note n3; mend them, empty them, or name the column in "
        "prepare.source.coded_features too if its numbers are codes."
    )
    columns = fit_columns(typed(table(age=["1", "2"]), ()), np.array(["a", "b"]), 1)
    with pytest.raises(DataError, match="training had numbers alone there") as caught:
        columns.features(frame)
    assert CANARY not in str(caught.value)


def test_numbers_with_a_comma_are_refused_unless_they_are_codes():
    frame = table(weight=["70,31", "8,5", "-64,2", None, "90"])
    with pytest.raises(DataError, match="column weight: 3 of 4 cells are numbers with a comma"):
        typed(frame, ())
    assert typed(frame, ("weight",)).schema["weight"] == pl.String
    for cells in (["36,5", "37", "38,2", "36"], ["1.234,5", "12.345,0", "999,5", "1.234.567,8"]):
        with pytest.raises(
            DataError, match=r"cells are numbers with a comma; .* 1200 for 1,200 or"
        ):
            typed(table(weight=cells), ())
    for cells in (["1,200.5", "-12,000.25", "999.5", None], ["1,200,000", "2,345,678", "1", "2"]):
        with pytest.raises(DataError, match=r"cost: 2 of [34] cells are numbers with a comma"):
            typed(table(cost=cells), ())
    few = table(ward=["a,b", "1,2", "x", "y"], empty=[None] * 4)
    assert typed(few, ()).equals(few)


def test_features_are_standardised_numbers_shared_levels_and_flags():
    frame = typed(
        table(
            age=["40", "60", None, "80"], ward=["x", "x", "rare", None], drug=["1", "1", "2", "2"]
        ),
        ("drug",),
    )
    patients = np.array(["a", "b", "c", "c"])
    columns = fit_columns(frame, patients, 2)
    scale = np.std([40, 60, 80])
    assert columns == Columns(
        columns=(
            NumberColumn(name="age", mean=60.0, scale=float(scale)),
            LevelColumn(name="ward", levels=("x",)),
            LevelColumn(name="drug", levels=("1",)),  # 2 is one patient's
        )
    )
    expected = [
        [-20 / scale, 0, 1, 0, 1, 0],
        [0, 0, 1, 0, 1, 0],
        [0, 1, 0, 0, 0, 0],
        [20 / scale, 0, 0, 1, 0, 0],
    ]
    assert np.abs(columns.features(frame) - np.array(expected)).max() < 1e-6


def test_true_and_false_are_the_numbers_that_they_were_in_training():
    frame = typed(table(male=["1", "0", None, "1"]), ())
    columns = fit_columns(frame, np.array(list("abcd")), 2)
    for words in (["True", "False", None, "True"], ["true", "false", None, "true"]):
        assert np.array_equal(columns.features(table(male=words)), columns.features(frame))


def test_a_column_that_is_always_true_or_always_false_is_read_as_words_too():
    for cells, words in ((["1", "1"], ["True", "false"]), (["0", None], ["False", "true"])):
        columns = fit_columns(typed(table(male=cells), ()), np.array(list("ab")), 2)
        numbers = table(male=[cells[0], str(1 - int(cells[0]))])
        assert np.array_equal(columns.features(table(male=words)), columns.features(numbers))
    with pytest.raises(DataError, match="training had numbers alone there"):
        fit_columns(typed(table(age=["1", "9"]), ()), np.array(list("ab")), 2).features(
            table(age=["True", "1"])
        )


def test_an_unknown_level_is_all_zero_and_counted():
    columns = fit_columns(table(ward=["x", "x", "y"]), np.array(["a", "b", "c"]), 2)
    new = table(ward=["x", "new", "y", None])
    assert columns.features(new).tolist() == [[1, 0], [0, 0], [0, 0], [0, 1]]
    assert columns.unkept(new) == {"ward": 2}
    assert columns.unkept(table(ward=["x"])) == {}


def test_levels_may_stand_in_a_table_as_numbers():
    columns = fit_columns(table(unit=["1", "1", "2"]), np.array(["a", "b", "c"]), 2)
    new = table(unit=["1", "2", None]).with_columns(pl.col("unit").cast(pl.Int64))
    assert columns.features(new).tolist() == [[1, 0], [0, 0], [0, 1]]
    assert columns.unkept(new) == {"unit": 1}


@pytest.mark.parametrize("cells", [[None] * 3, ["5"] * 3, ["one"] * 3])
def test_a_column_that_is_empty_or_always_the_same_says_nothing(cells):
    columns = fit_columns(typed(table(flag=cells), ()), np.array(["a", "b", "c"]), 2)
    features_NF = columns.features(table(flag=cells))
    assert features_NF.shape[1] in (1, 2)
    assert not np.ptp(features_NF, axis=0).any()
    assert np.isfinite(columns.features(table(flag=[None, "5", "9"]))).all() or cells[0] == "one"
