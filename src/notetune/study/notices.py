"""What every reader of the scores must know: what is missing, unsure, or not the best way."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from notetune import manifest
from notetune.errors import BackboneError
from notetune.metrics.results import TaskResult
from notetune.metrics.stays import without_score
from notetune.model.backbone import outline_backbone
from notetune.model.backbone_folder import resolve_backbone
from notetune.notes import overlap
from notetune.plain.bundles import read_columns
from notetune.plain.columns import LevelColumn
from notetune.prepare.patient_hashes import PROVENANCE, is_unknown
from notetune.prepare.prepared import Intake, Prepared, inputs
from notetune.prepare.settings import row_of
from notetune.recipe.recipe import Recipe
from notetune.sources.mimic.mimic3 import Mimic3Source
from notetune.study.features import store_of
from notetune.study.jobs import TRAINING, Job
from notetune.study.listing import Made
from notetune.study.questions import PREVALENCE
from notetune.study.specs import BaselineSpec, CellSpec
from notetune.tokens.edges import read_declared
from notetune.tokens.packing import Int64Array, pack_documents
from notetune.tokens.store import WHOLE_SHARE, TokenStore
from notetune.train.training import read_record

_FEW_PATIENTS = 10
_FEW_STEPS = 20
_TOO_GOOD = 0.98
_NOTES_LOOKED_AT = 100
# Thai, Lao, Burmese, Khmer, Japanese and Chinese.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def notices(recipe: Recipe, made: Sequence[Made]) -> Iterator[str]:
    """The sentences of a study, those of the recipe last."""
    yield from _missing(made)
    yield from _by_backbone(made, _short)
    yield from without_step_1(recipe)
    yield from _of_notes(made[0])
    yield from _by_backbone(made, _of_step_1)
    yield from _by_backbone(made, _cut)
    yield from of_encoders(made[0])
    yield from (sentence for one in made for sentence in of_columns(one))
    yield from _by_backbone(made, _intake)
    yield from made[0].notes.prepared.notices
    yield from of_models(recipe)
    yield from recipe.notices


def _by_backbone(
    made: Sequence[Made], sentences_of: Callable[[Made], Iterable[str]]
) -> Iterator[str]:
    return _each_once({one.backbone: sentences_of(one) for one in made})


def _each_once(said_of: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Sentences about backbones, each once; with the names where it is not about all of them."""
    about: dict[str, list[str]] = {}
    for name, sentences in said_of.items():
        for sentence in sentences:
            about.setdefault(sentence, []).append(name)
    for sentence, names in about.items():
        yield sentence if len(names) == len(said_of) else f"{', '.join(names)}: {sentence}"


def of_models(recipe: Recipe, corpora: Mapping[str, Int64Array] | None = None) -> Iterator[str]:
    """Say which backbones and encoders do not take rows, or not all that is in a text.

    Args:
        recipe: Of the study; of folders that are not here nothing is said.
        corpora: Tokens of each document of step 1 by backbone, to say what that costs.
    """
    folders: list[tuple[str, str, Recipe | None]] = [
        (name, one.backbone, one) for name, one in recipe.studies.items()
    ]
    folders += [(name, folder, None) for name, folder in recipe.encoders.models.items()]
    for name, folder, one in folders:
        try:
            place = resolve_backbone(folder, needs_weights=False)
        except BackboneError:
            continue
        lengths_D = (corpora or {}).get(name) if one else None
        lead = f"{name or folder}: "
        if why := _why_alone(folder):
            yield f"{lead}{why}{_passes(one, lengths_D)}."
        if (place / "tokenizer.json").is_file() and read_declared(place).loses_case:
            yield (
                f"{lead}the vocabulary has capital letters, but the tokenizer makes all letters "
                "small; if the model is cased, save its tokenizer anew with do_lower_case=False."
            )


def _why_alone(name: str) -> str:
    backbone = outline_backbone(name)
    most = backbone.reach.packs_to
    if most >= backbone.max_positions:
        return ""
    if most:
        return (
            f"documents of more than {most:,} tokens do not share rows (its positions change "
            "there), so each of them is computed alone"
        )
    return (
        "its documents would see each other in a row, or its attention is of a kind that rows do "
        "not have, so each is computed alone"
    )


