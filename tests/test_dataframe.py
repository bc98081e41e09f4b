"""`notetune.fit`: from a DataFrame to a report and to scores of new notes."""

import dataclasses
import os
import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from frames import of_pandas, recipe_of

import notetune
from notetune import dataframe, storage
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


def test_outcomes_without_validation_notes_and_levels_that_are_new(tmp_path):
    patients = [row // 2 for row in range(200)]
    parts = ("train", "train", "validation", "test")
    notes = frame(range(200)).with_columns(
        stay=pl.Series([patient // 4 % 2 for patient in patients]),
        ward=pl.Series(["ICU" if patient % 3 else "MED" for patient in patients]),
        split=pl.Series([parts[patient % 4] for patient in patients]),
    )
    known = pl.when(pl.col("split") != "validation").then(pl.col("died"))
    small = {**SMALL, "prepare": {"max_tokens": 64}, "features": ["ward"]}
    notes = notes.with_columns(died=known)
    study = notetune.fit(notes, ["died", "stay"], folder=tmp_path / "one", **small)
    said = "died: there are no validation notes, so nothing was chosen by them."
    assert [notice for notice in study.results.notices if "no validation" in notice] == [said]
    new = frame(range(1000, 1003)).drop("died").with_columns(ward=pl.Series(["ICU", "new", None]))
    with pytest.warns(RunWarning, match="task died: there are no validation notes to choose a"):
        scores = study.predict(new)
    assert set(scores["task"]) == {"died", "stay"}
    assert set(scores.filter(task="died")["model"]) == {"tf-idf"}
    with pytest.warns(RunWarning, match="column ward: 1 of 3 notes have a level that the bundle"):
        assert study.predict(new, "columns").height == 6


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


def test_a_study_whose_folder_another_one_took_predicts_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = notetune.fit(frame(range(200)), ["died"], folder="x", **SMALL)
    turned = frame(range(200)).with_columns(died=1 - pl.col("died"))
    second = notetune.fit(turned, ["died"], folder="x", **SMALL)
    new = frame(range(1000, 1005)).drop("died")
    assert len(second.predict(new)) == 5
    with pytest.raises(DataError, match=f"{tmp_path}/x is not this study's; fit anew"):
        first.predict(new)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    with pytest.raises(DataError, match=f"{tmp_path}/other/x is not this study's"):
        second.predict(new)
