"""Small results with every part filled in, and results with parts missing."""

import json

from notetune.audit import Finding, FlowCount
from notetune.metrics.bootstrap import Estimate
from notetune.metrics.results import (
    Calibration,
    Comparison,
    Cost,
    CurvePoint,
    Evaluation,
    HeadlineRow,
    KeptState,
    LabelRow,
    ModelRow,
    PerplexityRow,
    ReliabilityPoints,
    Results,
    RocPoints,
    SplitCount,
    TaskResult,
)
from notetune.report.page import report_sections
from notetune.report.table import Table


def read_results(path):
    """What a report.json says."""
    return Results.model_validate(json.loads(path.read_text(encoding="utf-8")))


MODELS = ("prevalence", "tf-idf", "task-lora")


def estimate(value):
    return Estimate(value, value - 0.0511, value + 0.0422, 321)


def standing(model, best, tied):
    if tied:
        return "tied" if model in tied else "worse"
    return "best" if model == best else "worse"


def binary_task(best="task-lora", tied=()):
    rows = tuple(
        ModelRow(
            model=model,
            runs=(0, 1),
            auroc=estimate(0.5 + 0.1234 * place),
            auroc_per_run=(0.51 + 0.1234 * place, 0.49 + 0.1234 * place),
            average_precision=0.2111 + 0.1 * place,
            average_precision_interval=(0.1511, 0.2777 + 0.1 * place),
            brier=estimate(0.1357 - 0.01 * place),
            calibration=Calibration(
                observed_expected=1.0808,
                intercept=-0.0909,
                slope=None if place == 0 else 0.7171,
                scaled_brier=0.0606,
                expected_calibration_error=0.0303,
            ),
            standing=standing(model, best, tied),
        )
        for place, model in enumerate(MODELS)
    )
    return TaskResult(
        task="mortality",
        kind="binary",
        split="test",
        notes=1_404,
        patients=1_303,
        labels_evaluated=1,
        labels_skipped=0,
        labels_total=1,
        labels_judged=1,
        rarer_patients=140,
        skipped_reason=None,
        rows=rows,
        primary=(
            Comparison(
                model="best-validated",
                against="tf-idf",
                about="best validated",
                difference=Estimate(0.1234, 0.0456, 0.1987, 321),
                p_value=0.0234,
                p_holm=0.0468,
                family=2,
                is_found=True,
                detectable=0.1717,
                chosen={"task-lora": 2},
            ),
        ),
        exploratory=(
            Comparison(
                model="task-lora",
                against="prevalence",
                difference=Estimate(0.2345, 0.1456, 0.2987, 321),
                p_value=0.0321,
                detectable=0.1616,
            ),
        ),
        labels=(LabelRow(label="died", positives=144, aurocs=dict.fromkeys(MODELS, 0.7)),),
        roc=tuple(
            RocPoints(model=m, false_positive_rates=(0, 0.4, 1), true_positive_rates=(0, 0.8, 1))
            for m in MODELS
        ),
        reliability=tuple(
            ReliabilityPoints(
                model=m,
                run=0,
                counts=(700, 704),
                predicted=(0.1, 0.4),
                observed=(0.12, 0.35),
                low=(0.1, 0.3),
                high=(0.14, 0.4),
            )
            for m in MODELS
        ),
    )


def multilabel_task(labels=20):
    rows = tuple(
        ModelRow(
            model=model,
            runs=(0,),
            is_deterministic=True,
            auroc=estimate(0.6123),
            auroc_per_run=(0.6123,),
            auroc_all_labels=0.6321,
            auroc_micro=0.8765,
            average_precision=0.3131,
            brier=estimate(0.0808),
        )
        for model in MODELS
    )
    return TaskResult(
        task="diagnoses",
        kind="multilabel",
        split="test",
        notes=1_404,
        patients=1_303,
        labels_evaluated=labels - 1,
        labels_skipped=1,
        labels_total=labels,
        labels_judged=labels - 2,
        rarer_patients=1_303,
        skipped_reason=f"1 of {labels} labels have one value only in the test split",
        rows=rows,
        labels=tuple(
            LabelRow(
                label=f"D{k:02d} <&|",
                positives=k * 111,
                aurocs=dict.fromkeys(MODELS, None if k == 0 else 0.5 + k / 1_000),
            )
            for k in range(labels)
        ),
    )


