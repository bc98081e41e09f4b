"""How the notes of a cell become what its head reads: computed once, or at every step."""

import hashlib
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from notetune import infer, runs
from notetune.errors import ConfigError
from notetune.model.adapters.files import copy_adapter, save_adapter
from notetune.model.backbone import load_backbone
from notetune.model.backbone_folder import Dtype
from notetune.model.batch import PackedBatch
from notetune.model.layers import chosen_layers
from notetune.model.stack import DOMAIN
from notetune.tokens.packing import Int64Array
from notetune.tokens.store import TokenStore
from notetune.train.batches import LabelledBatch, labelled_rows, read_row
from notetune.workflows.prepare import Prepared
from notetune.workflows.progress import Track, silent
from notetune.workflows.recipe import Recipe
from notetune.workflows.task_models import TaskModel, made_from, new_stack
from notetune.workflows.training import peak_memory_mib, restart_peak_memory

_ABOUT, _DOCUMENTS, _VALUES = "features.json", "documents.npy", "features.npy"
_COST = "cost.json"
_CHECKED_NOTES = 4
_NOTES_PER_PART = 128


@dataclass(frozen=True)
class AboutModel:
    """What a cell must know of the model below its head.

    Attributes:
        backbone: Name of the backbone's folder.
        fingerprint: Of the backbone.
        dtype: Type of its weights.
        hidden_size: Width H of a feature.
        parameters: Of backbone and adapters.
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
        parameters: Of backbone and adapters.
        seconds: Wall time, without loading the backbone.
        tokens: Tokens of the notes, without padding.
        peak_memory_mib: Largest memory of the process, or of the GPU where one was used.
    """

    parameters: int
    seconds: float
    tokens: int
    peak_memory_mib: float


class StackFeatures:
    """What a head reads of notes that pass the stack each time, since adapters train.

    Attributes:
        about: The model that makes the features.
    """

    def __init__(self, recipe: Recipe, model: TaskModel, seed: int) -> None:
        backbone = load_backbone(model.backbone, model.dtype, recipe.torch_device)
        chosen = chosen_layers(model.layers, backbone.shape.layers)
        if not model.parts.trains_head_alone and chosen[-1] < backbone.shape.layers:
            raise ConfigError(
                f"features.layers: adapters of {model.name} train, so the last layer, "
                f"{backbone.shape.layers}, must be among {', '.join(map(str, chosen))}."
            )
        self._plan = model
        self._stack = new_stack(recipe, model, backbone, seed)
        self.about = AboutModel(
            backbone.name,
            backbone.fingerprint,
            backbone.dtype,
            backbone.hidden_size * len(chosen),
            self._stack.total_count,
            tuple(layer.name for layer in self._stack.layers),
        )

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """Those of the adapters that train, always in the same order."""
        return self._stack.parameters_by_name()

    def train_mode(self) -> None:
        """Turn on the dropout of what trains; all else stays deterministic."""
        self._stack.train_mode()

    def steps(
        self, documents_N: Int64Array, targets_NK: npt.NDArray[np.int8], steps: Iterable[Int64Array]
    ) -> Iterator[list[LabelledBatch]]:
        """Each step's notes packed into rows of their own."""
        return labelled_rows(
            self._plan.store,
            documents_N,
            targets_NK,
            steps,
            tokens_per_row=self._plan.tokens_per_row,
            reserved_per_document=self._stack.reserved_per_document,
            device=self._stack.backbone.device,
            max_pieces=self._plan.max_pieces,
        )

    def of(self, inputs: PackedBatch | Tensor) -> Tensor:
        """`(N, H)` features of the notes of a row."""
        assert isinstance(inputs, PackedBatch)
        return self._stack.features(inputs, self._plan.pooling, self._plan.layers)

    def of_notes(self, documents_N: Int64Array) -> Tensor:
        """`(N, H)` features as they are now, without dropout and gradient."""
        values_NH = infer.outputs_per_note(
            self._stack,
            self.of,
            self._plan.store,
            documents_N,
            self._plan.tokens_per_row,
            self._plan.max_pieces,
        )
        return torch.from_numpy(values_NH).to(self._stack.backbone.device)

    def check(self, documents_N: Int64Array, *, only_frozen: bool = False) -> None:
        """Refuse a model that is not what it says, on a few of the notes; see `Stack.check`.

        Before its training an adapter may not act yet, so then `only_frozen` ones are looked at.
        """
        sample = documents_N[:_CHECKED_NOTES]
        row = read_row(self._plan.store, sample, self._stack.backbone.device)
        names = self._stack.frozen_hashes if only_frozen else None
        self._stack.check(row, self._plan.pooling, names, self._plan.layers)

    def save_adapters(self, folder: Path) -> None:
        """Write each adapter, as it is now, into a folder of its name."""
        for name, adapter in self._stack.adapters.items():
            save_adapter(folder / name, adapter, self._stack.backbone)