def _passes(one: Recipe | None, lengths_D: Int64Array | None) -> str:
    if one is None or lengths_D is None or not len(lengths_D):
        return ""
    row = row_of(one.pretrain.tokens_per_row, int(lengths_D.max()))
    rows = pack_documents(lengths_D, row).row_count
    return (
        f": an epoch of step 1 is {len(lengths_D):,} passes through the model where rows would "
        f"take {rows:,}"
    )


def compat_switches(recipe: Recipe) -> tuple[str, ...]:
    """Settings that repeat what the published pipeline does although it is not the best."""
    return tuple(_each_once({name: _switches(one) for name, one in recipe.studies.items()}))


def _switches(recipe: Recipe) -> Iterator[str]:
    source = recipe.prepare.source
    if isinstance(source, Mimic3Source) and source.labels == "core-2021":
        yield "labels: core-2021 (those of the published scripts, accidents included)"
    if recipe.prepare.long_notes == "first":
        yield "long_notes: first (what a note has beyond its first piece is dropped, in step 1 too)"
    if recipe.pretrain.perplexity == "batch-mean":
        yield (
            "perplexity: batch-mean (exp of the unweighted mean of the means of batches of ten "
            "documents; batches with few tokens count as much as others)"
        )
    if recipe.downstream.class_weights == "balanced":
        yield (
            "class_weights: balanced (rare values weigh more in training, so the scores of step 2 "
            "are not probabilities)"
        )


def of_scores(tasks: Sequence[TaskResult]) -> Iterator[str]:
    """Say where columns tell an outcome as only its copy would, and where scores tell nothing."""
    for task in tasks:
        for row in task.rows:
            if row.model != PREVALENCE and row.auroc and row.auroc.low == row.auroc.high == 0.5:
                yield f"{task.task}: {row.model} gives every test note the same score."
            if row.model == "columns" and row.auroc and row.auroc.value > _TOO_GOOD:
                yield (
                    f"{task.task}: the columns beside the text alone have an AUROC of "
                    f"{row.auroc.value:.3f}; see that none of them tells the outcome."
                )


def _missing(made: Sequence[Made]) -> Iterator[str]:
    """Say that trainings of the recipe are not in the report."""
    missing = [job for one in made for job in one.missing]
    if missing:
        first = missing[0]
        model = first.model.label if first.model else ""
        yield (
            f"{len(missing)} models, or searches for them, are left out ({first.task} · {model} · "
            f"seed {first.seed} is the first), so none is best or worse than they: they are not "
            "finished, or were made with other settings or from other notes. `notetune study "
            "status` names them, `notetune study run` makes them."
        )
    for one in made:
        spec = one.recipe.preparation
        if not manifest.was_made_from(spec.folder, inputs(spec)):
            yield (
                "The notes were prepared by another version, with other settings, or from files "
                "that have changed or gone since."
            )
            return


def without_step_1(recipe: Recipe) -> Iterator[str]:
    """Say with which backbones no step 1 is trained."""
    idle = [name for name, one in recipe.studies.items() if not one.has_step_1]
    if idle:
        named = f" with {', '.join(idle)}" if recipe.backbones else ""
        yield (
            f"No step 1{named}: no variant stands on a domain adapter (pretrain.always=true trains "
            "one all the same)."
        )


def _short(one: Made) -> Iterator[str]:
    """Say where trainings were too short to tell one model from another."""
    records = {job: read_record(job.folder / TRAINING) for job in one.done_of("model")}
    steps = {job: record.steps for job, record in records.items() if record.kept}
    few = {job: count for job, count in steps.items() if count < _FEW_STEPS}
    if few:  # of adapters, since a solved head has no steps
        tasks = ", ".join(dict.fromkeys(job.task for job in few))
        yield (
            f"{tasks}: {len(few)} of {len(steps)} trainings took fewer than {_FEW_STEPS} steps (as "
            f"few as {min(few.values())}), too few to tell what a model can learn; more epochs or "
            "a lower targets_per_step give more."
        )


