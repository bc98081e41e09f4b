"""Hidden states that enter the lowest layer that trains: computed once, then read from disk."""

import hashlib
import math
import os
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
from notetune.model.kept import KeptStates
from notetune.prepare.prepared import Prepared
from notetune.progress import Track, silent
from notetune.study.features import (
    StackFeatures,
    kept_features,
    labelled_documents,
    store_of,
)
from notetune.study.jobs import Job
from notetune.study.specs import KINDS, CellSpec
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore
from notetune.train.batches import rows_in_order

_STATES = "states.bin"
_NOTES_PER_PART = 128


def saved_states(
    job: Job, prepared: Prepared, features: StackFeatures, track: Track = silent
) -> KeptStates:
    """The states of all labelled notes that enter the lowest layer of a model that trains.

    They serve all tasks, runs and trials, from a folder `states-KEY` beside the features; where
    that is not made yet, `features` of the model make it.
    """
    stack, store = features.stack, features.store
    layout = _Layout(store, labelled_documents(prepared, store), features.pieces)
    folder, depends_on = _place(job, prepared, store)
    with claims.one_at_a_time(folder):
        if not manifest.is_finished(folder, depends_on):
            with (
                runs.work_folder(folder, depends_on) as work,
                runs.new_folder(folder, depends_on) as temporary,
            ):
                label = f"states that enter layer {stack.still_layers + 1} · {job.label}"
                _Making(features, layout, work / _STATES).to_the_end(label, track)
                (work / _STATES).rename(temporary / _STATES)
    backbone = stack.backbone
    saved = _Saved(folder / _STATES, layout, backbone.hidden_size, backbone.embeddings.weight.dtype)
    return KeptStates(stack.still_layers, saved.of)


def is_computed_elsewhere(job: Job, prepared: Prepared) -> bool:
    """Whether another process computes what a model starts from: its features or its states."""
    states = _place(job, prepared, store_of(job, prepared))
    return any(claims.is_being_made(made) for made, _ in (kept_features(job, prepared), states))


def _place(job: Job, prepared: Prepared, store: TokenStore) -> tuple[Path, dict[str, Any]]:
    documents_N, spec = labelled_documents(prepared, store), job.spec_as(CellSpec)
    trained = spec.training
    needs = [need for need in job.needs if need.stage in ("pretrain", "encode")]
    inputs = {
        "stage": "states",
        "format": KINDS["model"].format,
        "spec": replace(spec.features, layers="last", pooling="mean"),
        "above": trained and [getattr(trained.task_adapter, "layers", None), trained.trains_domain],
        "needs": [manifest.files_of(need.folder) for need in needs],
        "documents": hashlib.sha256(documents_N.tobytes()).hexdigest(),
    }
    return job.place.features / f"states-{storage.fingerprint(inputs)}", inputs


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
    """A file of states that grows by parts of many notes each, and goes on after a kill."""

    features: StackFeatures
    layout: _Layout
    path: Path

    def to_the_end(self, label: str, track: Track) -> None:
        """Write what the file lacks."""
        count = math.ceil(len(self.layout.documents_N) / _NOTES_PER_PART)
        parts = np.array_split(np.arange(len(self.layout.documents_N)), count)
        ends = [self._bytes_before(int(part[-1]) + 1) for part in parts]
        self.path.touch()
        done = sum(end <= self.path.stat().st_size for end in ends)
        os.truncate(self.path, ends[done - 1] if done else 0)
        steps = (self._write(part) for part in parts[done:])
        for _ in track(label, steps, count, lambda notes: f"{notes:,} notes a part", done):
            pass

    def _bytes_before(self, note: int) -> int:
        backbone = self.features.stack.backbone
        bytes_each: int = backbone.hidden_size * backbone.embeddings.weight.element_size()
        return int(self.layout.borders[note]) * bytes_each

    def _write(self, part: Int64Array) -> int:
        with self.path.open("ab") as file:
            for states_TH in self._states(self.layout.documents_N[part]):
                file.write(_as_numbers(states_TH).tobytes())
            file.flush()
            os.fsync(file.fileno())
        return len(part)

    @torch.inference_mode()
    def _states(self, documents_N: Int64Array) -> Iterator[Tensor]:
        """Those of each note, in order."""
        stack, store = self.features.stack, self.layout.store
        stack.eval_mode()
        found: dict[int, Tensor] = {}
        room = self.features.tokens_per_row, 0
        for batch in rows_in_order(
            store, documents_N, *room, stack.backbone.device, self.layout.pieces
        ):
            tokens_N = store.reading(batch.first_documents_N, self.layout.pieces).tokens_N
            states_TH = stack.states_entering(stack.still_layers, batch).cpu()
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
