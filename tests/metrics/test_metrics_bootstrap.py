import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from notetune.errors import DataError
from notetune.metrics.bootstrap import (
    PatientDraws,
    Replicates,
    auroc_draws,
    auroc_replicates,
    average,
    mean_replicates,
    patient_draws,
    placements,
    precision_draws,
    precision_replicates,
)
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
    counts = draws.counts_of(table.patient_ids_N)
    precision_KB = precision_draws(table.targets_NK, table.scores_NK, counts)
    placed = placements(table.targets_NK, table.scores_NK)
    auroc_KB = auroc_draws(table.targets_NK, placed, counts)
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
            precision = average_precision_score(targets, scores)
            assert precision_KB[k, draw] == pytest.approx(precision, abs=1e-12)
    assert compared > 150
    assert min(lost.values()) >= 1


def placements_by_definition(labels, scores):
    """By comparing every pair, O(n^2)."""
    wins = (scores[labels][:, None] > scores[~labels]) + 0.5 * (
        scores[labels][:, None] == scores[~labels]
    )
    placed = np.empty(len(scores))
    placed[labels], placed[~labels] = wins.mean(axis=1), wins.mean(axis=0)
    return placed


@given(st.integers(0, 10_000), st.integers(4, 40), st.integers(2, 10))
def test_placements_equal_their_definition_with_many_ties(seed, notes, levels):
    generator = np.random.default_rng(seed)
    labels = generator.random(notes) < 0.5
    labels[:2] = True, False
    scores = generator.integers(0, levels, notes) / levels
    placed = placements(labels[:, None].astype(np.int8), scores[:, None])[:, 0]
    np.testing.assert_allclose(placed, placements_by_definition(labels, scores), atol=1e-12)
    for part in (labels, ~labels):
        assert placed[part].mean() == pytest.approx(roc_auc_score(labels, scores))


def exact_aurocs(labels, scores, counts_NB):
    """AUROC of the repeated notes: every pair times how often both were drawn."""
    wins = (scores[labels][:, None] > scores[~labels]) + 0.5 * (
        scores[labels][:, None] == scores[~labels]
    )
    ups, downs = counts_NB[labels].astype(float), counts_NB[~labels].astype(float)
    return np.einsum("pb,pq,qb->b", ups, wins, downs, optimize=True) / ups.sum(0) / downs.sum(0)


@pytest.mark.parametrize("auroc", [0.65, 0.8, 0.9])
def test_draws_by_placement_spread_as_the_exact_auroc_does(auroc):
    generator = np.random.default_rng(3)
    notes = 3_000
    patients = patient_names(generator.integers(0, 2_300, notes))
    labels = generator.random(notes) < 0.1
    noise = generator.normal(size=notes)
    scores = [noise + generator.normal(size=notes) + 2 * norm.ppf(auroc) * labels for _ in "ab"]
    counts = patient_draws(patients, draws=1_000, seed=1).counts_of(patients)
    targets = labels[:, None].astype(np.int8)
    fast = [auroc_replicates(targets, [one[:, None]], counts) for one in scores]
    exact = [exact_aurocs(labels, one, counts) for one in scores]
    for replicates, exact_B in zip(fast, exact, strict=True):
        assert replicates.draws_B.std() == pytest.approx(exact_B.std(), rel=0.005)
        assert np.corrcoef(replicates.draws_B, exact_B)[0, 1] > 0.999
        for share in (0.025, 0.975):
            low = np.quantile(exact_B, share) - replicates.value
            assert np.quantile(replicates.draws_B, share) - replicates.value == pytest.approx(
                low, abs=0.05 * exact_B.std()
            )
    paired = fast[0].minus(fast[1])
    assert paired.draws_B.std() == pytest.approx((exact[0] - exact[1]).std(), rel=0.005)


def test_the_runs_of_a_model_are_averaged_draw_by_draw():
    tables = [clustered_table(seed=9, notes=200), clustered_table(seed=10, notes=200)]
    targets, scores = tables[0].targets_NK, [table.scores_NK for table in tables]
    counts = patient_draws(tables[0].patient_ids_N, draws=90).counts_of(tables[0].patient_ids_N)
    for replicates in (auroc_replicates, precision_replicates):
        both = replicates(targets, scores, counts)
        one, other = (replicates(targets, [of_run], counts) for of_run in scores)
        assert one.value != other.value
        assert both.value == pytest.approx((one.value + other.value) / 2)
        np.testing.assert_allclose(both.draws_B, (one.draws_B + other.draws_B) / 2, atol=1e-6)


