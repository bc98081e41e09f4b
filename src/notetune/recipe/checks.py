"""What the sections of a recipe must hold of one another; each raises what its keys can mend."""

from typing import TYPE_CHECKING, Final

from notetune.model.adapters.specs import traits
from notetune.prepare.settings import LEAST_TOKENS
from notetune.recipe.models import VARIANTS
from notetune.search.space import settings_of
from notetune.sources import missing_stay_key
from notetune.sources.splits import ColumnSplit
from notetune.sources.tables.source import TableSource
from notetune.sources.tables.tasks import TaskedSource

if TYPE_CHECKING:
    from notetune.recipe.recipe import Recipe


def _domain_is_named(recipe: "Recipe") -> None:
    kind = recipe.pretrain.adapter.kind
    for name in recipe.downstream.variants:
        if VARIANTS[name].is_full and kind != "full":
            raise ValueError(
                f"variant {name} needs pretrain.adapter of kind full, not {kind}; choose "
                "domain-frozen or another variant for an adapter"
            )


def _weights_train_once(recipe: "Recipe") -> None:
    kinds = {recipe.pretrain.adapter.kind, recipe.downstream.adapter.kind}
    for name in recipe.downstream.variants:
        if kinds == {"full"} and VARIANTS[name].has_domain and VARIANTS[name].has_task:
            raise ValueError(
                f"variant {name} has a domain adapter and a task adapter, which cannot both be "
                "of kind full; set downstream.adapter to lora or another method"
            )


def _weights_can_train(recipe: "Recipe") -> None:
    compared = recipe.pretrain.compare.values()
    specs = [recipe.pretrain.adapter, recipe.downstream.adapter, *(m.adapter for m in compared)]
    if recipe.dtype == "nf4" and any(traits(spec).reads_weights for spec in specs):
        raise ValueError(
            "nf4 is for frozen weights, so it goes with adapters: not with kind full, nor "
            "with dora; set dtype bfloat16"
        )
    for key in ("sharded", "compiled"):
        if recipe.recompute is True and getattr(recipe.pretrain, key):
            raise ValueError(
                f"recompute: layers that are {key} keep what they compute; leave one out"
            )
        if recipe.dtype == "nf4" and getattr(recipe.pretrain, key):
            raise ValueError(f"nf4 layers are not {key}; set dtype bfloat16, or leave {key} out")


def _searches_what_trains(recipe: "Recipe") -> None:
    if recipe.tune.pretrain is not None and not recipe.pretrain.epochs:
        raise ValueError("tune.pretrain: with pretrain.epochs 0 nothing trains; leave it out")
    compared = [method.adapter for method in recipe.pretrain.compare.values()]
    trained = {
        "pretrain": [recipe.pretrain.adapter, *compared],
        "downstream": [recipe.downstream.adapter],
    }
    for section, adapters in trained.items():
        space = getattr(recipe.tune, section)
        for key in space.keys() - settings_of(space, *adapters) if isinstance(space, dict) else ():
            kinds = ", ".join(adapter.kind for adapter in adapters)
            raise ValueError(f"tune.{section}: {key} is no setting of an adapter of kind {kinds}")
    step_2 = recipe.tune.downstream
    trains = any(VARIANTS[name].trains_domain for name in recipe.downstream.variants)
    if isinstance(step_2, dict) and "domain_lr" in step_2 and not trains:
        raise ValueError("tune.downstream: domain_lr needs a variant that trains on its domain")


def _notes_have_pieces(recipe: "Recipe") -> None:
    given = recipe.downstream.max_pieces
    if given != "auto" and given > 1 and recipe.prepare.long_notes == "first":
        raise ValueError(
            f"downstream.max_pieces {given} needs prepare.long_notes "
            "pieces; with first, every note has one piece"
        )


def _stays_are_known(recipe: "Recipe") -> None:
    joins, corpus = recipe.prepare.join != "none", recipe.pretrain.corpus
    if not joins and recipe.evaluate.combine == "none":
        return
    key = "prepare.join" if joins else "evaluate.combine"
    if joins and recipe.evaluate.combine != "none":
        raise ValueError(
            "evaluate.combine: with prepare.join a stay is one document, so there is nothing "
            "to combine; leave one of the two out"
        )
    source = recipe.prepare.source
    for task in source.tasks if isinstance(source, TaskedSource) else ():
        if task.samples:
            raise ValueError(
                f"{key}: task {task.name} has samples, each read from one note; leave one of the "
                "two out"
            )
    read = {"prepare.source": source}
    if joins and corpus:
        read["pretrain.corpus.source"] = corpus.source
    for section, one in read.items():
        if missing := missing_stay_key(one):
            raise ValueError(f"{key} needs the stay of each note; give {section}.{missing}")
        has_times = not isinstance(one, TableSource) or one.columns.time
        if (joins or recipe.evaluate.combine == "last") and not has_times:
            what = key if joins else "evaluate.combine last"
            raise ValueError(f"{what} needs the time of each note; give {section}.columns.time")


def _documents_fit_rows(recipe: "Recipe") -> None:
    given = recipe.prepare.max_tokens
    longest = LEAST_TOKENS if given == "auto" else given
    for row in recipe.rows:
        if row.given != "auto" and row.given < row.pieces * (longest + row.virtual):
            times = f"{row.pieces} pieces of " if row.pieces > 1 else ""
            least = "at least " if given == "auto" else ""
            raise ValueError(
                f"{row.section}.tokens_per_row {row.given} is below {times}prepare.max_tokens "
                f"{least}{longest} + {row.virtual} virtual tokens; a row must hold the longest "
                f"{'note' if times else 'document'}"
            )


def _splits_are_named(recipe: "Recipe") -> None:
    sections = {"prepare": recipe.prepare, "pretrain.corpus": recipe.pretrain.corpus}
    for section, read in sections.items():
        if read is None or not isinstance(split := read.split, ColumnSplit):
            continue
        source = read.source
        known = source.split_table if isinstance(source, TaskedSource) else {}
        path, patient = (getattr(split, name) or known.get(name) for name in ("path", "patient_id"))
        is_own = isinstance(source, TableSource) and split.path is None
        if not path or not (patient or is_own):
            raise ValueError(
                f"{section}.split: give its path and patient_id; a source of kind meds has them, "
                "and one of kind table its own"
            )


OF_SECTIONS: Final = (
    _splits_are_named,
    _domain_is_named,
    _weights_train_once,
    _weights_can_train,
    _searches_what_trains,
    _notes_have_pieces,
    _stays_are_known,
    _documents_fit_rows,
)
