"""Perplexity before and after step 1, of what is saved; nothing here trains."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product

import numpy as np
import polars as pl

from notetune import infer, storage
from notetune.aliases import FloatArray
from notetune.errors import DataError
from notetune.metrics.losses import DocumentLosses, JudgedPerplexity, judged
from notetune.metrics.results import PerplexityRow
from notetune.model.adapters.files import read_adapter
from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import resolve_backbone
from notetune.model.compiled import compile_layers
from notetune.model.device import torch_device
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.notes.outcomes import SPLITS
from notetune.progress import Track, silent
from notetune.study.jobs import Job
from notetune.study.specs import Notes, PerplexitySpec
from notetune.tokens.encode import load_encoder
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore, encode_notes
from notetune.train.parallel import this_world
from notetune.train.processes import spread, stage_folders

PERPLEXITY, LOSSES = "perplexity.json", "losses.parquet"
_COLUMNS = ("patient_id", "nats", "targets")
GENERAL, ALL_SOURCES = "general", "all"

_AT_ONCE = 16
"""Documents between two signs of progress."""


@dataclass(frozen=True)
class Sample:
    """Documents of a store, from one split and source."""

    split: str
    source: str
    store: TokenStore
    documents_D: Int64Array


def measure(job: Job, notes: Notes, track: Track = silent) -> None:
    """Measure the backbone alone, or with its saved domain adapter."""
    found = samples(job, notes.corpus.store)  # a fault of the general text shows before all else
    with stage_folders(job.folder, job.inputs) as (_, temporary):
        count = sum(len(sample.documents_D) for sample in found)
        losses = track(job.label, _losses(job, found), count, lambda loss: loss[0])
        nats_D = np.array([nats for _, nats in losses])
        storage.write_json(temporary / PERPLEXITY, [*_rows(job, found, nats_D)])
        _frame(found, nats_D).write_parquet(temporary / LOSSES)


def read(job: Job) -> tuple[PerplexityRow, ...]:
    """The rows of a finished job."""
    return tuple(PerplexityRow(**row) for row in storage.read_json(job.folder / PERPLEXITY))


def judged_on(split: str, jobs: Mapping[str, Job]) -> dict[str, JudgedPerplexity]:
    """How sure the perplexity of each finished job on a split is, beside those it compares with.

    These are of the same documents on the same backbone, also under another name. None where it is
    not over tokens: the mean over batches is not one over patients.
    """
    alike: dict[Hashable, dict[str, DocumentLosses]] = {}
    for name, job in jobs.items():
        spec = job.spec_as(PerplexitySpec)
        if spec.average == "token":
            read = spec.weights.fingerprint, spec.documents, spec.sources, spec.most_documents
            alike.setdefault(read, {})[name] = _losses_on(split, job)
    return {name: one for group in alike.values() for name, one in judged(group).items()}


def _losses_on(split: str, job: Job) -> DocumentLosses:
    frame = pl.read_parquet(job.folder / LOSSES).filter(pl.col("split") == split)
    patient_ids_D, nats_D, targets_D = (frame[name].to_numpy() for name in _COLUMNS)
    return DocumentLosses(patient_ids_D.astype(np.str_), nats_D, targets_D)


def samples(job: Job, store: TokenStore) -> list[Sample]:
    """Documents by split and source, the same before and after the training, then general text.

    Raises:
        DataError: If that text is faulty.
    """
    return [*_of_notes(job.spec_as(PerplexitySpec), store), _general(job, store)]


def _model(job: Job) -> Stack:
    """The backbone alone, or with what was saved; spread over the processes if there are several.

    It was trained spread because it would not fit with gradients and averages; a process that is
    alone, to measure again, tries without.
    """
    spec, device = job.spec_as(PerplexitySpec), torch_device(job.place.device)
    backbone = load_backbone(job.place.backbone, spec.weights.dtype, device)
    if spec.compiled:
        compile_layers(backbone)
    if not spec.has_adapter:
        return stack(backbone)
    adapter = read_adapter(job.needed("pretrain").folder)
    model = stack(backbone, [Layer(DOMAIN, adapter, is_trained=False)])
    if spec.sharded and this_world().size > 1:
        spread(backbone)
    return model


def _losses(job: Job, samples: Sequence[Sample]) -> Iterator[tuple[str, float]]:
    """Of each document of the samples: where it is from, and its loss in nats."""
    model, row = _model(job), job.spec_as(PerplexitySpec).tokens_per_row
    for sample in samples:
        documents_D = sample.documents_D
        for part_D in np.split(documents_D, range(_AT_ONCE, len(documents_D), _AT_ONCE)):
            nats_D = infer.document_losses(model, sample.store, part_D, row)
            yield from ((f"{sample.split} {sample.source}", nats) for nats in nats_D.tolist())


def _rows(job: Job, samples: Sequence[Sample], nats_D: FloatArray) -> Iterator[PerplexityRow]:
    """Perplexity on each sample, and then on all of a split where there are several."""
    average = job.spec_as(PerplexitySpec).average
    ends = np.cumsum([len(sample.documents_D) for sample in samples])
    measured = zip(samples, np.split(nats_D, ends[:-1]), strict=True)
    for split, grouped in groupby(measured, lambda pair: pair[0].split):
        group = list(grouped)
        if len(group) > 1:
            together_D = np.concatenate([sample.documents_D for sample, _ in group])
            whole = Sample(split, ALL_SOURCES, group[0][0].store, together_D)
            group.append((whole, np.concatenate([part for _, part in group])))
        for sample, part_D in group:
            got = infer.perplexity(sample.store, sample.documents_D, part_D, average)
            yield PerplexityRow(
                method=job.method,
                is_domain_adapter=job.method is not None and job.is_domain,
                split=split,
                source=sample.source,
                perplexity=got.perplexity,
                bits_per_byte=got.bits_per_byte,
                tokens=got.targets,
            )


def _frame(samples: Sequence[Sample], nats_D: FloatArray) -> pl.DataFrame:
    """The loss of each document of notes; a general text has no patients."""
    of_notes = [sample for sample in samples if sample.split != GENERAL]
    store = of_notes[0].store
    documents_D = np.concatenate([sample.documents_D for sample in of_notes])
    sizes = [len(sample.documents_D) for sample in of_notes]
    return pl.DataFrame(
        {
            "split": np.repeat([sample.split for sample in of_notes], sizes),
            "patient_id": store.patient_ids[store.note_number_D[documents_D]],
            "nats": nats_D[: len(documents_D)],
            "targets": store.lengths_D[documents_D] - 1,
        }
    )


def _of_notes(spec: PerplexitySpec, store: TokenStore) -> Iterator[Sample]:
    """Those of each split and source that has any."""
    for split, source in product(SPLITS, spec.sources or sorted(set(store.source_N.tolist()))):
        documents_D = store.documents_of(split, [source])
        if split == "train":
            documents_D = store.corpus_documents([source])
        if len(documents_D) > spec.most_documents:
            rng = np.random.default_rng(len(documents_D))  # the same for every seed of a training
            documents_D = np.sort(rng.choice(documents_D, spec.most_documents, replace=False))
        if len(documents_D):
            yield Sample(split, source, store, documents_D)


def _general(job: Job, like: TokenStore) -> Sample:
    """The passages of a general text, read as notes are: what the backbone should still know."""
    path = job.place.general_text
    if not path.is_file():
        raise DataError(f"pretrain.general_text: {path} is not a file.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"pretrain.general_text: {path} is not UTF-8 text.") from None
    passages = [part.strip() for part in text.split("\n\n\n") if part.strip()]
    if not passages:
        raise DataError(f"pretrain.general_text: {path} is empty.")
    encoder = load_encoder(resolve_backbone(job.place.backbone), like.edges)
    store = encode_notes(encoder, like.max_tokens, passages)
    documents = np.arange(len(store.lengths_D))[: job.spec_as(PerplexitySpec).most_documents]
    return Sample(GENERAL, path.stem, store, documents)
