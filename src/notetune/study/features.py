"""How the notes of a cell become what its head reads: computed once, or at every step."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from notetune import claims, infer, manifest, runs, storage
from notetune.errors import ConfigError
from notetune.model.adapters.files import SavedAdapter, copy_adapter, read_adapter, save_adapter
from notetune.model.backbone import TOLERANCE, load_backbone
from notetune.model.backbone_folder import Dtype
from notetune.model.batch import PackedBatch
from notetune.model.device import torch_device
from notetune.model.entering import EnteringStates
from notetune.model.layers import chosen_layers
from notetune.model.recompute import recompute_layers
from notetune.model.stack import DOMAIN, TASK, Layer, stack
from notetune.prepare import encoders
from notetune.prepare.prepared import Prepared
from notetune.prepare.settings import EncodeSpec
from notetune.progress import Track, silent
from notetune.study.jobs import Job
from notetune.study.specs import KINDS, CellSpec, Notes
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore, open_store
from notetune.train.batches import read_row
from notetune.train.training import peak_memory_mib, restart_peak_memory

_ABOUT, _DOCUMENTS, _VALUES = "features.json", "documents.npy", "features.npy"
COST = "cost.json"
_CHECKED_NOTES = 4
_NOTES_PER_PART = 128


@dataclass(frozen=True)
class AboutModel:
    """What a cell must know of the model below its head.

    Attributes:
        backbone: Name of the backbone's folder.
        hidden_size: Width H of a feature.
        adapters: Names of the adapters, in the order they are put on.
    """

    backbone: str
    fingerprint: str
    dtype: Dtype
    hidden_size: int
    parameters: int
    adapters: tuple[str, ...]


@dataclass(frozen=True)
class FeatureCost:
    """What it took to compute the features of all labelled notes.

    Attributes:
        seconds: Wall time, without loading the backbone.
        tokens: Tokens of the notes, without padding.
        peak_memory_mib: Largest memory of the process, or of the GPU where one was used.
    """

    parameters: int
    seconds: float
    tokens: int
    peak_memory_mib: float


def encode(job: Job, notes: Notes) -> None:
    """Write the tokens that an encoder reads of the notes of the tasks."""
    spec, place = job.spec_as(EncodeSpec), job.place
    most = encoders.outline_encoder(place.backbone, place.key).max_positions
    with runs.new_folder(job.folder, job.inputs) as temporary:
        encoders.write_tokens(spec, place.backbone, most, notes.prepared, temporary)


class StackFeatures:
    """What a head reads of notes that pass the stack each time, since adapters train.

    Attributes:
        store: The notes in the tokens of the model.
        pieces: Documents of one note that are read.
        tokens_per_row: Those of a row that holds the longest note.
    """

    def __init__(
        self, job: Job, spec: CellSpec, store: TokenStore, *, is_recomputed: bool = False
    ) -> None:
        reads = spec.features
        device = torch_device(job.place.device)
        backbone = load_backbone(job.place.backbone, reads.weights.dtype, device)
        if is_recomputed:
            recompute_layers(backbone)
        chosen = chosen_layers(reads.layers, backbone.layers)
        if spec.training and chosen[-1] < backbone.layers:
            raise ConfigError(
                f"features.layers: adapters of {spec.model} train, so the last layer, "
                f"{backbone.layers}, must be among {', '.join(map(str, chosen))}."
            )
        self._model, self._spec, self.store = spec.model, reads, store
        self.pieces, self.tokens_per_row = reads.pieces_in(store), reads.row_in(store)
        layers = layers_of(spec, lambda: read_adapter(job.needed("pretrain").folder))
        self.stack = stack(backbone, layers, spec.seed, predicts_tokens=False)
        self._entering: EnteringStates | None = None
        self._below: FixedFeatures | None = None
        self.about = AboutModel(
            backbone.name,
            backbone.fingerprint,
            backbone.dtype,
            backbone.hidden_size * len(chosen),
            self.stack.total_count,
            tuple(layer.name for layer in self.stack.layers),
        )

    def goes_on_from(self, states: EnteringStates, documents_N: Int64Array) -> bool:
        """Whether the upper layers make of them what the whole backbone makes, of a few notes."""
        row = read_row(self.store, documents_N[:_CHECKED_NOTES], self.stack.backbone.device)
        with torch.inference_mode():
            whole, upper = (self._upper(row, one) for one in (None, states))
        whole = whole[:, whole.shape[1] - upper.shape[1] :]
        tolerance = TOLERANCE[self.stack.backbone.embeddings.weight.dtype]
        return bool((whole - upper).abs().max() <= tolerance * whole.abs().max())

    def start_from(self, states: EnteringStates, below: "FixedFeatures") -> None:
        """Compute no layer below the states any more; `below` has the features of those layers."""
        self._entering, self._below = states, below

    def of(self, row: PackedBatch) -> Tensor:
        """`(N, H)` features of the notes of a row."""
        upper = self._upper(row, self._entering)
        if self._below is None:
            return upper
        below = self._below.of_notes(row.first_documents_N)
        return torch.cat([below[:, : below.shape[1] - upper.shape[1]], upper], 1)

    def _upper(self, row: PackedBatch, states: EnteringStates | None) -> Tensor:
        return self.stack.features(row, self._spec.pooling, self._spec.layers, states)

    def of_notes(self, documents_N: Int64Array) -> Tensor:
        """`(N, H)` features as they are now, without dropout and gradient."""
        values_NH = infer.outputs_per_note(
            self.stack,
            self.of,
            self.store,
            documents_N,
            self.tokens_per_row,
            self.pieces,
        )
        return torch.from_numpy(values_NH).to(self.stack.backbone.device)

    def check(self, documents_N: Int64Array, *, only_frozen: bool = False) -> None:
        """Refuse a model that is not what it says, on a few of the notes; see `Stack.check`.

        Before its training an adapter may not act yet, so then `only_frozen` ones are looked at.
        All layers are computed, as where it will be used.
        """
        sample = documents_N[:_CHECKED_NOTES]
        row = read_row(self.store, sample, self.stack.backbone.device)
        names = self.stack.frozen_hashes if only_frozen else None
        self.stack.check(row, lambda row: self._upper(row, None), names)

    def write(self, documents_D: Int64Array, work: Path, folder: Path, track: Track) -> None:
        """Compute the features of notes by way of a work folder, and write all about them."""
        self.check(documents_D)
        restart_peak_memory()
        width, path = self.about.hidden_size, work / "features.bin"
        ends_D = 4 * width * np.arange(1, len(documents_D) + 1)
        seconds = grow(
            path,
            ends_D,
            lambda part: [self.of_notes(documents_D[part]).cpu().numpy()],
            f"features · {self._model}",
            track,
        )
        tokens = int(self.store.reading(documents_D, self.pieces).tokens_N.sum())
        cost = FeatureCost(self.about.parameters, seconds, tokens, peak_memory_mib())
        storage.write_array(folder / _DOCUMENTS, documents_D)
        storage.write_array(folder / _VALUES, np.fromfile(path, np.float32).reshape(-1, width))
        storage.write_json(folder / _ABOUT, self.about)
        storage.write_json(folder / COST, cost)

    def save_adapters(self, folder: Path) -> None:
        """Write each adapter, as it is now, into a folder of its name."""
        for name, adapter in self.stack.adapters.items():
            save_adapter(folder / name, adapter, self.stack.backbone)


class FixedFeatures:
    """What a head reads where nothing below it trains: computed once, then read from disk.

    The features of all labelled notes serve all tasks and heads, from the folder `features/KEY`,
    where KEY is the fingerprint of all that they depend on. The backbone is not loaded to read
    them.

    Attributes:
        documents_D: The first documents of the notes, in order.
    """

    def __init__(self, job: Job, prepared: Prepared, track: Track = silent) -> None:
        spec, store = replace(job.spec_as(CellSpec), training=None), store_of(job, prepared)
        self._adapter = job.needed("pretrain").folder if spec.features.has_domain else None
        self._device = torch_device(job.place.device)
        folder, depends_on = kept_features(job, prepared)
        with claims.one_at_a_time(folder):
            if not manifest.is_finished(folder, depends_on):
                with (
                    runs.work_folder(folder, depends_on) as work,
                    runs.new_folder(folder, depends_on) as temporary,
                ):
                    made = StackFeatures(job, spec, store)
                    made.write(labelled_documents(prepared, store), work, temporary, track)
        about = storage.read_json(folder / _ABOUT)
        self.about = AboutModel(**{**about, "adapters": tuple(about["adapters"])})
        self.documents_D: Int64Array = np.load(folder / _DOCUMENTS)
        self._values_DH = np.load(folder / _VALUES, mmap_mode="r")

    def of_notes(self, documents_N: Int64Array) -> Tensor:
        """`(N, H)` features, in the order asked for."""
        place_N = np.searchsorted(self.documents_D, documents_N)
        return torch.from_numpy(self._values_DH[place_N]).to(self._device)

    def save_adapters(self, folder: Path) -> None:
        """Write the domain adapter, as step 1 left it, into a folder of its name."""
        if self._adapter:
            copy_adapter(self._adapter, folder / DOMAIN)


def kept_features(job: Job, prepared: Prepared) -> tuple[Path, dict[str, Any]]:
    """Where the features of a model as it starts are kept, and what they are made from.

    Jobs of step 2 whose features are the same to the last bit share them.
    """
    documents_D = labelled_documents(prepared, store_of(job, prepared))
    needs = [need for need in job.needs if need.stage in ("pretrain", "encode")]
    inputs = {
        "stage": "features",
        "format": KINDS["model"].format,
        "spec": job.spec_as(CellSpec).features,
        "needs": [manifest.files_of(need.folder) for need in needs],
        "documents": hashlib.sha256(documents_D.tobytes()).hexdigest(),
    }
    return job.place.features / storage.fingerprint(inputs), inputs


def cost_in(folder: Path) -> tuple[Path, FeatureCost] | None:
    """A folder with what computing its contents cost; None if it is gone."""
    path = folder / COST
    return (folder, FeatureCost(**storage.read_json(path))) if path.is_file() else None


def store_of(job: Job, prepared: Prepared) -> TokenStore:
    """The notes in the tokens of a model of step 2."""
    encoding = [need for need in job.needs if need.stage == "encode"]
    return open_store(encoding[0].folder) if encoding else prepared.store


def labelled_documents(prepared: Prepared, store: TokenStore) -> Int64Array:
    """The first documents of all notes with a label, in order."""
    tasks = prepared.tasks.values()
    of_tasks = [store.first_documents(task.note_ids_N.tolist()) for task in tasks]
    return np.unique(np.concatenate([np.empty(0, np.int64), *of_tasks]))


def layers_of(spec: CellSpec, domain: Callable[[], SavedAdapter]) -> list[Layer]:
    """The adapters of a model before its training; `domain` gives that of its run."""
    layers, training = [], spec.training
    if spec.features.has_domain:
        trains = training is not None and training.trains_domain
        layers.append(Layer(DOMAIN, domain(), is_trained=trains))
    if training and training.task_adapter:
        layers.append(Layer(TASK, training.task_adapter, is_trained=True))
    return layers


def grow(
    path: Path,
    ends_N: Int64Array,
    values: Callable[[Int64Array], Iterable[np.ndarray[Any, Any]]],
    label: str,
    track: Track,
) -> float:
    """Append what a file of a work folder lacks, so that a killed process goes on; the seconds.

    `ends_N` are the bytes up to the end of each note, `values` gives those of some notes, by their
    rows. The seconds are of all parts, also of those that a process before this one wrote.
    """
    count = math.ceil(len(ends_N) / _NOTES_PER_PART)
    parts = np.array_split(np.arange(len(ends_N)), count)
    ends = [int(ends_N[part[-1]]) for part in parts]
    spent = path.with_suffix(".seconds")
    path.touch()
    done = sum(end <= path.stat().st_size for end in ends)
    os.truncate(path, ends[done - 1] if done else 0)

    def write(part: Int64Array) -> int:
        before, started = _seconds(spent), time.perf_counter()
        with path.open("ab") as file:
            for value in values(part):
                file.write(value.tobytes())
            file.flush()
            os.fsync(file.fileno())
        storage.write_json(spent, before + time.perf_counter() - started)
        return len(part)

    steps = map(write, parts[done:])
    for _ in track(label, steps, count, lambda notes: f"{notes:,} notes a part", done):
        pass
    return _seconds(spent)


def _seconds(spent: Path) -> float:
    return float(storage.read_json(spent)) if spent.is_file() else 0.0
