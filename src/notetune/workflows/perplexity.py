"""Perplexity of what step 1 starts from and of what it has saved; nothing here trains."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from notetune import infer, runs
from notetune.errors import DataError, RunError
from notetune.metrics.results import PerplexityRow
from notetune.model.adapters.files import read_adapter
from notetune.model.adapters.specs import reserved_per_document
from notetune.model.backbone import Backbone, load_backbone
from notetune.model.backbone_folder import backbone_fingerprint, resolve_backbone
from notetune.model.compiled import compile_layers
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.tokens.encode import load_encoder
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore, encode_notes
from notetune.train.parallel import this_world
from notetune.workflows.prepare import Prepared, documents_digest
from notetune.workflows.recipe import Recipe
from notetune.workflows.sections import row_of
from notetune.workflows.together import spread, stage_folders

PERPLEXITY = "perplexity.json"
GENERAL, ALL_SOURCES = "general", "all"
BEFORE, AFTER = "before", "after"


def folders(recipe: Recipe, *, measures_before: bool) -> dict[str, Path]:
    """Where the measurements of a method are: without its adapter, if wanted, and with it."""
    folder = recipe.folder
    before = {BEFORE: folder.perplexity_before} if measures_before else {}
    return {**before, AFTER: folder.perplexity}


def inputs(recipe: Recipe, prepared: Prepared, when: str) -> dict[str, Any]:
    """What a measurement depends on; without the adapter it is the same for all methods.

    Raises:
        DataError: If the general text is missing.
    """
    adapter = {}
    if when == AFTER:
        adapter = {"adapter": runs.read_json(recipe.folder.domain(0) / runs.MANIFEST)["files"]}
    return {
        "stage": f"perplexity {when}",
        "backbone": backbone_fingerprint(resolve_backbone(recipe.backbone)),
        "documents": documents_digest(prepared, of_step_1=True),
        "dtype": recipe.dtype,
        "general": runs.sha256_of_file(general_text(recipe)),
        "sources": recipe.pretrain.sources,
        "config": recipe.pretrain.measuring,
        **adapter,
    }


def is_measured(recipe: Recipe, prepared: Prepared, *, measures_before: bool) -> bool:
    """Whether a trained method was measured as the recipe says now."""
    wanted = folders(recipe, measures_before=measures_before)
    return all(runs.is_finished(at, inputs(recipe, prepared, when)) for when, at in wanted.items())


def measure(recipe: Recipe, prepared: Prepared, *, measures_before: bool) -> None:
    """Measure what is not measured yet: the backbone alone, and with its saved domain adapter."""
    missing = {
        when: folder
        for when, folder in folders(recipe, measures_before=measures_before).items()
        if not runs.is_finished(folder, inputs(recipe, prepared, when))
    }
    if not missing:
        return
    backbone = load_backbone(recipe.backbone, recipe.dtype, recipe.torch_device)
    if recipe.pretrain.compiled:
        compile_layers(backbone)
    for when, folder in missing.items():
        with stage_folders(folder, inputs(recipe, prepared, when)) as (_, temporary):
            model = _model(recipe, backbone, when)
            found = _rows(when, model, recipe, prepared)
            rows = [row.model_dump(mode="json") for row in found]
            runs.write_json(temporary / PERPLEXITY, rows)


def read(recipe: Recipe, prepared: Prepared, *, measures_before: bool) -> tuple[PerplexityRow, ...]:
    """The rows of a method that is trained and measured.

    Raises:
        RunError: If it was not measured as the recipe says now.
    """
    rows: list[PerplexityRow] = []
    for when, folder in folders(recipe, measures_before=measures_before).items():
        if not runs.was_made_from(folder, inputs(recipe, prepared, when)):
            raise RunError(
                f"{folder} holds no perplexity that was measured as the recipe says now; run "
                "`notetune pretrain` or `notetune study run` with this recipe, which measures it "
                "without training again."
            )
        rows += [PerplexityRow(**values) for values in runs.read_json(folder / PERPLEXITY)]
    return tuple(rows)


def _model(recipe: Recipe, backbone: Backbone, when: str) -> Stack:
    """The backbone alone, or with what was saved; spread over the processes if there are several.

    It was trained spread because it would not fit with gradients and averages; a process that is
    alone, to measure again, tries without.
    """
    if when == BEFORE:
        return stack(backbone)
    adapter = read_adapter(recipe.folder.domain(0))
    model = stack(backbone, [Layer(DOMAIN, adapter, is_trained=False)])
    if recipe.pretrain.sharded and this_world().size > 1:
        spread(backbone)
    return model


def _rows(when: str, model: Stack, recipe: Recipe, prepared: Prepared) -> Iterator[PerplexityRow]:
    """Perplexity on a sample of each split and source, and on general text."""
    size = tokens_per_row(recipe, prepared.store)
    samples = (*_samples(recipe, prepared), general(recipe, prepared.store))
    for split, source, store, documents in samples:
        got = infer.perplexity(model, store, documents, size, recipe.pretrain.perplexity)
        yield PerplexityRow(
            model=when,
            split=split,
            source=source,
            perplexity=got.perplexity,
            bits_per_byte=got.bits_per_byte,
            tokens=got.targets,
        )


_Sample = tuple[str, str, TokenStore, Int64Array]


def _samples(recipe: Recipe, prepared: Prepared) -> Iterator[_Sample]:
    """Documents by split and source, the same before and after the training, none empty."""
    store = prepared.store
    sources = recipe.pretrain.sources or sorted(set(store.source_N.tolist()))
    for split in ("train", "validation", "test"):
        parts = {source: _sample(recipe, store, split, source) for source in sources}
        if len(sources) > 1:
            parts[ALL_SOURCES] = np.concatenate(list(parts.values()))
        for source, documents in parts.items():
            if len(documents):
                yield split, source, store, documents


def _sample(recipe: Recipe, store: TokenStore, split: str, source: str) -> Int64Array:
    is_train = split == "train"
    documents = (
        store.corpus_documents([source]) if is_train else store.documents_of(split, [source])
    )
    most = recipe.pretrain.perplexity_documents
    if len(documents) <= most:
        return documents
    rng = np.random.default_rng(len(documents))  # the same for every seed of a training
    return np.sort(rng.choice(documents, most, replace=False))


def general(recipe: Recipe, like: TokenStore) -> _Sample:
    """The passages of a general text, read as notes are: what the backbone should still know."""
    path = general_text(recipe)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"pretrain.general_text: {path} is not UTF-8 text.") from None
    passages = [part.strip() for part in text.split("\n\n\n") if part.strip()]
    if not passages:
        raise DataError(f"pretrain.general_text: {path} is empty.")
    names = [str(number) for number in range(len(passages))]
    columns = dict.fromkeys(("note_ids", "patient_ids", "source_N", "split_N"), names)
    encoder = load_encoder(resolve_backbone(recipe.backbone), like.edges)
    store = encode_notes(encoder, like.max_tokens, passages, columns)
    documents = np.arange(len(store.lengths_D))[: recipe.pretrain.perplexity_documents]
    return GENERAL, path.stem, store, documents


def tokens_per_row(recipe: Recipe, store: TokenStore) -> int:
    """Tokens of a row, with the virtual ones of its documents."""
    virtual = reserved_per_document(recipe.pretrain.adapter)
    return row_of(recipe.pretrain.tokens_per_row, store.max_tokens + virtual)


def general_text(recipe: Recipe) -> Path:
    """The file of the general text, the shipped one if the recipe names none."""
    given = recipe.pretrain.general_text
    if given and not given.is_file():
        raise DataError(f"pretrain.general_text: {given} is not a file.")
    return given or Path(str(files("notetune") / "general/shakespeare.txt"))
