"""TF-IDF of shared terms against scikit-learn's and against counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from notetune.plain.tfidf import Words, count_terms

TEXTS = [
    "Chest pain, chest pain and fever.",
    "No fever. Dr Zyxcanary was called.",
    "Chest pain at rest",
    "Zyxcanary saw the patient; fever, chest pain",
    "Fever again and no chest pain",
]
PATIENTS = np.array(["a", "b", "b", "b", "c"])


def test_a_term_needs_the_notes_of_enough_patients_not_enough_notes():
    counted = count_terms(TEXTS, PATIENTS, 2)
    words, _ = counted.words(np.ones(5, bool))
    # zyxcanary is in two notes of one patient, "chest pain" in four notes of three
    assert words.terms == ("and", "chest", "chest pain", "fever", "no", "pain")
    three, _ = count_terms(TEXTS, PATIENTS, 3).words(np.ones(5, bool))
    few, _ = count_terms(TEXTS, PATIENTS, 1, len(three.terms)).words(np.ones(5, bool))
    assert few.terms == three.terms  # of more terms, those that more patients share
    assert three.terms == ("chest", "chest pain", "fever", "pain")


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [0, 1, 4]])
def test_weights_equal_scikit_learns_on_the_notes_that_are_read(rows):
    is_read_N = np.isin(np.arange(5), rows)
    words, features_NV = count_terms(TEXTS, PATIENTS, 2).words(is_read_N)
    read = [TEXTS[row] for row in rows]
    theirs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, vocabulary=words.terms)
    expected_NV = theirs.fit_transform(read).toarray()
    assert len(words.terms) >= 5
    assert np.abs(features_NV.toarray() - expected_NV).max() < 1e-6
    assert np.abs(words.features(read).toarray() - expected_NV).max() < 1e-6
    new = ["fever, fever and chest pain of unknown cause", "nothing known"]
    new_NV = words.features(new)
    assert np.abs(new_NV.toarray() - theirs.transform(new).toarray()).max() < 1e-6
    assert not new_NV[1].nnz


def test_terms_of_a_fold_are_counted_in_the_fold_alone():
    words, _ = count_terms(TEXTS, PATIENTS, 2).words(PATIENTS != "a")
    assert words.terms == ("chest", "chest pain", "fever", "no", "pain")  # "and": one patient left


def test_notes_without_a_shared_word_have_no_features():
    for texts in (["one", "two"], ["?", "!"]):
        words, features_NV = count_terms(texts, np.array(["a", "b"]), 2).words(np.ones(2, bool))
        assert (words.terms, features_NV.shape) == ((), (2, 0))
        assert words.features(["one"]).shape == (1, 0)


def test_words_hold_their_combining_marks_and_a_bundle_of_before_reads_as_it_did():
    texts = ["मधुमेह के रोगी को बुखार है"] * 2
    words, features_NV = count_terms(texts, np.array(["a", "b"]), 2).words(np.ones(2, bool))
    assert {"मधुमेह", "रोगी", "बुखार", "रोगी को"} < {*words.terms}
    assert np.abs((words.features(texts) - features_NV).toarray()).max() < 1e-6
    theirs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(texts)
    before = Words(tuple(theirs.get_feature_names_out()), theirs.idf_)
    assert np.abs((before.features(texts) - theirs.transform(texts)).toarray()).max() < 1e-6


@given(st.text(alphabet="aB1_é\u0301ß. -\u0e31ก漢", max_size=40))
def test_text_without_such_marks_has_the_terms_of_scikit_learn(text):
    counted = count_terms([text, "known word"], np.array(["a", "b"]), 1)
    theirs = CountVectorizer(ngram_range=(1, 2)).fit([text, "known word"])
    assert counted.terms_V.tolist() == theirs.get_feature_names_out().tolist()
