"""The head is the minimum that scikit-learn finds, at the penalty that validation chooses."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from notetune.errors import DataError
from notetune.train.logistic import HeadProblem, LabelledNotes, left_out, out_of_fold

KINDS = {"binary": 1, "multilabel": 5, "multiclass": 4}


def notes(kind, count, width=40, seed=0):
    """Correlated features of very different scales, and labels that a linear head can half tell."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(1)
    classes = KINDS[kind]
    hidden = rng.normal(size=(count, 8))
    features = hidden @ mixing.normal(size=(8, width)) + 0.3 * rng.normal(size=(count, width))
    features = features * np.exp(2 * mixing.normal(size=width)) + 5 * mixing.normal(size=width)
    logits = hidden @ mixing.normal(size=(8, classes)) - 0.5
    if kind == "multiclass":
        targets = np.eye(classes)[(logits + rng.gumbel(size=logits.shape)).argmax(1)]
    else:
        targets = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    return LabelledNotes(torch.from_numpy(features.astype(np.float32)), targets.astype(np.int8))


def standardised(given):
    values = given.features_NH.double().numpy()
    return (values - values.mean(0)) / values.std(0), values.mean(0), values.std(0)


def fitted(given, kind, penalty, *, balanced=False):
    """`(K, H)` coefficients and `(K,)` intercepts of scikit-learn on standardised features."""
    scaled, _, _ = standardised(given)
    weights = "balanced" if balanced else None
    settings = {"C": 1 / (penalty * len(scaled)), "tol": 1e-10, "max_iter": 10_000}
    columns = [given.targets_NK.argmax(1)] if kind == "multiclass" else given.targets_NK.T
    models = [
        LogisticRegression(class_weight=weights, **settings).fit(scaled, column)
        for column in columns
    ]
    return (np.concatenate([getattr(m, name) for m in models]) for name in ("coef_", "intercept_"))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("count", [300, 30])  # more notes than features, and fewer
@pytest.mark.parametrize("kind", KINDS)
def test_coefficients_and_scores_are_those_of_scikit_learn(kind, count, balanced):
    train, test = notes(kind, count), notes(kind, 50, seed=2)
    scaled, mean, scale = standardised(train)
    problem = HeadProblem(train, kind, balanced=balanced)
    for penalty in (1.0, 0.1, 0.01):
        found = problem.solve(penalty)
        coefficients, intercepts = fitted(train, kind, penalty, balanced=balanced)
        weight_KH = found.weight_KH.double().numpy()
        assert np.abs(weight_KH * scale - coefficients).max() < 1e-4
        bias_K = found.bias_K.double().numpy() + weight_KH @ mean
        if kind == "multiclass":  # a softmax does not see what all classes share
            bias_K, intercepts = bias_K - bias_K.mean(), intercepts - intercepts.mean()
        assert np.abs(bias_K - intercepts).max() < 1e-4
        logits = found.head()(test.features_NH).detach().double().numpy()
        expected = ((test.features_NH.double().numpy() - mean) / scale) @ coefficients.T
        expected = expected + intercepts
        if kind == "multiclass":
            logits = logits - logits.mean(1, keepdims=True)
            expected = expected - expected.mean(1, keepdims=True)
        assert np.abs(logits - expected).max() < 1e-3
    assert scaled.shape == (count, 40)


def summed_loss(seen, truth, scores, *, balanced):
    """Log loss of scikit-learn, each value weighing what it does `balanced` over those seen."""
    weight_of = dict(zip(*np.unique(seen, return_counts=True), strict=True))
    weights = [len(seen) / len(weight_of) / weight_of[each] for each in truth] if balanced else None
    return log_loss(truth, scores, sample_weight=weights, normalize=False)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_has_the_lowest_validation_loss_of_the_path(kind, balanced):
    train, validation = notes(kind, 200), notes(kind, 100, seed=3)
    found = HeadProblem(train, kind, balanced=balanced).along_path(validation)
    logits = found.head()(validation.features_NH).detach().double()
    if kind == "multiclass":
        columns = [[each.targets_NK.argmax(1) for each in (train, validation)]]
        scores = [logits.softmax(1).numpy()]
    else:
        columns = zip(train.targets_NK.T, validation.targets_NK.T, strict=True)
        scores = logits.sigmoid().numpy().T
    losses = [
        summed_loss(*column, score, balanced=balanced)
        for column, score in zip(columns, scores, strict=True)
    ]
    loss = np.mean(losses) / len(logits)
    tried = {point.penalty: point.loss for point in found.penalty.path}
    assert found.penalty.value == min(tried, key=tried.get)
    assert loss == pytest.approx(tried[found.penalty.value], rel=1e-3)
    penalties = [point.penalty for point in found.penalty.path]
    assert penalties == sorted(penalties, reverse=True)
    assert 5 <= len(penalties) <= 15