def of_encoders(first: Made) -> Iterator[str]:
    """Say where encoders read a part of notes alone."""
    jobs: dict[str, Job] = {}
    for job in first.done_of("model"):
        if job.model and job.model.encoder:
            jobs.setdefault(job.model.encoder, job)
    for encoder, job in jobs.items():
        store = store_of(job, first.notes.prepared)
        most = job.spec_as(CellSpec).features.pieces_in(store)
        first_documents = np.flatnonzero(store.piece_D == 0)
        if longer := _longer(store, first_documents, most, "labelled notes"):
            yield f"{encoder}: {longer} of its tokens; it reads their {_part(store)}."


def of_columns(one: Made) -> Iterator[str]:
    """Say which columns beside the text have no level that counts."""
    for job in one.done_of("baseline"):
        spec = job.spec
        if not isinstance(spec, BaselineSpec) or spec.name != "columns":
            continue
        for column in read_columns(job.folder).columns:
            if isinstance(column, LevelColumn) and not column.levels:
                yield (
                    f"{job.task}: column {column.name} counts for nothing, or at most where it is "
                    f"empty: it is read as levels, and {spec.min_patients} training patients share "
                    "none of them."
                )


def unsure(prepared: Prepared) -> Iterator[str]:
    """Say where the test patients are few, and what was not searched."""
    for name, task in prepared.tasks.items():
        test = task.rows("test")
        patients = [
            min(len(set(task.patient_ids_N[test][is_in].tolist())) for is_in in (value, ~value))
            for value in task.targets_NK[test].astype(bool).T
        ]
        few = [count for count in patients if count < _FEW_PATIENTS]
        if few and len(patients) == 1:
            yield f"{name}: {few[0]} test patients have one of its values; AUROC can be far off."
        elif few:
            yield (
                f"{name}: {len(few)} of {len(patients)} labels have a value that fewer than "
                f"{_FEW_PATIENTS} test patients have (as few as {min(few)}); their own AUROC can "
                "be far off."
            )
        if not len(task.rows("validation")):
            yield f"{name}: there are no validation notes, so nothing was chosen by them."
        if not overlap.words_of(name):
            yield f"{name}: no words are known that tell its outcome, so notes were not searched."


def of_scripts(prepared: Prepared) -> Iterator[str]:
    """Say where no space tells what the words of the notes are."""
    for task in [*prepared.tasks.values()][:1]:
        text = "".join(prepared.texts(task.note_ids_N[:_NOTES_LOOKED_AT]))
        if len(_UNSPACED.findall(text)) > sum(map(str.isalpha, text)) / 2:
            yield (
                "Most letters of the notes are of scripts without spaces between words, such as "
                "Chinese or Thai: the terms of TF-IDF are clauses or pieces of words there, so it "
                "is a weak model to compare with."
            )


def _of_notes(first: Made) -> Iterator[str]:
    """Say what is particular about the notes and how they were read."""
    recipe, prepared = first.recipe, first.notes.prepared
    yield from of_stays(first)
    yield from unsure(prepared)
    yield from of_scripts(prepared)
    if recipe.prepare.allow_leaks and any(one.blocks for one in prepared.findings):
        yield "Leak checks that should stop the study were overridden by the recipe."


def _of_step_1(one: Made) -> Iterator[str]:
    """Say what step 1 of a backbone read that is not the notes of the tasks."""
    recipe = one.recipe
    if said := _of_brought(one):
        yield said
    if recipe.corpus:
        both = (recipe.corpus.source.kind, recipe.prepare.source.kind)
        are_mimic = set(both) == {"mimic3", "mimic4"}
        known = ": MIMIC-IV holds patients of MIMIC-III under new ids" if are_mimic else ""
        yield (
            f"Step 1 read other notes ({both[0]}) than the tasks ({both[1]}). Patients are "
            f"compared by id, so nobody is found who has another id there{known}. "
            "evaluate.listed_patients shows the scores on patients whom the corpus cannot hold."
        )


def _cut(one: Made) -> Iterator[str]:
    """Say which notes a backbone reads a part of alone."""
    store, most = one.notes.prepared.store, pieces_of(one)
    tasks_of: dict[str, list[str]] = {}
    for name, task in one.notes.prepared.tasks.items():
        documents = store.first_documents(task.note_ids_N.tolist())
        if longer := _longer(store, documents, most, "notes"):
            tasks_of.setdefault(longer, []).append(name)
    for longer, names in tasks_of.items():
        yield (
            f"{', '.join(names)}: {longer} tokens; the language models read their {_part(store)}, "
            "TF-IDF reads all of them."
        )


