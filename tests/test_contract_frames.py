"""Which columns of a DataFrame are read, and as what."""

import datetime
import enum
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pytest
from frames import columns_of, of_pandas, recipe_of

from notetune import dataframe, sources
from notetune.errors import DataError


def test_whole_numbers_beside_gaps_stay_whole():
    assert columns_of(pl.DataFrame({"a": [1.0, None], "b": [0.5, 1.0]})).dtypes == [
        pl.Int64,
        pl.Float64,
    ]


@pytest.mark.parametrize("kind", ["float16", "float32", "Float32", pl.Float32])
def test_whole_numbers_that_a_short_float_may_have_rounded_are_not_read(kind):
    def read(*cells):
        if kind is pl.Float32:
            return columns_of(pl.DataFrame({"a": cells}, schema={"a": kind}))
        return columns_of(pd.DataFrame({"a": pd.Series(cells).astype(kind)}))

    number = 2050.0 if kind == "float16" else 20_000_000.0
    assert read(number, None, 7.0).columns == []
    assert read(number, None, 7.5)["a"].to_list() == [number, None, 7.5]
    assert read(number / 4, None, 7.0).columns == ["a"]
    assert read(None, None).columns == ["a"]


def test_what_is_missing_in_pandas_is_null():
    table = pd.DataFrame(
        {
            "text": ["a", None, "c"],
            "count": [1, np.nan, 3],
            "flag": [True, None, False],
            "time": pd.to_datetime(["2150-01-01", None, "2151-02-03"]),
            "labels": [["I10"], [], None],
            "level": pd.Categorical(["u", None, "v"]),
            "whole": pd.array([1, None, 2], dtype="Int64"),
            "name": pd.array(["q", None, "r"], dtype="string"),
        }
    )
    found = columns_of(table)
    assert found["text"].to_list() == ["a", None, "c"]
    assert found["count"].to_list() == [1, None, 3]
    assert found["flag"].to_list() == [True, None, False]
    assert found["labels"].to_list() == [["I10"], [], None]
    assert found["level"].to_list() == ["u", None, "v"]
    assert found["whole"].to_list() == [1, None, 2]
    assert found["name"].to_list() == ["q", None, "r"]
    assert found["time"].is_null().to_list() == [False, True, False]


def test_arrays_of_numpy_are_lists():
    cells = [np.array(["I10", "E11"]), np.array([], dtype=object), None, np.array(["J18"])]
    column = pd.Series([*cells, np.array([])], dtype=object)
    found = columns_of(pd.DataFrame({"codes": column}))["codes"].to_list()
    assert found == [["I10", "E11"], [], None, ["J18"], []]


def test_what_polars_panics_over_is_left_out(monkeypatch):
    class Panics(pl.Series):
        def __init__(self, *_, **__):
            raise pl.exceptions.PanicException("canary")

    monkeypatch.setattr(pl, "Series", Panics)
    said = dataframe._series("odd", pd.Series(["canary"]))
    assert said == "holds cells of kind str that do not go together"


def test_an_id_is_one_whether_it_stands_as_decimal_number_or_text():
    ids = pd.Series([7.0, "7", 7, np.int64(7), np.float64(7), "A", None], dtype=object)
    assert columns_of(pd.DataFrame({"p": ids}))["p"].to_list() == [*["7"] * 5, "A", None]
    parts = pd.Series([7.5, 7.0, 8], dtype=object)
    assert columns_of(pd.DataFrame({"p": parts}))["p"].to_list() == [7.5, 7.0, 8.0]
    assert columns_of(pd.DataFrame({"p": [10**50, 2**63, 2]}))["p"].to_list() == [
        *(str(10**50), str(2**63)),
        "2",
    ]
    assert columns_of(pd.DataFrame({"p": [1e300, 2.0]}))["p"].to_list() == [1e300, 2.0]
    assert columns_of(pl.DataFrame({"p": [1e300, 2.0]}))["p"].to_list() == [1e300, 2.0]


def test_times_beside_text_or_numbers_are_text():
    found = columns_of(
        pd.DataFrame(
            {
                "text": pd.Series([pd.Timestamp("2150-01-01"), "2150-01-02 10:00"], dtype=object),
                "number": pd.Series([3, pd.Timestamp("2150-01-01")], dtype=object),
                "day": pd.Series([datetime.date(2150, 1, 1), pd.Timestamp("2150-01-02 10:00")]),
            }
        )
    )
    assert found["text"].to_list() == ["2150-01-01 00:00:00", "2150-01-02 10:00"]
    assert found["number"].to_list() == ["3", "2150-01-01 00:00:00"]
    assert found["day"].dt.hour().to_list() == [0, 10]


class Ward(enum.Enum):
    ICU = 1


ODD = {
    "set": ([{1, 2}] * 40, "holds cells of kind set"),
    "Period": (pd.period_range("2020-01", periods=40, freq="M"), "holds cells of kind Period"),
    "nothing in a dict": ([{}] * 40, "holds cells of kind dict"),
    "zone": (
        pd.Series(
            [pd.Timestamp("2150-01-01", tz="UTC"), pd.Timestamp("2150-01-01")] * 20, dtype=object
        ),
        "holds cells of kind Timestamp that do not go together",
    ),
    "Enum": ([Ward.ICU, "ward"] * 20, "holds cells of kind Ward and str that do not go together"),
    "half": (["\ud800"] * 40, "holds halves of characters"),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_column_that_no_table_holds_is_left_out_unless_it_is_named(tmp_path, capsys, odd):
    cells, why = ODD[odd]
    notes = of_pandas(odd=cells)
    recipe = recipe_of(notes, tmp_path)
    assert f"Check: column odd {why}; it is left out." in capsys.readouterr().err
    assert sources.read(recipe.prepare.source).notes.height == 40
    for named in ({"outcomes": ["y", "odd"]}, {"features": ["odd"]}, {"patient": "odd"}):
        with pytest.raises(DataError, match=f"column odd {why}; give one column of that name"):
            recipe_of(notes, tmp_path, **named)


def test_columns_of_one_name_are_left_out_unless_they_are_named(tmp_path, capsys):
    more = pd.DataFrame({"text": ["a"] * 40, 1: [1] * 40, "1": [2] * 40})
    notes = pd.concat([of_pandas(), more.drop(columns="text")], axis=1)
    recipe_of(notes, tmp_path)
    assert "column 1 stands there 2 times; it is left out" in capsys.readouterr().err
    with pytest.raises(DataError, match="column 1 stands there 2 times; give one column of that"):
        recipe_of(notes, tmp_path, features=["1"])
    with pytest.raises(DataError, match="column text stands there 2 times"):
        recipe_of(pd.concat([of_pandas(), more[["text"]]], axis=1), tmp_path)


def test_ids_may_be_uuids(tmp_path):
    ids = [uuid.UUID(int=row // 2) for row in range(40)]
    recipe = recipe_of(of_pandas(pid=ids), tmp_path)
    found = sources.read(recipe.prepare.source).notes["patient_id"]
    assert found.to_list() == list(map(str, ids))
