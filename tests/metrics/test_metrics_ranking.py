import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from notetune.errors import DataError
from notetune.metrics.ranking import (
    auroc_score,
    auroc_scores,
    average_precision_scores,
)

MANY_TIES = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60)


def auroc_by_counting(labels, scores):
    """The definition, O(n^2)."""
    return np.mean([(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]])


def average_precision_by_thresholds(labels, scores):
    """The sum over thresholds, O(n^2)."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        recall = (labels & called).sum() / labels.sum()
        total += (recall - recall_before) * (labels & called).sum() / called.sum()
        recall_before = recall
    return total


def has_one_class(labels):
    return labels.all() or not labels.any()


def table(seed, notes=200, labels=70):
    """More labels than one block and more notes than one tile, with ties and one-class labels."""
    generator = np.random.default_rng(seed)
    targets = generator.random((notes, labels)) < generator.random(labels) ** 4
    targets[:, 3], targets[:, 40] = False, True
    return targets, generator.integers(0, 12, (notes, labels)) / 12.0


@given(MANY_TIES)
def test_scores_match_the_definition_and_scikit_learn_with_many_ties(data):
    labels, scores = np.array([d[0] for d in data]), np.array([float(d[1]) for d in data])
    auroc = auroc_score(labels, scores)
    (precision,) = average_precision_scores(labels[:, None], scores[:, None])
    if has_one_class(labels):
        assert math.isnan(auroc)
        assert math.isnan(precision)
        return
    assert auroc == pytest.approx(auroc_by_counting(labels, scores), abs=1e-12)
    assert auroc == pytest.approx(oracle.roc_auc_score(labels, scores), abs=1e-12)
    by_thresholds = average_precision_by_thresholds(labels, scores)
    assert precision == pytest.approx(by_thresholds, abs=1e-12)
    assert precision == pytest.approx(oracle.average_precision_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("notes", [200, 1_100])
def test_every_label_of_a_wide_table_equals_scikit_learn_and_one_class_labels_are_nan(notes):
    targets, scores = table(seed=notes, notes=notes)
    aurocs, precisions = auroc_scores(targets, scores), average_precision_scores(targets, scores)
    compared = 0
    for k in range(targets.shape[1]):
        if has_one_class(targets[:, k]):
            assert math.isnan(aurocs[k])
            assert math.isnan(precisions[k])
            continue
        compared += 1
        labels, label_scores = targets[:, k], scores[:, k]
        expected = oracle.roc_auc_score(labels, label_scores)
        assert aurocs[k] == pytest.approx(expected, abs=1e-12)
        expected = oracle.average_precision_score(labels, label_scores)
        assert precisions[k] == pytest.approx(expected, abs=1e-12)
    assert compared >= 50
    assert np.isnan(aurocs).sum() >= 2


def test_macro_equals_the_multilabel_call_of_scikit_learn():
    targets, scores = table(seed=5)
    both = ~np.isnan(auroc_scores(targets, scores))
    assert both.sum() >= 50
    mine = auroc_scores(targets[:, both], scores[:, both]).mean()
    assert mine == pytest.approx(oracle.roc_auc_score(targets[:, both], scores[:, both]), abs=1e-12)


def test_one_vs_rest_macro_equals_the_multiclass_call_of_scikit_learn():
    generator = np.random.default_rng(0)
    classes = generator.integers(0, 4, 300)
    scores = generator.dirichlet(np.ones(4), 300)
    mine = auroc_scores(np.eye(4, dtype=int)[classes], scores).mean()
    expected = oracle.roc_auc_score(classes, scores, multi_class="ovr")
    assert mine == pytest.approx(expected, abs=1e-12)


def test_infinite_scores_rank_first_and_last():
    assert auroc_score([0, 1, 0, 1], [-np.inf, 0.0, 0.5, np.inf]) == 0.75


def test_integer_boolean_and_float_labels_are_the_same():
    scores = [0.1, 0.6, 0.4, 0.9]
    found = {auroc_score(np.array([0, 1, 0, 1], dtype), scores) for dtype in (int, bool, float)}
    assert found == {1.0}


@pytest.mark.parametrize("score", [auroc_score])
def test_nan_scores_are_refused_by_name(score):
    with pytest.raises(DataError, match=r"2 of 4 values are NaN, the first in row 1, label 0"):
        score([0, 1, 0, 1], [0.1, np.nan, np.nan, 0.2])


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 2, 1], [0.1, 0.2, 0.3], "1 of 3 values are not 0 or 1"),
        ([0, np.nan, 1], [0.1, 0.2, 0.3], "1 of 3 values are not 0 or 1"),
        ([0, 1], [0.1, 0.2, 0.3], r"labels have shape \(2, 1\) and scores \(3, 1\)"),
        ([[0, 1]], [[0.1, 0.2]], r"shape \(1, 2\)"),
    ],
)
def test_labels_that_are_not_labels_are_refused(labels, scores, message):
    with pytest.raises(DataError, match=message):
        auroc_score(labels, scores)


def test_no_notes_have_no_auroc():
    assert math.isnan(auroc_score([], []))