def _longer(store: TokenStore, documents_N: Int64Array, most: int, notes: str) -> str:
    """How many notes are longer than what is read of them; "" where none is."""
    share = float(store.reading(documents_N, most).truncated_N.mean())
    pieces = f"{most} pieces of " if most > 1 else ""
    return f"{share:.1%} of the {notes} are longer than {pieces}{store.max_tokens}" if share else ""


def _of_brought(one: Made) -> str:
    """What is known of an adapter that the recipe brings, if it does."""
    config, folder = one.recipe.pretrain, one.recipe.folder.domain(0)
    has_it = one.recipe.has_step_1 and (folder / PROVENANCE).is_file()
    if config.from_ is None or not has_it:
        return ""
    how = "trained on" if config.epochs else "used as it is, without a step 1"
    said = (
        "its patients are unknown, so nobody can say whether it has read notes of test patients"
        if is_unknown(folder)
        else "its patients and texts were compared with those of the tasks, by their hashes; texts "
        "that are only nearly equal are not found"
    )
    return f"The domain adapter was brought and {how}: {said}."


def _part(store: TokenStore) -> str:
    return "beginning" if store.edges.join == "none" else "end, which is the newest"


def of_stays(first: Made) -> Iterator[str]:
    """Say what a row is where it is not a note."""
    recipe, prepared = first.recipe, first.notes.prepared
    if recipe.prepare.join != "none":
        yield (
            "Each note of this report is a stay: its notes were joined in order of time, all of "
            "them where no prediction time says which were known."
        )
    if (how := recipe.evaluate.combine) != "none":
        said = {"mean": "the mean of the scores of its notes", "max": "the highest score of a note"}
        yield (
            f"Each score is that of a stay: {said.get(how, 'the score of its last note')}. Models "
            "were trained, and their settings chosen, note by note; the table of splits counts "
            "notes."
        )
        for name, task in prepared.tasks.items():
            if others := without_score(task.note_ids_N[task.rows("test")], prepared.stays):
                yield (
                    f"{name}: {others:,} notes of the test stays have no label, so they have no "
                    "score and are no last note; predict scores every note of its file. Give all "
                    "notes of a stay its label."
                )


def pieces_of(one: Made) -> int:
    """Documents of one note that a backbone reads."""
    prepared = one.notes.prepared
    return one.recipe.max_pieces(prepared.intake.whole_pieces, prepared.store.max_tokens)


def _intake(one: Made) -> Iterator[str]:
    """Say how notes were read, where the recipe left that open."""
    if one.recipe.prepare.opener == "auto":
        yield _opener_sentence(one.notes.prepared.intake)
    if "auto" in (one.recipe.prepare.max_tokens, one.recipe.downstream.max_pieces):
        yield _length_sentence(one)


def _opener_sentence(intake: Intake) -> str:
    edges, tried = intake.edges, intake.perplexities
    what = "nothing" if edges.opener_id is None else f"{edges.opener} (id {edges.opener_id})"
    found = ", ".join(f"{name} {value:.2f}" for name, value in tried.items())
    why = f"{intake.opener_why} ({found})" if found else intake.opener_why
    return f"What opens every document is {what}: {why}."


def _length_sentence(one: Made) -> str:
    intake, pieces = one.notes.prepared.intake, pieces_of(one)
    times = f"{pieces} pieces of " if pieces > 1 else ""
    why = [intake.max_tokens_why] if one.recipe.prepare.max_tokens == "auto" else []
    is_ours = one.recipe.downstream.max_pieces == "auto"
    if is_ours and pieces < intake.whole_pieces:
        why.append("a row has no room for more pieces")
    elif is_ours and pieces > 1:
        why.append(f"{WHOLE_SHARE:.0%} of the labelled training notes have no more pieces")
    because = f" ({'; '.join(why)})" if why else ""
    part = "first" if intake.edges.join == "none" else "last"
    return f"The {part} {times}{intake.max_tokens:,} tokens of a note are read{because}."
