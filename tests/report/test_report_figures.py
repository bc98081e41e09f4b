"""What figures show, and which ones there are not."""

import warnings

from report_values import binary_task, full_results

from notetune.metrics.results import RocPoints
from notetune.report.figures import headline_figure, roc_figure


def test_a_mean_is_shown_of_several_tasks_alone():
    assert "over 2 tasks" in headline_figure(full_results()).caption
    rows = tuple(
        row.model_copy(update={"tasks": ("mortality",)}) for row in full_results().headline
    )
    assert headline_figure(full_results(headline=rows)) is None
    assert headline_figure(full_results(headline=())) is None


def test_models_that_score_all_notes_alike_need_no_legend():
    flat = RocPoints(model="flat", false_positive_rates=(0, 1), true_positive_rates=(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "<svg" in roc_figure(binary_task().model_copy(update={"roc": (flat,)})).svg
