"""The labelled notes in the tokens of an encoder beside the backbone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from notetune.errors import ConfigError
from notetune.model.backbone import Backbone, outline_backbone
from notetune.model.backbone_folder import Dtype, resolve_backbone
from notetune.prepare.intake import longest_document, sampled
from notetune.prepare.prepared import TEXTS, Prepared
from notetune.prepare.settings import EncodeSpec
from notetune.tokens.encode import load_encoder
from notetune.tokens.store import join_documents


def outline_encoder(name: str, key: str, dtype: Dtype = "float32") -> Backbone:
    """An encoder without weights, from its folder, which a key of the recipe names.

    Raises:
        ConfigError: If the folder is that of a decoder.
    """
    encoder = outline_backbone(name, dtype)
    if not encoder.is_encoder:
        raise ConfigError(f"{key}: {encoder.name} is a decoder; give it as the backbone.")
    return encoder


def write_tokens(
    spec: EncodeSpec, name: str, most_tokens: int, prepared: Prepared, folder: Path
) -> None:
    """Encode the notes with a label into an existing folder, with the encoder's own tokenizer.

    `name` is the folder of the encoder, which can read `most_tokens` of a document.
    """
    store = prepared.store
    labelled = np.unique(np.concatenate([task.note_ids_N for task in prepared.tasks.values()]))
    is_labelled_N = np.isin(store.note_ids, labelled)
    names = ("note_ids", "patient_ids", "source_N", "split_N", "in_corpus_N")
    columns = {name: getattr(store, name)[is_labelled_N] for name in names}
    tokens = load_encoder(resolve_backbone(name), frames_pieces=True)
    tokens = replace(tokens, edges=replace(tokens.edges, join=store.edges.join))
    longest = min(spec.room, most_tokens)
    if spec.max_tokens == "auto":
        trained = [task.note_ids_N[task.rows("train")] for task in prepared.tasks.values()]
        sample = sampled(np.unique(np.concatenate(trained)).tolist())
        longest, _ = longest_document(tokens, prepared.texts(sample), longest, longest)
    parts = (
        tokens.documents(texts, longest, spec.long_notes)
        for texts in _texts(prepared, is_labelled_N)
    )
    join_documents(folder, parts, columns, tokens.edges, longest)


def _texts(prepared: Prepared, is_wanted_N: npt.NDArray[np.bool_]) -> Iterator[list[str]]:
    """The texts of the wanted notes, one file in memory at a time."""
    first = 0
    for path in sorted((prepared.folder / TEXTS).iterdir()):
        texts = pl.read_parquet(path, columns=["text"], glob=False)["text"]
        wanted = texts.filter(pl.Series(is_wanted_N[first : first + len(texts)]))
        first += len(texts)
        if len(wanted):
            yield wanted.to_list()
