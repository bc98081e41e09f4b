"""The stack against scikit-learn's logistic regression and against its own conditions."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from notetune.plain.linear import log_odds, probabilities
from notetune.plain.stacked import fit_stacked, trusted_more

NOTES = 400


def scores(kind, *, noises=(0.5, 1.0), classes=3, seed=0):
    """Scores of models of which each sees the truth through its own noise, and labels."""
    rng = np.random.default_rng(seed)
    classes = 1 if kind == "binary" else classes
    truth_NK = rng.normal(size=(NOTES, classes)) - np.arange(classes)
    if kind == "multiclass":
        draws = truth_NK + rng.gumbel(size=truth_NK.shape)
        targets_NK = np.eye(classes, dtype=np.int8)[draws.argmax(1)]
    else:
        targets_NK = (truth_NK + rng.logistic(size=truth_NK.shape) > 0).astype(np.int8)
    logits = (truth_NK + rng.normal(scale=noise, size=truth_NK.shape) for noise in noises)
    return [probabilities(kind, one) for one in logits], targets_NK


def test_slopes_of_a_binary_task_equal_scikit_learns_on_standardised_logits():
    found_MNK, targets_NK = scores("binary")
    stacked = fit_stacked("binary", found_MNK, targets_NK)
    logits_NM = np.column_stack([log_odds("binary", one) for one in found_MNK])
    model = LogisticRegression(C=1.0, tol=1e-10).fit(logits_NM / logits_NM.std(0), targets_NK[:, 0])
    assert (model.coef_ > 0).all()
    assert stacked.slopes_M == pytest.approx(model.coef_[0] / logits_NM.std(0), abs=1e-4)
    assert stacked.start_K == pytest.approx(model.intercept_, abs=1e-4)
    expected_N = model.predict_proba(logits_NM / logits_NM.std(0))[:, 1]
    assert np.abs(stacked.scores(found_MNK)[:, 0] - expected_N).max() < 1e-4


@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_all_labels_share_the_slopes_and_each_label_is_met_on_average(kind):
    found_MNK, targets_NK = scores(kind)
    stacked = fit_stacked(kind, found_MNK, targets_NK)
    assert stacked.slopes_M.shape == (2,)
    assert stacked.start_K.shape == (targets_NK.shape[1],)
    assert stacked.slopes_M[0] > stacked.slopes_M[1] > 0  # the first model sees more
    joined_NK = stacked.scores(found_MNK)
    assert np.abs(joined_NK.mean(0) - targets_NK.mean(0)).max() < 1e-4
    if kind == "multiclass":
        assert joined_NK.sum(1) == pytest.approx(np.ones(NOTES))
    losses = [
        -np.log(np.where(targets_NK == 1, one, 1 - one)).mean() for one in (joined_NK, *found_MNK)
    ]
    assert losses[0] < min(losses[1:])


def test_a_model_that_says_the_opposite_counts_for_nothing():
    (first, second), targets_NK = scores("multilabel")
    stacked = fit_stacked("multilabel", [first, 1 - second], targets_NK)
    assert stacked.slopes_M[1] == 0.0
    alone = fit_stacked("multilabel", [first], targets_NK)
    assert stacked.slopes_M[0] == pytest.approx(alone.slopes_M[0], abs=1e-4)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_a_label_that_no_training_note_has_stays_finite_and_rare(kind):
    found_MNK, targets_NK = scores(kind)
    targets_NK = targets_NK.copy()
    targets_NK[:, 2] = 0
    if kind == "multiclass":
        targets_NK[targets_NK.sum(1) == 0, 0] = 1
    joined_NK = fit_stacked(kind, found_MNK, targets_NK).scores(found_MNK)
    assert np.isfinite(joined_NK).all()
    assert joined_NK[:, 2].mean() < 1e-3


def test_a_model_with_one_score_for_all_notes_changes_nothing():
    (first, _), targets_NK = scores("binary")
    constant = np.full_like(first, 0.3)
    stacked = fit_stacked("binary", [first, constant], targets_NK)
    alone = fit_stacked("binary", [first], targets_NK)
    difference = stacked.scores([first, constant]) - alone.scores([first])
    assert np.abs(difference).max() < 1e-3
    assert np.isfinite(stacked.scores([np.ones((2, 1)), np.zeros((2, 1))])).all()


def loss(kind, found_NK, targets_NK):
    if kind == "multiclass":
        return -np.log((found_NK * targets_NK).sum(1)).sum()
    return -np.log(np.where(targets_NK == 1, found_NK, 1 - found_NK)).sum()


@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_a_model_that_has_become_better_is_trusted_more_on_average_as_before(kind):
    (first, blind), targets_NK = scores(kind, noises=(1.0, 9.0))
    before = fit_stacked(kind, [first, blind], targets_NK)
    (first, better), targets_NK = scores(kind, noises=(1.0, 0.1))
    after = trusted_more(before, [first, better], targets_NK)
    assert after.slopes_M[0] == before.slopes_M[0]
    assert after.slopes_M[1] > before.slopes_M[1] + 0.2
    was, now = (one.scores([first, better]) for one in (before, after))
    assert loss(kind, now, targets_NK) < loss(kind, was, targets_NK) - 10
    at_mean = log_odds(kind, better).mean(0, keepdims=True)
    middle_MNK = [first[:1], probabilities(kind, at_mean)]
    assert after.scores(middle_MNK) == pytest.approx(before.scores(middle_MNK), abs=1e-6)
    slopes = np.linspace(before.slopes_M[1], 5, 400)
    variance = log_odds(kind, better).var(0).mean()
    logits_NK = log_odds(kind, first) * before.slopes_M[0] + before.start_K
    turned_NK = log_odds(kind, better) - at_mean
    penalised = [
        loss(
            kind,
            probabilities(kind, logits_NK + before.slopes_M[1] * at_mean + slope * turned_NK),
            targets_NK,
        )
        + variance * slope**2 / 2
        for slope in slopes
    ]
    assert after.slopes_M[1] == pytest.approx(slopes[np.argmin(penalised)], abs=0.02)


def test_a_model_that_is_as_before_or_worse_is_trusted_as_before():
    (first, second), targets_NK = scores("multilabel")
    before = fit_stacked("multilabel", [first, second], targets_NK)
    (first, worse), targets_NK = scores("multilabel", noises=(0.5, 3.0))
    assert trusted_more(before, [first, worse], targets_NK) is before
    constant = np.full_like(second, 0.5)
    assert trusted_more(before, [first, constant], targets_NK) is before