def test_a_path_that_is_best_at_its_end_is_extended_once_and_says_so():
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32))
    targets = (features[:, :1] > 0).numpy().astype(np.int8)
    separable = LabelledNotes(features, targets)
    found = HeadProblem(separable, "binary").along_path(separable)
    assert len(found.penalty.path) == 15
    assert found.penalty.why == "lowest validation loss; the path was extended; at its weak end"
    the_opposite = LabelledNotes(-features, targets)
    found = HeadProblem(separable, "binary").along_path(the_opposite)
    assert found.penalty.why == "lowest validation loss; at its strong end"


def test_without_validation_notes_the_penalty_is_a_default_and_says_so():
    train = notes("binary", 100)
    nobody = LabelledNotes(train.features_NH[:0], train.targets_NK[:0])
    found = HeadProblem(train, "binary").along_path(nobody)
    assert (found.penalty.value, found.penalty.path) == (0.1, ())
    assert found.penalty.why == "no validation notes: the default"


def test_labels_with_one_value_get_their_prior_and_leave_the_others_as_they_are():
    train = notes("multilabel", 100)
    with_constants = train.targets_NK.copy()
    with_constants[:, 1], with_constants[:, 3] = 0, 1
    found = HeadProblem(LabelledNotes(train.features_NH, with_constants), "multilabel").solve(0.1)
    assert found.constant == 2
    scores = found.head()(train.features_NH).sigmoid()
    assert torch.allclose(scores[:, 1], torch.tensor(1 / 102))
    assert torch.allclose(scores[:, 3], torch.tensor(101 / 102))
    alone = HeadProblem(train, "multilabel").solve(0.1)
    assert (found.weight_KH[[0, 2, 4]] - alone.weight_KH[[0, 2, 4]]).abs().max() < 1e-5


def test_a_class_that_no_training_note_has_keeps_its_prior():
    train = notes("multiclass", 100)
    one_less = np.eye(5, dtype=np.int8)[train.targets_NK.argmax(1)]
    found = HeadProblem(LabelledNotes(train.features_NH, one_less), "multiclass").solve(0.1)
    scores = found.head()(train.features_NH).softmax(1)
    assert found.constant == 1
    assert 0.2 / 105 < scores[:, 4].mean() < 5 / 105


def test_constant_features_weigh_nothing_and_change_nothing():
    train = notes("binary", 100)
    constants = torch.tensor([3.0, 0.0, -7e4]).expand(100, 3)
    wider = LabelledNotes(torch.cat([train.features_NH, constants], 1), train.targets_NK)
    alone, found = (HeadProblem(each, "binary").solve(0.1) for each in (train, wider))
    assert torch.all(found.weight_KH[:, 40:] == 0)
    assert (found.weight_KH[:, :40] - alone.weight_KH).abs().max() < 1e-5


def test_features_that_are_no_numbers_are_refused():
    train = notes("binary", 10)
    train.features_NH[4, 2] = torch.nan
    train.features_NH[7, 0] = torch.inf
    with pytest.raises(DataError, match=r"2 of 10 notes .* the first is number 4"):
        LabelledNotes(train.features_NH, train.targets_NK)


def test_the_same_notes_give_the_same_bits():
    train, validation = notes("multilabel", 150), notes("multilabel", 60, seed=4)
    once, again = (HeadProblem(train, "multilabel").along_path(validation) for _ in range(2))
    assert torch.equal(once.weight_KH, again.weight_KH)
    assert torch.equal(once.bias_K, again.bias_K)


def test_a_head_that_standardises_gives_the_same_logits_and_folds_back():
    train = notes("multilabel", 150)
    found = HeadProblem(train, "multilabel").solve(0.1)
    plain, standardising = found.head(), found.head(standardises=True)
    scale = standardising.linear.weight.abs().max()
    assert (standardising.linear.weight - plain.linear.weight).abs().max() > 0.1 * scale
    with torch.no_grad():
        standardising.linear.weight += 0.1 * scale
        expected = standardising(train.features_NH)
        folded = standardising.folded()
        assert (folded(train.features_NH) - expected).abs().max() < 1e-4
        assert (plain(train.features_NH) - expected).abs().max() > 1e-2


def test_out_of_fold_scores_come_from_heads_that_saw_nothing_of_the_patient():
    train = notes("binary", 60)
    patients = np.array([f"p{number // 3}" for number in range(60)])
    scores = out_of_fold(train, patients, "binary", 0.1)
    masks = left_out(patients)
    assert len(masks) == 5
    assert np.sum(masks, 0).tolist() == [1] * 60
    for mask in masks:
        assert not set(patients[mask]) & set(patients[~mask])
        alone = HeadProblem(train.rows(~mask), "binary").solve(0.1)
        expected = alone.head()(train.rows(mask).features_NH).sigmoid().detach().numpy()
        assert np.abs(scores[mask] - expected).max() < 1e-6
    with pytest.raises(DataError, match="2 patients or more; found 1"):
        left_out(np.array(["p"] * 4))
