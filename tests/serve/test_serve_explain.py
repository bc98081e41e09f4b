"""Why a note has its score: equal to leaving out by hand, and to the weights of a linear model."""

import csv
import stat

import numpy as np
import polars as pl
import pytest
from release_study import unpack
from small_study import notetune

from notetune.errors import ConfigError
from notetune.plain.bundles import ColumnsBundle, ColumnsCard, WordsBundle, WordsCard
from notetune.plain.columns import Columns, LevelColumn, NumberColumn
from notetune.plain.linear import Linear
from notetune.plain.tfidf import Words
from notetune.serve.explain import reasons
from notetune.serve.plain import ColumnsPredictor, WordsPredictor
from notetune.serve.predictor import load_predictor

CELLS = ("head-only", "domain-frozen+task-lora", "tf-idf", "hybrid")
SENTENCES = ["Shock 0. ", "long stay! ", "0031\n", "E88 well"]  # no score is near 0 or 1
NOTES = pl.DataFrame(
    {"note_id": ["a", "b", "c"], "text": ["".join(SENTENCES), "shock and well", "well. " * 200]}
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return unpack(tmp_path_factory.mktemp("release"))


def bundle_of(study, cell):
    folder = study / "runs/study/cells/died" / cell / "seed-0"
    return folder, load_predictor(folder, str(study / "backbone"))


def card_of(**changed):
    card = {"task": "died", "kind": "binary", "classes": ("died",), "columns": ("age", "ward")}
    return ColumnsCard(**{**card, **changed})


@pytest.mark.parametrize("cell", CELLS)
def test_a_sentence_changes_what_leaving_it_out_by_hand_changes(study, cell):
    _, predictor = bundle_of(study, cell)
    found = reasons(predictor, NOTES, None, card_of(), ())
    of_a = found.filter(pl.col("note_id") == "a", pl.col("of") == "sentence")
    assert sorted(of_a["text"]) == sorted(one.strip() for one in SENTENCES)
    assert of_a["log_odds"].is_sorted(descending=True)
    whole = predictor.predict(["".join(SENTENCES)]).scores_NK[0, 0]
    for row in of_a.iter_rows(named=True):
        rest = "".join(one for one in SENTENCES if one.strip() != row["text"])
        without = predictor.predict([rest]).scores_NK[0, 0]
        assert row["score"] == pytest.approx(whole, abs=1e-6)
        assert row["change"] == pytest.approx(whole - without, abs=1e-6)
        odds = np.log(whole / (1 - whole)) - np.log(without / (1 - without))
        assert row["log_odds"] == pytest.approx(odds, abs=1e-3)
    assert of_a["change"].abs().max() > 1e-4


@pytest.mark.parametrize("start", [-25, 0, 25])
def test_log_odds_of_sentences_are_differences_of_logits_where_scores_are_all_but_1(start):
    terms = ("shock", "well", "pain")
    linear = Linear(np.array([[3, -2, 1]], np.float32), np.array([start], np.float32))
    card = WordsCard(task="t", kind="binary", classes=("died",), min_patients=1, holds="terms")
    bundle = WordsBundle(card, Words(terms, np.ones(3)), linear)
    notes = pl.DataFrame({"note_id": ["a"], "text": ["shock. well. pain"]})
    found = reasons(WordsPredictor(bundle, None), notes, None, card, ())
    of_sentences = found.filter(of="sentence").sort("text")
    texts = ["shock. well. pain", "shock. well. ", "well. pain", "shock. pain"]
    logits = linear.logits(bundle.words.features(texts))[:, 0]
    assert of_sentences["text"].to_list() == ["pain", "shock.", "well."]
    expected = (logits[0] - logits[1:]).tolist()
    assert of_sentences["log_odds"].to_list() == pytest.approx(expected, abs=1e-3)
    assert min(map(abs, expected)) > 0.1


def test_a_note_of_one_sentence_has_none_to_leave_out_and_a_long_one_few(study):
    found = reasons(bundle_of(study, "head-only")[1], NOTES, None, card_of(), ())
    counts = dict(found.group_by("note_id").len().iter_rows())
    assert "b" not in counts
    assert 50 <= counts["c"] <= 60


@pytest.mark.parametrize("cell", ["tf-idf", "hybrid"])
def test_what_words_add_sums_to_the_log_odds_of_tf_idf(study, cell):
    _, predictor = bundle_of(study, cell)
    part = predictor if cell == "tf-idf" else predictor.parts[0]
    slope = 1 if cell == "tf-idf" else predictor.stacked.slopes_M[0]
    found = reasons(predictor, NOTES, None, card_of(), ()).filter(of="word", note_id="a")
    assert {"shock", "well"} <= {*found["text"]}
    score = part.predict(NOTES["text"][:1].to_list()).scores_NK[0, 0]
    start = part.bundle.linear.bias_K[0]
    logit = np.log(score / (1 - score))
    assert found["log_odds"].sum() == pytest.approx(slope * (logit - start), abs=1e-5)
    assert found["change"].null_count() == found.height


def test_what_columns_add_sums_to_the_log_odds():
    columns = Columns(
        columns=(
            NumberColumn(name="age", mean=50, scale=10),
            LevelColumn(name="ward", levels=("east", "west")),
        )
    )
    weight_KF = np.array([[0.5, 2.0, 1.0, -1.0, 0.25]], np.float32)
    bundle = ColumnsBundle(card_of(), columns, Linear(weight_KF, np.zeros(1, np.float32)))
    rows = pl.DataFrame(
        {"note_id": ["a", "b", "c"], "age": ["70", None, "50"], "ward": ["west", "east", None]}
    )
    found = reasons(ColumnsPredictor(bundle), NOTES, rows, card_of(), ())
    added = {(row["note_id"], row["text"]): row["log_odds"] for row in found.iter_rows(named=True)}
    assert added == {
        ("a", "age: 70"): 1.0,
        ("a", "ward: west"): -1.0,
        ("b", "age: None"): 2.0,
        ("b", "ward: east"): 1.0,
        ("c", "age: 50"): 0.0,
        ("c", "ward: None"): 0.25,
    }


def test_a_label_that_the_bundle_lacks_is_named(study):
    with pytest.raises(ConfigError, match=r"--label lived: the bundle has died\."):
        reasons(bundle_of(study, "tf-idf")[1], NOTES, None, card_of(), ("lived",))


def test_the_file_is_private_says_that_it_holds_text_and_the_scores_do_not_change(study, tmp_path):
    folder, _ = bundle_of(study, "hybrid")
    with (tmp_path / "new.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "note"), *zip(NOTES["text"], "abc", strict=True)])
    common = [folder, tmp_path / "new.csv", "--note-id", "note", "--backbone", study / "backbone"]
    plain = notetune("predict", *common)
    done = notetune("predict", *common, "--explain", tmp_path / "why.csv", "--label", "died")
    assert done.stdout == plain.stdout
    assert "why.csv holds text of the notes" in done.stderr
    assert "long stay!" not in done.stdout + done.stderr
    assert stat.S_IMODE((tmp_path / "why.csv").stat().st_mode) == 0o600
    found = pl.read_csv(tmp_path / "why.csv")
    assert found.columns == ["note_id", "label", "score", "of", "text", "change", "log_odds"]
    assert {*found["of"]} == {"sentence", "word"}
    alone = notetune("predict", *common, "--label", "died")
    assert "give --explain a file" in alone.stderr
    again = notetune("predict", *common, "--explain", tmp_path / "why.csv")
    assert again.returncode
    assert "why.csv" in again.stderr
