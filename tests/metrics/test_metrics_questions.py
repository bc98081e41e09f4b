"""The best validated model: chosen for each run on the other runs."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from notetune.metrics.comparison import compare_study
from notetune.metrics.names import BEST_VALIDATED
from notetune.metrics.questions import Pair, Questions
from notetune.metrics.scores import ScoreTable
from notetune.metrics.uncertainty import ModelRuns

NOTES = 400
PAIR = Pair(BEST_VALIDATED, "tf-idf")
RUNS = (
    ModelRuns("tf-idf", is_deterministic=True),
    ModelRuns("one", shares="step 1"),
    ModelRuns("two", shares="step 1"),
    ModelRuns("hybrid", is_deterministic=True, is_candidate=False),
)


def table(model, run, split, strength):
    """Scores whose AUROC grows with the strength."""
    of_split = np.random.default_rng(len(split))
    targets = (of_split.random(NOTES) < 0.3).astype(np.int8)
    noise = np.random.default_rng([len(split), len(model), run]).normal(size=NOTES)
    return ScoreTable(
        task="mortality",
        kind="binary",
        model=model,
        seed=run,
        split=split,
        classes=("died",),
        note_ids_N=np.arange(NOTES).astype(str),
        patient_ids_N=(np.arange(NOTES) // 2).astype(str),
        targets_NK=targets[:, None],
        scores_NK=expit(strength * targets + noise)[:, None],
    )


def tables(validation, test=1.0):
    """Test and validation tables from the validation strengths of each model's runs."""
    return [
        table(model, run, split, strength if split == "validation" else test)
        for split in ("test", "validation")
        for model, strengths in validation.items()
        for run, strength in enumerate(strengths)
    ]


def asked(given, runs=RUNS):
    (task,), _ = compare_study(given, Questions(primary=(PAIR,), runs=runs), draws=200)
    (item,) = task.primary
    aurocs = {row.model: row.auroc_per_run for row in task.rows}
    return item, aurocs


def test_each_run_is_chosen_by_the_others_and_judged_by_itself():
    # Without run 0 the means favour two, without run 1 or 2 they favour one.
    given = {"tf-idf": [0.1], "one": [9, 1, 1], "two": [1.3] * 3}
    item, aurocs = asked(tables(given))
    assert item.chosen == {"two": 1, "one": 2}
    expected = [aurocs["two"][0], aurocs["one"][1], aurocs["one"][2]]
    assert item.difference.value == pytest.approx(np.mean(expected) - aurocs["tf-idf"][0])
    assert 0 < item.p_value < 1


def test_the_other_runs_decide_by_their_mean_auroc_on_validation():
    given = tables({"tf-idf": [0.3], "one": [0.5, 1.0, 1.5], "two": [1.5, 1.0, 0.5]})
    item, _ = asked(given)
    aurocs = {
        (t.model, t.seed): roc_auc_score(t.targets_NK, t.scores_NK)
        for t in given
        if t.split == "validation"
    }
    expected = []
    for run in range(3):
        means = {m: np.mean([aurocs[m, r] for r in range(3) if r != run]) for m in ("one", "two")}
        expected.append(max(means, key=means.get))
    assert item.chosen == {model: expected.count(model) for model in dict.fromkeys(expected)}
    assert len(item.chosen) == 2


def test_the_model_that_it_is_held_against_is_not_chosen():
    item, aurocs = asked(tables({"tf-idf": [3.0], "one": [1, 1, 1], "two": [2, 2, 2]}))
    assert item.chosen == {"two": 3}
    expected = np.mean(aurocs["two"]) - aurocs["tf-idf"][0]
    assert item.difference.value == pytest.approx(expected)


def test_a_hybrid_is_not_chosen():
    given = {"tf-idf": [0.1], "one": [1, 1, 1], "two": [2, 2, 2], "hybrid": [9]}
    assert asked(tables(given))[0].chosen == {"two": 3}


