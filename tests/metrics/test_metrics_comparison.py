from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from notetune.errors import DataError
from notetune.metrics.comparison import compare_models, compare_study, headline
from notetune.metrics.scores import ScoreTable

NOTES = 240
PATIENTS = np.array([f"p{i:03d}" for i in np.random.default_rng(7).integers(0, 150, NOTES)])
STRENGTH = {"prevalence": 0.0, "tf-idf": 0.8, "task-lora": 0.9, "domain+task-lora": 6.0}


def score_table(model, seed=0, task="mortality", kind="binary", strength=None, lost=False):
    """One model's table; the targets depend on the task only."""
    classes = {
        "binary": ("died",),
        "multiclass": ("a", "b", "c", "d"),
        "multilabel": tuple("vwxyz"),
    }
    labels = len(classes[kind])
    of_task = np.random.default_rng(len(task))
    risk = of_task.normal(size=(NOTES, labels))
    targets = (of_task.random(risk.shape) < expit(1.5 * risk - 1)).astype(np.int8)
    if lost:
        targets[:, 0] = 0
    strength = STRENGTH[model] if strength is None else strength
    noise = np.random.default_rng([len(task), len(model), seed]).normal(size=risk.shape)
    scores = expit(strength * risk + (noise if strength else 0) - 1)
    if kind == "multiclass":
        targets = np.eye(labels, dtype=np.int8)[(risk + of_task.gumbel(size=risk.shape)).argmax(1)]
        scores /= scores.sum(axis=1, keepdims=True)
    return ScoreTable(
        task=task,
        kind=kind,
        model=model,
        seed=seed,
        split="test",
        classes=classes[kind],
        note_ids_N=np.array([f"n{i:03d}" for i in range(NOTES)]),
        patient_ids_N=PATIENTS,
        targets_NK=targets,
        scores_NK=scores,
    )


def tables_of(models=tuple(STRENGTH), **changes):
    return [score_table(model, **changes) for model in models]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_rows_hold_the_macro_auroc_of_scikit_learn_for_each_model_in_order(kind):
    tables = tables_of(kind=kind)
    result = compare_models(tables, draws=50)
    assert [row.model for row in result.rows] == list(STRENGTH)
    assert (result.labels_evaluated, result.labels_skipped) == (len(tables[0].classes), 0)
    assert (result.notes, result.patients) == (NOTES, len(set(PATIENTS.tolist())))
    for row, table in zip(result.rows, tables, strict=True):
        expected = roc_auc_score(table.targets_NK, table.scores_NK, average="macro")
        assert row.auroc.value == pytest.approx(expected, abs=1e-12)
        assert row.auroc.low <= row.auroc.value <= row.auroc.high
        assert row.auroc_per_seed == (pytest.approx(expected),)
        assert row.auroc.n == result.patients
        precision = average_precision_score(table.targets_NK, table.scores_NK, average="macro")
        assert row.average_precision == pytest.approx(precision)
        assert (row.average_precision_interval is None) == (kind == "multilabel")
        micro = roc_auc_score(table.targets_NK, table.scores_NK, average="micro")
        assert row.auroc_micro == (pytest.approx(micro) if kind == "multilabel" else None)


def test_brier_is_summed_over_classes_of_one_outcome_and_averaged_over_labels():
    for kind, share in (("binary", 1), ("multiclass", 1), ("multilabel", 5)):
        table = score_table("tf-idf", kind=kind)
        row = compare_models([table], draws=20).rows[0]
        squares = ((table.scores_NK - table.targets_NK) ** 2).sum() / NOTES
        assert row.brier.value == pytest.approx(squares / share)


def test_seeds_are_averaged_and_listed():
    tables = [score_table("task-lora", seed=seed) for seed in (13, 17, 23)]
    row = compare_models(tables, draws=50).rows[0]
    aurocs = [roc_auc_score(t.targets_NK[:, 0], t.scores_NK[:, 0]) for t in tables]
    assert row.seeds == (13, 17, 23)
    assert row.auroc_per_seed == pytest.approx(aurocs)
    assert len(set(aurocs)) == 3
    assert row.auroc.value == pytest.approx(np.mean(aurocs))


