"""Models against models, from score tables to the results of a study."""

from dataclasses import replace

import numpy as np
import pytest
from scored_tables import FIXED, NOTES, PATIENTS, STRENGTH, compare, few, score_table, tables_of
from sklearn.metrics import average_precision_score, roc_auc_score

from notetune.errors import DataError
from notetune.metrics.comparison import compare_study
from notetune.metrics.questions import Pair, Questions
from notetune.metrics.uncertainty import ModelRuns


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_rows_hold_the_macro_auroc_of_scikit_learn_for_each_model_in_order(kind):
    tables = tables_of(kind=kind)
    result = compare(tables)
    assert [row.model for row in result.rows] == list(STRENGTH)
    assert (result.labels_evaluated, result.labels_skipped) == (len(tables[0].classes), 0)
    assert (result.notes, result.patients) == (NOTES, len(set(PATIENTS.tolist())))
    for row, table in zip(result.rows, tables, strict=True):
        expected = roc_auc_score(table.targets_NK, table.scores_NK, average="macro")
        assert row.auroc.value == pytest.approx(expected, abs=1e-12)
        assert row.auroc.low <= row.auroc.value <= row.auroc.high
        assert row.auroc_per_run == (pytest.approx(expected),)
        assert row.auroc.n == result.patients
        precision = average_precision_score(table.targets_NK, table.scores_NK, average="macro")
        assert row.average_precision == pytest.approx(precision)
        assert (row.average_precision_interval is None) == (kind == "multilabel")
        micro = roc_auc_score(table.targets_NK, table.scores_NK, average="micro")
        assert row.auroc_micro == (pytest.approx(micro) if kind == "multilabel" else None)


def test_a_rare_class_takes_the_interval_of_average_precision():
    table = score_table("tf-idf", kind="multiclass")
    rare = table.targets_NK.copy()
    rare[np.flatnonzero(rare[:, 0])[9:]] = np.eye(rare.shape[1], dtype=np.int8)[1]
    for targets, has_interval in ((table.targets_NK, True), (rare, False)):
        row = compare([replace(table, targets_NK=targets)]).rows[0]
        assert (row.average_precision_interval is not None) == has_interval


def test_brier_is_summed_over_classes_of_one_outcome_and_averaged_over_labels():
    for kind, share in (("binary", 1), ("multiclass", 1), ("multilabel", 5)):
        table = score_table("tf-idf", kind=kind)
        row = compare([table], draws=20).rows[0]
        squares = ((table.scores_NK - table.targets_NK) ** 2).sum() / NOTES
        assert row.brier.value == pytest.approx(squares / share)


def test_runs_are_averaged_and_listed_and_widen_the_interval():
    tables = [score_table("task-lora", seed=run) for run in (0, 1, 2)]
    row = compare(tables, draws=400, runs=()).rows[0]
    aurocs = [roc_auc_score(t.targets_NK[:, 0], t.scores_NK[:, 0]) for t in tables]
    assert row.runs == (0, 1, 2)
    assert row.auroc_per_run == pytest.approx(aurocs)
    assert len(set(aurocs)) == 3
    assert row.auroc.value == pytest.approx(np.mean(aurocs))
    assert row.auroc_all_labels is None
    alone = compare(tables[:1], draws=400, runs=()).rows[0]
    assert not row.is_deterministic
    assert row.auroc.high - row.auroc.low > alone.auroc.high - alone.auroc.low


def test_a_model_far_above_is_best_and_the_others_are_worse():
    places = [row.standing for row in compare(tables_of(), draws=300).rows]
    assert places == ["worse", "worse", "worse", "best"]


def test_a_tie_is_marked_on_every_model_that_shares_it_and_nobody_is_best():
    result = compare(tables_of(("prevalence", "tf-idf", "task-lora")), draws=300)
    assert [row.standing for row in result.rows] == ["worse", "tied", "tied"]


def test_one_model_alone_has_no_standing():
    (row,) = compare(tables_of(("tf-idf",)), draws=20).rows
    assert row.standing is None