def test_models_are_chosen_and_judged_by_the_runs_that_all_have():
    given = tables({"tf-idf": [0.1], "one": [1, 1, 9], "two": [2, 2]})
    item, aurocs = asked(given)
    assert item.chosen == {"two": 2}
    expected = np.mean(aurocs["two"]) - aurocs["tf-idf"][0]
    assert item.difference.value == pytest.approx(expected)
    turned, aurocs = asked(tables({"tf-idf": [0.1], "one": [2, 2, 9], "two": [1, 1]}))
    assert turned.chosen == {"one": 2}
    expected = np.mean(aurocs["one"][:2]) - aurocs["tf-idf"][0]
    assert turned.difference.value == pytest.approx(expected)


def test_a_single_run_beside_several_is_not_chosen_and_named():
    item, _ = asked(tables({"tf-idf": [0.1], "one": [1, 1, 1], "two": [9]}))
    assert (item.chosen, item.left_out) == ({"one": 3}, ("two",))
    assert item.p_value is not None
    given = tables({"tf-idf": [0.1], "one": [1, 1, 1], "two": [9, 9]})
    without = [t for t in given if (t.model, t.seed, t.split) != ("one", 2, "validation")]
    item, _ = asked(without)
    assert (item.chosen, item.left_out) == ({"two": 2}, ("one",))


def test_one_run_chooses_on_itself_and_is_not_tested():
    item, _ = asked(tables({"tf-idf": [0.1], "one": [1], "two": [2]}))
    assert item.chosen == {"two": 1}
    assert (item.p_value, item.is_found) == (None, False)
    assert item.reason == "one run"
    fixed = (RUNS[0], ModelRuns("one", None, True), ModelRuns("two", None, True))
    assert asked(tables({"tf-idf": [0.1], "one": [1], "two": [2]}), fixed)[0].p_value is not None


def test_models_of_one_fixed_run_are_held_against_all_runs_of_another():
    fixed = (ModelRuns("tf-idf", is_candidate=False), ModelRuns("one", None, True))
    given = tables({"tf-idf": [0.1, 0.2, 0.3], "one": [1]})
    item, aurocs = asked(given, fixed)
    (task,), _ = compare_study(given, Questions(primary=(Pair("one", "tf-idf"),), runs=fixed), 200)
    (declared,) = task.primary
    assert item.difference.value == pytest.approx(aurocs["one"][0] - np.mean(aurocs["tf-idf"]))
    assert (item.p_value, item.difference) == (declared.p_value, declared.difference)


def test_without_validation_scores_there_is_no_choice():
    given = [t for t in tables({"tf-idf": [1], "one": [1, 1]}) if t.split == "test"]
    item, _ = asked(given)
    assert item.difference is None
    assert item.reason == "no model that may be chosen has a validation AUROC in each of its runs"
    several = (ModelRuns("tf-idf"), *RUNS[1:])
    fewer = tables({"tf-idf": [1, 1], "one": [1, 1, 1]})
    assert asked(fewer, several)[0].reason == "tf-idf has not all runs"


def test_a_declared_task_is_the_only_one_and_counts_even_if_it_is_not_there():
    pairs = (Pair("one", "tf-idf", "mortality"), Pair("one", "tf-idf", "stay"))
    given = tables({"tf-idf": [0.1], "one": [1, 1, 1]})
    (task,), _ = compare_study(given, Questions(primary=pairs, runs=RUNS), draws=200)
    (item,) = task.primary
    assert item.p_holm == pytest.approx(min(1, 2 * item.p_value))
    assert item.family == 2


def test_a_task_without_scores_counts_in_the_family_of_every_task():
    given = tables({"tf-idf": [0.1], "one": [1, 1, 1]})
    asked_on = Questions((Pair("one", "tf-idf"),), (), RUNS, tasks=("mortality", "stay"))
    (task,), _ = compare_study(given, asked_on, draws=200)
    assert task.primary[0].family == 2
