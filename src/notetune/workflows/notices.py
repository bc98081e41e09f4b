"""What every reader of the scores must know: what is missing, unsure, or not the best way."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from notetune import runs
from notetune.notes import overlap
from notetune.sources import Mimic3Source
from notetune.tokens.store import WHOLE_SHARE
from notetune.workflows import encoders
from notetune.workflows.finished import Finished
from notetune.workflows.intake import Intake
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
    yield from _intakes(finished)
    yield from recipe.notices


def compat_switches(recipe: Recipe) -> list[str]:
    """Settings that repeat what the published pipeline does although it is not the best."""
    switches = []
    source = recipe.prepare.source
    if isinstance(source, Mimic3Source) and source.labels == "core-2021":
        switches.append("labels: core-2021 (those of the published scripts, accidents included)")
    if recipe.prepare.long_notes == "first":
        switches.append(
            "long_notes: first (what a note has beyond its first piece is dropped, in step 1 too)"
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
            records = [read_record(folder / TRAINING) for folder in folders]
            steps = [record.steps for record in records if record.kept]  # a solved head has none
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
        most = prepared.max_pieces(recipe)
        share = float(prepared.store.reading(documents, most).truncated_N.mean())
        if share:
            pieces = f"{most} pieces of " if most > 1 else ""
            yield (
                f"{name}: {share:.0%} of the notes are longer than {pieces}"
                f"{prepared.store.max_tokens} tokens; the language models read their beginning, "
                "TF-IDF reads all of them."
            )


def _intakes(finished: Mapping[str, Finished]) -> Iterator[str]:
    """Say how notes were read by each backbone, where the recipe left that open."""
    for backbone, one in finished.items():
        lead = f"{backbone}: " if backbone else ""
        if one.recipe.prepare.opener == "auto":
            yield lead + _opener_sentence(one.prepared.intake)
        given = (one.recipe.prepare.max_tokens, one.recipe.downstream.max_pieces)
        if "auto" in given:
            yield lead + _length_sentence(one, *given)


def _opener_sentence(intake: Intake) -> str:
    edges, tried = intake.edges, intake.perplexities
    what = "nothing" if edges.opener_id is None else f"{edges.opener} (id {edges.opener_id})"
    found = ", ".join(f"{name} {value:.2f}" for name, value in tried.items())
    why = f"{intake.opener_why} ({found})" if found else intake.opener_why
    return f"What opens every document is {what}: {why}."


def _length_sentence(one: Finished, max_tokens: int | str, max_pieces: int | str) -> str:
    intake, pieces = one.prepared.intake, one.prepared.max_pieces(one.recipe)
    times = f"{pieces} pieces of " if pieces > 1 else ""
    why = [intake.max_tokens_why] if max_tokens == "auto" else []
    if max_pieces == "auto" and pieces < intake.whole_pieces:
        why.append("a row has no room for more pieces")
    elif max_pieces == "auto" and pieces > 1:
        why.append(f"{WHOLE_SHARE:.0%} of the labelled training notes have no more pieces")
    because = f" ({'; '.join(why)})" if why else ""
    return f"The first {times}{intake.max_tokens:,} tokens of a note are read{because}."