def lost_task():
    return TaskResult(
        task="readmission",
        kind="binary",
        split="test",
        notes=55,
        patients=44,
        labels_evaluated=0,
        labels_skipped=1,
        labels_total=1,
        labels_judged=0,
        rarer_patients=0,
        skipped_reason="1 of 1 labels have one value only in the test split",
        rows=(
            ModelRow(
                model="tf-idf",
                runs=(0,),
                is_deterministic=True,
                auroc=None,
                brier=estimate(0.2),
                reason="no label has both values in this split",
            ),
        ),
        primary=(
            Comparison(
                model="task-lora",
                against="tf-idf",
                family=2,
                reason="no label has both values in this split",
            ),
        ),
    )


def full_results(**changes):
    values = {
        "title": "A <small> study & its report",
        "created": "2026-01-02 03:04 UTC",
        "recipe": {"optim": {"peak_lr": 0.00031}, "backbone": "models/<tiny>"},
        "seeds": (13, 17),
        "flow": (
            FlowCount(stage="notes", read=777, kept=777, changed={"in all": 766, "x": 765}),
            FlowCount(stage="admissions", read=58_976, kept=50_976, rejected={"newborn": 8_000}),
        ),
        "splits": (
            SplitCount(
                task="mortality", split="test", notes=1_404, patients=1_303, positives={"died": 144}
            ),
            SplitCount(
                task="diagnoses",
                split="train",
                notes=9_999,
                patients=8_888,
                positives={f"D{k}": 10 * k for k in range(9)},
            ),
        ),
        "perplexity": (
            PerplexityRow(
                method=None,
                split="test",
                source="discharge",
                perplexity=9.8765,
                bits_per_byte=0.7654,
                tokens=412_345,
            ),
            PerplexityRow(
                method="lora",
                is_domain_adapter=True,
                split="test",
                source="discharge",
                perplexity=5.4321,
                bits_per_byte=0.5432,
                tokens=412_345,
            ),
        ),
        "learning_curves": {
            "domain $1$": tuple(
                CurvePoint(step=i, loss=3 - i / 900, learning_rate=1e-4) for i in range(900)
            )
        },
        "kept": (
            KeptState(
                run="domain $1$",
                steps=450,
                all_steps=900,
                why="highest validation AUROC",
                evaluations=tuple(
                    Evaluation(steps=n, loss=2.0101 + n / 9_000, auroc=None if n == 900 else 0.7070)
                    for n in (450, 900)
                ),
            ),
            KeptState(run="other", steps=77, all_steps=77, why="last: no validation notes"),
        ),
        "tasks": (binary_task(), multilabel_task(), lost_task()),
        "headline": (
            HeadlineRow(model="tf-idf", tasks=("mortality", "diagnoses"), auroc=estimate(0.6179)),
            HeadlineRow(
                model="task-lora",
                tasks=("mortality", "diagnoses"),
                auroc=estimate(0.6796),
                standing="best",
            ),
            HeadlineRow(
                model="prevalence",
                tasks=("mortality", "diagnoses"),
                auroc=None,
                reason="no scores on diagnoses",
            ),
        ),
        "costs": (
            Cost(
                model="task-lora",
                stage="downstream",
                trainable_parameters=8_392_705,
                total_parameters=6_755_196_929,
                seconds=45_230,
                tokens_per_second=15_801.2,
                peak_memory_mib=32_110.4,
            ),
            Cost(
                model="tf-idf",
                stage="fit",
                trainable_parameters=20_001,
                total_parameters=20_001,
                seconds=12.3,
            ),
        ),
        "leakage": (
            Finding(
                check="near-duplicate text",
                split_a="train",
                split_b="test",
                count=17,
                share=0.0121,
                blocks=True,
            ),
        ),
        "compat_switches": ("perplexity: batch-mean",),
        "notices": ("The demo uses a single seed.",),
        "provenance": {"torch": "2.13.0", "git revision": "abc1234"},
    }
    return Results(**values | changes)


def cells_of(results):
    return [
        cell
        for section in report_sections(results)
        for block in section.blocks
        if isinstance(block, Table)
        for row in block.rows
        for cell in row
    ]