def test_only_a_model_that_is_distinguishable_from_all_others_is_best():
    result = compare_models(tables_of(), draws=300)
    assert [row.is_best for row in result.rows] == [False, False, False, True]
    assert not any(row.ties_with_best for row in result.rows)


def test_a_tie_is_marked_on_every_model_that_shares_it_and_nobody_is_best():
    result = compare_models(tables_of(("prevalence", "tf-idf", "task-lora")), draws=300)
    assert not any(row.is_best for row in result.rows)
    assert [row.ties_with_best for row in result.rows] == [False, True, True]


def test_one_model_alone_is_neither_best_nor_tied():
    (row,) = compare_models(tables_of(("tf-idf",)), draws=20).rows
    assert (row.is_best, row.ties_with_best) == (False, False)


def test_comparisons_are_paired_and_holm_adjusted():
    references = [("domain+task-lora", "tf-idf"), ("task-lora", "tf-idf")]
    tables = tables_of()
    result = compare_models(tables, references, draws=400)
    sure, unsure = result.comparisons
    assert (sure.model, sure.against) == references[0]
    by_model = {row.model: row.auroc for row in result.rows}
    difference = by_model["domain+task-lora"].value - by_model["tf-idf"].value
    assert sure.difference.value == pytest.approx(difference)
    assert sure.p_value == pytest.approx(2 / 401)
    assert sure.p_holm == pytest.approx(4 / 401)
    assert unsure.p_holm == unsure.p_value > 0.05
    # Paired: far narrower than if the two intervals were independent.
    twice = compare_models([tables[1], replace(tables[1], model="same")], [("same", "tf-idf")])
    assert (twice.comparisons[0].difference.low, twice.comparisons[0].difference.high) == (0, 0)


