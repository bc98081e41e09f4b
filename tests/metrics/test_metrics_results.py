import json
import math

import pytest
from pydantic import ValidationError
from report_values import read_results

from notetune.audit import FlowCount
from notetune.errors import DataError
from notetune.metrics.bootstrap import Estimate
from notetune.metrics.results import (
    CurvePoint,
    HeadlineRow,
    PerplexityRow,
    Results,
    TaskResult,
)
from notetune.storage import write_json


def results(**changes):
    values = {
        "title": "A study",
        "created": "2026-01-02 03:04",
        "recipe": {"optim": {"peak_lr": 3e-4, "tags": ["a", None]}},
        "seeds": (13, 17),
        "flow": (FlowCount(stage="admissions", read=10, kept=7, rejected={"newborn": 3}),),
        "learning_curves": {"domain": (CurvePoint(step=1, loss=2.5, learning_rate=1e-5),)},
        "headline": (
            HeadlineRow(model="m", tasks=("t",), auroc=Estimate(1 / 3, 0.1, 0.7, 12)),
            HeadlineRow(model="n", tasks=("t",), auroc=None, reason="no scores on t"),
        ),
    }
    return Results(**values | changes)


def test_results_come_back_from_json_unchanged(tmp_path):
    value = results()
    write_json(tmp_path / "report.json", value)
    back = read_results(tmp_path / "report.json")
    assert back == value
    assert back.headline[0].auroc == Estimate(1 / 3, 0.1, 0.7, 12)
    assert json.loads((tmp_path / "report.json").read_text())["format"] == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: FlowCount(stage="s", read=10, kept=7, rejected={"newborn": 2}),
        lambda: PerplexityRow(
            method="m", split="s", source="r", perplexity=math.nan, bits_per_byte=1, tokens=1
        ),
        lambda: results(note="free text"),
        lambda: TaskResult(
            task="t",
            kind="binary",
            split="test",
            notes=1,
            patients=1,
            labels_evaluated=1,
            labels_skipped=1,
            labels_total=1,
            skipped_reason=None,
            rows=(),
        ),
    ],
    ids=["flow does not add up", "nan", "unknown key", "labels do not add up"],
)
def test_values_that_do_not_add_up_are_refused(make):
    with pytest.raises((ValidationError, DataError)):
        make()


def test_a_file_of_another_kind_is_refused_without_what_it_holds(tmp_path):
    path = tmp_path / "report.json"
    write_json(path, results())
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"format": 2}))
    with pytest.raises(ValidationError, match="Input should be 1"):
        read_results(path)
    path.write_text(json.dumps(data | {"canary": "some text"}))
    with pytest.raises(ValidationError, match="Extra inputs are not permitted") as refusal:
        read_results(path)
    assert "some text" not in str(refusal.value)
