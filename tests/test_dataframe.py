"""`notetune.fit`: from a DataFrame to a report and to scores of new notes."""

import dataclasses
import datetime
import enum
import os
import random
import re
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import notetune
from notetune import dataframe, sources, storage
from notetune.dataframe import _readable
from notetune.errors import ConfigError, DataError, RunWarning
from notetune.metrics.scores import read_scores
from notetune.model.adapters.folder import AdapterCard
from notetune.model.adapters.specs import LoRA
from notetune.model.cards import read_card

WORDS = ["fever", "cough", "pain", "rash", "dyspnoea", "fracture", "syncope", "oedema"]
SMALL = {
    "seeds": 1,
    "prepare": {"max_tokens": 64, "split": {"kind": "fractions", "test": 0.4, "validation": 0.2}},
    "downstream": {"variants": ["head-only"], "max_pieces": 1},
    "evaluate": {"draws": 100, "tfidf_min_patients": 2},
}


def columns_of(notes):
    return _readable(notes, ())[0]


def frame(rows):
    draws = [random.Random(row) for row in rows]
    died = [draw.random() < 0.5 for draw in draws]
    return pl.DataFrame(
        {
            "note": [
                " ".join(draw.choices(WORDS, k=14) + ["sepsis"] * dead)
                for draw, dead in zip(draws, died, strict=True)
            ],
            "subject_id": [row // 2 for row in rows],
            "age": [None if row % 9 == 0 else float(20 + row % 60) for row in rows],
            "died": [float(dead) for dead in died],
        }
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit") / "first"
    return notetune.fit(frame(range(200)), ["died"], features=["age"], folder=folder, **SMALL)


def test_both_steps_end_in_a_report_and_words(study):
    assert study.report.is_file()
    assert "Does a language model beat TF-IDF?" in study.summary()
    assert repr(study) == f"<Study of died: {study.report}>"
    assert [task.task for task in study.results.tasks] == ["died"]
    source = study.recipe.prepare.source
    assert (source.columns.text, source.columns.patient_id) == ("note", "subject_id")


def test_new_notes_are_scored_by_the_model_that_validation_chose(study):
    new = frame(range(1000, 1040))
    scores = study.predict(new.drop("died"))
    assert scores.columns == ["row", "task", "model", "label", "score"]
    assert scores["row"].to_list() == list(range(40))
    is_dead = new["died"].to_numpy() == 1
    found = scores["score"].to_numpy()
    assert scores["model"].n_unique() == 1
    assert found[is_dead].mean() > found[~is_dead].mean()


def test_a_model_can_be_named_and_pandas_gives_the_same(study):
    new = frame(range(1000, 1005)).drop("died")
    by_words = study.predict(new, model="tf-idf")
    assert set(by_words["model"]) == {"tf-idf"}
    of_pandas = study.predict(pd.DataFrame(new.to_dict(as_series=False)), model="tf-idf")
    assert isinstance(of_pandas, pd.DataFrame)
    assert pl.DataFrame(of_pandas.to_dict("list")).equals(by_words)
    with pytest.raises(
        ConfigError, match="no model nope that can predict; name one with model=: tf-idf"
    ):
        study.predict(new, model="nope")
    with pytest.raises(DataError, match="no column age"):
        study.predict(new.drop("age"))


@pytest.mark.parametrize("model", ["tf-idf", "columns", "head-only", "hybrid"])
def test_a_card_names_the_columns_that_the_study_read(study, model):
    card = read_card(study.recipe.folder.cell("died", model, 0))
    assert card.note_columns == {"text": "note", "patient_id": "subject_id"}
    assert card.missing == study.recipe.prepare.source.missing
    assert card.source == ""


def test_scores_carry_the_ids_of_notes_that_have_them(tmp_path):
    notes = frame(range(200)).with_columns(doc=pl.Series([f"x{row}" for row in range(200)]))
    named = notetune.fit(notes, ["died"], note_id="doc", folder=tmp_path / "ids", **SMALL)
    new = frame(range(1000, 1003)).with_columns(doc=pl.Series(["x7", "x8", "x9"]))
    of_pandas = named.predict(pd.DataFrame(new.to_dict(as_series=False)), model="tf-idf")
    assert of_pandas["doc"].tolist() == ["x7", "x8", "x9"]
    assert "doc" not in named.predict(new.drop("doc"), model="tf-idf").columns


def with_rarer(study, monkeypatch, count):
    """The study as if so many validation notes had the rarer value."""

    def changed(path):
        table = read_scores(path)
        targets_NK = np.zeros_like(table.targets_NK)
        targets_NK[:count] = 1
        return dataclasses.replace(table, targets_NK=targets_NK)

    monkeypatch.setattr(dataframe, "read_scores", changed)
    return study


def test_numbers_that_a_float_may_round_are_no_ids(tmp_path):
    ids = {"subject_id": [float(2**56 + 4 * row) for row in range(60)]}
    of_polars = frame(range(60)).with_columns(pl.Series("subject_id", ids["subject_id"]))
    of_pandas = pd.DataFrame(frame(range(60)).to_dict(as_series=False) | ids)
    for notes in (of_polars, of_pandas):
        with pytest.raises(
            DataError, match="column subject_id holds a float; store ids and labels"
        ):
            notetune.plan(notes, ["died"], folder=tmp_path / "run", **SMALL)


def test_too_few_validation_notes_choose_no_model(study, monkeypatch):
    new = frame(range(1000, 1005)).drop("died")
    monkeypatch.setattr(dataframe, "_validation_auroc", lambda job: "head" in job.model.label)
    assert set(with_rarer(study, monkeypatch, 10).predict(new)["model"]) == {"head-only"}
    assert "To predict" not in study.summary()
    few = with_rarer(study, monkeypatch, 9)
    why = r"too few validation notes to choose a model \(9 with the rarer value\): tf-idf is taken"
    with pytest.warns(RunWarning, match=why):
        assert set(few.predict(new)["model"]) == {"tf-idf"}
    assert re.search(f"To predict died: {why}", few.summary())
    assert set(few.predict(new, model="head-only")["model"]) == {"head-only"}


def test_a_plan_says_the_costs_and_leaves_nothing(tmp_path, capsys):
    arguments = {"features": ["age"], "folder": tmp_path / "planned", **SMALL}
    costs = notetune.plan(frame(range(60)), ["died"], **arguments)
    assert sum(costs.seconds.values()) > 0
    assert [training.name for training in costs.trainings] == ["died · head-only"]
    assert "Nothing was written." in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_names_of_columns_match_exactly(tmp_path):
    with pytest.raises(ConfigError, match=r"no column Died; .* Did you mean died"):
        notetune.plan(frame(range(60)), ["Died"], folder=tmp_path / "planned")


@pytest.mark.parametrize(("section", "key"), [("prepare", "join"), ("evaluate", "combine")])
def test_a_study_of_stays_scores_no_rows_by_themselves(study, section, key):
    changed = getattr(study.recipe, section).model_copy(update={key: "by time"})
    recipe = study.recipe.model_copy(update={section: changed})
    of_stays = dataclasses.replace(study, recipe=recipe)
    with pytest.raises(ConfigError, match="study is about stays"):
        of_stays.predict(frame(range(4)))


def test_the_same_call_again_trains_nothing(study):
    cells = sorted(study.recipe.folder.root.glob("cells/*/*/*/manifest.json"))
    before = [path.stat().st_mtime_ns for path in cells]
    again = notetune.fit(
        frame(range(200)), ["died"], features=["age"], folder=study.recipe.folder.root, **SMALL
    )
    assert again.results.tasks == study.results.tasks
    assert len(cells) >= 4
    assert [path.stat().st_mtime_ns for path in cells] == before


def test_whole_numbers_beside_gaps_stay_whole():
    assert columns_of(pl.DataFrame({"a": [1.0, None], "b": [0.5, 1.0]})).dtypes == [
        pl.Int64,
        pl.Float64,
    ]


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


def of_pandas(**columns):
    rows = range(40)
    texts = [f"note {row} of chest pain" for row in rows]
    values = {"text": texts, "pid": [f"p{row // 2}" for row in rows], "y": [r % 2 for r in rows]}
    return pd.DataFrame(values | columns)


def recipe_of(notes, place, **named):
    given = {"text": "text", "patient": "pid", "outcomes": "y"} | named
    return dataframe._recipe(notes, given.pop("outcomes"), place, place, **given)


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


def test_keys_are_those_of_a_recipe_that_names_no_others(tmp_path):
    brought = AdapterCard(backbone="b", spec=LoRA(rank=4), sha256_of_tensors="d")
    storage.write_json(tmp_path / "brought/adapter.json", brought)
    keys = {"from": str(tmp_path / "brought"), "epochs": 0}
    pretrain = recipe_of(of_pandas(), tmp_path / "a", pretrain=keys).pretrain
    assert (pretrain.adapter.rank, pretrain.leaked_texts) == (4, "drop")
    two = {"one": "tiny", "two": {"backbone": "tiny", "dtype": "bfloat16"}}
    assert list(recipe_of(of_pandas(), tmp_path / "b", backbones=two).studies) == ["one", "two"]
    with pytest.raises(ConfigError, match="give either backbone or backbones"):
        recipe_of(of_pandas(), tmp_path / "b", backbones=two, backbone="tiny")
    keys = {"prepare": {"split": {"test": 0.4}}, "pretrain": {"adapter": {"rank": 2}}}
    found = recipe_of(of_pandas(), tmp_path / "c", **keys)
    assert (found.prepare.split.test, found.pretrain.adapter.rank) == (0.4, 2)
    # A section begins as the default of its place, not of its class.
    part = {"optim": {"peak_lr": 0.1}}
    found = recipe_of(
        of_pandas(), tmp_path / "d", downstream=part, encoders={"adapter": {"rank": 4}}
    )
    assert (found.downstream.optim.peak_lr, found.downstream.optim.targets_per_step) == (0.1, 16)
    assert found.encoders.adapter == LoRA(rank=4, targets=("query", "value", "Wqkv"))


def test_the_folder_of_a_study_has_a_name_that_a_study_may_have(tmp_path, monkeypatch, capsys):
    place = tmp_path / "ours"
    place.mkdir()
    monkeypatch.chdir(place)
    assert dataframe._root(".") == place
    assert dataframe._root("runs/a.b") == Path("runs/a.b")
    assert capsys.readouterr().err == ""
    assert dataframe._root("runs/My Study") == Path("runs/my-study")
    assert "so its folder is runs/my-study" in capsys.readouterr().err
    recipe = recipe_of(of_pandas(), dataframe._root("runs/My Study"))
    assert recipe.folder.root == Path("runs/my-study")
    notetune.plan(of_pandas(), "y", text="text", folder="My Study", downstream={"variants": []})
    assert "so its folder is my-study" in capsys.readouterr().err


def test_columns_may_be_named_by_numbers_or_alone_and_a_frame_may_be_lazy(tmp_path):
    notes = of_pandas(age=range(40)).rename(columns={"text": 0, "pid": 1, "y": 2})
    recipe = recipe_of(notes, tmp_path, outcomes=2, text=0, patient=1, features="age")
    source = recipe.prepare.source
    assert (source.columns.text, source.columns.patient_id) == ("0", "1")
    assert ([task.column for task in source.tasks], source.features) == (["2"], ("age",))
    lazy = pl.DataFrame(of_pandas().to_dict("list")).lazy()
    assert recipe_of(lazy, tmp_path / "lazy").prepare.source.columns.text == "text"


def test_what_fit_cannot_tell_is_asked_in_words_of_python(tmp_path):
    notes = of_pandas()
    with pytest.raises(ConfigError, match="outcomes names no column; name one or several"):
        recipe_of(notes, tmp_path, outcomes=[])
    with pytest.raises(ConfigError, match=r"no column seems to hold notes; name it with text=\."):
        recipe_of(notes[["pid", "y"]], tmp_path, text=None)
    with pytest.raises(ConfigError, match="Make classes of its values") as error:
        recipe_of(
            of_pandas(other=[f"{row} " * 30 for row in range(40)]), tmp_path, outcomes="other"
        )
    assert "--" not in str(error.value)


@pytest.mark.usefixtures("umask")
def test_what_the_caller_writes_is_not_made_private(tmp_path):
    with pytest.raises(DataError, match="notes are of type dict"):
        notetune.fit({"text": ["a"]}, "died", folder=tmp_path / "study")
    assert os.umask(0o022) == 0o022


def test_new_notes_may_be_lazy(study):
    new = frame(range(1000, 1003)).drop("died")
    of_lazy = study.predict(new.lazy(), model="tf-idf")
    assert of_lazy.collect().equals(study.predict(new, model="tf-idf"))


@pytest.mark.parametrize("texts", [[1, 2, 3], [["canary"]] * 3, [2.5, 7.5, None]])
def test_new_notes_that_are_no_text_are_refused_in_one_line(study, texts):
    new = pd.DataFrame({"note": texts, "age": [1, 2, 3]})
    with pytest.raises(DataError, match=r"^column note holds cells of kind \w+; a note is text\.$"):
        study.predict(new, model="tf-idf")


def test_words_for_missing_are_missing_in_new_notes_too(study):
    new = frame(range(1000, 1004)).drop("died")
    words = new.with_columns(age=pl.lit("nan"))
    gaps = new.with_columns(age=pl.lit(None, pl.Float64))
    assert study.predict(words, model="columns").equals(study.predict(gaps, model="columns"))
    with pytest.raises(DataError, match="empty"):
        study.predict(new.with_columns(note=pl.lit("NULL")), model="tf-idf")


def test_a_study_whose_folder_another_one_took_predicts_nothing(tmp_path):
    first = notetune.fit(frame(range(200)), ["died"], folder=tmp_path / "x", **SMALL)
    turned = frame(range(200)).with_columns(died=1 - pl.col("died"))
    second = notetune.fit(turned, ["died"], folder=tmp_path / "x", **SMALL)
    new = frame(range(1000, 1005)).drop("died")
    assert len(second.predict(new)) == 5
    with pytest.raises(DataError, match="holds another study by now"):
        first.predict(new)
