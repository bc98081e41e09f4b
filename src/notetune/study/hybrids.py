"""Hybrids: words, columns and a model of step 2, joined by a stack of their scores."""

import shutil

from notetune import runs
from notetune.metrics.scores import read_scores, write_scores
from notetune.model.bundle import save_card
from notetune.plain.bundles import PARTS, HybridCard, save_stacked
from notetune.plain.linear import FloatArray
from notetune.plain.stacked import fit_stacked
from notetune.prepare.prepared import Prepared
from notetune.study import baselines, step2
from notetune.study.jobs import Job
from notetune.study.specs import HybridSpec
from notetune.study.step2 import SCORED_SPLITS


def join(job: Job, prepared: Prepared) -> None:
    """Join the finished model of a hybrid, words and columns into a bundle.

    Raises:
        DataError: If all training notes are of one patient.
    """
    spec, table = job.spec, prepared.tasks[job.task]
    assert isinstance(spec, HybridSpec)
    parts = dict(zip(spec.parts, job.parts, strict=True))
    learned = [_out_of_fold(part, prepared) for part in parts.values()]
    targets_NK = table.targets_NK[table.rows("train")]
    stacked = fit_stacked(table.task.kind, learned, targets_NK)
    card = HybridCard(
        task=table.task.name,
        kind=table.task.kind,
        classes=table.task.classes,
        seed=spec.seed,
        parts=spec.parts,
        columns=spec.columns,
    )
    with runs.new_folder(job.folder, job.inputs) as temporary:
        save_card(temporary, card)
        save_stacked(temporary, stacked)
        for name, part in parts.items():
            left_out = shutil.ignore_patterns("*.parquet")  # scores name patients
            shutil.copytree(part.folder, temporary / PARTS / name, ignore=left_out)
        for split in SCORED_SPLITS:
            if len(rows := table.rows(split)):
                found = [read_scores(part.folder / f"{split}.parquet") for part in parts.values()]
                order = table.note_ids_N[rows]
                scores_NK = stacked.scores([one.in_note_order(order).scores_NK for one in found])
                joined = table.scores(spec.model, spec.seed, split, scores_NK)
                write_scores(joined, temporary / f"{split}.parquet")


def _out_of_fold(part: Job, prepared: Prepared) -> FloatArray:
    """`(N, K)` scores of the training notes of a part, in their order."""
    if part.stage == "baseline":
        return baselines.out_of_fold_scores(part, prepared)
    table = prepared.tasks[part.task]
    order = table.note_ids_N[table.rows("train")]
    return step2.out_of_fold_scores(part, prepared).in_note_order(order).scores_NK
