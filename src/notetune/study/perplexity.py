"""Perplexity before and after step 1, of what is saved; nothing here trains."""

from collections.abc import Iterator, Sequence

import numpy as np

from notetune import infer, runs
from notetune.errors import DataError
from notetune.metrics.results import PerplexityRow
from notetune.model.adapters.files import read_adapter
from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import resolve_backbone
from notetune.model.compiled import compile_layers
from notetune.model.device import torch_device
from notetune.model.stack import DOMAIN, Layer, Stack, stack
from notetune.prepare.prepared import Prepared
from notetune.progress import Track, silent
from notetune.study.jobs import Job
from notetune.study.specs import PerplexitySpec
from notetune.tokens.encode import load_encoder
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore, encode_notes
from notetune.train.parallel import this_world
from notetune.train.processes import spread, stage_folders

PERPLEXITY = "perplexity.json"
GENERAL, ALL_SOURCES = "general", "all"


def measure(job: Job, corpus: Prepared, track: Track = silent) -> None:
    """Measure the backbone alone, or with its saved domain adapter."""
    assert isinstance(job.spec, PerplexitySpec)
    general = general_sample(job, corpus.store)  # a fault of this text shows before all else
    with stage_folders(job.folder, job.inputs) as (_, temporary):
        samples = [*_samples(job.spec, corpus.store), general]
        rows = track(job.label, _rows(job, job.spec, samples), len(samples), _in_words)
        runs.write_json(temporary / PERPLEXITY, [row.model_dump(mode="json") for row in rows])


def read(job: Job) -> tuple[PerplexityRow, ...]:
    """The rows of a finished job."""
    return tuple(PerplexityRow(**row) for row in runs.read_json(job.folder / PERPLEXITY))


def _model(job: Job, spec: PerplexitySpec) -> Stack:
    """The backbone alone, or with what was saved; spread over the processes if there are several.

    It was trained spread because it would not fit with gradients and averages; a process that is
    alone, to measure again, tries without.
    """
    device = torch_device(job.place.device)
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


def _in_words(row: PerplexityRow) -> str:
    return f"{row.split} {row.source} {row.perplexity:.2f}"


_Sample = tuple[str, str, TokenStore, Int64Array]


def _rows(job: Job, spec: PerplexitySpec, samples: Sequence[_Sample]) -> Iterator[PerplexityRow]:
    """Perplexity on a sample of each split and source, and on general text."""
    model = _model(job, spec)
    for split, source, store, documents in samples:
        got = infer.perplexity(model, store, documents, spec.tokens_per_row, spec.average)
        yield PerplexityRow(
            method=job.method,
            is_domain_adapter=job.method is not None and job.is_domain,
            split=split,
            source=source,
            perplexity=got.perplexity,
            bits_per_byte=got.bits_per_byte,
            tokens=got.targets,
        )


def _samples(spec: PerplexitySpec, store: TokenStore) -> Iterator[_Sample]:
    """Documents by split and source, the same before and after the training, none empty."""
    sources = spec.sources or sorted(set(store.source_N.tolist()))
    for split in ("train", "validation", "test"):
        parts = {source: _sample(spec, store, split, source) for source in sources}
        if len(sources) > 1:
            parts[ALL_SOURCES] = np.concatenate(list(parts.values()))
        for source, documents in parts.items():
            if len(documents):
                yield split, source, store, documents


def _sample(spec: PerplexitySpec, store: TokenStore, split: str, source: str) -> Int64Array:
    is_train = split == "train"
    documents = (
        store.corpus_documents([source]) if is_train else store.documents_of(split, [source])
    )
    most = spec.most_documents
    if len(documents) <= most:
        return documents
    rng = np.random.default_rng(len(documents))  # the same for every seed of a training
    return np.sort(rng.choice(documents, most, replace=False))


def general_sample(job: Job, like: TokenStore) -> _Sample:
    """The passages of a general text, read as notes are: what the backbone should still know.

    Raises:
        DataError: If the text is faulty.
    """
    spec, path = job.spec, job.place.general_text
    assert isinstance(spec, PerplexitySpec)
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
    documents = np.arange(len(store.lengths_D))[: spec.most_documents]
    return GENERAL, path.stem, store, documents