def test_the_same_seed_gives_the_same_result():
    first, second, other = (
        compare_models(tables_of(), [("task-lora", "tf-idf")], draws=100, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_a_task_with_one_class_is_not_available_and_says_why():
    result = compare_models(tables_of(lost=True), [("task-lora", "tf-idf")], draws=50)
    assert (result.labels_evaluated, result.labels_skipped, result.labels_total) == (0, 1, 1)
    assert result.skipped_reason == "1 of 1 labels have one value only in the test split"
    assert len(result.rows) == 4
    for row in result.rows:
        assert row.auroc is None
        assert row.average_precision is None
        assert row.reason == "no label has both values in this split"
        assert row.brier.value > 0
    assert result.comparisons[0].difference is None
    assert result.labels[0].aurocs == dict.fromkeys(STRENGTH)
    assert (result.roc, result.reliability) == ((), ())


def test_a_label_with_one_class_is_skipped_and_the_others_are_averaged():
    tables = tables_of(("tf-idf",), kind="multilabel", lost=True)
    result = compare_models(tables, draws=50)
    assert (result.labels_evaluated, result.labels_skipped, result.labels_total) == (4, 1, 5)
    expected = roc_auc_score(tables[0].targets_NK[:, 1:], tables[0].scores_NK[:, 1:])
    assert result.rows[0].auroc.value == pytest.approx(expected)
    assert result.labels[0].positives == 0
    assert result.labels[0].aurocs == {"tf-idf": None}
    labels = [row.aurocs["tf-idf"] for row in result.labels[1:]]
    assert np.mean(labels) == pytest.approx(expected)


def test_binary_tasks_have_thinned_curves_that_keep_their_area():
    result = compare_models(tables_of(), draws=20)
    assert len(result.roc) == len(result.reliability) == 4
    for curve, row in zip(result.roc, result.rows, strict=True):
        false, true = np.array(curve.false_positive_rates), np.array(curve.true_positive_rates)
        assert len(false) == len(true) <= 200
        assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
        assert np.trapezoid(true, false) == pytest.approx(row.auroc.value, abs=0.01)
    for bins in result.reliability:
        assert sum(bins.counts) == NOTES
        positives = result.labels[0].positives
        assert np.dot(bins.counts, bins.observed) == pytest.approx(positives, abs=0.01)
        in_order = zip(bins.low, bins.observed, bins.high, strict=True)
        assert all(low <= observed <= high for low, observed, high in in_order)
    assert compare_models(tables_of(kind="multiclass"), draws=20).roc == ()


def test_a_constant_model_has_no_slope_but_an_observed_expected_ratio():
    prevalence, other = compare_models(tables_of(("prevalence", "tf-idf")), draws=20).rows
    assert prevalence.auroc.value == prevalence.auroc.low == prevalence.auroc.high == 0.5
    assert prevalence.calibration.slope is None
    assert prevalence.calibration.observed_expected > 0
    assert other.calibration.slope > 0


def test_notes_in_another_order_give_the_same_result():
    tables = tables_of()
    shuffled = tables[2].in_note_order(np.random.default_rng(0).permutation(tables[2].note_ids_N))
    moved = [tables[0], tables[1], shuffled, tables[3]]
    assert compare_models(moved, draws=50) == compare_models(tables, draws=50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: replace(t, task="other"), "its task is not that of"),
        (lambda t: replace(t, split="validation"), "its split is not that of"),
        (lambda t: replace(t, classes=("alive",)), "its classes is not that of"),
        (lambda t: replace(t, targets_NK=1 - t.targets_NK), "240 values of targets_NK differ"),
        (lambda t: replace(t, patient_ids_N=PATIENTS[::-1]), "values of patient_ids_N differ"),
        (lambda t: replace(t, note_ids_N=np.char.add(t.note_ids_N, "x")), "240 of 240 notes are m"),
        (lambda t: replace(t, model="prevalence"), "given twice"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(change, message):
    first, second = tables_of(("prevalence", "tf-idf"))
    with pytest.raises(DataError, match=message):
        compare_models([first, change(second)], draws=5)


def test_no_tables_and_unknown_references_are_refused():
    with pytest.raises(DataError, match="there are no score tables"):
        compare_models([])
    with pytest.raises(DataError, match="reference model bert has no scores on mortality; there"):
        compare_models(tables_of(), [("bert", "tf-idf")], draws=5)
    with pytest.raises(DataError, match="reference model bert has no scores on any task"):
        compare_study(tables_of(), [("bert", "tf-idf")], draws=5)


def study_tables(models=tuple(STRENGTH)):
    return [
        *tables_of(models),
        *tables_of(models, task="length-of-stay", kind="multiclass"),
        *tables_of(models, task="codes", kind="multilabel"),
    ]


def test_the_headline_is_the_mean_over_tasks_with_its_own_interval():
    tasks, rows = compare_study(study_tables(), [("task-lora", "tf-idf")], draws=200)
    assert [task.task for task in tasks] == ["mortality", "length-of-stay", "codes"]
    assert [row.model for row in rows] == list(STRENGTH)
    for number, row in enumerate(rows):
        of_tasks = [task.rows[number].auroc for task in tasks]
        assert row.auroc.value == pytest.approx(np.mean([auroc.value for auroc in of_tasks]))
        assert row.tasks == ("mortality", "length-of-stay", "codes")
    widths = [task.rows[1].auroc.high - task.rows[1].auroc.low for task in tasks]
    assert rows[1].auroc.high - rows[1].auroc.low < max(widths)
    assert all(len(task.comparisons) == 1 for task in tasks)


def test_a_study_of_one_task_equals_the_comparison_of_its_models():
    references = [("task-lora", "tf-idf")]
    (task,), rows = compare_study(tables_of(), references, draws=80, seed=3)
    assert task == compare_models(tables_of(), references, draws=80, seed=3)
    assert [row.auroc for row in rows] == [row.auroc for row in task.rows]
    assert rows == headline(tables_of(), draws=80, seed=3)


def test_a_model_without_a_task_has_no_headline_and_a_lost_task_counts_for_nobody():
    tables = [*study_tables(), *tables_of(task="readmission", lost=True)]
    tables = [t for t in tables if (t.model, t.task) != ("task-lora", "codes")]
    references = [("task-lora", "tf-idf")]
    tasks, rows = compare_study(tables, references, draws=60)
    assert len(tasks) == 4
    assert [len(task.comparisons) for task in tasks] == [1, 1, 0, 1]
    of_model = {row.model: row for row in rows}
    assert of_model["task-lora"].auroc is None
    assert of_model["task-lora"].reason == "no scores on codes"
    assert of_model["tf-idf"].tasks == ("mortality", "length-of-stay", "codes")
    assert of_model["tf-idf"].auroc is not None


def test_nothing_in_gives_nothing_out():
    assert compare_study([]) == ((), ())
