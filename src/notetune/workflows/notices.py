"""What every reader of the scores must know: what is missing, unsure, or not the best way."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from notetune import runs
from notetune.notes import overlap
from notetune.notes.sources import Mimic3Source
from notetune.workflows import encoders
from notetune.workflows.finished import Finished
from notetune.workflows.prepare import Prepared
from notetune.workflows.prepare import inputs as prepare_inputs
from notetune.workflows.pretrain import TRAINING
from notetune.workflows.recipe import Recipe
from notetune.workflows.training import read_record
from notetune.workflows.variants import model_in_study, name_in_study

_FEW_PATIENTS = 10
_FEW_STEPS = 20


def notices(recipe: Recipe, finished: Mapping[str, Finished]) -> Iterator[str]:
    """The sentences of a study, those of the recipe last."""
    first = next(iter(finished.values()))
    yield from _missing(finished)
    yield from _short(finished)
    yield from _of_notes(first)
    yield from encoders.notices(first.recipe)
    yield from recipe.notices


def compat_switches(recipe: Recipe) -> list[str]:
    """Settings that repeat what the published pipeline does although it is not the best."""
    switches = []
    source = recipe.prepare.source
    if isinstance(source, Mimic3Source) and source.labels == "core-2021":
        switches.append("labels: core-2021 (those of the published scripts, accidents included)")
    if recipe.prepare.long_notes == "first":
        switches.append(
            f"long_notes: first (all but the first {recipe.prepare.max_tokens} tokens of a note "
            "are dropped)"
        )
    if recipe.pretrain.perplexity == "batch-mean":
        switches.append(
            "perplexity: batch-mean (exp of the unweighted mean of the means of batches of ten "
            "documents; batches with few tokens count as much as others)"
        )
    if recipe.downstream.class_weights == "balanced":
        switches.append(
            "class_weights: balanced (rare values weigh more in training, so the scores of step 2 "
            "are not probabilities)"
        )
    return switches


def _missing(finished: Mapping[str, Finished]) -> Iterator[str]:
    """Say that trainings of the recipe are not in the report."""
    missing = [
        replace(cell, variant=model_in_study(backbone, cell.variant)).label
        for backbone, one in finished.items()
        for cell in one.missing
    ]
    if missing:
        yield (
            f"{len(missing)} trainings of the recipe are left out ({missing[0]} is the first): "
            "they are not finished, or were made with other settings or from other notes. "
            "`notetune study status` names them."
        )
    for one in finished.values():
        if not runs.was_made_from(one.prepared.folder, prepare_inputs(one.recipe)):
            yield (
                "The notes were prepared by another version, with other settings, or from files "
                "that have changed or gone since."
            )
            return


def _short(finished: Mapping[str, Finished]) -> Iterator[str]:
    """Say where trainings were too short to tell one model from another."""
    for backbone, one in finished.items():
        for task in one.prepared.tasks:
            folders = [
                one.recipe.folder.cell(task, cell.variant, cell.seed)
                for cell in one.cells
                if cell.task == task
            ]
            steps = [read_record(folder / TRAINING).steps for folder in folders]
            few = [count for count in steps if count < _FEW_STEPS]
            if few:
                yield (
                    f"{name_in_study(backbone, task)}: {len(few)} of {len(steps)} trainings took "
                    f"fewer than {_FEW_STEPS} steps (as few as {min(few)}), too few to tell what a "
                    "model can learn; more epochs or a lower targets_per_step give more."
                )


def _unsure(prepared: Prepared) -> Iterator[str]:
    """Say where the test patients are few, and what was not searched."""
    for name, task in prepared.tasks.items():
        test = task.rows("test")
        patients = [
            min(len(set(task.patient_ids_N[test][is_in].tolist())) for is_in in (value, ~value))
            for value in task.targets_NK[test].astype(bool).T
        ]
        few = [count for count in patients if count < _FEW_PATIENTS]
        if few:
            yield (
                f"{name}: {len(few)} of {len(patients)} labels have a value that fewer than "
                f"{_FEW_PATIENTS} test patients have (as few as {min(few)}); their own AUROC can "
                "be far off."
            )
        if name not in overlap.OUTCOME_WORDS:
            yield f"{name}: no words are known that tell its outcome, so notes were not searched."


def _of_notes(first: Finished) -> Iterator[str]:
    """Say what is particular about the notes and how they were read."""
    recipe, prepared = first.recipe, first.prepared
    yield from _unsure(prepared)
    if recipe.prepare.allow_leaks and any(finding.blocks for finding in prepared.findings):
        yield "Leak checks that should stop the study were overridden by the recipe."
    if first.corpus is not prepared:
        yield (
            f"Step 1 read other notes ({recipe.corpus.prepare.source.kind}) than the tasks "
            f"({recipe.prepare.source.kind}). Patients are compared by id, so nobody is found who "
            "has another id there: MIMIC-IV holds patients of MIMIC-III under new ids. "
            "evaluate.listed_patients shows the scores on patients whom the corpus cannot hold."
        )
    for name, task in prepared.tasks.items():
        documents = prepared.store.first_documents(task.note_ids_N.tolist())
        most = recipe.downstream.max_pieces
        share = float(prepared.store.reading(documents, most).truncated_N.mean())
        if share:
            pieces = f"{most} pieces of " if most > 1 else ""
            yield (
                f"{name}: {share:.0%} of the notes are longer than {pieces}"
                f"{recipe.prepare.max_tokens} tokens; the language models read their beginning, "
                "TF-IDF reads all of them."
            )