def test_comparisons_are_paired_and_holm_adjusted():
    pairs = [("domain+task-lora", "tf-idf"), ("task-lora", "tf-idf")]
    tables = tables_of()
    result = compare(tables, pairs, draws=400)
    sure, unsure = result.primary
    assert (sure.model, sure.against) == pairs[0]
    by_model = {row.model: row.auroc for row in result.rows}
    difference = by_model["domain+task-lora"].value - by_model["tf-idf"].value
    assert sure.difference.value == pytest.approx(difference)
    assert 0 < sure.p_value < 0.0005  # far below what 400 draws could count
    assert sure.p_holm == pytest.approx(2 * sure.p_value)
    assert sure.is_found
    assert unsure.p_holm == unsure.p_value > 0.05
    assert not unsure.is_found
    half_width = (unsure.difference.high - unsure.difference.low) / 2
    assert unsure.detectable > half_width  # 80 % power and two comparisons ask for more
    # Paired: a model and its copy do not differ on any patients.
    copy = replace(tables[1], model="same")
    same = compare(
        [tables[1], copy], [("same", "tf-idf")], runs=(*FIXED, ModelRuns("same", None, True))
    )
    (twice,) = same.primary
    assert (twice.difference.low, twice.difference.high, twice.p_value) == (0, 0, 1)


@pytest.mark.parametrize("count", [1, 3, 6, 7, 9])
def test_a_perfect_model_against_a_constant_one_is_not_tested_however_many_runs_it_has(count):
    constant = score_table("prevalence")
    perfect = [
        replace(score_table("tf-idf", seed), scores_NK=(1 + constant.targets_NK) / 2.0**seed / 2)
        for seed in range(count)
    ]
    pair, fixed = [("tf-idf", "prevalence")], (FIXED[0], ModelRuns("tf-idf", None, count == 1))
    (found,) = compare([*perfect, constant], pair, runs=fixed).primary
    assert (found.difference.value, found.p_value) == (0.5, None)
    assert found.reason == "no draw of patients changes it"


