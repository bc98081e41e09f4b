"""Logistic regression on sparse features against scikit-learn's, and the path of penalties."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression

from notetune.train import terms
from notetune.train.path import RISES
from notetune.train.terms import TermProblem

NOTES, TERMS = 90, 160
KINDS = ("binary", "multiclass", "multilabel")


def sparse_notes(kind, notes=NOTES, *, seed=0):
    """Rows of length 1, and labels that some of their terms tell."""
    rng = np.random.default_rng(seed)
    counts_NV = rng.poisson(0.12, (notes, TERMS)) + np.eye(notes, TERMS)
    features_NV = np.log1p(counts_NV)
    features_NV /= np.linalg.norm(features_NV, axis=1, keepdims=True)
    classes = {"binary": 1, "multiclass": 4, "multilabel": 5}[kind]
    truth = np.random.default_rng(9).normal(size=(TERMS, classes)) * 3
    logits_NK = features_NV @ truth + rng.logistic(size=(notes, classes))
    targets_NK = (logits_NK > 0.5).astype(np.int8)
    if kind == "multiclass":
        targets_NK = np.eye(classes, dtype=np.int8)[logits_NK.argmax(1)]
    return scipy.sparse.csr_matrix(features_NV, dtype=np.float32), targets_NK


def by_scikit_learn(features_NV, targets_NK, kind, penalty):
    """Weights and intercepts at the same minimum; those of classes up to a shift of all."""
    settings = {"C": 1 / (penalty * len(targets_NK)), "tol": 1e-10, "max_iter": 50_000}
    exact_NV = features_NV.toarray().astype(np.float64)
    if kind == "multiclass":
        model = LogisticRegression(**settings).fit(exact_NV, targets_NK.argmax(1))
        return model.coef_, model.intercept_
    models = [LogisticRegression(**settings).fit(exact_NV, one_N) for one_N in targets_NK.T]
    return np.concatenate([m.coef_ for m in models]), np.concatenate([m.intercept_ for m in models])


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_equal_scikit_learns_whether_notes_are_turned_or_not(kind, turned, monkeypatch):
    monkeypatch.setattr(terms, "_MOST_NOTES_TURNED", NOTES if turned else 0)
    monkeypatch.setattr(terms, "_LABELS_AT_ONCE", 2)
    features_NV, targets_NK = sparse_notes(kind)
    for penalty in (1e-2, 1e-3):
        found = TermProblem(features_NV, targets_NK, kind).solve(penalty)
        weight_KV, start_K = by_scikit_learn(features_NV, targets_NK, kind, penalty)
        bias_K = found.bias_K
        if kind == "multiclass":
            bias_K, start_K = bias_K - bias_K.mean(), start_K - start_K.mean()
        assert found.weight_KF.shape == weight_KV.shape == (targets_NK.shape[1], TERMS)
        assert np.abs(found.weight_KF - weight_KV).max() < 2e-4 * np.abs(weight_KV).max()
        assert np.abs(bias_K - start_K).max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_with_one_value_gets_its_prior_and_changes_no_other(kind):
    features_NV, targets_NK = sparse_notes(kind)
    without = TermProblem(features_NV, targets_NK, kind).solve(1e-3)
    absent_NK = np.column_stack([targets_NK, np.zeros(NOTES, np.int8)])
    found = TermProblem(features_NV, absent_NK, kind).solve(1e-3)
    assert not found.weight_KF[-1].any()
    assert np.abs(found.weight_KF[:-1] - without.weight_KF).max() < 1e-4
    logits_NK = found.logits(features_NV)
    rest_N = np.logaddexp.reduce(logits_NK[:, :-1], axis=1).mean() if kind == "multiclass" else 0.0
    assert np.exp(logits_NK[0, -1] - rest_N) == pytest.approx(1 / (NOTES + 1), rel=0.2)


def test_without_any_term_every_note_gets_the_prior():
    _, targets_NK = sparse_notes("multilabel")
    empty = scipy.sparse.csr_matrix((NOTES, 0), dtype=np.float32)
    linear, penalty = TermProblem(empty, targets_NK, "multilabel").along_path(empty, targets_NK)
    assert len(penalty.path) == RISES + 1
    positives_K = targets_NK.sum(0) + 1
    expected_K = np.log(positives_K / (NOTES + 2 - positives_K))
    assert np.abs(linear.logits(empty) - expected_K).max() < 1e-6


def test_the_penalty_is_the_one_with_the_lowest_validation_loss():
    features_NV, targets_NK = sparse_notes("multilabel")
    validation_NV, answers_NK = sparse_notes("multilabel", 40, seed=1)
    linear, penalty = TermProblem(features_NV, targets_NK, "multilabel").along_path(
        validation_NV, answers_NK
    )
    losses = {}
    for value in terms._PATH:
        weight_KV, start_K = by_scikit_learn(features_NV, targets_NK, "multilabel", value)
        logits_NK = validation_NV @ weight_KV.T + start_K
        losses[value] = (np.logaddexp(0, logits_NK) - answers_NK * logits_NK).mean()
    assert penalty.value == min(losses, key=losses.get)
    assert len(penalty.path) >= 4
    for point in penalty.path:
        assert point.loss == pytest.approx(losses[point.penalty], abs=1e-4)
    again = TermProblem(features_NV, targets_NK, "multilabel").solve(penalty.value)
    assert np.array_equal(linear.weight_KF, again.weight_KF)


def test_without_validation_notes_the_penalty_is_the_default():
    features_NV, targets_NK = sparse_notes("binary")
    _, penalty = TermProblem(features_NV, targets_NK, "binary").along_path(
        features_NV[:0], targets_NK[:0]
    )
    assert (penalty.value, penalty.path) == (terms._DEFAULT, ())
    assert penalty.why == "no validation notes: the default"


def test_of_many_notes_some_labels_choose_the_penalty_for_all(monkeypatch):
    features_NV, targets_NK = sparse_notes("multilabel")
    whole, chosen_by_all = TermProblem(features_NV, targets_NK, "multilabel").along_path(
        features_NV, targets_NK
    )
    monkeypatch.setattr(terms, "_MOST_NOTES_TURNED", 0)
    monkeypatch.setattr(terms, "_LABELS_ON_PATH", 2)
    linear, penalty = TermProblem(features_NV, targets_NK, "multilabel").along_path(
        features_NV, targets_NK
    )
    assert penalty.why.endswith("; of 2 of 5 labels")
    by_frequency = np.argsort(targets_NK.sum(0), kind="stable")
    ends = targets_NK[:, by_frequency[[0, -1]]]
    _, of_ends = TermProblem(features_NV, ends, "multilabel").along_path(features_NV, ends)
    assert [p.penalty for p in penalty.path] == [p.penalty for p in of_ends.path]
    assert linear.weight_KF.shape == whole.weight_KF.shape
    assert chosen_by_all.value == penalty.value
