import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from notetune.errors import DataError
from notetune.metrics.intervals import (
    PatientDraws,
    Replicates,
    average,
    delong_covariance,
    delong_difference,
    delong_estimate,
    holm,
    label_draws,
    mean_replicates,
    patient_draws,
    ranking_replicates,
)
from notetune.metrics.ranking import auroc_score
from notetune.metrics.scores import ScoreTable


def patient_names(patients_N):
    return np.array([f"p{patient:04d}" for patient in patients_N])


def clustered_table(seed, notes=60, labels=3, patients=25, levels=8):
    """Several notes per patient, scores with ties, rare labels."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((notes, labels)) < [0.5, 0.2, 0.05, 0.96][:labels]).astype(np.int8)
    targets[0], targets[1] = 1, 0
    return ScoreTable(
        task="codes",
        kind="multilabel",
        model="m",
        seed=0,
        split="test",
        classes=tuple("abcd"[:labels]),
        note_ids_N=np.array([f"n{i}" for i in range(notes)]),
        patient_ids_N=patient_names(generator.integers(0, patients, notes)),
        targets_NK=targets,
        scores_NK=generator.integers(0, levels, targets.shape) / levels,
    )


def repeated_rows(table, draws, draw):
    """Row numbers of the notes in one draw, each as often as its patient was drawn."""
    drawn = dict(zip(draws.patient_ids_P.tolist(), draws.counts_PB[:, draw].tolist(), strict=True))
    return [
        row
        for row, patient in enumerate(table.patient_ids_N.tolist())
        for _ in range(drawn[patient])
    ]


def test_a_draw_holds_as_many_patients_as_there_are_and_depends_on_the_seed_only():
    ids = patient_names([3, 1, 1, 2, 7])
    draws = patient_draws(ids, draws=500, seed=4)
    assert draws.patient_ids_P.tolist() == ["p0001", "p0002", "p0003", "p0007"]
    assert draws.counts_PB.shape == (4, 500)
    assert set(draws.counts_PB.sum(axis=0)) == {4}
    again = patient_draws(ids[::-1], draws=500, seed=4)
    np.testing.assert_array_equal(draws.counts_PB, again.counts_PB)
    assert not np.array_equal(draws.counts_PB, patient_draws(ids, 500, seed=5).counts_PB)
    # Each patient's count is binomial(4, 1/4): mean 1, variance 3/4.
    np.testing.assert_allclose(draws.counts_PB.mean(axis=1), 1, atol=0.15)
    np.testing.assert_allclose(draws.counts_PB.var(axis=1), 0.75, atol=0.2)


def test_weighting_equals_literally_repeating_the_notes():
    table = clustered_table(seed=1, labels=4)
    draws = patient_draws(table.patient_ids_N, draws=80, seed=2)
    auroc_KB, precision_KB = label_draws(
        table.targets_NK, table.scores_NK, draws.counts_of(table.patient_ids_N)
    )
    compared, lost = 0, {0: 0, 1: 0}
    for draw in range(80):
        rows = repeated_rows(table, draws, draw)
        for k in range(4):
            targets, scores = table.targets_NK[rows, k], table.scores_NK[rows, k]
            if len(set(targets)) < 2:
                lost[int(targets[0])] += 1
                assert math.isnan(auroc_KB[k, draw])
                assert math.isnan(precision_KB[k, draw])
                continue
            compared += 1
            auroc, precision = (
                roc_auc_score(targets, scores),
                average_precision_score(targets, scores),
            )
            assert auroc_KB[k, draw] == pytest.approx(auroc, abs=1e-12)
            assert precision_KB[k, draw] == pytest.approx(precision, abs=1e-12)
    assert compared > 150
    assert min(lost.values()) >= 1


def test_draws_in_blocks_equal_draws_at_once(monkeypatch):
    table = clustered_table(seed=3)
    counts = patient_draws(table.patient_ids_N, draws=50).counts_of(table.patient_ids_N)
    whole = label_draws(table.targets_NK, table.scores_NK, counts)
    monkeypatch.setattr("notetune.metrics.intervals._CELLS_AT_ONCE", 7 * len(counts))
    for in_blocks, at_once in zip(
        label_draws(table.targets_NK, table.scores_NK, counts), whole, strict=True
    ):
        np.testing.assert_array_equal(in_blocks, at_once)


def test_macro_replicates_average_the_labels_that_a_draw_defines():
    table = clustered_table(seed=1)
    draws = patient_draws(table.patient_ids_N, draws=60, seed=2)
    replicates = ranking_replicates(table, draws, np.array([True, False, True]))
    auroc_KB, precision_KB = label_draws(
        table.targets_NK, table.scores_NK, draws.counts_of(table.patient_ids_N)
    )
    assert np.isnan(auroc_KB[2]).any()
    np.testing.assert_allclose(replicates.auroc.draws_B, np.nanmean(auroc_KB[[0, 2]], axis=0))
    precision_B = np.nanmean(precision_KB[[0, 2]], axis=0)
    np.testing.assert_allclose(replicates.average_precision.draws_B, precision_B)
    by_label = [auroc_score(table.targets_NK[:, k], table.scores_NK[:, k]) for k in (0, 2)]
    assert replicates.auroc.value == pytest.approx(np.mean(by_label))
    assert replicates.auroc.estimate().n == len(set(table.patient_ids_N.tolist()))


def test_replicates_of_a_mean_equal_the_mean_of_the_repeated_notes():
    table = clustered_table(seed=5)
    draws = patient_draws(table.patient_ids_N, draws=40)
    values = np.random.default_rng(0).random(len(table.note_ids_N))
    replicates = mean_replicates(table, values, draws)
    literal = [values[repeated_rows(table, draws, draw)].mean() for draw in range(40)]
    np.testing.assert_allclose(replicates.draws_B, literal)
    assert replicates.value == values.mean()


def test_tables_on_some_of_the_patients_use_their_share_of_the_draws():
    table = clustered_table(seed=6)
    others = patient_names(range(100, 140))
    draws = patient_draws(np.concatenate([table.patient_ids_N, others]), draws=30)
    counts = draws.counts_of(table.patient_ids_N)
    for patient in set(table.patient_ids_N.tolist()):
        of_patient = counts[table.patient_ids_N == patient]
        assert (of_patient == of_patient[0]).all()
        row = draws.patient_ids_P.tolist().index(patient)
        np.testing.assert_array_equal(of_patient[0], draws.counts_PB[row])
    with pytest.raises(DataError, match="40 of 40 notes belong to patients outside"):
        patient_draws(table.patient_ids_N, draws=5).counts_of(others)


def simulated_covers(seed, patients=80, notes_each=2, true_auroc=0.75, draws=200):
    """Whether the interval covers, with notes of one patient alike in outcome and score."""
    generator = np.random.default_rng(seed)
    targets = np.repeat(generator.random(patients) < 0.35, notes_each)
    of_patient = np.repeat(generator.normal(size=patients), notes_each)
    noise = 0.8 * of_patient + 0.6 * generator.normal(size=targets.size)
    separation = math.sqrt(2) * norm.ppf(true_auroc)
    table = ScoreTable(
        task="t",
        kind="binary",
        model="m",
        seed=0,
        split="test",
        classes=("yes",),
        note_ids_N=np.arange(targets.size).astype(str),
        patient_ids_N=patient_names(np.repeat(np.arange(patients), notes_each)),
        targets_NK=targets[:, None],
        scores_NK=norm.cdf(noise + separation * targets)[:, None],
    )
    resampled = patient_draws(table.patient_ids_N, draws, seed)
    estimate = ranking_replicates(table, resampled, np.array([True])).auroc.estimate()
    return estimate.contains(true_auroc)


def test_patient_intervals_cover_the_truth_at_their_nominal_rate():
    covered = [simulated_covers(seed) for seed in range(500)]
    assert 0.92 <= np.mean(covered) <= 0.97


def test_an_interval_holds_the_middle_95_percent_of_the_defined_draws():
    draws_B = np.r_[np.arange(1001) / 1000, [np.nan] * 7]
    estimate = Replicates(0.4, draws_B, patients=9).estimate()
    assert (estimate.value, estimate.n) == (0.4, 9)
    assert (estimate.low, estimate.high) == (pytest.approx(0.025), pytest.approx(0.975))
    with pytest.raises(DataError, match="no bootstrap draw has both classes"):
        Replicates(0.4, np.full(3, np.nan), patients=9).estimate()


def test_differences_and_averages_are_taken_draw_by_draw():
    one = Replicates(0.8, np.array([0.7, 0.9, np.nan]), patients=5)
    two = Replicates(0.6, np.array([0.6, 0.5, 0.4]), patients=5)
    difference, mean = one.minus(two), average([one, two])
    assert difference.value == pytest.approx(0.2)
    np.testing.assert_allclose(difference.draws_B, [0.1, 0.4, np.nan])
    assert (mean.value, mean.patients) == (pytest.approx(0.7), 5)
    np.testing.assert_allclose(mean.draws_B, [0.65, 0.7, np.nan])
    assert average([one, two], patients=12).patients == 12


@pytest.mark.parametrize(
    ("draws", "p_value"),
    [
        ([0.1] * 99, 2 * 1 / 100),
        ([-0.1] * 3 + [0.1] * 96, 2 * 4 / 100),
        ([-0.1] * 96 + [0.1] * 3, 2 * 4 / 100),
        ([0.0] * 99, 1.0),
        ([-0.1, 0.1, 0.1, np.nan], 2 * 2 / 4),
    ],
)
def test_the_p_value_counts_the_smaller_side_and_is_never_zero(draws, p_value):
    assert Replicates(0.1, np.array(draws), patients=5).p_value() == pytest.approx(p_value)


def delong_by_definition(labels, scores_MN):
    """Structural components by comparing every pair, O(n^2)."""
    wins = [
        (s[labels][:, None] > s[~labels]) + 0.5 * (s[labels][:, None] == s[~labels])
        for s in scores_MN
    ]
    of_positives = np.array([w.mean(axis=1) for w in wins])
    of_negatives = np.array([w.mean(axis=0) for w in wins])
    covariance = (
        np.cov(of_positives) / of_positives.shape[1] + np.cov(of_negatives) / of_negatives.shape[1]
    )
    return of_positives.mean(axis=1), np.atleast_2d(covariance)


@given(st.integers(0, 10_000), st.integers(4, 40), st.integers(1, 4), st.integers(2, 10))
def test_delong_equals_its_definition_with_many_ties(seed, notes, models, levels):
    generator = np.random.default_rng(seed)
    labels = generator.random(notes) < 0.5
    labels[:2], labels[2:4] = True, False
    scores = generator.integers(0, levels, (models, notes))
    aurocs, covariance = delong_covariance(labels, scores)
    expected_aurocs, expected_covariance = delong_by_definition(labels, scores)
    np.testing.assert_allclose(aurocs, expected_aurocs, atol=1e-12)
    np.testing.assert_allclose(covariance, expected_covariance, atol=1e-12)


def hanley_mcneil_variance(auroc, positives, negatives):
    """Hanley and McNeil (1982), with their exponential approximation."""
    both_positive, both_negative = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    return (
        auroc * (1 - auroc)
        + (positives - 1) * (both_positive - auroc**2)
        + (negatives - 1) * (both_negative - auroc**2)
    ) / (positives * negatives)


def test_delong_hanley_mcneil_and_the_bootstrap_agree_on_independent_notes():
    generator = np.random.default_rng(8)
    labels = generator.random(600) < 0.3
    scores = generator.normal(size=600) + labels
    estimate = delong_estimate(labels, scores)
    error = (estimate.high - estimate.low) / (2 * norm.ppf(0.975))
    variance = hanley_mcneil_variance(estimate.value, labels.sum(), (~labels).sum())
    assert error == pytest.approx(math.sqrt(variance), rel=0.1)
    assert (estimate.value, estimate.n) == (pytest.approx(roc_auc_score(labels, scores)), 600)
    counts = patient_draws(patient_names(range(600)), draws=2_000).counts_PB
    auroc_KB, _ = label_draws(labels[:, None].astype(np.int8), scores[:, None], counts)
    assert error == pytest.approx(auroc_KB.std(), rel=0.1)


def test_paired_delong_agrees_with_the_paired_bootstrap():
    generator = np.random.default_rng(9)
    labels = generator.random(500) < 0.4
    shared = generator.normal(size=500)
    good, poor = (shared + generator.normal(size=500) * 0.5 + labels * d for d in (1.3, 1.0))
    estimate, p_value = delong_difference(labels, good, poor)
    counts = patient_draws(patient_names(range(500)), draws=2_000).counts_PB
    targets = np.column_stack([labels, labels]).astype(np.int8)
    auroc_KB, _ = label_draws(targets, np.column_stack([good, poor]), counts)
    paired = Replicates(estimate.value, auroc_KB[0] - auroc_KB[1], 500)
    assert estimate.low == pytest.approx(paired.estimate().low, abs=0.006)
    assert estimate.high == pytest.approx(paired.estimate().high, abs=0.006)
    assert p_value == pytest.approx(paired.p_value(), abs=0.01)


def test_a_model_does_not_differ_from_itself():
    labels, scores = [0, 0, 1, 1, 1], [0.1, 0.5, 0.4, 0.8, 0.9]
    estimate, p_value = delong_difference(labels, scores, scores)
    assert (estimate.value, estimate.low, estimate.high, p_value) == (0, 0, 0, 1)


def test_an_interval_that_cannot_be_is_refused():
    with pytest.raises(DataError, match="found 1 positives and 3 negatives"):
        delong_estimate([1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(DataError, match="at least 2 of them; found 1"):
        patient_draws(np.array(["p1", "p1"]))


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_draws_are_a_value_that_keeps_bytes_small():
    draws = patient_draws(patient_names(range(10)), draws=100)
    assert isinstance(draws, PatientDraws)
    assert draws.counts_PB.nbytes == 1_000