def test_the_same_seed_gives_the_same_result():
    first, second, other = (
        compare(tables_of(), [("task-lora", "tf-idf")], draws=100, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_a_task_with_one_class_is_not_available_and_says_why():
    result = compare(tables_of(lost=True), [("task-lora", "tf-idf")])
    assert (result.labels_evaluated, result.labels_skipped, result.labels_total) == (0, 1, 1)
    assert result.skipped_reason == "1 of 1 labels have one value only in the test split"
    assert len(result.rows) == 4
    for row in result.rows:
        assert row.auroc is None
        assert row.average_precision is None
        assert row.reason == "no label has both values in this split"
        assert row.brier.value > 0
    (asked,) = result.primary
    assert (asked.difference, asked.p_value, asked.is_found) == (None, None, False)
    assert asked.reason == "no label has both values in this split"
    assert result.labels[0].aurocs == dict.fromkeys(STRENGTH)
    assert (result.roc, result.reliability) == ((), ())


def test_a_label_with_one_class_is_skipped_and_the_others_are_averaged():
    tables = tables_of(("tf-idf",), kind="multilabel", lost=True)
    result = compare(tables)
    assert (result.labels_evaluated, result.labels_skipped, result.labels_total) == (4, 1, 5)
    expected = roc_auc_score(tables[0].targets_NK[:, 1:], tables[0].scores_NK[:, 1:])
    assert result.rows[0].auroc.value == pytest.approx(expected)
    assert result.labels[0].positives == 0
    assert result.labels[0].aurocs == {"tf-idf": None}
    labels = [row.aurocs["tf-idf"] for row in result.labels[1:]]
    assert np.mean(labels) == pytest.approx(expected)


def test_binary_tasks_have_thinned_curves_that_keep_their_area():
    result = compare(tables_of(), draws=20)
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
    assert compare(tables_of(kind="multiclass"), draws=20).roc == ()


def test_a_constant_model_has_no_slope_but_an_observed_expected_ratio():
    prevalence, other = compare(tables_of(("prevalence", "tf-idf")), draws=20).rows
    assert prevalence.auroc.value == prevalence.auroc.low == prevalence.auroc.high == 0.5
    assert prevalence.calibration.slope is None
    assert prevalence.calibration.observed_expected > 0
    assert other.calibration.slope > 0


def test_notes_in_another_order_give_the_same_result():
    tables = tables_of()
    shuffled = tables[2].in_note_order(np.random.default_rng(0).permutation(tables[2].note_ids_N))
    moved = [tables[0], tables[1], shuffled, tables[3]]
    assert compare(moved) == compare(tables)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: replace(t, split="holdout"), "its split is not that of"),
        (lambda t: replace(t, model="best-validated"), "no model may be called best-validated"),
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
        compare([first, change(second)], draws=5)


def study_tables(models=tuple(STRENGTH)):
    return [
        *tables_of(models),
        *tables_of(models, task="length-of-stay", kind="multiclass"),
        *tables_of(models, task="codes", kind="multilabel"),
    ]


def test_the_headline_is_the_mean_over_tasks_with_its_own_interval():
    questions = Questions(runs=FIXED)
    tasks, rows = compare_study(study_tables(), questions, draws=200)
    assert [task.task for task in tasks] == ["mortality", "length-of-stay", "codes"]
    assert [row.model for row in rows] == list(STRENGTH)
    for number, row in enumerate(rows):
        of_tasks = [task.rows[number].auroc for task in tasks]
        assert row.auroc.value == pytest.approx(np.mean([auroc.value for auroc in of_tasks]))
        assert row.tasks == ("mortality", "length-of-stay", "codes")
    widths = [task.rows[1].auroc.high - task.rows[1].auroc.low for task in tasks]
    assert rows[1].auroc.high - rows[1].auroc.low < max(widths)
    assert [row.standing for row in rows] == ["worse", "worse", "worse", "best"]


def test_the_headline_of_one_task_is_that_of_the_task():
    tasks, rows = compare_study(tables_of(), Questions(runs=FIXED), draws=80, seed=3)
    assert [row.auroc for row in rows] == [row.auroc for row in tasks[0].rows]


def test_perfect_models_of_few_patients_are_not_sure_on_average_either():
    of_tasks = [few(score_table("tf-idf", task=task), 6) for task in ("mortality", "readmission")]
    perfect = [replace(one, scores_NK=0.2 + 0.5 * one.targets_NK) for one in of_tasks]
    constant = [few(score_table("prevalence", task=one.task), 6) for one in of_tasks]
    tasks, (row, always_half) = compare_study([*perfect, *constant], draws=200)
    assert row.auroc.value == row.auroc.high == 1
    alone = tasks[0].rows[0].auroc
    assert alone.low < row.auroc.low < 0.95
    assert (always_half.auroc.low, always_half.auroc.high) == (0.5, 0.5)


def test_a_headline_of_tasks_that_cannot_be_judged_says_why():
    tables = [few(table, 3) for table in tables_of()]
    lost = tables_of(task="readmission", lost=True)
    for given, why in (
        (tables, "too few: 3 patients"),
        ([*tables, *lost], "too few: 3 patients; no label has both values in this split"),
    ):
        _, rows = compare_study(given, draws=50)
        assert [row.reason for row in rows] == [why] * 4


def test_what_was_declared_of_one_task_is_exploratory_on_the_others():
    pair = ("task-lora", "tf-idf")
    asked = Questions((Pair(*pair, task="mortality"),), exploratory=(Pair(*pair),), runs=FIXED)
    tables = [*tables_of(), *tables_of(task="readmission")]
    tasks, _ = compare_study(tables, asked, draws=50)
    assert [(len(t.primary), len(t.exploratory)) for t in tasks] == [(1, 0), (0, 1)]


def test_a_model_without_a_task_has_no_headline_and_a_lost_task_counts_for_nobody():
    tables = [*study_tables(), *tables_of(task="readmission", lost=True)]
    tables = [t for t in tables if (t.model, t.task) != ("task-lora", "codes")]
    questions = Questions(
        primary=(Pair("task-lora", "tf-idf"),), exploratory=(Pair("tf-idf", "bert"),), runs=FIXED
    )
    tasks, rows = compare_study(tables, questions, draws=60)
    assert len(tasks) == 4
    assert [task.primary[0].reason for task in tasks] == [
        None,
        None,
        "no scores of task-lora",
        "no label has both values in this split",
    ]
    tested = [task.primary[0] for task in tasks[:2]]
    smaller = min(item.p_value for item in tested)
    assert min(item.p_holm for item in tested) == pytest.approx(min(1, 4 * smaller))
    assert [task.exploratory[0].reason for task in tasks] == ["no scores of bert"] * 4
    of_model = {row.model: row for row in rows}
    assert of_model["task-lora"].auroc is None
    assert of_model["task-lora"].reason == "no scores on codes"
    assert of_model["tf-idf"].tasks == ("mortality", "length-of-stay", "codes")
    assert of_model["tf-idf"].auroc is not None


def test_a_run_of_the_headline_is_the_same_run_on_every_task():
    tables = [
        score_table(model, seed=run, task=task)
        for task in ("mortality", "readmission")
        for model in ("tf-idf", "task-lora")
        for run in (range(3) if model == "task-lora" else [0])
    ]
    tasks, rows = compare_study(tables, Questions(runs=FIXED[:2]), draws=100)
    per_run = np.mean([task.rows[1].auroc_per_run for task in tasks], axis=0)
    assert len(per_run) == 3
    assert rows[1].auroc.value == pytest.approx(per_run.mean())


def test_nothing_in_gives_nothing_out():
    assert compare_study([]) == ((), ())