class FixedFeatures:
    """What a head reads where nothing below it trains: computed once, then read from disk.

    The features of all labelled notes serve all tasks and heads, from the folder `features/KEY`,
    where KEY is the fingerprint of all that they depend on. The backbone is not loaded to read
    them.

    Attributes:
        about: The model that makes the features.
    """

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        model: TaskModel,
        seed: int,
        track: Track = silent,
    ) -> None:
        self._adapter = recipe.folder.domain(seed) if model.parts.has_domain else None
        self._device = recipe.torch_device
        documents_D = labelled_documents(prepared, model.store)
        depends_on = _inputs(recipe, prepared, model, seed, documents_D)
        folder = _folder(recipe, depends_on)
        with runs.one_at_a_time(folder):
            if not runs.is_finished(folder, depends_on):
                with (
                    runs.work_folder(folder, depends_on) as work,
                    runs.new_folder(folder, depends_on) as temporary,
                ):
                    made = StackFeatures(recipe, model, seed)
                    _compute(made, model, documents_D, work, temporary, track)
        about = runs.read_json(folder / _ABOUT)
        self.about = AboutModel(**{**about, "adapters": tuple(about["adapters"])})
        self._documents_D: Int64Array = np.load(folder / _DOCUMENTS)
        self._values_DH = np.load(folder / _VALUES, mmap_mode="r")

    def of_notes(self, documents_N: Int64Array) -> Tensor:
        """`(N, H)` features, in the order asked for."""
        place_N = np.searchsorted(self._documents_D, documents_N)
        return torch.from_numpy(self._values_DH[place_N]).to(self._device)

    def save_adapters(self, folder: Path) -> None:
        """Write the domain adapter, as step 1 left it, into a folder of its name."""
        if self._adapter:
            copy_adapter(self._adapter, folder / DOMAIN)


def features_cost(
    recipe: Recipe, prepared: Prepared, model: TaskModel, seed: int
) -> tuple[Path, FeatureCost] | None:
    """Where the features of a model are that only trains a head, and what computing them cost.

    None if they are not in the run folder.
    """
    documents_D = labelled_documents(prepared, model.store)
    depends_on = _inputs(recipe, prepared, model, seed, documents_D)
    path = _folder(recipe, depends_on) / _COST
    return (path.parent, FeatureCost(**runs.read_json(path))) if path.is_file() else None


def _folder(recipe: Recipe, depends_on: dict[str, Any]) -> Path:
    return recipe.folder.features / runs.fingerprint(depends_on)


def labelled_documents(prepared: Prepared, store: TokenStore) -> Int64Array:
    """The first documents of all notes with a label, in order."""
    tasks = prepared.tasks.values()
    of_tasks = [store.first_documents(task.note_ids_N.tolist()) for task in tasks]
    return np.unique(np.concatenate([np.empty(0, np.int64), *of_tasks]))


def _inputs(
    recipe: Recipe, prepared: Prepared, model: TaskModel, seed: int, documents_D: Int64Array
) -> dict[str, Any]:
    """What features depend on, to the last bit on one machine."""
    return {
        **made_from(recipe, prepared, model.name, seed),
        "stage": "features",
        "documents": hashlib.sha256(documents_D.tobytes()).hexdigest(),
        "pooling": model.pooling,
        "layers": model.layers,
        "max_pieces": model.max_pieces,
        "tokens_per_row": model.tokens_per_row,
    }


def _compute(
    made: StackFeatures,
    model: TaskModel,
    documents_D: Int64Array,
    work: Path,
    folder: Path,
    track: Track,
) -> None:
    """Compute features in parts that stay in the work folder, so that a killed process goes on."""
    made.check(documents_D)
    restart_peak_memory()
    count = math.ceil(len(documents_D) / _NOTES_PER_PART)
    parts = [
        _Part(documents, work / f"{number:05}.npz")
        for number, documents in enumerate(np.array_split(documents_D, count))
    ]
    missing = [part for part in parts if not part.path.is_file()]
    steps = (part.compute(made) for part in missing)
    label, done = f"features · {model.name}", count - len(missing)
    for _ in track(label, steps, count, lambda notes: f"{notes:,} notes a part", done):
        pass
    values, seconds = zip(*(part.read() for part in parts), strict=True)
    tokens_N = model.store.reading(documents_D, model.max_pieces).tokens_N
    cost = FeatureCost(made.about.parameters, sum(seconds), int(tokens_N.sum()), peak_memory_mib())
    np.save(folder / _DOCUMENTS, documents_D)
    np.save(folder / _VALUES, np.concatenate(values))
    runs.write_json(folder / _ABOUT, asdict(made.about))
    runs.write_json(folder / _COST, asdict(cost))


@dataclass(frozen=True)
class _Part:
    """The features of some of the notes, in a file."""

    documents_N: Int64Array
    path: Path

    def compute(self, made: StackFeatures) -> int:
        """Write them and how long it took; the number of notes."""
        started = time.perf_counter()
        values_NH = made.of_notes(self.documents_N).cpu().numpy()
        with runs.new_file(self.path) as file:
            np.savez(file, values=values_NH, seconds=time.perf_counter() - started)
        return len(values_NH)

    def read(self) -> tuple[npt.NDArray[np.float32], float]:
        """The features and the seconds."""
        with np.load(self.path) as found:
            return found["values"], float(found["seconds"])
