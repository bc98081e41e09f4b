"""Simulated reports are what they are said to be, and committed figures what is demanded."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def rates():
    sys.path.insert(0, str(BENCH))
    try:
        import error_rates
    finally:
        sys.path.remove(str(BENCH))
    return error_rates


def test_simulated_scores_have_the_aurocs_and_correlations_that_they_are_said_to_have(rates):
    study = rates.Study(40_000, 0.1, (0.8, 0.8, 0.7), (0, 0, 1), 2, 0.02, draws=2)
    report = study.report(0)
    first = report.first
    assert first.targets_NK.mean() == pytest.approx(0.1, abs=0.01)
    assert len(first.note_ids_N) / report.patients == pytest.approx(1.32, abs=0.01)
    logits = {}
    for model, truth in zip(report.tables, study.aurocs, strict=True):
        for table in report.tables[model]:
            auroc = roc_auc_score(table.targets_NK, table.scores_NK)
            assert auroc == pytest.approx(truth, abs=0.06)  # runs have SD .02
        negative = first.targets_NK[:, 0] == 0
        odds = report.tables[model][0].scores_NK[negative, 0]
        logits[model] = np.log(odds / (1 - odds))
    correlations = np.corrcoef(list(logits.values()))
    assert correlations[0, 1] == pytest.approx(0.8, abs=0.01)
    assert correlations[0, 2] == pytest.approx(0.5, abs=0.02)
    ids = first.patient_ids_N[negative]
    following = np.flatnonzero(ids[1:] == ids[:-1])
    pairs = logits["model-0"][following], logits["model-0"][following + 1]
    assert np.corrcoef(*pairs)[0, 1] == pytest.approx(0.4, abs=0.03)
    per_run = report.aurocs["model-0"].per_run
    assert per_run[0] != per_run[1]


def test_a_report_depends_on_its_number_only(rates):
    study = rates.Study(300, 0.2, (0.8, 0.8), (0, 1), 2, 0.02, draws=20)
    one, same, other = (study.report(seed).aurocs["model-1"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.mean.draws_B, same.mean.draws_B)
    assert one.per_run == same.per_run != other.per_run


@pytest.mark.parametrize(
    ("question", "notes", "rows"),
    [("equal", 500, 2), ("difference", 2_000, 1), ("intervals", 400, 8)],
)
def test_a_small_simulation_is_within_what_chance_allows(rates, question, notes, rows):
    reports = 30
    ask, _ = rates.QUESTIONS[question]
    found = list(ask(reports, (notes,)))
    assert len(found) == rows
    for row in found:
        assert (row.reports, row.draws) == (reports, 500 if question == "difference" else 1_000)
        match row.question.split()[0]:
            case "ten":
                assert row.figure <= 0.065 + 3 * np.sqrt(0.065 * 0.935 / reports)
            case "interval":
                assert row.figure >= 0.93 - 3 * np.sqrt(0.93 * 0.07 / reports)
            case "width":  # beside a standard deviation that 30 reports know to 13 %
                assert 0.7 < row.figure < 1.7
            case _:  # too few notes to find much
                assert row.figure < 0.5


def test_the_committed_figures_are_those_demanded_of_1000_reports_each(rates):
    with (BENCH / "results/error_rates.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    fields = rates.Row.__dataclass_fields__
    found = [rates.Row(**{name: row[name] for name in fields}) for row in rows]
    assert len(found) == 4 + 1 + 16
    for row in found:
        assert row.reports == "1000"
        kind, _, limit = row.demanded.rpartition(" ")
        above = float(row.figure) - float(limit)
        assert above <= 0 if kind == "at most" else above >= 0
    demanded = {row.demanded for row in found}
    assert demanded == {"at most 0.065", "at least 0.9", "at least 0.93", "at most 1.2"}