def test_draws_in_blocks_equal_draws_at_once(monkeypatch):
    table = clustered_table(seed=3)
    counts = patient_draws(table.patient_ids_N, draws=50).counts_of(table.patient_ids_N)
    placed = placements(table.targets_NK, table.scores_NK)

    def drawn():
        yield auroc_draws(table.targets_NK, placed, counts)
        yield precision_draws(table.targets_NK, table.scores_NK, counts)

    whole = list(drawn())
    monkeypatch.setattr("notetune.metrics.bootstrap._CELLS_AT_ONCE", 7 * len(counts))
    for in_blocks, at_once in zip(drawn(), whole, strict=True):
        np.testing.assert_allclose(in_blocks, at_once, atol=1e-6)


def test_macro_replicates_average_the_labels_that_a_draw_defines():
    table = clustered_table(seed=1)
    counts = patient_draws(table.patient_ids_N, draws=60, seed=2).counts_of(table.patient_ids_N)
    targets, scores = table.targets_NK[:, [0, 2]], table.scores_NK[:, [0, 2]]
    replicates = auroc_replicates(targets, [scores], counts)
    auroc_KB = auroc_draws(targets, placements(targets, scores), counts)
    assert np.isnan(auroc_KB[1]).any()
    np.testing.assert_allclose(replicates.draws_B, np.nanmean(auroc_KB, axis=0))
    assert replicates.value == pytest.approx(roc_auc_score(targets, scores))


def test_replicates_of_a_mean_equal_the_mean_of_the_repeated_notes():
    table = clustered_table(seed=5)
    draws = patient_draws(table.patient_ids_N, draws=40)
    values = np.random.default_rng(0).random(len(table.note_ids_N))
    replicates = mean_replicates(values, draws.counts_of(table.patient_ids_N))
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


def test_a_statistic_that_no_two_draws_define_has_no_spread():
    assert Replicates(0.4, np.array([0.1, np.nan, 0.3])).variance == pytest.approx(0.02)
    with pytest.raises(DataError, match="no two bootstrap draws have both classes"):
        _ = Replicates(0.4, np.array([0.1, np.nan, np.nan])).variance


def test_differences_and_averages_are_taken_draw_by_draw():
    one = Replicates(0.8, np.array([0.7, 0.9, np.nan]))
    two = Replicates(0.6, np.array([0.6, 0.5, 0.4]))
    difference, mean = one.minus(two), average([one, two])
    assert difference.value == pytest.approx(0.2)
    np.testing.assert_allclose(difference.draws_B, [0.1, 0.4, np.nan])
    assert mean.value == pytest.approx(0.7)
    np.testing.assert_allclose(mean.draws_B, [0.65, 0.7, np.nan])


def delong_variance(labels, scores_MN):
    """Of each AUROC and of the difference of the first two, from the components of every pair."""
    placed = np.array([placements_by_definition(labels, scores) for scores in scores_MN])
    of_positives, of_negatives = placed[:, labels], placed[:, ~labels]
    covariance = np.cov(of_positives) / labels.sum() + np.cov(of_negatives) / (~labels).sum()
    return np.diag(covariance), covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]


def test_the_draws_agree_with_delong_on_independent_notes():
    generator = np.random.default_rng(9)
    labels = generator.random(600) < 0.4
    shared = generator.normal(size=600)
    scores = [shared + generator.normal(size=600) * 0.5 + labels * d for d in (1.3, 1.0)]
    alone, paired = delong_variance(labels, scores)
    counts = patient_draws(patient_names(range(600)), draws=4_000).counts_PB
    drawn = [
        auroc_replicates(labels[:, None].astype(np.int8), [s[:, None]], counts) for s in scores
    ]
    # The variance over 4,000 draws is known to 2.2 %.
    for replicates, variance in zip(drawn, alone, strict=True):
        assert replicates.variance == pytest.approx(variance, rel=0.07)
    assert drawn[0].minus(drawn[1]).variance == pytest.approx(paired, rel=0.07)


def test_draws_of_one_patient_are_refused():
    with pytest.raises(DataError, match="at least 2 of them; found 1"):
        patient_draws(np.array(["p1", "p1"]))


def test_draws_are_a_value_that_keeps_bytes_small():
    draws = patient_draws(patient_names(range(10)), draws=100)
    assert isinstance(draws, PatientDraws)
    assert draws.counts_PB.nbytes == 1_000
