"""Hidden states that enter the lowest layer that trains: computed once, then read from disk."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from notetune import claims, manifest, runs, storage
from notetune.model.batch import PackedBatch
from notetune.model.device import capability_of, computed_in, torch_device
from notetune.model.entering import EnteringStates
from notetune.prepare.prepared import Prepared
from notetune.progress import Track, silent
from notetune.study.features import (
    COST,
    FeatureCost,
    StackFeatures,
    grow,
    kept_features,
    labelled_documents,
)
from notetune.study.jobs import Job
from notetune.study.specs import CellSpec
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore
from notetune.train.batches import rows_in_order
from notetune.train.training import peak_memory_mib, restart_peak_memory

_STATES = "states.bin"


def saved_states(
    job: Job, prepared: Prepared, features: StackFeatures, track: Track = silent
) -> EnteringStates:
    """The states of all labelled notes that enter the lowest layer of a model that trains.

    They serve all tasks, runs and trials, from a folder `states-KEY` beside the features; where
    that is not made yet, `features` of the model make it.
    """
    stack, store = features.stack, features.store
    layout = _Layout(store, labelled_documents(prepared, store), features.pieces)
    folder, depends_on = kept_hidden_states(job, prepared)
    making = _Making(features, layout)
    with claims.one_at_a_time(folder):
        if not (manifest.was_made_from(folder, depends_on) and making.is_whole(folder)):
            with (
                runs.work_folder(folder, depends_on) as work,
                runs.new_folder(folder, depends_on) as temporary,
            ):
                label = f"states that enter layer {stack.lowest_trained + 1} · {job.label}"
                making.to_the_end(work, label, track)
                for name in (_STATES, COST):
                    (work / name).rename(temporary / name)
    backbone = stack.backbone
    saved = _Saved(folder / _STATES, layout, backbone.hidden_size, backbone.embeddings.weight.dtype)
    return EnteringStates(stack.lowest_trained, saved.of)


def is_computed_elsewhere(job: Job, prepared: Prepared) -> bool:
    """Whether another process computes what a model starts from: its features or its states."""
    places = kept_features(job, prepared), kept_hidden_states(job, prepared)
    return any(claims.is_being_made(folder) for folder, _ in places)


def kept_hidden_states(job: Job, prepared: Prepared) -> tuple[Path, dict[str, Any]]:
    """Where the states of a model are kept, if it computes any, and what they are made from."""
    folder, of_features = kept_features(job, prepared)
    spec = job.spec_as(CellSpec)
    reads, trained = spec.features, spec.training
    capability = capability_of(torch_device(job.place.device))
    inputs = {
        **of_features,
        "stage": "states",
        "spec": replace(reads, layers="last", pooling="mean"),
        "type": computed_in(reads.weights.dtype, capability),
        "above": trained and [getattr(trained.task_adapter, "layers", None), trained.trains_domain],
    }
    return folder.with_name(f"states-{storage.fingerprint(inputs)}"), inputs


@dataclass(frozen=True)
class _Layout:
    """Where the tokens of each note stand in the file: note after note, each as far as it is read.

    Attributes:
        documents_N: `(N,)` the first documents of the notes, in order.
        pieces: Most documents of one note.
    """

    store: TokenStore
    documents_N: Int64Array
    pieces: int

    @cached_property
    def borders(self) -> Int64Array:
        """`(N + 1,)` tokens before each note, and of all."""
        tokens_N = self.store.reading(self.documents_N, self.pieces).tokens_N
        return np.concatenate([[0], np.cumsum(tokens_N)])

    def tokens_of(self, documents_D: Int64Array) -> Int64Array:
        """The places of the tokens of some documents, in their order."""
        notes_D = np.searchsorted(self.documents_N, documents_D, side="right") - 1
        offsets, lengths_D = self.store.offsets, self.store.lengths_D[documents_D]
        starts_D = self.borders[notes_D] + offsets[documents_D] - offsets[self.documents_N[notes_D]]
        pairs = zip(starts_D, lengths_D, strict=True)
        return np.concatenate([np.arange(start, start + length) for start, length in pairs])


@dataclass(frozen=True)
class _Making:
    """The file of the states of all notes."""

    features: StackFeatures
    layout: _Layout

    @property
    def _ends_N(self) -> Int64Array:
        """`(N,)` bytes of the file up to the end of each note."""
        backbone = self.features.stack.backbone
        bytes_each: int = backbone.hidden_size * backbone.embeddings.weight.element_size()
        return self.layout.borders[1:] * bytes_each

    def is_whole(self, folder: Path) -> bool:
        """Whether a folder has the states of all notes; their bytes are not read."""
        path = folder / _STATES
        return path.is_file() and path.stat().st_size == self._ends_N[-1]

    def to_the_end(self, work: Path, label: str, track: Track) -> None:
        """Write what the file in a work folder lacks, and what all of it cost."""
        restart_peak_memory()
        seconds = grow(work / _STATES, self._ends_N, self._values, label, track)
        parameters, tokens = self.features.about.parameters, int(self.layout.borders[-1])
        cost = FeatureCost(parameters, seconds, tokens, peak_memory_mib())
        storage.write_json(work / COST, cost)

    def _values(self, part: Int64Array) -> Iterator[np.ndarray[Any, Any]]:
        return map(_as_numbers, self._states(self.layout.documents_N[part]))

    @torch.inference_mode()
    def _states(self, documents_N: Int64Array) -> Iterator[Tensor]:
        """Those of each note, in order."""
        stack, store = self.features.stack, self.layout.store
        stack.eval_mode()
        dtype = stack.backbone.embeddings.weight.dtype
        found: dict[int, Tensor] = {}
        room, pieces = self.features.tokens_per_row, self.layout.pieces
        for batch in rows_in_order(store, documents_N, room, 0, stack.backbone.device, pieces):
            tokens_N = store.reading(batch.first_documents_N, pieces).tokens_N
            states_TH = stack.states_entering(stack.lowest_trained, batch).to("cpu", dtype)
            numbers = batch.first_documents_N.tolist()
            found |= zip(numbers, torch.split(states_TH, tokens_N.tolist()), strict=True)
        return (found[number] for number in documents_N.tolist())


@dataclass(frozen=True)
class _Saved:
    """States on disk, memory-mapped."""

    path: Path
    layout: _Layout
    width: int
    dtype: torch.dtype

    @cached_property
    def _states_TH(self) -> np.ndarray[Any, np.dtype[Any]]:
        kind = np.int16 if self.dtype == torch.bfloat16 else np.float32
        return np.memmap(self.path, kind, "r").reshape(-1, self.width)

    def of(self, batch: PackedBatch) -> Tensor:
        """`(T, H)` states of the tokens of a packed row."""
        states = torch.from_numpy(self._states_TH[self.layout.tokens_of(batch.documents_D)])
        return states.view(self.dtype).to(batch.ids_T.device)


def _as_numbers(states: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """The same bytes in a type that numpy has."""
    return (states.view(torch.int16) if states.dtype == torch.bfloat16 else states).numpy()
