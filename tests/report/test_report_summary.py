"""The summary names the best model, answers what was asked, and says what cannot be told."""

from dataclasses import replace

import pytest
from report_values import binary_task, estimate, full_results

from notetune.audit import CORPUS
from notetune.metrics.bootstrap import Estimate
from notetune.report.summary import summary

MINUS = "\N{MINUS SIGN}"


def statements(results):
    return {item.about: item.text for item in summary(results)}


def test_the_summary_names_the_best_model_and_answers_what_was_asked():
    said = statements(full_results())
    assert list(said) == [
        *("Does a language model beat TF-IDF?", "Other declared comparisons", "All tasks"),
        *("mortality", "diagnoses", "readmission"),
        *("Baselines", "Perplexity", "Leakage", "Notice"),
    ]
    assert said["All tasks"] == (
        "Averaged over 2 tasks, task-lora is best: AUROC 0.680 [0.628, 0.722]; every other model "
        "is worse."
    )
    assert said["Does a language model beat TF-IDF?"] == (
        "best-validated against tf-idf: mortality yes, by +0.123 [+0.046, +0.199]."
    )
    assert said["readmission"].startswith("No model can be judged: 1 of 1 labels have one value")
    assert said["Perplexity"] == ("Perplexity on test notes fell: 9.877 before, 5.432 after.")
    assert "near-duplicate text between train and test (17 notes)" in said["Leakage"]


def test_what_leak_checks_found_is_told_but_for_what_step_1_left_out():
    (blocking,) = full_results().leakage
    twins = replace(blocking, check="same text", count=15, blocks=False)
    dropped = replace(twins, split_a="validation and test notes", split_b=CORPUS)
    said = statements(full_results(leakage=(twins, dropped)))["Leakage"]
    assert said.startswith("No leak check found anything that blocks training. Found, though it")
    assert "same text: 15 notes of test in train" in said
    assert CORPUS not in said
    both = statements(full_results(leakage=(blocking, twins)))["Leakage"]
    assert "(17 notes)" in both
    assert "same text: 15 notes of test in train" in both


def test_every_declared_comparison_is_in_the_summary():
    results = full_results()
    said = " ".join(statements(results).values())
    declared = [item for task in results.tasks for item in task.primary]
    assert "" in {item.about for item in declared}
    assert all(f"{item.model} against {item.against}" in said for item in declared)


def test_a_task_that_cannot_be_judged_is_not_one_where_the_baseline_loses():
    task = binary_task()
    rows = tuple(row.model_copy(update={"standing": None}) for row in task.rows)
    few = task.model_copy(update={"task": "rare", "rows": rows, "why_not_judged": "too few"})
    said = statements(full_results(tasks=(task, few), headline=()))
    assert said["Baselines"].startswith("On every task that can be judged prevalence and tf-idf")


def test_the_summary_says_when_nobody_is_best_and_when_the_baseline_ties():
    tied = ("tf-idf", "task-lora")
    said = statements(full_results(tasks=(binary_task(tied=tied),), headline=()))
    assert said["mortality"] == (
        "task-lora has the highest AUROC 0.747 [0.696, 0.789]; tf-idf cannot be told from it."
    )
    assert said["Baselines"] == "tf-idf cannot be told from the best model on mortality."


def test_the_summary_says_when_the_baseline_wins_or_loses():
    lost = statements(full_results(tasks=(binary_task(),), headline=()))
    assert lost["Baselines"] == "On every task prevalence and tf-idf are worse than the best model."
    task = binary_task(best="tf-idf")
    better = task.rows[1].model_copy(update={"auroc": estimate(0.9)})
    won = task.model_copy(update={"rows": (task.rows[0], better, task.rows[2])})
    said = statements(full_results(tasks=(won,), headline=()))
    assert said["mortality"].startswith("tf-idf is best: AUROC 0.900")
    assert said["Baselines"] == ("tf-idf is best on mortality: every other model is worse there.")


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"is_found": True}, "yes, by +0.123 [+0.046, +0.199]."),
        (
            {"is_found": True, "difference": Estimate(-0.05, -0.09, -0.01, 9)},
            "no, it is worse: ~0.050 [~0.090, ~0.010].".replace("~", MINUS),
        ),
        (
            {"is_found": False, "p_holm": 0.3},
            "cannot be told among 2 comparisons (p 0.023, corrected 0.300): "
            "+0.123 [+0.046, +0.199].",
        ),
        (
            {"is_found": False, "p_holm": 0.3, "difference": Estimate(0.1, -0.1, 0.2, 9)},
            f"cannot be told: +0.100 [{MINUS}0.100, +0.200]; this test set could have shown 0.172.",
        ),
        (
            {"is_found": False, "p_value": None, "p_holm": None, "reason": "one run of a"},
            "better on these patients, by +0.123 [+0.046, +0.199]; not tested (one run of a).",
        ),
        (
            {
                "is_found": False,
                "p_value": None,
                "reason": "one run",
                "difference": Estimate(0.1, -0.1, 0.2, 9),
            },
            "cannot be told (one run); on these patients the difference is "
            "+0.100 [~0.100, +0.200].".replace("~", MINUS),
        ),
        (
            {"is_found": False, "p_value": None, "difference": Estimate(0, 0, 0, 9)},
            "no difference: both rank these patients alike.",
        ),
        (
            {"is_found": False, "difference": None, "reason": "too few: 4 patients have it"},
            "cannot be told: too few: 4 patients have it.",
        ),
    ],
)
def test_the_summary_says_whether_adapting_to_the_notes_helped(change, answer):
    task = binary_task()
    asked = task.primary[0].model_copy(
        update={
            "model": "domain-frozen",
            "against": "head-only",
            "about": "domain adapter",
            "chosen": {},
            **change,
        }
    )
    tested = task.model_copy(update={"primary": (asked,)})
    said = statements(full_results(tasks=(tested,), headline=()))
    question = "Did adapting to the notes help?"
    assert said[question] == f"domain-frozen against head-only: mortality {answer}"
    other = asked.model_copy(update={"model": "domain-trainable"})
    both = task.model_copy(update={"primary": (asked, other)})
    said = statements(full_results(tasks=(both,), headline=()))
    assert f"mortality (domain-trainable against head-only) {answer}" in said[question]


def test_a_baseline_that_leads_is_not_told_from_itself():
    task = binary_task(tied=("tf-idf", "task-lora"))
    higher = task.rows[1].model_copy(update={"auroc": estimate(0.9)})
    led = task.model_copy(update={"rows": (task.rows[0], higher, task.rows[2])})
    said = statements(full_results(tasks=(led,), headline=()))
    assert said["Baselines"] == "tf-idf has the highest AUROC on mortality."


def test_many_rivals_are_counted():
    task = binary_task(tied=("tf-idf", "task-lora"))
    more = tuple(task.rows[1].model_copy(update={"model": f"m{n}"}) for n in range(6))
    changed = task.model_copy(update={"rows": (*task.rows, *more)})
    said = statements(full_results(tasks=(changed,), headline=()))
    assert "; tf-idf, m0, m1 and 4 others cannot be told from it." in said["mortality"]
